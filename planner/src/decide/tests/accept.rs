use super::world::*;
use crate::decide::{Answer, Decision, Effect};
use tenantry_api::names::TenantUid;
use tenantry_api::tenant_status::{Outcome, Phase};
use tenantry_protocol::{ApiError, ClaimState, ErrorCode, Observation, OperationPhase as P};

fn damaged() -> Observation {
    let damage =
        "/var/lib/tenantry/agent/tenants/a1/journal/x-1 is damaged: line 3 does not match its checksum";
    Observation { damage: Some(damage.to_owned()), epoch: 7, ..running() }
}

fn accept(world: &mut World, seen: &Observation) -> Decision {
    world.subject.accept_host = Some(format!("at-{}", world.now));
    let decision = world.decide(Answer::Seen(seen));
    assert!(matches!(decision.effect, Some(Effect::Accept(_))), "{decision:?}");
    assert_eq!(world.status.handled.as_ref().unwrap().accept_host, world.subject.accept_host);
    decision
}

fn other() -> Observation {
    let mut seen = running();
    seen.env.keys[0].as_wanted = false;
    seen
}

#[test]
fn p16_damaged_records_stall_and_say_what_to_do_and_nothing_is_begun() {
    let mut world = World::deployed("v1");
    world.want("v2");
    for _ in 0..3 {
        assert_eq!(world.decide(Answer::Seen(&damaged())).effect, None);
        assert_eq!((world.phase(), world.reason()), (Phase::Refused, "RecordsDamaged"));
        assert_eq!(world.truths(), ["False", "False", "True"]);
    }
    for named in ["journal/x-1", "line 3", "tenantry accept-host acme", "/srv/acme"] {
        assert!(world.message().contains(named), "{named}: {}", world.message());
    }
    world.subject.retry = Some("1".to_owned());
    world.subject.rollback_to = Some(",1".to_owned());
    assert_eq!(world.decide(Answer::Seen(&damaged())).effect, None);
}

#[test]
fn p2_accepting_takes_an_epoch_above_all_and_then_what_is_there_is_the_target() {
    let mut world = World::deployed("v1");
    world.decide(Answer::Seen(&damaged()));
    let decision = accept(&mut world, &damaged());
    let Some(Effect::Accept(request)) = decision.effect else { panic!("{decision:?}") };
    assert_eq!((request.epoch, &request.manifest), (8, &world.target().manifest));
    assert!(decision.requeue.is_zero());
    world.now += 1;
    let decision = world.decide(Answer::Seen(&running()));
    assert_eq!((world.phase(), decision.effect), (Phase::Ready, None));
    assert_eq!((&world.status.blocked_target, world.truths()), (&None, ["True", "False", "False"]));
    assert_eq!(world.status.deployed.as_ref().unwrap().image_tag, "v1");
    // Once per value.
    assert_eq!(world.decide(Answer::Seen(&running())).effect, None);
    // The next release goes its way.
    world.want("v2");
    assert!(matches!(world.decide(Answer::Seen(&other())).effect, Some(Effect::Submit(_))));
}

#[test]
fn what_differs_after_accepting_is_left_until_a_person_asks() {
    let mut world = World::deployed("v1");
    world.want("v2");
    world.decide(Answer::Seen(&damaged()));
    accept(&mut world, &damaged());
    for _ in 0..4 {
        world.now += 60;
        assert_eq!(world.decide(Answer::Seen(&other())).effect, None, "never by itself");
        assert_eq!((world.phase(), world.truths()), (Phase::Aborted, ["False", "False", "True"]));
    }
    for named in ["accepted as it is", "IMAGE_TAG in .env", "tenantry.dev/retry", "v2"] {
        assert!(world.message().contains(named), "{named}: {}", world.message());
    }
    assert_eq!(world.status.deployed, None, "nobody has seen what runs");
    let mut mended = World { status: world.status.clone(), ..World::deployed("v1") };
    mended.want("v2");
    mended.decide(Answer::Seen(&running()));
    assert_eq!((mended.phase(), mended.status.deployed.unwrap().image_tag.as_str()), (Phase::Ready, "v2"));
    world.subject.retry = Some("now".to_owned());
    assert!(matches!(world.decide(Answer::Seen(&other())).effect, Some(Effect::Submit(_))));
}

#[test]
fn a_release_that_never_was_deployed_is_applied_when_asked_also_to_a_project_that_was_taken_over() {
    let mut world = World::new("v1");
    world.decide(Answer::Seen(&damaged()));
    accept(&mut world, &damaged());
    world.decide(Answer::Seen(&other()));
    assert_eq!(world.phase(), Phase::Aborted);
    world.subject.retry = Some("now".to_owned());
    assert!(matches!(world.decide(Answer::Seen(&other())).effect, Some(Effect::Submit(_))));
}

