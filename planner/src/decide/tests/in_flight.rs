use super::world::*;
use crate::decide::{Answer, Effect, Unreached};
use rstest::rstest;
use tenantry_api::conditions::{READY, find};
use tenantry_api::tenant_status::{Outcome, Phase};
use tenantry_protocol::{OperationPhase as P, Progress};

fn under_way() -> World {
    let mut world = World::deployed("v1");
    world.want("v2");
    world.decide(Answer::Seen(&running()));
    world
}

#[rstest]
#[case(&[P::Preflight], Phase::Planning)]
#[case(&[P::Preflight, P::Pull], Phase::Pulling)]
#[case(&[P::Preflight, P::Pull, P::Write], Phase::Writing)]
#[case(&[P::Preflight, P::Pull, P::Start], Phase::Starting)]
#[case(&[P::Preflight, P::Pull, P::Start, P::Verify], Phase::Verifying)]
#[case(&[P::Preflight, P::Pull, P::Start, P::Verify, P::Finish], Phase::Verifying)]
#[case(&[P::Preflight, P::Pull, P::Start, P::Verify, P::Rollback], Phase::RollingBack)]
fn each_phase_of_the_operation_is_told(#[case] phases: &[P], #[case] phase: Phase) {
    let mut world = under_way();
    let status = operation(&world, 3, phases);
    let decision = world.decide(Answer::Followed(&status, None));
    assert_eq!((world.phase(), world.truths()), (phase, ["False", "True", "False"]));
    assert!(matches!(decision.effect, Some(Effect::Follow { after: 3, .. })));
    assert!(world.message().starts_with("Upgrading from v1 to v2: "), "{}", world.message());
    let again = world.decide(Answer::Followed(&status, None));
    assert_eq!((again.events.len(), &again.status), (0, &world.status));
}

#[test]
fn a_pull_is_told_in_images_and_bytes() {
    let mut world = under_way();
    let mut status = operation(&world, 3, &[P::Preflight, P::Pull]);
    status.progress =
        Some(Progress { images_done: 1, images_total: 3, bytes_done: 12_345_678, bytes_total: 98_700_000 });
    world.decide(Answer::Followed(&status, None));
    assert!(world.message().ends_with("pulling images, 1 of 3 (12.3 MB of 98.7 MB)."), "{}", world.message());
}

#[test]
fn p16_an_operation_that_can_not_go_on_says_what_it_waits_for() {
    let mut world = under_way();
    let mut status = operation(&world, 3, &[P::Preflight, P::Pull]);
    status.waits_for = Some("/var/lib/agent/journal: No space left on device".to_owned());
    world.decide(Answer::Followed(&status, None));
    let told = "the agent waits and tries again: /var/lib/agent/journal: No space left on device.";
    assert!(world.message().ends_with(told), "{}", world.message());
}

#[test]
fn a_newer_spec_waits_and_status_says_which_is_which() {
    let mut world = under_way();
    world.want("v3");
    let status = operation(&world, 3, &[P::Preflight, P::Pull]);
    let decision = world.decide(Answer::Followed(&status, None));
    assert!(matches!(decision.effect, Some(Effect::Follow { .. })));
    assert!(world.message().contains("from v1 to v2") && world.message().contains("(v3) waits"));
    assert_eq!(world.status.upgrade.as_ref().unwrap().to, "v2");
    // When the old target has ended, the newest is begun.
    let status = ended(&world, Outcome::Succeeded);
    let decision = world.decide(Answer::Followed(&status, Some(&running())));
    assert!(matches!(decision.effect, Some(Effect::Submit(_))));
    assert_eq!(world.status.deployed.as_ref().unwrap().image_tag, "v2");
    let upgrade = world.status.upgrade.as_ref().unwrap();
    assert_eq!((upgrade.to.as_str(), upgrade.from.as_deref()), ("v3", Some("v2")));
    assert_eq!(world.status.history.len(), 1);
}

