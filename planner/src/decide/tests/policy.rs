//! What the host's own policy does not grant.

use super::world::*;
use crate::decide::{Answer, Effect, Unreached};
use rstest::rstest;
use serde_json::json;
use tenantry_api::tenant_status::{Grant, Lacking, Outcome, Phase};
use tenantry_protocol::{
    ApiError, ClaimState, ErrorCode, FailureCategory, FileState, Observation, OperationState,
    OperationStatus, PolicyRefusal,
};

fn lacking(item: &str) -> Lacking {
    let grant = Grant {
        list: "compose".to_owned(),
        item: item.to_owned(),
        at: "services.web.volumes[0].source".to_owned(),
        means: "whoever has the engine's socket is root on the host".to_owned(),
    };
    let file = "/etc/tenantry/agent.yaml".to_owned();
    Lacking { file, grants: vec![grant], ungrantable: Vec::new(), more: 0 }
}

/// A project that asks for more than the policy of this revision grants.
fn asking(revision: &str) -> Observation {
    Observation {
        lacking: Some(lacking("DockerSocket")),
        policy_revision: Some(revision.to_owned()),
        ..running()
    }
}

/// An operation that ended because this policy refused it.
fn refused_by(world: &World, outcome: Outcome, revision: &str) -> OperationStatus {
    let mut status = ended(world, outcome);
    if let OperationState::Ended { failure: Some(failure), .. } = &mut status.state {
        failure.category = FailureCategory::PolicyRefused;
        failure.message = "it asks for more".to_owned();
        let refusal = PolicyRefusal { revision: revision.to_owned(), lacking: lacking("Privileged") };
        failure.policy = Some(Box::new(refusal));
    }
    status
}

#[test]
fn p13_what_is_lacking_is_told_whole_at_first_contact_and_taken_over_once_it_is_granted() {
    let mut world = World::new("v1");
    let seen = Observation { claim: ClaimState::Free, ..asking("policy-1") };
    let decision = world.decide(Answer::Seen(&seen));
    assert_eq!((world.phase(), decision.effect), (Phase::Refused, None));
    assert_eq!((world.reason(), world.truths()), ("PolicyRefused", ["False", "False", "True"]));
    assert_eq!(world.status.deployed, None);
    for says in [
        "--- {allow: {compose: [DockerSocket]}}",
        "/etc/tenantry/agent.yaml",
        "tenantry explain acme",
        "by itself",
        "Nothing was changed",
    ] {
        assert!(world.message().contains(says), "{says}: {}", world.message());
    }
    assert_eq!(world.status.lacking, Some(lacking("DockerSocket")));

    let granted = Observation { claim: ClaimState::Free, ..running() };
    let decision = world.decide(Answer::Seen(&granted));
    assert!(matches!(decision.effect, Some(Effect::Claim(_))));
    assert_eq!((world.phase(), &world.status.lacking), (Phase::Ready, &None));
}

#[test]
fn p13_compose_files_that_the_policy_keeps_unread_are_a_matter_of_the_policy() {
    let unread = |revision: &str| Observation {
        compose_problem: Some("this host's policy does not allow: compose.yml: include[0]".to_owned()),
        services: Vec::new(),
        ..asking(revision)
    };
    let mut world = World::new("v1");
    let decision = world.decide(Answer::Seen(&Observation { claim: ClaimState::Free, ..unread("policy-1") }));
    assert_eq!((world.phase(), world.reason(), decision.effect), (Phase::Refused, "PolicyRefused", None));
    assert!(world.message().contains("--- {allow: {compose: [DockerSocket]}}"), "{}", world.message());
    assert_eq!(world.status.lacking, Some(lacking("DockerSocket")));
    // What is not seen is not said to be well.
    let mut world = World::deployed("v1");
    world.decide(Answer::Seen(&unread("policy-2")));
    assert_eq!(world.phase(), Phase::Degraded);
    assert!(world.message().contains("policy does not allow"), "{}", world.message());
}

#[test]
fn p13_commands_that_would_verify_a_release_are_told_at_first_contact_too() {
    let mut value = spec("v1");
    value["upgrade"] = json!({"verify": {"exec": [{"service": "web", "command": ["true"]}]}});
    let mut world = World::with_spec(value);
    let mut seen = Observation { claim: ClaimState::Free, ..asking("policy-1") };
    assert_eq!(world.decide(Answer::Seen(&seen)).effect, None);
    let says = "{compose: [DockerSocket], verify: [Exec]}";
    assert!(world.message().contains(says), "{}", world.message());
    seen.lacking = None;
    world.decide(Answer::Seen(&seen));
    assert!(world.message().contains("--- {allow: {verify: [Exec]}}"), "{}", world.message());
    assert!(world.message().contains("/etc/tenantry/agent.yaml"), "{}", world.message());
    seen.granted_verifications = Some(vec!["Exec".to_owned()]);
    assert!(matches!(world.decide(Answer::Seen(&seen)).effect, Some(Effect::Claim(_))));
    // An older agent does not say; its own plan will.
    let mut world = World { status: tenantry_api::tenant_status::TenantStatus::default(), ..world };
    seen.granted_verifications = None;
    assert!(matches!(world.decide(Answer::Seen(&seen)).effect, Some(Effect::Claim(_))));
}

#[test]
fn p14_a_tenant_that_runs_keeps_running_when_its_policy_is_narrowed_and_says_what_comes() {
    let mut world = World::deployed("v1");
    let decision = world.decide(Answer::Seen(&asking("policy-2")));
    assert_eq!((world.phase(), decision.effect), (Phase::Ready, None));
    assert!(world.message().contains("more than the host's policy grants"), "{}", world.message());
    assert!(world.status.lacking.is_some());
    world.decide(Answer::Seen(&running()));
    assert!(!world.message().contains("policy") && world.status.lacking.is_none(), "{}", world.message());
}

