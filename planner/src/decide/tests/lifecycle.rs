use super::world::*;
use crate::decide::Answer;
use crate::decide::lifecycle::{Block, Host, Lifecycle};
use crate::decide::outcomes::{Meaning, OUTCOMES, Retried, Runs};
use crate::decide::truths;
use rstest::rstest;
use tenantry_api::conditions::Truth;
use tenantry_api::tenant_status::{BlockedTarget, GivenUp, Outcome, TenantStatus};

/// A status whose latest operation stands as said.
fn status(outcome: Option<Outcome>, unsettled: bool, accepted: bool) -> TenantStatus {
    let mut world = World::deployed("v1");
    world.want("v2");
    world.decide(Answer::Seen(&running()));
    let mut status = world.status;
    let upgrade = status.upgrade.as_mut().unwrap();
    (upgrade.outcome, upgrade.unsettled, upgrade.accepted) = (outcome, unsettled, accepted);
    upgrade.finished_at = outcome.map(|_| upgrade.started_at.clone());
    status
}

#[test]
fn what_status_says_is_read_once_and_written_as_it_was() {
    let outcomes = OUTCOMES.into_iter().map(Some).chain([None]);
    for (outcome, bits) in outcomes.flat_map(|outcome| (0..16_u8).map(move |bits| (outcome, bits))) {
        let [unsettled, accepted, back, blocked] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
        // Nothing is accepted before it has ended.
        let mut written = status(outcome, unsettled, accepted && outcome.is_some());
        if back {
            let upgrade = written.upgrade.as_mut().unwrap();
            upgrade.rollback_to = Some("op-1".to_owned());
            upgrade.gives_up =
                Some(GivenUp { target_hash: "sha256:x".to_owned(), image_tag: "v3".to_owned() });
        }
        if blocked {
            written.blocked_target = Some(BlockedTarget {
                policy_revision: None,
                target_hash: "sha256:x".to_owned(),
                image_tag: "v3".to_owned(),
                outcome: if accepted { Outcome::Aborted } else { outcome.unwrap_or(Outcome::Held) },
                reason: "why".to_owned(),
                category: Some("Crashed".to_owned()),
                accepted,
                at: written.upgrade.as_ref().unwrap().started_at.clone(),
            });
        }
        let mut read = written.clone();
        let lifecycle = Lifecycle::take(&mut read);
        let block = Block::take(&mut read, &lifecycle);
        assert_eq!((&read.upgrade, &read.blocked_target), (&None, &None));
        read.upgrade = lifecycle.into_status();
        read.blocked_target = block.map(Block::into_status);
        assert_eq!(read, written);
    }
}

#[rstest]
#[case::in_flight(None, false, false, Host::Settled)]
#[case::in_flight_on_what_a_failed_one_left(None, true, false, Host::Unsettled)]
#[case::succeeded(Some(Outcome::Succeeded), true, false, Host::Settled)]
#[case::aborted(Some(Outcome::Aborted), false, false, Host::Settled)]
#[case::aborted_on_what_a_failed_one_left(Some(Outcome::Aborted), true, false, Host::Unsettled)]
#[case::rolled_back_to_what_a_failed_one_left(Some(Outcome::RolledBack), true, false, Host::Unsettled)]
#[case::held(Some(Outcome::Held), false, false, Host::Unsettled)]
#[case::rollback_failed(Some(Outcome::RollbackFailed), false, false, Host::Unsettled)]
#[case::accepted_by_a_person(Some(Outcome::RollbackFailed), true, true, Host::Settled)]
fn p16_the_host_is_settled_where_what_is_deployed_is_what_was_last_started(
    #[case] outcome: Option<Outcome>,
    #[case] unsettled: bool,
    #[case] accepted: bool,
    #[case] host: Host,
) {
    assert_eq!(Lifecycle::take(&mut status(outcome, unsettled, accepted)).host(), host);
}

#[test]
fn p4_whatever_is_not_tried_again_by_itself_has_stalled_and_says_what_to_do() {
    for outcome in OUTCOMES {
        let meaning = Meaning::of(outcome);
        let (ready, reconciling, stalled) = truths(meaning.phase);
        assert_eq!(stalled, meaning.blocks_target(), "{outcome:?}");
        assert_eq!((ready, reconciling), (Some(Truth::from(!stalled)), false), "{outcome:?}");
        assert_eq!(meaning.next_step.is_empty(), !stalled, "{outcome:?}");
        assert_eq!(meaning.retried == Retried::NotNeeded, meaning.runs == Runs::Target, "{outcome:?}");
    }
}
