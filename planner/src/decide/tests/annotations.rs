use super::world::*;
use crate::decide::{Answer, Effect};
use tenantry_protocol::{ResolveResponse, ResolvedReference};

fn answer(digest: Option<&str>) -> ResolveResponse {
    ResolveResponse {
        references: vec![ResolvedReference {
            reference: "app:v1".to_owned(),
            digest: digest.map(str::to_owned),
            problem: None,
        }],
    }
}

#[test]
fn a_moved_tag_is_a_new_target_when_somebody_asks() {
    let mut world = World::deployed("v1");
    world.subject.reconcile = Some("1".to_owned());
    let decision = world.try_decide(Answer::Seen(&running()));
    assert_eq!(decision.effect, Some(Effect::Resolve { references: vec!["app:v1".to_owned()] }));
    assert_eq!(decision.status.handled, None, "not handled before the registry has answered");

    world.resolved = Some(answer(Some("sha256:d2")));
    let decision = world.decide(Answer::Seen(&running()));
    let Some(Effect::Submit(submission)) = decision.effect else { panic!("{decision:?}") };
    assert_eq!(submission.terms.pinned[0].digest, "sha256:d2");
    assert_ne!(submission.terms.target_hash, world.target().base_hash);
    assert_eq!(world.status.handled.as_ref().unwrap().reconcile.as_deref(), Some("1"));
    // And the same value asks only once.
    world.resolved = None;
    let status = ended(&world, tenantry_api::tenant_status::Outcome::Succeeded);
    assert_eq!(world.decide(Answer::Followed(&status, Some(&running()))).effect, None);
    assert_eq!(world.decide(Answer::Seen(&running())).effect, None);
}

#[test]
fn a_tag_that_did_not_move_changes_nothing() {
    for found in [Some("sha256:d1"), Some("app@sha256:d1"), None] {
        let mut world = World::deployed("v1");
        world.subject.reconcile = Some("1".to_owned());
        world.resolved = Some(answer(found));
        let decision = world.decide(Answer::Seen(&running()));
        assert_eq!((decision.effect, &world.status.resolved), (None, &None), "{found:?}");
        assert_eq!(world.status.handled.as_ref().unwrap().reconcile.as_deref(), Some("1"));
    }
}

#[test]
fn an_upgrade_that_is_due_resolves_anyway() {
    let mut world = World::deployed("v1");
    world.want("v2");
    world.subject.reconcile = Some("1".to_owned());
    let decision = world.decide(Answer::Seen(&running()));
    assert!(matches!(decision.effect, Some(Effect::Submit(_))));
    assert!(world.status.handled.is_some());
}

#[test]
fn digests_that_were_found_for_another_target_are_dropped() {
    let mut world = World::deployed("v1");
    world.subject.reconcile = Some("1".to_owned());
    world.resolved = Some(answer(Some("sha256:d2")));
    world.decide(Answer::Seen(&running()));
    let status = ended(&world, tenantry_api::tenant_status::Outcome::Succeeded);
    world.decide(Answer::Followed(&status, Some(&running())));
    assert!(world.status.resolved.is_some());
    world.want("v2");
    let decision = world.decide(Answer::Seen(&running()));
    let Some(Effect::Submit(submission)) = decision.effect else { panic!("{decision:?}") };
    assert!(submission.terms.pinned.is_empty() && world.status.resolved.is_none());
}

#[test]
fn a_retry_is_echoed_even_when_nothing_is_blocked() {
    let mut world = World::deployed("v1");
    world.subject.retry = Some("x".repeat(1_000));
    let decision = world.decide(Answer::Seen(&running()));
    assert_eq!(decision.effect, None);
    assert!(world.status.handled.as_ref().unwrap().retry.as_ref().unwrap().len() <= 256);
    let again = world.try_decide(Answer::Seen(&running()));
    assert_eq!(again.status, world.status);
}

#[test]
fn a_value_that_was_taken_away_asks_anew_when_it_comes_back() {
    let mut world = blocked();
    world.subject.retry = Some("1".to_owned());
    assert!(matches!(world.decide(Answer::Seen(&running())).effect, Some(Effect::Submit(_))));
    let status = ended(&world, tenantry_api::tenant_status::Outcome::RolledBack);
    world.decide(Answer::Followed(&status, Some(&running())));
    assert_eq!(world.decide(Answer::Seen(&running())).effect, None, "the same value asks once");

    world.subject.retry = None;
    assert_eq!(world.decide(Answer::Seen(&running())).effect, None);
    let idle = world.try_decide(Answer::Seen(&running()));
    assert_eq!(idle.status, world.status, "that it is gone is noted once");
    world.subject.retry = Some("1".to_owned());
    assert!(matches!(world.decide(Answer::Seen(&running())).effect, Some(Effect::Submit(_))));
}

#[test]
fn what_going_back_is_done_with_stays_known_while_it_is_under_way() {
    let mut world = World::deployed("v2");
    let seen = super::rollback::kept();
    world.subject.rollback_to = Some("op-1,data".to_owned());
    let begun = submitted(world.decide(Answer::Seen(&seen)).effect);
    world.subject.rollback_to = None;
    let status = operation(&world, 3, &[tenantry_protocol::OperationPhase::Preflight]);
    world.decide(Answer::Followed(&status, None));
    let again = submitted(world.decide(Answer::Unknown(&seen)).effect);
    assert_eq!(again.terms.rollback, begun.terms.rollback, "with the data, though the annotation is gone");
    let status = ended(&world, tenantry_api::tenant_status::Outcome::Succeeded);
    world.decide(Answer::Followed(&status, Some(&seen)));
    assert_eq!(world.status.handled.as_ref().unwrap().rollback_to.as_deref(), Some(""));
}

fn blocked() -> World {
    let mut world = World::deployed("v1");
    world.want("v2");
    world.decide(Answer::Seen(&running()));
    let status = ended(&world, tenantry_api::tenant_status::Outcome::RolledBack);
    world.decide(Answer::Followed(&status, Some(&running())));
    world
}

#[test]
fn p14_a_target_that_is_not_deployed_is_not_ready_before_the_host_is_asked() {
    let mut world = World::deployed("v1");
    world.decide(Answer::Seen(&running()));
    assert_eq!(world.decide(Answer::NotAsked).effect, None);
    assert_eq!(world.truths(), ["True", "False", "False"], "nothing has changed");
    world.want("v2");
    world.target_mut().bundle_revision = Some("sha256:2".to_owned());
    assert_eq!(world.decide(Answer::NotAsked).effect, None);
    assert_eq!(world.truths(), ["False", "True", "False"]);
    assert_eq!(world.status.observed_bundle_revision.as_deref(), Some("sha256:2"));
}

#[test]
fn each_end_is_told_under_its_own_operation() {
    let mut world = World::deployed("v1");
    world.want("v2");
    world.decide(Answer::Seen(&running()));
    let first = world.status.upgrade.as_ref().unwrap().id.clone();
    let status = operation(&world, 3, &[tenantry_protocol::OperationPhase::Verify]);
    world.decide(Answer::Followed(&status, None));
    world.want("v3");
    let status = ended(&world, tenantry_api::tenant_status::Outcome::Succeeded);
    let decision = world.decide(Answer::Followed(&status, Some(&running())));
    let second = world.status.upgrade.as_ref().unwrap().id.clone();
    let told: Vec<_> = decision.events.iter().map(|event| (event.reason, event.action())).collect();
    assert_eq!(told, [("Succeeded", first), ("Planning", second)]);
}