#[rstest]
#[case::a_new_target_of_the_same_project(|_: &mut Observation| {}, false)]
#[case::a_file_that_changes(|o: &mut Observation| o.files.push(file("docker-compose.yml", FileState::Differs)), true)]
#[case::a_key_that_changes(|o: &mut Observation| o.env.keys[0].as_wanted = false, true)]
fn only_a_release_that_changes_what_compose_reads_is_judged_by_the_agent_itself(
    #[case] change: fn(&mut Observation),
    #[case] begins: bool,
) {
    let mut world = World::deployed("v1");
    let mut value = spec("v1");
    value["upgrade"] = json!({"verify": {"stableFor": "3s"}});
    value["imageTag"] = json!("v2");
    world.desired = Ok(desired(value));
    let mut seen = asking("policy-1");
    change(&mut seen);
    let decision = world.decide(Answer::Seen(&seen));
    assert_eq!(matches!(decision.effect, Some(Effect::Submit(_))), begins, "{}", world.message());
    assert_eq!(world.phase(), if begins { Phase::Planning } else { Phase::Refused });
}

#[rstest]
#[case(Outcome::Aborted, Phase::Aborted, true)]
#[case(Outcome::RolledBack, Phase::RolledBack, true)]
#[case(Outcome::Held, Phase::Held, false)]
#[case(Outcome::RollbackFailed, Phase::RollbackFailed, false)]
fn p4_a_target_that_a_policy_refused_is_tried_again_by_itself_under_another_one_and_never_before(
    #[case] outcome: Outcome,
    #[case] phase: Phase,
    #[case] again: bool,
) {
    let mut world = World::deployed("v1");
    world.want("v2");
    world.decide(Answer::Seen(&running()));
    let status = refused_by(&world, outcome, "policy-1");
    world.decide(Answer::Followed(&status, Some(&running())));
    for _ in 0..3 {
        world.now += 60;
        assert_eq!(world.decide(Answer::Seen(&running())).effect, None);
        assert_eq!(world.phase(), phase);
    }
    if again {
        assert_eq!(world.reason(), "PolicyRefused");
        assert!(
            world.message().contains("by itself") && !world.message().contains("retry"),
            "{}",
            world.message()
        );
        assert_eq!(
            world.status.lacking,
            Some(lacking("Privileged")),
            "what the release asks for, not the disk"
        );
    }
    let other = Observation { policy_revision: Some("policy-2".to_owned()), ..running() };
    let decision = world.decide(Answer::Seen(&other));
    assert_eq!(matches!(decision.effect, Some(Effect::Submit(_))), again, "{}", world.message());
    if again {
        assert_eq!(
            (world.status.lacking.as_ref(), world.status.upgrade.as_ref().unwrap().attempt),
            (None, 2)
        );
    }
}

#[test]
fn a_block_that_no_policy_caused_stays_when_the_policy_changes() {
    let mut world = World::deployed("v1");
    world.want("v2");
    world.decide(Answer::Seen(&running()));
    let status = ended(&world, Outcome::RolledBack);
    world.decide(Answer::Followed(&status, Some(&running())));
    let other = Observation { policy_revision: Some("policy-2".to_owned()), ..running() };
    assert_eq!(world.decide(Answer::Seen(&other)).effect, None);
    assert_eq!(world.phase(), Phase::RolledBack);
}

#[test]
fn whoever_is_to_overwrite_hears_at_once_what_the_policy_will_say_next() {
    let mut world = World::new("v1");
    let mut seen = Observation { claim: ClaimState::Free, ..asking("policy-1") };
    seen.image_differences.push("web was made from app:v0".to_owned());
    seen.env.keys[0].as_wanted = false;
    world.decide(Answer::Seen(&seen));
    assert_eq!(world.phase(), Phase::AdoptionNeeded);
    let says = world.message().to_owned();
    assert!(says.contains("app:v0") && says.contains("compose: [DockerSocket]"), "{says}");

    let mut world = bundled("v1", "Auto");
    seen.files.push(file("docker-compose.yml", FileState::Differs));
    world.decide(Answer::Seen(&seen));
    assert_eq!(world.phase(), Phase::AdoptionNeeded);
    assert!(!world.message().contains("DockerSocket"), "the bundle's own file may ask for less");
}

#[test]
fn p15_what_an_agent_says_of_its_policy_is_bounded_in_status() {
    let mut world = World::new("v1");
    let mut seen = asking("policy-1");
    let mut flood = lacking(&"x".repeat(100_000));
    flood.grants = vec![flood.grants[0].clone(); 1_000];
    flood.ungrantable = vec!["y".repeat(100_000); 1_000];
    seen.lacking = Some(flood);
    world.decide(Answer::Seen(&seen));
    let told = world.status.lacking.clone().unwrap();
    assert_eq!((told.grants.len(), told.ungrantable.len(), told.more), (64, 16, 1_920));
    assert!(serde_json::to_string(&told).unwrap().len() < 150_000);
}

#[test]
fn a_directory_that_is_a_link_is_refused_and_no_host_that_is_away() {
    let mut world = World::new("v1");
    let field = Some("place.directory".to_owned());
    let message = "/srv/acme is a symlink to /data/acme".to_owned();
    let error = ApiError { code: ErrorCode::Invalid, field, message };
    world.decide(Answer::Refused(&error));
    assert_eq!((world.phase(), world.reason()), (Phase::Refused, "PathRefused"));
    assert_ne!(world.reason(), Unreached::HostFault.as_str());
    assert!(world.message().contains("/data/acme"), "{}", world.message());
}
