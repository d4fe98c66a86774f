use super::world::*;
use crate::decide::{Answer, Unreached};
use crate::target::{Refusal, RefusalReason};
use rstest::rstest;
use tenantry_api::tenant::Approach;
use tenantry_api::tenant_status::{Outcome, Phase};
use tenantry_protocol::{
    ApiError, ErrorCode, FileObservation, FileState, ForeignContainer, LineCounts, Observation,
    OperationPhase,
};

#[test]
fn a_new_tag_is_submitted_with_its_id_and_epoch_in_status() {
    let mut world = World::deployed("v1");
    world.want("v2");
    let observation = Observation { epoch: 7, ..running() };
    let decision = world.decide(Answer::Seen(&observation));
    let submission = submitted(decision.effect);
    let upgrade = world.status.upgrade.as_ref().unwrap();
    assert_eq!((submission.terms.epoch, upgrade.epoch, upgrade.outcome), (8, 8, None));
    assert_eq!(upgrade.id, submission.id.as_str());
    assert_eq!((upgrade.from.as_deref(), upgrade.to.as_str(), upgrade.attempt), (Some("v1"), "v2", 1));
    assert_eq!((world.phase(), world.truths()), (Phase::Planning, ["False", "True", "False"]));
    assert_eq!(submission.terms.approach, Approach::ImageOnly);
    assert!(!submission.again);
}

#[test]
fn an_agent_that_makes_no_such_probes_is_not_asked_to() {
    let mut world = World::deployed("v1");
    let mut wanted = spec("v2");
    wanted["upgrade"] = serde_json::json!({"verify": {"http": [{"url": "http://localhost:1/"}]}});
    world.desired = Ok(desired(wanted.clone()));
    world.subject.only_http_probes = true;
    submitted(world.decide(Answer::Seen(&running())).effect);

    let mut world = World::deployed("v1");
    wanted["upgrade"]["verify"]["tcp"] = serde_json::json!([{"address": "localhost:5432"}]);
    world.desired = Ok(desired(wanted));
    world.subject.only_http_probes = true;
    assert_eq!(world.decide(Answer::Seen(&running())).effect, None);
    assert_eq!((world.phase(), world.reason()), (Phase::Refused, "RequestRefused"));
    assert!(world.message().contains("install a tenantry-agent"), "{}", world.message());
    world.subject.only_http_probes = false;
    submitted(world.decide(Answer::Seen(&running())).effect);
}

#[test]
fn p2_the_epoch_is_above_all_that_status_and_host_have_seen() {
    for (known, host, expected) in [(3, 9, 10), (9, 3, 10), (0, 0, 1)] {
        let mut world = World::deployed("v1");
        world.want("v2");
        if known > 0 {
            world.want("v0");
            world.decide(Answer::Seen(&running()));
            let upgrade = world.status.upgrade.as_mut().unwrap();
            (upgrade.epoch, upgrade.outcome) = (known, Some(Outcome::Succeeded));
            world.want("v2");
        }
        let observation = Observation { epoch: host, ..running() };
        assert_eq!(submitted(world.decide(Answer::Seen(&observation)).effect).terms.epoch, expected);
    }
}

#[rstest]
#[case::auto_without_changes("Auto", FileState::Same, Approach::ImageOnly)]
#[case::auto_with_changes("Auto", FileState::Differs, Approach::Release)]
#[case::auto_with_a_new_mode("Auto", FileState::Attributes, Approach::Release)]
#[case::release_without_changes("Release", FileState::Same, Approach::Release)]
#[case::image_only_without_changes("ImageOnly", FileState::Same, Approach::ImageOnly)]
fn the_approach_is_chosen_by_what_changes(
    #[case] asked: &str,
    #[case] state: FileState,
    #[case] chosen: Approach,
) {
    let mut world = bundled("v2", asked);
    world.status = World::deployed("v1").status;
    let mut observation = running();
    observation.files.push(file("docker-compose.yml", state));
    // A managed .env does not count.
    observation.files.push(file(".env", FileState::Differs));
    let decision = world.decide(Answer::Seen(&observation));
    assert_eq!(submitted(decision.effect).terms.approach, chosen);
    assert_eq!(world.status.plan.as_ref().unwrap().approach, chosen);
}

