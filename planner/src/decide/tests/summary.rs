//! What `kubectl get` shows in one short column.

use super::world::*;
use crate::decide::{Answer, Unreached};
use rstest::rstest;
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::{FailedService, FailureCategory, OperationPhase as P, OperationState};

fn summary(world: &World) -> &str {
    world.status.summary.as_deref().unwrap()
}

#[test]
fn an_upgrade_says_how_far_it_is_and_what_it_failed_of_for_as_long_as_it_is_blocked() {
    let mut world = World::deployed("v1");
    world.decide(Answer::Seen(&running()));
    assert_eq!(summary(&world), "Ready");
    world.want("v2");
    world.decide(Answer::Seen(&running()));
    assert_eq!(summary(&world), "Upgrading: Planning");
    let status = operation(&world, 3, &[P::Pull]);
    world.decide(Answer::Followed(&status, None));
    assert_eq!(summary(&world), "Upgrading: Pulling");
    let status = ended(&world, Outcome::RolledBack);
    world.decide(Answer::Followed(&status, Some(&running())));
    assert_eq!(summary(&world), "RolledBack: web unhealthy");
    for _ in 0..2 {
        world.decide(Answer::Seen(&running()));
        assert_eq!(summary(&world), "RolledBack: web unhealthy");
    }
    world.want("v1");
    world.decide(Answer::Seen(&running()));
    assert_eq!(summary(&world), "Ready");
}

#[test]
fn what_failed_first_is_named_where_the_message_begins_with_something_else() {
    let mut world = World::deployed("v1");
    world.want("v2");
    world.decide(Answer::Seen(&running()));
    let mut status = ended(&world, Outcome::RolledBack);
    if let OperationState::Ended { failure: Some(failure), .. } = &mut status.state {
        failure.message = "a container could not be started".to_owned();
        failure.category = FailureCategory::StartFailed;
        failure.services.first = vec![FailedService {
            service: "worker".to_owned(),
            during: P::Start,
            problem: "worker could not be started: no such file".to_owned(),
            log: Vec::new(),
            healthcheck: None,
        }];
    }
    world.decide(Answer::Followed(&status, Some(&running())));
    assert_eq!(summary(&world), "RolledBack: worker start fa…");
}

#[rstest]
#[case::the_host(Unreached::NoAnswer, "HostUnreachable: no answer")]
#[case::the_longest(Unreached::BadCertificate, "HostUnreachable: bad certif…")]
fn it_is_never_longer_than_its_column(#[case] why: Unreached, #[case] says: &str) {
    let mut world = World::deployed("v1");
    world.decide(Answer::Unreached(why, "x"));
    assert_eq!(summary(&world), says);
    assert!(summary(&world).chars().count() <= 30);
}

#[test]
fn a_service_that_is_not_well_and_a_suspended_release_are_named() {
    let mut world = World::deployed("v1");
    let mut ill = running();
    ill.health.problems.push("web is unhealthy".to_owned());
    world.decide(Answer::Seen(&ill));
    assert_eq!(summary(&world), "Degraded: web is unhealthy");
    world.want("v2");
    world.subject.suspend = true;
    world.decide(Answer::Seen(&running()));
    assert_eq!(summary(&world), "Suspended: not as wanted");
}
