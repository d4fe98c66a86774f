use super::world::*;
use crate::decide::{Answer, Effect, Submission, further_back};
use crate::target::{Refusal, RefusalReason};
use jiff::Timestamp;
use rstest::rstest;
use tenantry_api::names::OperationId;
use tenantry_api::tenant_status::{HistoryEntry, Outcome, Phase};
use tenantry_protocol::{
    Action, ApiError, ErrorCode, Observation, OperationPhase as P, OperationStatus, ReleaseLabel,
    RestorePointBrief,
};

fn point(id: &str, tag: &str) -> RestorePointBrief {
    RestorePointBrief {
        id: OperationId::parse(id).unwrap(),
        at: Timestamp::from_second(START - 3_600).unwrap(),
        release: ReleaseLabel {
            image_tag: tag.to_owned(),
            bundle_revision: Some(format!("sha256:bundle-{tag}")),
            files_hash: format!("sha256:files-{tag}"),
        },
        target_hash: format!("sha256:target-{tag}"),
        data: vec!["path uploads".to_owned(), "volume db".to_owned()],
        bytes: 42,
    }
}

/// A host with two restore points, the newest first.
pub fn kept() -> Observation {
    Observation { restore_points: vec![point("op-2", "v1"), point("op-1", "v0")], ..running() }
}

/// Deployed at v2, with `value` as the annotation; decided once.
fn asked(value: &str) -> (World, Submission) {
    let mut world = World::deployed("v2");
    world.subject.rollback_to = Some(value.to_owned());
    let decision = world.decide(Answer::Seen(&kept()));
    let submission = submitted(decision.effect);
    (world, submission)
}

fn over(world: &World, outcome: Outcome) -> OperationStatus {
    let upgrade = world.status.upgrade.as_ref().unwrap();
    OperationStatus { target_hash: upgrade.target_hash.clone(), ..ended(world, outcome) }
}

#[rstest]
#[case::the_newest(",token", "op-2", false)]
#[case::the_newest_with_data(",data", "op-2", true)]
#[case::by_its_id("op-1", "op-1", false)]
#[case::with_data_and_a_token("op-1, data ,monday", "op-1", true)]
#[case::a_token_is_not_data("op-1,database", "op-1", false)]
fn a_person_goes_back_to_a_restore_point(#[case] value: &str, #[case] to: &str, #[case] data: bool) {
    let (mut world, submission) = asked(value);
    let back = submission.terms.rollback.clone().unwrap();
    assert_eq!((back.to.as_str(), back.data), (to, data));
    let tag = if to == "op-2" { "v1" } else { "v0" };
    assert_eq!(submission.terms.target_hash, format!("sha256:target-{tag}"));
    let upgrade = world.status.upgrade.clone().unwrap();
    assert_eq!((upgrade.from.as_deref(), upgrade.to.as_str()), (Some("v2"), tag));
    assert_eq!(upgrade.rollback_to.as_deref(), Some(to));
    assert_eq!(world.phase(), Phase::Planning);
    assert!(world.message().starts_with(&format!("Rolling back from v2 to {tag} (restore point {to})")));
    assert_eq!(world.status.handled.as_ref().unwrap().rollback_to.as_deref(), Some(value));
    assert_eq!(world.status.restore_points.len(), 2);

    let status = operation(&world, 3, &[P::Preflight, P::Snapshot]);
    world.decide(Answer::Followed(&status, None));
    assert_eq!((world.phase(), world.truths()), (Phase::Snapshotting, ["False", "True", "False"]));
    assert!(!world.message().contains("newer spec"), "{}", world.message());
}

