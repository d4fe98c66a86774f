use super::world::*;
use crate::decide::{Answer, Effect};
use jiff::Timestamp;
use rstest::rstest;
use tenantry_api::conditions::{STALLED, find};
use tenantry_api::tenant_status::{Outcome, Phase, PhaseState};
use tenantry_protocol::{
    FailedService, FailedServices, Failure, FailureCategory, OperationPhase as P, OperationState,
    OperationStatus,
};

/// How the operation in flight ended, by a failure of this kind.
fn failed(world: &World, outcome: Outcome, during: P, category: FailureCategory) -> OperationStatus {
    let mut status = operation(world, 9, &[P::Preflight, during]);
    let failure = Failure::new(during, category, "registry.example:5000: connection refused");
    let last = status.phases.last_mut().unwrap();
    (last.state, last.message) = (PhaseState::Failed, Some(failure.message.clone()));
    let at = Timestamp::from_second(world.now).unwrap();
    status.state = OperationState::Ended { outcome, failure: Some(failure), at };
    status
}

fn under_way() -> World {
    let mut world = World::deployed("v1");
    world.want("v2");
    world.decide(Answer::Seen(&running()));
    world
}

/// Lets every try fail so until the target is blocked: at which seconds it was tried.
fn tries(world: &mut World, outcome: Outcome, during: P, category: FailureCategory) -> Vec<i64> {
    let mut tried = vec![world.now - START];
    for _ in 0..200 {
        let status = failed(world, outcome, during, category);
        world.decide(Answer::Followed(&status, Some(&running())));
        if world.status.blocked_target.is_some() {
            return tried;
        }
        assert_eq!((world.phase(), world.truths()), (Phase::Planning, ["False", "True", "False"]));
        let written = world.status.clone();
        let at = world.status.upgrade.as_ref().unwrap().retry_at.clone().unwrap().0.as_second();
        assert!(at > world.now);
        world.now = at - 1;
        assert_eq!(world.decide(Answer::Seen(&running())).effect, None);
        assert_eq!(world.status, written, "waiting writes nothing");
        world.now = at;
        let decision = world.decide(Answer::Seen(&running()));
        assert!(matches!(decision.effect, Some(Effect::Submit(_))));
        tried.push(world.now - START);
    }
    panic!("it is tried for ever: {tried:?}");
}

#[test]
fn p4_p15_a_fault_that_passes_is_tried_again_less_and_less_often_for_an_hour() {
    let mut world = under_way();
    let tried = tries(&mut world, Outcome::Aborted, P::Pull, FailureCategory::RegistryUnreachable);
    assert_eq!(&tried[..6], [0, 5, 10, 20, 40, 80]);
    assert_eq!(tried.last(), Some(&3_600));
    assert!(tried.len() < 25, "{tried:?}");
    assert_eq!((world.phase(), world.reason()), (Phase::Aborted, "RegistryUnreachable"));
    assert_eq!(world.truths(), ["False", "False", "True"]);
    assert_eq!(world.status.history.len(), 1, "only the last try is an entry of its own");
}

#[test]
fn p4_what_was_rolled_back_for_an_engine_that_was_restarted_is_tried_once_more() {
    let mut world = under_way();
    let tried = tries(&mut world, Outcome::RolledBack, P::Start, FailureCategory::EngineFault);
    assert!(tried.len() == 2 && tried[1] - tried[0] >= 120, "{tried:?}");
}

