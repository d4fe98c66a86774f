use super::world::*;
use crate::decide::{Answer, Effect, Finalizer};
use rstest::rstest;
use serde_json::json;
use tenantry_api::names::TenantUid;
use tenantry_api::tenant_status::{Outcome, Phase};
use tenantry_protocol::{
    ClaimState, FileObservation, FileState, ForeignContainer, Observation, OtherProject, UnreadFile,
};

#[test]
fn a_new_tenant_has_its_conditions_before_the_host_is_asked_and_our_finalizer_before_it_is_touched() {
    let mut world = World::new("v1");
    world.subject.finalizer = false;
    let decision = world.decide(Answer::NotAsked);
    assert_eq!((world.phase(), world.truths()), (Phase::Pending, ["Unknown", "True", "False"]));
    assert_eq!(decision.finalizer, Finalizer::Keep, "nothing is held on the host yet");
    assert_eq!(world.status.observed_generation, Some(1));
    assert_eq!(world.status.conditions.len(), 5);
    let observation = Observation { claim: ClaimState::Free, ..running() };
    let decision = world.decide(Answer::Seen(&observation));
    assert!(matches!(decision.effect, Some(Effect::Claim(_))));
    assert_eq!(decision.finalizer, Finalizer::Add);
}

#[test]
fn a_project_that_is_as_wanted_is_taken_over_silently() {
    let mut world = World::new("v1");
    let observation = Observation { claim: ClaimState::Free, epoch: 4, ..running() };
    let decision = world.decide(Answer::Seen(&observation));
    assert_eq!(claimed(decision.effect), (5, false));
    assert_eq!((world.phase(), world.truths()), (Phase::Ready, ["True", "False", "False"]));
    let deployed = world.status.deployed.as_ref().unwrap();
    assert_eq!((deployed.image_tag.as_str(), deployed.images.len()), ("v1", 1));
    assert_eq!(deployed.images[0].repo_digest.as_deref(), Some("sha256:d1"));
    assert!(decision.events.iter().any(|event| event.reason == "Adopted"));
}

#[test]
fn after_a_crash_between_claim_and_status_the_same_is_recorded_without_a_second_claim() {
    let mut world = World::new("v1");
    let decision = world.decide(Answer::Seen(&running()));
    assert_eq!(decision.effect, None);
    assert!(world.status.deployed.is_some());
}

#[test]
fn a_variable_that_is_absent_and_right_by_default_is_no_difference() {
    let mut world = World::new("v1");
    let mut observation = Observation { claim: ClaimState::Free, ..running() };
    let key = &mut observation.env.keys[0];
    (key.as_wanted, key.present, key.by_default) = (false, false, true);
    let decision = world.decide(Answer::Seen(&observation));
    assert!(matches!(decision.effect, Some(Effect::Claim(_))));
    assert_eq!(world.phase(), Phase::Ready, "{}", world.message());
    observation.claim = ClaimState::Ours;
    world.decide(Answer::Seen(&observation));
    let drifted = tenantry_api::conditions::find(&world.status.conditions, "Drifted").unwrap();
    assert_eq!(drifted.status, "False", "{}", drifted.message);
}

#[rstest]
#[case::another_value(|o: &mut Observation| o.env.keys[0].as_wanted = false, "IMAGE_TAG in .env has another value")]
#[case::no_value(|o: &mut Observation| { o.env.keys[0].as_wanted = false; o.env.keys[0].present = false }, "IMAGE_TAG in .env is not set")]
#[case::an_image_of_the_spec(|o: &mut Observation| o.images.push(image(&["web"], Some("app:v2"), None)), "web has app:v1, spec.images says app:v2")]
#[case::other_images(|o: &mut Observation| o.image_differences.push("web was made from app:v0".to_owned()), "app:v0")]
#[case::another_file(|o: &mut Observation| o.files.push(file("a.conf", FileState::Differs)), "a.conf has other content")]
#[case::a_missing_file(|o: &mut Observation| o.files.push(file("a.conf", FileState::Missing)), "a.conf is not there")]
fn a_project_that_differs_is_left_alone_and_the_difference_named(
    #[case] change: fn(&mut Observation),
    #[case] difference: &str,
) {
    let mut world = World::new("v1");
    let mut observation = Observation { claim: ClaimState::Free, ..running() };
    change(&mut observation);
    let decision = world.decide(Answer::Seen(&observation));
    assert_eq!((world.phase(), decision.effect), (Phase::AdoptionNeeded, None));
    assert_eq!(world.truths(), ["False", "False", "True"]);
    assert!(world.message().contains(difference), "{}", world.message());
    assert!(world.message().contains("Nothing was written"));
}