#[test]
fn p16_what_was_restored_is_deployed_and_what_was_wanted_is_blocked() {
    let (mut world, _) = asked("op-2");
    let wanted = world.target().base_hash.clone();
    let status = over(&world, Outcome::Succeeded);
    let decision = world.decide(Answer::Followed(&status, Some(&kept())));
    assert_eq!(
        (world.phase(), world.truths(), decision.effect),
        (Phase::RolledBack, ["False", "False", "True"], None)
    );
    let deployed = world.status.deployed.clone().unwrap();
    assert_eq!((deployed.image_tag.as_str(), deployed.target_hash.as_str()), ("v1", "sha256:target-v1"));
    assert_eq!(deployed.bundle_revision.as_deref(), Some("sha256:bundle-v1"));
    assert_eq!(deployed.files_hash, "sha256:files-v1");
    assert_eq!(deployed.images.len(), 1);
    let blocked = world.status.blocked_target.clone().unwrap();
    assert_eq!((blocked.target_hash, blocked.outcome), (wanted, Outcome::RolledBack));
    assert!(blocked.reason.contains("rolled back by a person to v1"), "{}", blocked.reason);
    assert!(world.message().contains("rolled back by a person to v1"), "{}", world.message());
    assert!(!world.message().contains("failed"), "{}", world.message());
    assert_eq!(world.status.history[0].outcome, Outcome::Succeeded);
    assert!(world.status.history[0].message.contains("A person went back to restore point op-2"));
    // The same value asks once, and nothing brings v2 back but another target or a retry.
    let written = world.status.clone();
    for _ in 0..4 {
        world.now += 60;
        assert_eq!(world.decide(Answer::Seen(&kept())).effect, None);
    }
    assert_eq!(world.status, written);
    let mut again = World { status: world.status.clone(), ..World::deployed("v2") };
    again.subject.rollback_to = world.subject.rollback_to.clone();
    again.subject.retry = Some("now".to_owned());
    assert_eq!(submitted(again.decide(Answer::Seen(&kept())).effect).terms.rollback, None);
    world.want("v3");
    assert_eq!(submitted(world.decide(Answer::Seen(&kept())).effect).terms.rollback, None);
}

#[test]
fn what_comes_between_waits_and_is_then_tried() {
    let (mut world, _) = asked("op-2");
    world.want("v3");
    let status = operation(&world, 3, &[P::Preflight]);
    world.decide(Answer::Followed(&status, None));
    assert!(world.message().contains("(v3) waits"), "{}", world.message());
    let status = over(&world, Outcome::Succeeded);
    let decision = world.decide(Answer::Followed(&status, Some(&kept())));
    assert_eq!(world.status.deployed.as_ref().unwrap().image_tag, "v1");
    assert_eq!(submitted(decision.effect).terms.rollback, None, "v3 was wished for after the rollback");
}

#[test]
fn p9_data_that_was_restored_is_told_with_what_is_lost() {
    let since = "2027-01-15T07:00:00Z is lost";
    let (mut world, _) = asked("op-2,data");
    let mut status = over(&world, Outcome::Succeeded);
    status.data_restored = true;
    let decision = world.decide(Answer::Followed(&status, Some(&kept())));
    assert!(world.status.upgrade.as_ref().unwrap().data_restored);
    assert!(world.message().contains(since), "{}", world.message());
    assert!(world.status.history[0].message.contains(since), "{}", world.status.history[0].message);
    assert!(decision.events.iter().any(|event| event.reason == "Succeeded" && event.note.contains(since)));

    // The same for a rollback that the agent does by itself.
    let mut world = World::deployed("v1");
    world.want("v2");
    world.decide(Answer::Seen(&running()));
    let id = world.status.upgrade.as_ref().unwrap().id.clone();
    let seen = Observation { restore_points: vec![point(&id, "v1")], ..running() };
    let mut status = ended(&world, Outcome::RolledBack);
    status.data_restored = true;
    world.decide(Answer::Followed(&status, Some(&seen)));
    assert_eq!(world.phase(), Phase::RolledBack);
    for text in [world.message(), &world.status.history[0].message] {
        assert!(text.contains(since) && text.contains("did not become healthy"), "{text}");
    }
    // And where nothing was restored, nothing is said to be lost.
    let (mut world, _) = asked("op-2");
    let status = over(&world, Outcome::Succeeded);
    world.decide(Answer::Followed(&status, Some(&kept())));
    assert!(!world.message().contains("lost"), "{}", world.message());
}

#[rstest]
#[case::unknown("op-9", "op-2 (v1), op-1 (v0)")]
#[case::no_id_at_all("../x", "op-2 (v1)")]
fn a_point_that_is_not_there_is_refused_with_those_that_are(#[case] value: &str, #[case] listed: &str) {
    let mut world = World::deployed("v1");
    world.want("v2");
    world.subject.rollback_to = Some(value.to_owned());
    world.subject.reconcile = Some("1".to_owned());
    world.subject.retry = Some("1".to_owned());
    for _ in 0..3 {
        let decision = world.decide(Answer::Seen(&kept()));
        assert_eq!(decision.effect, None);
        assert_eq!((world.phase(), world.reason()), (Phase::Refused, "RestorePointMissing"));
        assert_eq!(world.truths(), ["False", "False", "True"]);
    }
    assert!(world.message().contains(listed) && world.message().contains(value), "{}", world.message());
    let handled = world.status.handled.clone().unwrap();
    assert_eq!(
        (handled.reconcile.as_deref(), handled.retry.as_deref()),
        (Some("1"), Some("1")),
        "not held up by it"
    );
    assert_eq!(world.status.blocked_target, None);
    world.subject.rollback_to = None;
    assert!(matches!(world.decide(Answer::Seen(&kept())).effect, Some(Effect::Submit(_))));
}