#[test]
fn p16_a_failed_rollback_is_cleared_by_accepting() {
    for (seen, phase) in [(running(), Phase::Ready), (other(), Phase::Aborted)] {
        let mut world = World::deployed("v1");
        world.want("v2");
        world.decide(Answer::Seen(&running()));
        let status = ended(&world, Outcome::RollbackFailed);
        world.decide(Answer::Followed(&status, Some(&seen)));
        assert_eq!(world.phase(), Phase::RollbackFailed);
        accept(&mut world, &seen);
        assert_eq!(world.decide(Answer::Seen(&seen)).effect, None);
        assert_eq!(world.phase(), phase);
        let before = world.status.clone();
        world.now += 60;
        assert_eq!(world.decide(Answer::Seen(&seen)).effect, None);
        assert_eq!(world.status, before, "said once");
        // What was deployed before is not believed to run.
        world.want("v1");
        let decision = world.decide(Answer::Seen(&seen));
        assert!(matches!(decision.effect, Some(Effect::Submit(_))), "{phase:?}");
    }
}

#[test]
fn accepting_drift_at_the_target_changes_no_target() {
    let mut world = World::deployed("v1");
    accept(&mut world, &other());
    world.decide(Answer::Seen(&other()));
    assert_eq!((world.phase(), &world.status.blocked_target), (Phase::Ready, &None));
    assert_eq!(world.status.deployed.as_ref().unwrap().image_tag, "v1");
}

#[test]
fn an_operation_whose_end_nobody_can_tell_waits_for_a_person() {
    let mut world = World::deployed("v1");
    world.want("v2");
    world.decide(Answer::Seen(&running()));
    let status = operation(&world, 3, &[P::Preflight, P::Write]);
    world.decide(Answer::Followed(&status, None));
    let error = ApiError { code: ErrorCode::RecordsDamaged, field: None, message: "x is damaged".to_owned() };
    world.decide(Answer::Refused(&error));
    assert_eq!(world.reason(), "RecordsDamaged");
    world.decide(Answer::Unknown(&damaged()));
    assert_eq!((world.phase(), world.reason()), (Phase::Refused, "RecordsDamaged"));
    assert_eq!(world.status.upgrade.as_ref().unwrap().outcome, None, "it is not called ended");
    world.subject.accept_host = Some("1".to_owned());
    let decision = world.decide(Answer::Unknown(&damaged()));
    assert!(matches!(decision.effect, Some(Effect::Accept(_))));
    let upgrade = world.status.upgrade.clone().unwrap();
    assert_eq!((upgrade.outcome, upgrade.accepted), (Some(Outcome::RollbackFailed), true));
    assert_eq!(world.status.history[0].outcome, Outcome::RollbackFailed);
    assert_eq!(world.decide(Answer::Seen(&other())).effect, None);
    assert_eq!(world.phase(), Phase::Aborted);
}

fn held_by_other() -> Observation {
    Observation {
        claim: ClaimState::Other {
            owner: "fleet/old".to_owned(),
            uid: TenantUid::parse("ff").unwrap(),
            holds: "directory and project".to_owned(),
        },
        ..running()
    }
}

#[test]
fn a_place_is_taken_over_once_for_each_value_and_then_met_for_the_first_time() {
    let mut world = World::new("v1");
    world.decide(Answer::Seen(&held_by_other()));
    assert!(world.message().contains("tenantry claim"), "{}", world.message());
    world.subject.claim = Some("1".to_owned());
    let decision = world.decide(Answer::Seen(&held_by_other()));
    assert_eq!(claimed(decision.effect), (1, true));
    assert!(world.message().contains("fleet/old"));
    // What differs is not overwritten.
    let seen = Observation { epoch: 1, ..other() };
    let mut differs = World { status: world.status.clone(), ..World::new("v1") };
    assert_eq!(differs.decide(Answer::Seen(&seen)).effect, None);
    assert_eq!(differs.phase(), Phase::AdoptionNeeded);
    // What is as wanted is recorded by the agent, too.
    let seen = Observation { epoch: 1, ..running() };
    let decision = world.decide(Answer::Seen(&seen));
    assert_eq!((world.phase(), claimed(decision.effect)), (Phase::Ready, (2, false)));
    // The value is spent: a place that is lost again is not fought over.
    assert_eq!(world.decide(Answer::Seen(&held_by_other())).effect, None);
    assert_eq!(world.reason(), "ClaimedByOther");
}

#[test]
fn p2_taking_over_waits_while_the_others_operation_is_in_flight() {
    let mut world = World::new("v1");
    world.subject.claim = Some("1".to_owned());
    let decision = world.try_decide(Answer::Seen(&held_by_other()));
    assert!(claimed(decision.effect).1);
    let message = "operation z-1 of Tenant fleet/old is in flight".to_owned();
    let busy = ApiError { code: ErrorCode::Busy, field: None, message };
    let decision = world.decide(Answer::Refused(&busy));
    assert_eq!((world.phase(), decision.requeue.as_secs()), (Phase::Planning, 5));
    assert!(world.message().contains("operation z-1 of Tenant fleet/old"), "{}", world.message());
    let decision = world.decide(Answer::Seen(&held_by_other()));
    assert!(claimed(decision.effect).1, "it is tried again");
}

#[test]
fn a_claim_that_nobody_else_has_is_echoed_and_nothing_is_done() {
    let mut world = World::deployed("v1");
    world.subject.claim = Some("1".to_owned());
    assert_eq!(world.decide(Answer::Seen(&running())).effect, None);
    assert_eq!(world.status.handled.as_ref().unwrap().claim.as_deref(), Some("1"));
}