#[rstest]
#[case::something_else_in_a_files_place(&[], |o: &mut Observation| o.files.push(file("a.conf", FileState::Blocked { found: "a symlink".to_owned() })), "PathRefused", "a.conf (a symlink)")]
#[case::files_that_compose_cannot_read(&[], |o: &mut Observation| o.compose_problem = Some("compose.yaml, line 3: a tab".to_owned()), "ComposeInvalid", "line 3")]
#[case::a_protected_env(&[".env"], |o: &mut Observation| o.env.keys[0].as_wanted = false, "PathRefused", "IMAGE_TAG in .env")]
fn what_overwriting_would_not_cure_is_refused_without_that_advice(
    #[case] protect: &[&str],
    #[case] change: fn(&mut Observation),
    #[case] reason: &str,
    #[case] says: &str,
    #[values("IfIdentical", "Overwrite")] adopt: &str,
) {
    let mut value = spec("v1");
    value["adopt"] = json!(adopt);
    value["protect"] = json!(protect);
    let mut world = World::with_spec(value);
    let mut observation = Observation { claim: ClaimState::Free, ..running() };
    change(&mut observation);
    let decision = world.decide(Answer::Seen(&observation));
    assert_eq!((world.phase(), decision.effect), (Phase::Refused, None));
    assert_eq!(world.reason(), reason);
    assert!(world.message().contains(says) && !world.message().contains("Overwrite"), "{}", world.message());
}

#[test]
fn another_mode_is_no_difference_at_first_contact() {
    let mut world = World::new("v1");
    let mut observation = Observation { claim: ClaimState::Free, ..running() };
    observation.files.push(file("a.conf", FileState::Attributes));
    let decision = world.decide(Answer::Seen(&observation));
    assert!(matches!(decision.effect, Some(Effect::Claim(_))));
}

#[test]
fn overwrite_goes_on_where_something_differs() {
    let mut value = spec("v1");
    value["adopt"] = json!("Overwrite");
    let mut world = World::with_spec(value);
    let mut observation = Observation { claim: ClaimState::Free, ..running() };
    observation.env.keys[0].as_wanted = false;
    let decision = world.decide(Answer::Seen(&observation));
    assert!(matches!(decision.effect, Some(Effect::Submit(_))), "{decision:?}");
}

#[test]
fn p11_overwrite_does_not_cover_containers_made_from_another_path() {
    let mut value = spec("v1");
    value["adopt"] = json!("Overwrite");
    let mut world = World::with_spec(value);
    let mut observation = Observation { claim: ClaimState::Free, ..running() };
    observation
        .foreign_containers
        .push(ForeignContainer { name: "acme-web-1".to_owned(), directory: "/home/old".to_owned() });
    let decision = world.decide(Answer::Seen(&observation));
    assert_eq!((world.phase(), decision.effect), (Phase::AdoptionNeeded, None));
    assert!(world.message().contains("/home/old"));
}

#[rstest]
#[case(Outcome::Held)]
#[case(Outcome::RollbackFailed)]
fn p16_what_a_failed_installation_left_is_not_taken_for_deployed_after_a_retry_that_changed_nothing(
    #[case] left: Outcome,
) {
    let mut world = bundled("v1", "Auto");
    let mut observation = nothing();
    observation.files.push(file("docker-compose.yml", FileState::Missing));
    world.decide(Answer::Seen(&observation));
    let status = ended(&world, left);
    world.decide(Answer::Followed(&status, Some(&running())));
    world.subject.retry = Some("again".to_owned());
    let decision = world.decide(Answer::Seen(&running()));
    assert!(matches!(decision.effect, Some(Effect::Submit(_))), "{decision:?}");
    // The registry is away. What was left runs and looks like the target, but was seen to fail.
    let status = ended(&world, Outcome::Aborted);
    let decision = world.decide(Answer::Followed(&status, Some(&running())));
    assert_eq!((world.phase(), decision.effect), (Phase::Aborted, None));
    assert_eq!(world.status.deployed, None);
}

