//! `spec.suspend`: nothing is begun, and `Ready` is about the spec all the same.

use super::world::*;
use crate::decide::{Answer, Effect, Unreached};
use crate::target::{Refusal, RefusalReason};
use rstest::rstest;
use tenantry_api::names::TenantUid;
use tenantry_api::tenant_status::{Outcome, Phase};
use tenantry_protocol::{ClaimState, Observation};

fn suspended(tag: &str) -> World {
    let mut world = World::deployed("v1");
    world.decide(Answer::Seen(&running()));
    assert_eq!(world.truths(), ["True", "False", "False"]);
    if tag != "v1" {
        world.want(tag);
    }
    world.subject.suspend = true;
    world
}

fn ill() -> Observation {
    let mut seen = running();
    seen.health.problems.push("web is unhealthy".to_owned());
    seen
}

fn taken() -> Observation {
    let uid = TenantUid::parse("ff").unwrap();
    let claim = ClaimState::Other { owner: "fleet/x".to_owned(), uid, holds: "project".to_owned() };
    Observation { claim, ..running() }
}

#[rstest]
#[case::what_runs_is_what_is_wanted("v1", running(), "True")]
#[case::another_release_is_wanted("v2", running(), "False")]
#[case::a_service_is_not_well("v1", ill(), "False")]
#[case::another_tenant_has_the_place("v1", taken(), "Unknown")]
fn p14_ready_is_about_the_spec_and_what_was_seen(
    #[case] tag: &str,
    #[case] seen: Observation,
    #[case] ready: &str,
) {
    let mut world = suspended(tag);
    let decision = world.decide(Answer::Seen(&seen));
    assert_eq!((world.phase(), world.reason(), decision.effect), (Phase::Suspended, "Suspended", None));
    assert_eq!(world.truths(), [ready, "False", "False"], "{}", world.message());
    assert!(world.message().starts_with("spec.suspend is set"));
    assert_eq!(world.try_decide(Answer::Seen(&seen)).status, world.status, "a second look writes nothing");
}

#[test]
fn a_host_that_does_not_answer_is_not_known_to_be_ready() {
    let mut world = suspended("v1");
    world.decide(Answer::Unreached(Unreached::NoAnswer, "connection refused"));
    assert_eq!(world.truths(), ["Unknown", "False", "False"]);
    assert!(world.message().contains("connection refused"));
    world.decide(Answer::Seen(&running()));
    assert_eq!(world.truths(), ["True", "False", "False"]);
}

#[test]
fn a_spec_that_can_not_be_understood_is_not_known_to_run() {
    let mut world = suspended("v1");
    world.desired = Err(Refusal::new(RefusalReason::BundleMissing, "there is no TemplateBundle x."));
    world.decide(Answer::NotAsked);
    assert_eq!(world.truths(), ["Unknown", "False", "False"]);
    assert!(world.message().contains("no TemplateBundle x"));
}

#[test]
fn it_says_so_too_when_an_operation_has_just_ended() {
    for (outcome, ready) in [(Outcome::Succeeded, "True"), (Outcome::RolledBack, "False")] {
        let mut world = World::deployed("v1");
        world.want("v2");
        world.decide(Answer::Seen(&running()));
        world.subject.suspend = true;
        let status = ended(&world, outcome);
        world.decide(Answer::Followed(&status, Some(&running())));
        assert_eq!(world.truths(), [ready, "False", "False"], "{outcome:?}: {}", world.message());
    }
}

#[test]
fn it_goes_on_when_it_is_unset() {
    let mut world = suspended("v2");
    world.decide(Answer::Seen(&running()));
    assert!(world.message().contains("v2 is not deployed; v1 is."), "{}", world.message());
    world.subject.suspend = false;
    assert!(matches!(world.decide(Answer::Seen(&running())).effect, Some(Effect::Submit(_))));
}