#[rstest]
#[case::no_such_image(Outcome::Aborted, FailureCategory::ImageNotFound)]
#[case::unauthorized(Outcome::Aborted, FailureCategory::RegistryRefused)]
#[case::a_service_that_crashes(Outcome::RolledBack, FailureCategory::Crashed)]
#[case::what_a_person_must_see_to(Outcome::RollbackFailed, FailureCategory::EngineFault)]
fn p4_what_does_not_pass_is_blocked_at_once(#[case] outcome: Outcome, #[case] category: FailureCategory) {
    let mut world = under_way();
    let status = failed(&world, outcome, P::Start, category);
    let decision = world.decide(Answer::Followed(&status, Some(&running())));
    assert!(world.status.blocked_target.is_some());
    assert_eq!(find(&world.status.conditions, STALLED).unwrap().reason, category.as_str());
    let ended = decision.events.iter().find(|event| event.reason == outcome.as_str()).unwrap();
    assert!(ended.note.contains(&format!("({})", category.as_str())), "{}", ended.note);
    // The reason is still there when the host is looked at later.
    world.now += 60;
    world.decide(Answer::Seen(&running()));
    assert_eq!(world.reason(), category.as_str());
}

#[test]
fn while_it_waits_it_says_why_since_when_and_when_next() {
    let mut world = under_way();
    let status = failed(&world, Outcome::Aborted, P::Pull, FailureCategory::RegistryUnreachable);
    let decision = world.decide(Answer::Followed(&status, Some(&running())));
    assert_eq!(world.reason(), "RegistryUnreachable");
    for said in [
        "connection refused",
        "2027-01-15T08:00:00Z",
        "2027-01-15T08:00:05Z",
        "2027-01-15T09:00:00Z",
        "Nothing was changed",
    ] {
        assert!(world.message().contains(said), "{said} is missing in {}", world.message());
    }
    assert!(decision.events.iter().any(|event| event.reason == "Retrying"), "{:?}", decision.events);
}

#[test]
fn a_person_or_another_target_need_not_wait_for_the_next_try() {
    let again = |change: &dyn Fn(&mut World)| {
        let mut world = under_way();
        let status = failed(&world, Outcome::Aborted, P::Pull, FailureCategory::RegistryUnreachable);
        world.decide(Answer::Followed(&status, Some(&running())));
        change(&mut world);
        world.decide(Answer::Seen(&running())).effect
    };
    assert!(matches!(again(&|world| world.subject.retry = Some("1".to_owned())), Some(Effect::Submit(_))));
    assert!(matches!(again(&|world| world.want("v3")), Some(Effect::Submit(_))));
    assert_eq!(again(&|_| ()), None);
    // What runs is wanted again: there is nothing to do, and no next try.
    assert_eq!(again(&|world| world.want("v1")), None);
}

#[test]
fn p15_a_failed_services_own_words_are_in_status_and_events_within_bounds() {
    let mut world = under_way();
    let mut status = failed(&world, Outcome::RolledBack, P::Verify, FailureCategory::Crashed);
    let OperationState::Ended { failure: Some(failure), .. } = &mut status.state else { unreachable!() };
    let service = |index: usize| FailedService {
        service: format!("web{index}"),
        during: P::Verify,
        problem: "web ended with code 1".to_owned(),
        log: (0..100)
            .map(|line| format!("{line} {}", "x".repeat(9_000)))
            .chain(["boom: cannot open config".to_owned()])
            .collect(),
        healthcheck: Some("y".repeat(9_000)),
    };
    failure.services = FailedServices { first: (0..12).map(service).collect(), more: 3 };
    let decision = world.decide(Answer::Followed(&status, Some(&running())));
    let upgrade = world.status.upgrade.as_ref().unwrap();
    assert_eq!((upgrade.failures.len(), upgrade.more_failures), (8, 7));
    let bytes = serde_json::to_string(&upgrade.failures).unwrap().len();
    assert!(bytes < 8 * 6_500, "{bytes}");
    assert!(upgrade.failures.iter().all(|one| one.log.last().unwrap() == "boom: cannot open config"));
    let told: Vec<_> = decision.events.iter().filter(|event| event.reason == "ServiceFailed").collect();
    let actions: std::collections::BTreeSet<_> = told.iter().map(|event| event.action()).collect();
    assert_eq!((told.len(), actions.len()), (3, 3), "alike but for their notes they would count as one");
    assert!(
        told.iter().all(|event| event.note.len() <= 1_000 && event.note.contains("boom: cannot open config"))
    );
}