#[test]
fn a_file_that_the_release_no_longer_has_needs_a_release() {
    let mut world = bundled("v2", "Auto");
    world.status = World::deployed("v1").status;
    let mut observation = running();
    observation.leftover_files.push(file("old.conf", FileState::Differs));
    let decision = world.decide(Answer::Seen(&observation));
    assert_eq!(submitted(decision.effect).terms.approach, Approach::Release);
    assert_eq!(world.status.plan.as_ref().unwrap().files.deleted, 1);
}

#[rstest]
#[case::files_would_change(
    |o: &mut Observation| o.files.push(file("docker-compose.yml", FileState::Differs)),
    "ReleaseNeeded", "docker-compose.yml"
)]
#[case::edited_by_hand(
    |o: &mut Observation| {
        let mut edited = file("nginx.conf", FileState::Differs);
        edited.hand_edited = true;
        o.files.push(edited);
    },
    "HandEdited", "nginx.conf"
)]
#[case::an_edit_of_which_the_lines_are_counted(
    |o: &mut Observation| o.files.push(FileObservation {
        hand_edited: true,
        lines: Some(LineCounts { added: 3, removed: 1 }),
        ..file("nginx.conf", FileState::Differs)
    }),
    "HandEdited", "nginx.conf (+3 -1 lines against the bundle)"
)]
#[case::something_else_is_there(
    |o: &mut Observation| o.files.push(file("a", FileState::Blocked { found: "a symlink".to_owned() })),
    "PathRefused", "a (a symlink)"
)]
#[case::made_from_elsewhere(
    |o: &mut Observation| o.foreign_containers.push(ForeignContainer { name: "web-1".to_owned(), directory: "/x".to_owned() }),
    "PathRefused", "web-1"
)]
fn what_the_host_forbids_is_refused_before_anything_is_begun(
    #[case] change: fn(&mut Observation),
    #[case] reason: &str,
    #[case] named: &str,
) {
    let mut world = bundled("v2", "ImageOnly");
    world.status = World::deployed("v1").status;
    let mut observation = running();
    change(&mut observation);
    let decision = world.decide(Answer::Seen(&observation));
    assert_eq!((world.phase(), world.reason(), decision.effect), (Phase::Refused, reason, None));
    assert!(world.message().contains(named), "{}", world.message());
    assert!(world.status.blocked_target.is_none());
    assert_eq!(world.truths(), ["False", "False", "True"]);
}

#[test]
fn a_refusal_is_said_once_and_ends_when_its_cause_does() {
    let mut world = World::deployed("v1");
    let good = world.desired.clone();
    world.desired =
        Err(Refusal::new(RefusalReason::BundleMissing, "spec.bundle: there is no TemplateBundle x."));
    let first = world.decide(Answer::NotAsked);
    assert_eq!((world.reason(), first.events.len()), ("BundleMissing", 1));
    let second = world.decide(Answer::NotAsked);
    assert!(second.events.is_empty());
    world.desired = good;
    world.decide(Answer::Seen(&running()));
    assert_eq!(world.phase(), Phase::Ready);
}

#[test]
fn an_unreachable_host_is_unknown_since_when_and_why() {
    let mut world = World::deployed("v1");
    world.decide(Answer::Seen(&running()));
    world.now += 60;
    let first =
        world.decide(Answer::Unreached(Unreached::NoAnswer, "agent n5 at 10.0.0.5:7443: connection refused"));
    assert_eq!((world.phase(), world.truths()), (Phase::HostUnreachable, ["Unknown", "True", "False"]));
    assert!(world.message().contains("connection refused"));
    assert!(world.message().contains("since 2027-01-15T08:01:00Z"), "{}", world.message());
    let said = world.status.clone();
    world.now += 600;
    let later =
        world.decide(Answer::Unreached(Unreached::NoAnswer, "agent n5 at 10.0.0.5:7443: connection refused"));
    assert_eq!(world.status, said, "an outage is written once");
    assert!(first.requeue < later.requeue);
    world.decide(Answer::Seen(&running()));
    assert_eq!((world.phase(), world.truths()), (Phase::Ready, ["True", "False", "False"]));
}

#[test]
fn an_operation_that_never_reached_the_agent_is_submitted_again_under_its_id() {
    let mut world = World::deployed("v1");
    world.want("v2");
    let first = submitted(world.decide(Answer::Seen(&running())).effect);
    let status = world.status.clone();
    let again = submitted(world.decide(Answer::Unknown(&running())).effect);
    assert_eq!((again.id, again.terms.epoch, again.again), (first.id, first.terms.epoch, true));
    assert_eq!(world.status.upgrade, status.upgrade);
}