#[test]
fn where_nothing_can_be_gone_back_to_that_is_said() {
    let mut world = World::deployed("v1");
    world.subject.rollback_to = Some(",now".to_owned());
    world.decide(Answer::Seen(&running()));
    assert_eq!(world.reason(), "RestorePointMissing");
    assert!(world.message().contains("has none for this Tenant"), "{}", world.message());
}

#[test]
fn a_person_can_go_back_though_what_is_wanted_cannot_be_rendered() {
    let mut world = World::deployed("v2");
    let deployed = world.status.deployed.as_ref().unwrap().target_hash.clone();
    world.back = world.desired.clone().ok();
    world.desired = Err(Refusal::new(RefusalReason::RenderFailed, "TemplateBundle b: no value 'domain'."));
    world.subject.rollback_to = Some("op-2".to_owned());
    let first = submitted(world.decide(Answer::Seen(&kept())).effect);
    assert_eq!(first.terms.rollback.as_ref().unwrap().to.as_str(), "op-2");
    let upgrade = world.status.upgrade.clone().unwrap();
    assert_eq!(
        upgrade.gives_up.unwrap().target_hash,
        deployed,
        "what runs now is not to come back by itself"
    );
    // It never arrived.
    let again = submitted(world.decide(Answer::Unknown(&kept())).effect);
    assert_eq!((again.id, again.terms.rollback, again.again), (first.id, first.terms.rollback, true));
    let status = ended(&world, Outcome::Succeeded);
    world.decide(Answer::Followed(&status, None));
    assert_eq!(world.phase(), Phase::RolledBack);
    assert_eq!(world.status.blocked_target.as_ref().unwrap().target_hash, deployed);
    world.back = None;
    world.decide(Answer::NotAsked);
    assert_eq!((world.phase(), world.reason()), (Phase::Refused, "RenderFailed"));
}

#[test]
fn an_agent_that_cannot_go_back_is_not_asked_to() {
    let mut world = World::deployed("v1");
    world.subject.cannot_roll_back = true;
    world.subject.rollback_to = Some("op-2".to_owned());
    assert_eq!(world.decide(Answer::Seen(&kept())).effect, None);
    assert_eq!((world.phase(), world.reason()), (Phase::Refused, "RequestRefused"));
}

#[test]
fn it_is_not_handled_in_the_middle_of_an_operation_nor_while_suspended() {
    let mut world = World::deployed("v1");
    world.want("v2");
    world.decide(Answer::Seen(&kept()));
    world.subject.rollback_to = Some("op-2".to_owned());
    let status = operation(&world, 3, &[P::Preflight]);
    assert!(matches!(world.decide(Answer::Followed(&status, None)).effect, Some(Effect::Follow { .. })));
    let status = ended(&world, Outcome::Succeeded);
    let decision = world.decide(Answer::Followed(&status, Some(&kept())));
    assert!(submitted(decision.effect).terms.rollback.is_some(), "it is begun when the other has ended");

    let mut world = World::deployed("v2");
    world.subject.suspend = true;
    world.subject.rollback_to = Some("op-2".to_owned());
    assert_eq!(world.decide(Answer::Seen(&kept())).effect, None);
    world.subject.suspend = false;
    assert!(submitted(world.decide(Answer::Seen(&kept())).effect).terms.rollback.is_some());
}

#[rstest]
#[case::held(Outcome::Held)]
#[case::rollback_failed(Outcome::RollbackFailed)]
#[case::rolled_back(Outcome::RolledBack)]
fn it_works_from_every_end_of_an_upgrade(#[case] outcome: Outcome) {
    let mut world = World::deployed("v1");
    world.want("v2");
    world.decide(Answer::Seen(&kept()));
    let status = ended(&world, outcome);
    world.decide(Answer::Followed(&status, Some(&kept())));
    world.subject.rollback_to = Some("op-2".to_owned());
    let decision = world.decide(Answer::Seen(&kept()));
    assert!(submitted(decision.effect).terms.rollback.is_some());
    let status = over(&world, Outcome::Succeeded);
    let decision = world.decide(Answer::Followed(&status, Some(&kept())));
    assert_eq!((world.phase(), decision.effect), (Phase::RolledBack, None));
    assert_eq!(world.status.deployed.as_ref().unwrap().image_tag, "v1");
}