#[test]
fn what_never_arrived_does_not_make_a_strange_project_ours() {
    let mut world = bundled("v1", "Auto");
    let mut observation = Observation { claim: ClaimState::Ours, ..nothing() };
    observation.files.push(file("docker-compose.yml", FileState::Missing));
    world.decide(Answer::Seen(&observation));
    // Before it is known to have arrived, a person has put something there, and wants another release.
    world.subject.generation += 1;
    world.desired = bundled("v2", "Auto").desired;
    let mut observation = running();
    observation.files.push(file("docker-compose.yml", FileState::Differs));
    let decision = world.decide(Answer::Unknown(&observation));
    assert_eq!((world.phase(), decision.effect), (Phase::AdoptionNeeded, None));
}

#[test]
fn p2_what_is_taken_over_is_fenced_from_what_may_still_arrive() {
    let mut world = bundled("v1", "Auto");
    let mut observation = Observation { claim: ClaimState::Ours, ..nothing() };
    observation.files.push(file("docker-compose.yml", FileState::Missing));
    world.decide(Answer::Seen(&observation));
    let lost = world.status.upgrade.clone().unwrap();
    // It is not known to have arrived; meanwhile a person has installed what is wanted by now.
    world.subject.generation += 1;
    world.desired = bundled("v2", "Auto").desired;
    let decision = world.decide(Answer::Unknown(&running()));
    let epoch = u64::try_from(lost.epoch).unwrap() + 1;
    assert_eq!((world.phase(), claimed(decision.effect)), (Phase::Ready, (epoch, false)));
    assert_eq!(world.status.upgrade.as_ref().unwrap().outcome, Some(Outcome::Aborted));
}

#[test]
fn without_a_bundle_nothing_can_be_installed_where_nothing_is() {
    let mut world = World::new("v1");
    let decision = world.decide(Answer::Seen(&nothing()));
    assert_eq!((world.phase(), world.reason(), decision.effect), (Phase::Refused, "ProjectMissing", None));
    assert!(world.message().contains("/srv/acme does not exist on host n5"));
}

#[test]
fn with_a_bundle_a_first_installation_is_begun_also_beside_a_prepared_env() {
    let mut world = bundled("v1", "Auto");
    let mut observation = nothing();
    observation.directory_exists = true;
    observation.env.exists = true;
    observation.files.push(file("docker-compose.yml", FileState::Missing));
    let decision = world.decide(Answer::Seen(&observation));
    assert!(matches!(decision.effect, Some(Effect::Submit(_))), "{decision:?}");
    assert_eq!(world.phase(), Phase::Planning);
    assert!(world.message().starts_with("Installing v1"));
    assert_eq!(world.status.upgrade.as_ref().unwrap().from, None);
    assert_eq!(world.status.plan.as_ref().unwrap().files.created, 1);
}

#[test]
fn a_place_that_the_host_holds_for_another_tenant_is_refused() {
    let mut world = World::new("v1");
    let observation = Observation {
        claim: ClaimState::Other {
            owner: "fleet/old".to_owned(),
            uid: TenantUid::parse("ff").unwrap(),
            holds: "directory".to_owned(),
        },
        ..running()
    };
    let decision = world.decide(Answer::Seen(&observation));
    assert_eq!((world.phase(), world.reason(), decision.effect), (Phase::Refused, "ClaimedByOther", None));
    assert!(world.message().contains("fleet/old"));
}

#[test]
fn an_operation_that_status_does_not_know_is_waited_for() {
    let mut world = World::deployed("v1");
    world.want("v2");
    let mut observation = running();
    observation.operation = Some(tenantry_protocol::OperationBrief {
        id: tenantry_api::names::OperationId::parse("x-1").unwrap(),
        target_hash: "sha256:x".to_owned(),
        outcome: None,
    });
    let decision = world.decide(Answer::Seen(&observation));
    assert_eq!((world.phase(), decision.effect), (Phase::Planning, None));
    assert!(decision.requeue.as_secs() <= 5);
}