#[test]
fn an_operation_that_never_reached_the_agent_is_dropped_for_a_newer_spec() {
    let mut world = World::deployed("v1");
    world.want("v2");
    let first = submitted(world.decide(Answer::Seen(&running())).effect);
    world.want("v3");
    let second = submitted(world.decide(Answer::Unknown(&running())).effect);
    assert!(second.terms.epoch > first.terms.epoch && second.id != first.id);
    assert_eq!(world.status.upgrade.as_ref().unwrap().to, "v3");
}

#[test]
fn p2_what_may_still_arrive_is_kept_out_by_a_higher_epoch() {
    let mut world = World::deployed("v1");
    world.want("v2");
    let first = submitted(world.decide(Answer::Seen(&running())).effect);
    // The wish is taken back before the agent is known to have it: it seems to be at the target, and is applied anew.
    world.want("v1");
    let second = submitted(world.decide(Answer::Unknown(&running())).effect);
    assert!(second.terms.epoch > first.terms.epoch && second.id != first.id);
    assert_eq!((world.status.upgrade.as_ref().unwrap().to.as_str(), world.phase()), ("v1", Phase::Planning));
}

#[rstest]
#[case::while_nothing_is_to_be_done(true, Observation::clone(&running()))]
#[case::while_the_host_forbids_anything_else(false, Observation {
    files: vec![FileObservation { hand_edited: true, ..file("a.conf", FileState::Differs) }],
    ..running()
})]
fn p2_what_may_still_arrive_stays_named(#[case] suspend: bool, #[case] seen: Observation) {
    let mut world = World::deployed("v1");
    world.want("v2");
    let first = submitted(world.decide(Answer::Seen(&running())).effect);
    world.want("v3");
    world.subject.suspend = suspend;
    assert_eq!(world.decide(Answer::Unknown(&seen)).effect, None);
    let named = world.status.upgrade.clone().unwrap();
    assert_eq!((named.id.as_str(), named.outcome), (first.id.as_str(), None));
    // Should it arrive after all, it is followed.
    let status = operation(&world, 3, &[OperationPhase::Pull]);
    world.decide(Answer::Followed(&status, None));
    assert_eq!(world.phase(), Phase::Pulling);
}

#[test]
fn a_host_that_has_seen_a_higher_epoch_gets_a_higher_one() {
    let mut world = World::deployed("v1");
    world.want("v2");
    world.decide(Answer::Seen(&running()));
    let stale =
        ApiError { code: ErrorCode::StaleEpoch, field: None, message: "epoch 1 is below 5".to_owned() };
    let decision = world.decide(Answer::NotBegun(&stale));
    assert!(decision.requeue.is_zero() && decision.effect.is_none());
    let observation = Observation { epoch: 5, ..running() };
    assert_eq!(submitted(world.decide(Answer::Seen(&observation)).effect).terms.epoch, 6);
}

#[test]
fn p4_what_the_agent_refuses_is_not_asked_again_and_again() {
    let mut world = World::deployed("v1");
    world.want("v2");
    world.decide(Answer::Seen(&running()));
    let error = ApiError { code: ErrorCode::PolicyRefused, field: None, message: "not allowed".to_owned() };
    world.decide(Answer::NotBegun(&error));
    assert_eq!(world.phase(), Phase::Aborted);
    for _ in 0..3 {
        world.now += 60;
        assert_eq!(world.decide(Answer::Seen(&running())).effect, None);
        assert_eq!(world.phase(), Phase::Aborted);
    }
    assert!(world.message().contains("not allowed") && world.message().contains("tenantry.dev/retry"));
}

#[test]
fn a_busy_host_is_waited_for() {
    let mut world = World::deployed("v1");
    world.want("v2");
    world.decide(Answer::Seen(&running()));
    let error = ApiError { code: ErrorCode::Overloaded, field: None, message: "4 operations run".to_owned() };
    let decision = world.decide(Answer::NotBegun(&error));
    assert!(decision.requeue.as_secs() <= 5);
    assert!(world.status.upgrade.as_ref().unwrap().outcome.is_none());
    assert!(world.message().contains("4 operations run"));
}