#[rstest]
#[case(Outcome::Aborted, Phase::Ready)]
#[case(Outcome::RolledBack, Phase::Ready)]
#[case(Outcome::Held, Phase::Held)]
#[case(Outcome::RollbackFailed, Phase::RollbackFailed)]
fn p4_a_rollback_that_fails_is_told_and_not_tried_again(#[case] outcome: Outcome, #[case] phase: Phase) {
    let (mut world, _) = asked("op-2");
    let status = over(&world, outcome);
    let decision = world.decide(Answer::Followed(&status, Some(&kept())));
    assert_eq!((world.phase(), decision.effect), (phase, None));
    assert!(decision.events.iter().any(|event| event.reason == outcome.as_str()));
    assert_eq!(world.status.history[0].outcome, outcome);
    assert_eq!(world.status.deployed.as_ref().unwrap().image_tag, "v2");
    for _ in 0..4 {
        world.now += 60;
        assert_eq!(world.decide(Answer::Seen(&kept())).effect, None);
    }
    world.subject.rollback_to = Some("op-2,again".to_owned());
    assert!(submitted(world.decide(Answer::Seen(&kept())).effect).terms.rollback.is_some());
}

#[test]
fn p16_after_a_hold_a_rollback_that_was_not_begun_does_not_make_the_old_release_ready() {
    let mut world = World::deployed("v1");
    world.want("v2");
    world.decide(Answer::Seen(&kept()));
    let status = ended(&world, Outcome::Held);
    world.decide(Answer::Followed(&status, Some(&kept())));
    world.subject.rollback_to = Some("op-2".to_owned());
    world.decide(Answer::Seen(&kept()));
    assert_eq!(world.status.upgrade.as_ref().unwrap().from.as_deref(), Some("v2"), "v2 is what runs");
    let status = over(&world, Outcome::Aborted);
    world.decide(Answer::Followed(&status, Some(&kept())));
    assert_eq!(world.phase(), Phase::Held);
    world.want("v1");
    let decision = world.decide(Answer::Seen(&kept()));
    assert!(matches!(decision.effect, Some(Effect::Submit(_))), "v2 runs, whatever was deployed last");
}

#[test]
fn p2_one_that_never_reached_the_agent_is_submitted_again_under_the_same_id() {
    let (mut world, first) = asked("op-1,data");
    let decision = world.decide(Answer::Unknown(&kept()));
    assert_eq!(submitted(decision.effect), Submission { again: true, ..first.clone() });
    // Another operator was there meanwhile: asked anew, under an epoch above.
    let seen = Observation { epoch: 9, ..kept() };
    let again = submitted(world.decide(Answer::Unknown(&seen)).effect);
    assert_eq!((again.terms.epoch, again.again), (10, false));
    assert_eq!(again.terms.rollback, first.terms.rollback);
    // Refused as stale: the same.
    let stale = ApiError { code: ErrorCode::StaleEpoch, field: None, message: "late".to_owned() };
    assert!(world.decide(Answer::NotBegun(&stale)).requeue.is_zero());
    let seen = Observation { epoch: 20, ..kept() };
    assert_eq!(submitted(world.decide(Answer::Seen(&seen)).effect).terms.epoch, 21);
    // The point is gone meanwhile: that is said.
    world.decide(Answer::Unknown(&running()));
    assert_eq!(world.reason(), "RestorePointMissing");
}

#[test]
fn p4_one_that_the_agent_refuses_is_not_asked_again() {
    let (mut world, _) = asked("op-2");
    let refused = ApiError { code: ErrorCode::Invalid, field: None, message: "no".to_owned() };
    world.decide(Answer::NotBegun(&refused));
    assert_eq!((world.phase(), world.reason()), (Phase::Aborted, "RequestRefused"));
    assert_eq!(world.decide(Answer::Seen(&kept())).effect, None);
    assert_eq!(world.phase(), Phase::Ready, "v2 still runs");
}

#[test]
fn p8_the_request_names_no_files_and_asks_for_nothing_but_the_point() {
    let world = bundled("v2", "Release");
    let rollback = asked("op-1,data").1.terms.rollback;
    let terms = crate::target::OperationTerms {
        epoch: 4,
        target_hash: "sha256:target-v0".to_owned(),
        approach: tenantry_api::tenant::Approach::Release,
        pinned: Vec::new(),
        checks_reach: true,
        rollback,
    };
    let request = world.target().operate_request(&terms, Vec::new());
    let to = OperationId::parse("op-1").unwrap();
    assert_eq!(request.action, Action::Rollback { to, data: true });
    assert!(request.manifest.files.is_empty() && request.contents.is_empty());
    assert_eq!(request.release.image_tag, "v0");
}

