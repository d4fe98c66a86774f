use super::world::*;
use crate::decide::Answer;
use jiff::Timestamp;
use rstest::rstest;
use tenantry_api::conditions::{DRIFTED, find};
use tenantry_api::names::RelativePath;
use tenantry_api::tenant_status::Phase;
use tenantry_protocol::{FileState, MountFreshness, Observation, StaleFile};

fn drifted(world: &World) -> (&str, &str) {
    let condition = find(&world.status.conditions, DRIFTED).unwrap();
    (condition.status.as_str(), condition.message.as_str())
}

#[rstest]
#[case::edited(|o: &mut Observation| o.files.push(file("a.conf", FileState::Differs)), "a.conf has other content")]
#[case::removed(|o: &mut Observation| o.files.push(file("a.conf", FileState::Missing)), "a.conf is gone")]
#[case::chmodded(|o: &mut Observation| o.files.push(file("a.conf", FileState::Attributes)), "another mode")]
#[case::a_variable(|o: &mut Observation| o.env.keys[0].as_wanted = false, "IMAGE_TAG in .env")]
#[case::another_image(|o: &mut Observation| o.services[0].running.as_mut().unwrap().image_id = "sha256:x".to_owned(), "web runs another image")]
#[case::a_moved_reference(|o: &mut Observation| o.services[0].running.as_mut().unwrap().current = false, "points to another image")]
#[case::not_read(
    |o: &mut Observation| o.services[0].mounts = MountFreshness::Unknown {
        files: vec![StaleFile { path: RelativePath::parse("a.conf").unwrap(), mounted_singly: true }],
    },
    "web may not have read a.conf"
)]
#[case::copied_otherwise(
    |o: &mut Observation| o.services[0].outdated = vec!["config app".to_owned()],
    "web still has config app as it was when its container was made"
)]
fn a_host_that_differs_is_shown_and_not_repaired(#[case] change: fn(&mut Observation), #[case] shown: &str) {
    let mut world = World::deployed("v1");
    world.decide(Answer::Seen(&running()));
    assert_eq!(drifted(&world).0, "False");
    let mut observation = running();
    change(&mut observation);
    let decision = world.decide(Answer::Seen(&observation));
    assert_eq!(decision.effect, None);
    assert_eq!(world.phase(), Phase::Ready, "drift alone is not ill health");
    let (status, message) = drifted(&world);
    assert_eq!(status, "True");
    assert!(message.contains(shown), "{message}");
    assert!(decision.events.iter().any(|event| event.reason == "Drifted"));
    let decision = world.decide(Answer::Seen(&running()));
    assert_eq!(drifted(&world).0, "False");
    assert!(decision.events.iter().any(|event| event.reason == "DriftGone"));
}

#[test]
fn an_ill_service_degrades_and_is_ready_again_only_after_a_stable_while() {
    let mut world = World::deployed("v1");
    world.decide(Answer::Seen(&running()));
    let mut ill = running();
    ill.health.problems.push("web is unhealthy".to_owned());
    world.now += 60;
    let decision = world.decide(Answer::Seen(&ill));
    assert_eq!((world.phase(), world.truths()), (Phase::Degraded, ["False", "False", "False"]));
    assert!(world.message().contains("web is unhealthy"));
    assert!(world.message().contains("since 2027-01-15T08:01:00Z"), "{}", world.message());
    assert_eq!(decision.effect, None, "what is ill is not touched");
    let said = world.status.clone();
    world.now += 15;
    world.decide(Answer::Seen(&ill));
    assert_eq!(world.status, said, "said once");

    world.now += 15;
    let decision = world.decide(Answer::Seen(&running()));
    assert_eq!(world.phase(), Phase::Degraded);
    assert_eq!(decision.requeue.as_secs(), 15);
    world.now += 15;
    world.decide(Answer::Seen(&running()));
    assert_eq!((world.phase(), &world.status.healthy_since), (Phase::Ready, &None));
}

#[test]
fn p10_a_service_that_restarted_meanwhile_begins_its_stable_while_anew() {
    let mut world = World::deployed("v1");
    let mut ill = running();
    ill.health.problems.push("web is unhealthy".to_owned());
    world.decide(Answer::Seen(&ill));
    world.now += 15;
    world.decide(Answer::Seen(&running()));
    world.now += 15;
    let mut restarted = running();
    restarted.services[0].started_at = Some(Timestamp::from_second(world.now - 3).unwrap());
    let decision = world.decide(Answer::Seen(&restarted));
    assert_eq!((world.phase(), decision.requeue.as_secs()), (Phase::Degraded, 12));
}

#[test]
fn p10_a_service_that_the_engine_restarts_again_and_again_is_not_ready() {
    let mut world = World::deployed("v1");
    let mut looping = running();
    looping.services[0].restart_count = 5;
    looping.services[0].started_at = Some(Timestamp::from_second(world.now - 2).unwrap());
    world.decide(Answer::Seen(&looping));
    assert_eq!(world.phase(), Phase::Degraded);
    // A host whose clock is ahead is not ill for that.
    let mut world = World::deployed("v1");
    looping.services[0].started_at = Some(Timestamp::from_second(world.now + 3_600).unwrap());
    world.decide(Answer::Seen(&looping));
    assert_eq!(world.phase(), Phase::Ready);
}

#[test]
fn p10_services_without_a_healthcheck_and_what_was_left_are_named() {
    let mut world = World::deployed("v1");
    let mut observation = running();
    observation.health.without_healthcheck.push("web".to_owned());
    observation.removed_services.push("old".to_owned());
    observation.leftover_files.push(file("gone.conf", FileState::Differs));
    world.decide(Answer::Seen(&observation));
    for named in ["Without a healthcheck, so known only to run: web", "left running: old", "gone.conf"] {
        assert!(world.message().contains(named), "{}", world.message());
    }
}