#[rstest]
#[case::that_runs(None, "runs as compose project shop already (shop-web-1)")]
#[case::that_the_directory_names(
    Some("COMPOSE_PROJECT_NAME in .env"),
    "is compose project shop by COMPOSE_PROJECT_NAME in .env"
)]
fn p11_beside_another_project_of_the_directory_nothing_is_begun(
    #[case] named_by: Option<&str>,
    #[case] says: &str,
    #[values("IfIdentical", "Overwrite")] adopt: &str,
) {
    let mut value = spec("v1");
    value["adopt"] = json!(adopt);
    let mut world = World::with_spec(value);
    let other = OtherProject {
        name: "shop".to_owned(),
        containers: vec!["shop-web-1".to_owned()],
        named_by: named_by.map(str::to_owned),
    };
    let observation = Observation { claim: ClaimState::Free, other_projects: vec![other], ..running() };
    let decision = world.decide(Answer::Seen(&observation));
    assert_eq!((world.phase(), decision.effect), (Phase::AdoptionNeeded, None));
    assert!(world.message().contains(says), "{}", world.message());

    // What is deployed already may have its name from elsewhere; but beside what runs nothing is begun, ever.
    let mut world = World::deployed("v1").want_now("v2");
    let observation = Observation { claim: ClaimState::Ours, ..observation };
    let decision = world.decide(Answer::Seen(&observation));
    assert_eq!(matches!(decision.effect, Some(Effect::Submit(_))), named_by.is_some(), "{}", world.message());
}

#[test]
fn p16_a_bundle_replaces_no_file_that_it_never_wrote_unless_that_is_asked_for() {
    for (adopt, begins) in [("IfIdentical", false), ("Overwrite", true)] {
        let mut world = bundled("v2", "Auto");
        world.status = World::deployed("v1").status;
        world.target_mut().intent.adopt = serde_json::from_value(json!(adopt)).unwrap();
        let mut observation = running();
        let own = file("docker-compose.yml", FileState::Differs);
        observation.files.push(FileObservation { unmanaged: true, ..own });
        let decision = world.decide(Answer::Seen(&observation));
        assert_eq!(matches!(decision.effect, Some(Effect::Submit(_))), begins, "{}", world.message());
        if !begins {
            assert_eq!(world.phase(), Phase::AdoptionNeeded);
            assert!(world.message().contains("docker-compose.yml"), "{}", world.message());
        }
    }
}

#[test]
fn p16_a_bundles_file_that_compose_would_not_read_is_refused_with_both_names() {
    let mut world = bundled("v1", "Auto");
    world.target_mut().intent.adopt = tenantry_api::tenant::Adopt::Overwrite;
    let path = |text: &str| tenantry_api::names::RelativePath::parse(text).unwrap();
    let unread =
        UnreadFile { path: path("docker-compose.yml"), read: vec![path("compose.yaml")], named_by: None };
    let observation = Observation { claim: ClaimState::Free, unread_files: vec![unread], ..running() };
    let decision = world.decide(Answer::Seen(&observation));
    assert_eq!((world.phase(), decision.effect), (Phase::Refused, None));
    assert_eq!(world.reason(), "ComposeFileUnread");
    let said = world.message();
    assert!(said.contains("docker-compose.yml") && said.contains("compose reads compose.yaml"), "{said}");
}

#[test]
fn a_file_of_the_tenants_own_that_cannot_be_read_is_refused_beside_a_bundle_too() {
    for (problem, phase) in [
        ("app.yml: can't be read as YAML at line 3: it is indented with a tab", Phase::Refused),
        ("docker-compose.yml: can't be read as YAML at line 3: it is malformed", Phase::AdoptionNeeded),
    ] {
        let mut world = bundled("v1", "Auto");
        let mut observation = Observation { claim: ClaimState::Free, ..running() };
        observation.files.push(file("docker-compose.yml", FileState::Differs));
        observation.compose_problem = Some(problem.to_owned());
        world.decide(Answer::Seen(&observation));
        assert_eq!(world.phase(), phase, "{}", world.message());
    }
}