#[test]
fn a_point_of_a_project_that_was_taken_over_is_named_by_what_ran_then() {
    let mut world = World::deployed("v1");
    world.want("v2");
    world.decide(Answer::Seen(&running()));
    let id = world.status.upgrade.as_ref().unwrap().id.clone();
    let seen = Observation { restore_points: vec![point(&id, ""), point("op-1", "")], ..running() };
    let status = ended(&world, Outcome::Succeeded);
    world.decide(Answer::Followed(&status, Some(&seen)));
    let tags: Vec<_> = world.status.restore_points.iter().map(|point| point.image_tag.as_str()).collect();
    assert_eq!(tags, ["v1", "what-ran-before"]);
    world.subject.rollback_to = Some(",1".to_owned());
    let submission = submitted(world.decide(Answer::Seen(&seen)).effect);
    assert_eq!(submission.terms.rollback.unwrap().release.image_tag, "v1", "and the agent is told");
    assert_eq!(world.status.upgrade.as_ref().unwrap().to, "v1");
}

#[test]
fn p15_status_lists_at_most_twenty_points_and_each_once() {
    let mut world = World::deployed("v1");
    let mut points: Vec<_> = (0..40).map(|n| point(&format!("op-{n}"), &"x".repeat(500))).collect();
    points[1] = points[0].clone();
    points[0].data = vec!["y".repeat(5_000); 80];
    world.decide(Answer::Seen(&Observation { restore_points: points, ..running() }));
    let listed = &world.status.restore_points;
    assert_eq!((listed.len(), listed[0].id.as_str(), listed[1].id.as_str()), (19, "op-0", "op-2"));
    assert!(
        listed[0].data.len() <= 32 && listed[0].data[0].len() <= 1_040 && listed[0].image_tag.len() <= 128
    );
}

fn history(rollbacks: &[(&str, &str)]) -> Vec<HistoryEntry> {
    let entry = |(id, to): &(&str, &str)| {
        serde_json::from_value(serde_json::json!({
            "id": id, "to": "v", "rollbackTo": to, "outcome": "Succeeded",
            "startedAt": "2027-01-15T07:00:00Z", "finishedAt": "2027-01-15T07:00:00Z",
        }))
        .unwrap()
    };
    rollbacks.iter().map(entry).collect()
}

#[rstest]
#[case::after_an_upgrade_the_newest(&["u3", "u2", "u1"], &[], Some("u3"))]
#[case::after_a_rollback_what_is_older_than_where_it_led(&["r4", "u3", "u2"], &[("r4", "u3")], Some("u2"))]
#[case::after_two(&["r5", "r4", "u3", "u2", "u1"], &[("r5", "u2"), ("r4", "u3")], Some("u1"))]
#[case::over_an_earlier_rollback(&["r6", "u5", "r4", "u3", "u2"], &[("r6", "u5"), ("r4", "u3")], Some("u2"))]
#[case::where_nothing_is_older(&["r4", "u3"], &[("r4", "u3")], None)]
#[case::where_it_led_is_gone(&["r4"], &[("r4", "u3")], None)]
#[case::where_there_is_none(&[], &[], None)]
fn who_goes_back_again_goes_further_back(
    #[case] points: &[&str],
    #[case] rollbacks: &[(&str, &str)],
    #[case] to: Option<&str>,
) {
    let found = further_back(points.iter().copied(), &history(rollbacks));
    assert_eq!(found.map(|at| points[at]), to);
}

#[test]
fn what_was_adopted_and_is_gone_back_to_needs_no_upgrade_and_what_was_left_is_a_new_wish() {
    let mut world = World::deployed("v2");
    world.subject.rollback_to = Some("op-2".to_owned());
    let adopted = RestorePointBrief { target_hash: "adopted".to_owned(), ..point("op-2", "v1") };
    let seen = Observation { restore_points: vec![adopted], ..running() };
    world.decide(Answer::Seen(&seen));
    let status = over(&world, Outcome::Succeeded);
    world.decide(Answer::Followed(&status, Some(&seen)));
    assert_eq!(world.phase(), Phase::RolledBack, "v2 is still asked for, and a person left it");
    world.want("v1");
    let decision = world.decide(Answer::Seen(&seen));
    assert_eq!((world.phase(), decision.effect), (Phase::Ready, None), "{}", world.message());
    assert_eq!(world.status.deployed.as_ref().unwrap().target_hash, world.target().base_hash);
    world.want("v2");
    let decision = world.decide(Answer::Seen(&seen));
    assert!(matches!(decision.effect, Some(Effect::Submit(_))), "{}", world.message());
}