#[test]
fn an_upgrade_that_succeeded_is_ready_in_the_same_write() {
    let mut world = under_way();
    let status = ended(&world, Outcome::Succeeded);
    let decision = world.decide(Answer::Followed(&status, Some(&running())));
    assert_eq!((world.phase(), world.truths()), (Phase::Ready, ["True", "False", "False"]));
    assert_eq!(decision.effect, None);
    assert_eq!(world.status.deployed.as_ref().unwrap().image_tag, "v2");
    assert_eq!(world.status.history[0].outcome, Outcome::Succeeded);
    assert!(decision.events.iter().any(|event| event.reason == "Succeeded"));
    let before = world.status.clone();
    world.now += 60;
    let decision = world.decide(Answer::Seen(&running()));
    assert_eq!((&world.status, decision.effect), (&before, None), "a no-op writes nothing");
}

#[test]
fn an_upgrade_that_succeeded_is_ready_also_when_the_host_is_gone_right_after() {
    let mut world = under_way();
    let status = ended(&world, Outcome::Succeeded);
    let decision = world.decide(Answer::Followed(&status, None));
    assert_eq!(world.phase(), Phase::Ready);
    assert!(decision.requeue.is_zero());
}

#[rstest]
#[case(Outcome::Aborted, Phase::Aborted)]
#[case(Outcome::RolledBack, Phase::RolledBack)]
#[case(Outcome::Held, Phase::Held)]
#[case(Outcome::RollbackFailed, Phase::RollbackFailed)]
fn p4_a_target_that_failed_is_blocked_until_something_changes(
    #[case] outcome: Outcome,
    #[case] phase: Phase,
) {
    let mut world = under_way();
    let status = ended(&world, outcome);
    let decision = world.decide(Answer::Followed(&status, Some(&running())));
    assert_eq!((world.phase(), world.truths()), (phase, ["False", "False", "True"]));
    assert_eq!(decision.effect, None);
    assert_eq!(world.status.blocked_target.as_ref().unwrap().outcome, outcome);
    assert_eq!(world.status.deployed.as_ref().unwrap().image_tag, "v1");
    assert!(world.message().contains("did not become healthy"), "{}", world.message());
    let told = decision.events.iter().filter(|event| event.reason == outcome.as_str()).count();
    assert_eq!(told, 1);
    let written = world.status.clone();
    for _ in 0..5 {
        world.now += 60;
        assert_eq!(world.decide(Answer::Seen(&running())).effect, None);
    }
    assert_eq!(world.status, written, "a blocked target is not written anew");
    // Another field of the spec does not retry it; its annotation does.
    world.subject.generation += 1;
    assert_eq!(world.decide(Answer::Seen(&running())).effect, None);
    world.subject.retry = Some("again".to_owned());
    let decision = world.decide(Answer::Seen(&running()));
    assert!(matches!(decision.effect, Some(Effect::Submit(_))));
    assert_eq!(world.status.upgrade.as_ref().unwrap().attempt, 2);
}

#[test]
fn another_target_is_tried_after_a_rollback_but_not_after_a_failed_one() {
    for (outcome, begins) in [(Outcome::RolledBack, true), (Outcome::RollbackFailed, false)] {
        let mut world = under_way();
        let status = ended(&world, outcome);
        world.decide(Answer::Followed(&status, Some(&running())));
        world.want("v3");
        let decision = world.decide(Answer::Seen(&running()));
        assert_eq!(matches!(decision.effect, Some(Effect::Submit(_))), begins, "{outcome:?}");
    }
}

#[test]
fn going_back_to_what_runs_needs_no_operation_after_a_rollback_but_one_after_a_hold() {
    for (outcome, begins) in [(Outcome::RolledBack, false), (Outcome::Held, true)] {
        let mut world = under_way();
        let status = ended(&world, outcome);
        world.decide(Answer::Followed(&status, Some(&running())));
        world.want("v1");
        let decision = world.decide(Answer::Seen(&running()));
        assert_eq!(matches!(decision.effect, Some(Effect::Submit(_))), begins, "{outcome:?}");
    }
}

