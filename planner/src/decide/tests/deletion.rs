use super::world::*;
use crate::decide::{Answer, Effect, Finalizer, ORPHAN_AFTER, Unreached};
use jiff::Timestamp;
use tenantry_api::conditions::{DELETING, find};
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::{ApiError, ErrorCode, OperationPhase};

fn deleted(mut world: World) -> World {
    world.subject.deleted_at = Some(Timestamp::from_second(world.now).unwrap());
    world
}

#[test]
fn a_deleted_tenant_gives_its_claim_back_and_touches_nothing_else() {
    let mut world = deleted(World::deployed("v1"));
    let decision = world.decide(Answer::NotAsked);
    assert_eq!((decision.effect, decision.finalizer), (Some(Effect::Release), Finalizer::Remove));
    let told = &decision.events.last().unwrap();
    assert_eq!(told.reason, "Released");
    assert!(told.note.contains("What runs there was left as it is"), "{}", told.note);
}

#[test]
fn what_a_deleted_tenant_waits_for_is_said_once_with_until_when_and_what_to_do() {
    let mut world = deleted(World::deployed("v1"));
    let lost = Answer::Unreached(Unreached::NoAnswer, "connection refused");
    let decision = world.decide(lost);
    let deleting = find(&world.status.conditions, DELETING).unwrap().clone();
    let until = Timestamp::from_second(world.now).unwrap() + ORPHAN_AFTER;
    assert_eq!((deleting.status.as_str(), deleting.reason.as_str()), ("True", "WaitsForHost"));
    for part in [&until.to_string(), "tenantry.dev/orphan=true", "Its containers go on running"] {
        assert!(deleting.message.contains(part), "{part}: {}", deleting.message);
    }
    assert_eq!(decision.events.last().unwrap().note, deleting.message);
    assert_eq!(world.status.summary.as_deref(), Some("Deleting"));
    assert!(world.message().contains(&deleting.message) && world.message().contains("connection refused"));
    world.now += 30;
    assert_eq!(world.decide(lost).events, [], "it was told");
    world.now += i64::try_from(ORPHAN_AFTER.as_secs()).unwrap();
    let decision = world.decide(lost);
    assert_eq!((decision.events[0].reason, decision.events.len()), ("Orphaned", 1));
}

#[test]
fn an_operation_in_flight_ends_first() {
    let mut world = World::deployed("v1");
    world.want("v2");
    world.decide(Answer::Seen(&running()));
    let mut world = deleted(world);
    let status = operation(&world, 3, &[OperationPhase::Preflight]);
    let decision = world.decide(Answer::Followed(&status, None));
    assert!(matches!(decision.effect, Some(Effect::Follow { .. })));
    assert_eq!(decision.finalizer, Finalizer::Keep);
    assert!(world.message().contains("deleted when this has ended"));
    let status = ended(&world, Outcome::Succeeded);
    let decision = world.decide(Answer::Followed(&status, None));
    assert_eq!((decision.effect, decision.finalizer), (Some(Effect::Release), Finalizer::Remove));
}

#[test]
fn what_never_reached_the_agent_is_not_begun_for_a_deleted_tenant() {
    let mut world = World::deployed("v1");
    world.want("v2");
    world.decide(Answer::Seen(&running()));
    let mut world = deleted(world);
    let decision = world.decide(Answer::Unknown(&running()));
    assert_eq!((decision.effect, decision.finalizer), (Some(Effect::Release), Finalizer::Remove));
}

#[test]
fn a_host_that_does_not_answer_is_waited_for_but_not_for_ever() {
    let mut world = deleted(World::deployed("v1"));
    let lost = Answer::Unreached(Unreached::NoAnswer, "connection refused");
    let decision = world.decide(lost);
    assert_eq!((decision.effect, decision.finalizer), (None, Finalizer::Keep));
    world.now += i64::try_from(ORPHAN_AFTER.as_secs()).unwrap() - 1;
    let decision = world.decide(lost);
    assert_eq!((decision.finalizer, decision.requeue.as_secs()), (Finalizer::Keep, 1));
    world.now += 1;
    assert_eq!(world.decide(lost).finalizer, Finalizer::Abandon);
}

#[test]
fn an_orphan_goes_at_once() {
    let mut world = deleted(World::deployed("v1"));
    world.subject.orphan = true;
    let decision = world.decide(Answer::Unreached(Unreached::NoAnswer, "connection refused"));
    assert_eq!((decision.effect, decision.finalizer), (None, Finalizer::Abandon));
}

#[test]
fn a_busy_host_is_asked_again_before_the_tenant_goes() {
    let mut world = deleted(World::deployed("v1"));
    let busy =
        ApiError { code: ErrorCode::Busy, field: None, message: "an operation is in flight".to_owned() };
    assert_eq!(world.decide(Answer::Refused(&busy)).finalizer, Finalizer::Keep);
    let other = ApiError { code: ErrorCode::ClaimedByOther, field: None, message: "not yours".to_owned() };
    assert_eq!(world.decide(Answer::Refused(&other)).finalizer, Finalizer::Remove);
}

#[test]
fn without_our_finalizer_nothing_is_done() {
    let mut world = deleted(World::deployed("v1"));
    world.subject.finalizer = false;
    let decision = world.decide(Answer::NotAsked);
    assert_eq!((decision.effect, decision.finalizer), (None, Finalizer::Keep));
}
