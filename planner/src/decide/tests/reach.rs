use super::world::*;
use crate::decide::{Answer, Effect};
use rstest::rstest;
use serde_json::json;
use tenantry_api::tenant_status::Phase;
use tenantry_protocol::{ClaimState, FileState, ImageState, Observation};

fn by_images() -> World {
    let mut spec = spec("v2");
    spec["env"] = json!({});
    spec["images"] = json!([{"name": "app", "newTag": "$(imageTag)"}]);
    World::with_spec(spec)
}

/// Nothing is begun, and it is said why.
fn refused(mut world: World, observation: &Observation) -> String {
    let decision = world.decide(Answer::Seen(observation));
    assert_eq!(decision.effect, None);
    assert_eq!((world.phase(), world.reason()), (Phase::Refused, "ReachesNothing"));
    world.message().to_owned()
}

#[rstest]
#[case::at_first_contact(ClaimState::Free)]
#[case::once_it_is_ours(ClaimState::Ours)]
fn p17_a_tag_that_no_image_depends_on_is_refused_and_it_is_said_what_is_there(#[case] claim: ClaimState) {
    let mut observation = Observation { claim, ..running() };
    observation.env.keys[0].reaches = Some(vec![]);
    let said = refused(World::new("v2"), &observation);
    assert!(said.contains("depends on IMAGE_TAG") && said.contains("web: app:v1"), "{said}");
    assert!(said.contains("spec.images") && !said.contains("digest"), "{said}");
}

#[test]
fn p17_what_is_deployed_does_not_count_as_deployed_once_nothing_depends_on_it() {
    let mut world = World::deployed("v1");
    let mut observation = running();
    assert_eq!(world.decide(Answer::Seen(&observation)).effect, None);
    assert_eq!(world.phase(), Phase::Ready);
    observation.env.keys[0].reaches = Some(vec![]);
    refused(world, &observation);
}

#[test]
fn p17_a_digest_beside_the_tag_is_named() {
    let mut observation = running();
    observation.env.keys[0].reaches = Some(vec![]);
    observation.services[0].image_ref = "app:v1@sha256:00".to_owned();
    let said = refused(World::new("v2"), &observation);
    assert!(said.contains("A digest wins over the tag beside it, as in web"), "{said}");
}

#[test]
fn p17_what_was_not_found_out_is_not_held_against_it() {
    let mut observation = running();
    observation.env.keys[0].as_wanted = false;
    for reaches in [None, Some(running().services.into_iter().map(|one| one.name).collect())] {
        observation.env.keys[0].reaches = reaches;
        let decision = World::deployed("v1").want_now("v2").decide(Answer::Seen(&observation));
        assert!(matches!(decision.effect, Some(Effect::Submit(_))));
    }
}

#[rstest]
#[case::no_service_has_it(image(&[], None, None), "no service has the image app. The compose files say web: app:v1")]
#[case::it_can_t_be_written(
    image(&["web"], Some("app:v2"), Some("compose.yaml line 3: its tag comes from the variable TAG")),
    "spec.images[0] (app): compose.yaml line 3: its tag comes from the variable TAG."
)]
fn p17_an_entry_of_images_that_can_change_nothing_is_refused(#[case] state: ImageState, #[case] words: &str) {
    let mut observation = running();
    observation.env.keys.clear();
    observation.images.push(state);
    let said = refused(by_images(), &observation);
    assert!(said.contains(words), "{said}");
}

#[test]
fn an_entry_of_images_that_a_service_has_is_upgraded() {
    let mut observation = Observation { claim: ClaimState::Ours, ..running() };
    observation.env.keys.clear();
    observation.images.push(image(&["web"], Some("app:v2"), None));
    let mut world = by_images();
    world.status.deployed = World::deployed("v1").status.deployed;
    let submission = submitted(world.decide(Answer::Seen(&observation)).effect);
    let request = submission.desired.operate_request(&submission.terms, Vec::new());
    assert_eq!(request.manifest.images[0].new_tag.as_deref(), Some("v2"));
    assert!(request.tag_keys.is_empty(), "images answer for themselves");
}

#[test]
fn p17_a_tag_of_which_nothing_is_made_is_refused() {
    let mut spec = spec("v2");
    spec["env"]["patch"] = json!([{"name": "IMAGE_TAG", "value": "fixed"}]);
    let said = refused(World::with_spec(spec), &running());
    assert!(said.contains("nothing is made of v2") && said.contains("$(imageTag)"), "{said}");
}

#[test]
fn a_bundle_that_makes_nothing_of_the_tag_is_a_release_all_the_same() {
    let mut world = bundled("v2", "Release");
    let mut unused = spec("v2");
    unused["env"]["patch"] = json!([{"name": "IMAGE_TAG", "value": "fixed"}]);
    let unused = World::with_spec(unused).target().intent.tag_use.clone();
    assert!(unused.is_unused() && unused.is_given());
    world.target_mut().intent.tag_use = unused;
    world.status.deployed = World::deployed("v1").status.deployed;
    let mut observation = running();
    observation.env.keys.clear();
    assert!(matches!(world.decide(Answer::Seen(&observation)).effect, Some(Effect::Submit(_))));
}

#[test]
fn p17_the_agent_is_asked_to_look_where_the_files_are_not_there_yet_unless_it_does_not_know_how() {
    let mut observation = running();
    observation.files.push(file("docker-compose.yml", FileState::Differs));
    observation.env.keys[0].reaches = Some(vec![]);
    for (ignores, asked) in [(false, 1), (true, 0)] {
        let mut world = bundled("v2", "Release");
        world.target_mut().intent.tag_use = World::new("v2").target().intent.tag_use.clone();
        world.status.deployed = World::deployed("v1").status.deployed;
        world.subject.ignores_reach = ignores;
        let submission = submitted(world.decide(Answer::Seen(&observation)).effect);
        assert_eq!(submission.desired.operate_request(&submission.terms, Vec::new()).tag_keys.len(), asked);
    }
}