#[test]
fn losing_the_host_in_the_middle_neither_ends_nor_forgets_the_operation() {
    let mut world = under_way();
    let id = world.status.upgrade.as_ref().unwrap().id.clone();
    world.decide(Answer::Unreached(Unreached::Timeout, "no answer"));
    assert_eq!((world.phase(), world.truths()), (Phase::HostUnreachable, ["Unknown", "True", "False"]));
    let said = world.message();
    assert!(said.contains("last known Planning since") && !said.contains("goes on running"), "{said}");
    assert_eq!(world.status.upgrade.as_ref().unwrap().id, id);
    let status = operation(&world, 8, &[P::Preflight, P::Verify]);
    world.decide(Answer::Followed(&status, None));
    assert_eq!(world.phase(), Phase::Verifying);
}

#[test]
fn suspending_waits_for_the_operation() {
    let mut world = under_way();
    world.subject.suspend = true;
    let status = operation(&world, 3, &[P::Preflight]);
    world.decide(Answer::Followed(&status, None));
    assert_eq!(world.phase(), Phase::Planning);
    assert!(world.message().contains("spec.suspend takes effect when this has ended"));
    let status = ended(&world, Outcome::Succeeded);
    world.decide(Answer::Followed(&status, Some(&running())));
    assert_eq!((world.phase(), world.truths()), (Phase::Suspended, ["True", "False", "False"]));
}

#[test]
fn p15_history_keeps_ten() {
    let mut world = World::deployed("v0");
    for round in 1..=14 {
        world.want(&format!("v{round}"));
        world.decide(Answer::Seen(&running()));
        let status = ended(&world, Outcome::Succeeded);
        world.decide(Answer::Followed(&status, Some(&running())));
    }
    assert_eq!(world.status.history.len(), 10);
    assert_eq!(world.status.history[0].to, "v14");
}

#[test]
fn lists_that_are_maps_to_the_api_server_name_nothing_twice() {
    let mut world = under_way();
    let mut status = ended(&world, Outcome::Succeeded);
    let again = status.phases[0].clone();
    status.phases.push(again);
    status.images = vec![status.images[0].clone(), status.images[0].clone()];
    world.decide(Answer::Followed(&status, None));
    assert_eq!(world.status.deployed.as_ref().unwrap().images.len(), 1);
    let names: Vec<_> =
        world.status.upgrade.as_ref().unwrap().phases.iter().map(|phase| phase.name).collect();
    assert_eq!(names, [Phase::Planning, Phase::Verifying]);
}

#[test]
fn p14_what_is_set_and_set_back_in_one_pass_has_not_changed() {
    let mut world = under_way();
    let status = operation(&world, 3, &[P::Preflight, P::Verify]);
    world.decide(Answer::Followed(&status, None));
    let since = |world: &World| find(&world.status.conditions, READY).unwrap().last_transition_time.clone();
    let before = since(&world);
    world.now += 30;
    // v2 has succeeded, so Ready is True for a moment; v3, which is wanted by now, makes it False again.
    let status = ended(&world, Outcome::Succeeded);
    world.want("v3");
    world.decide(Answer::Followed(&status, Some(&running())));
    assert_eq!((world.phase(), world.truths()), (Phase::Planning, ["False", "True", "False"]));
    assert_eq!(since(&world), before);
}

#[test]
fn p14_nothing_has_stalled_while_a_newer_spec_waits() {
    let mut world = under_way();
    let status = ended(&world, Outcome::RolledBack);
    world.want("v3");
    world.decide(Answer::Followed(&status, None));
    assert_eq!((world.phase(), world.truths()), (Phase::Planning, ["False", "True", "False"]));
    assert!(world.message().contains("the newer spec (v3) is looked at next"), "{}", world.message());
}
