//! What holds whatever was seen and whatever status said before.

use super::world::*;
use crate::decide::{Answer, Decision, Effect, Unreached, truths};
use jiff::Timestamp;
use proptest::prelude::*;
use tenantry_api::conditions::{READY, RECONCILING, STALLED, Truth, find};
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::{
    ApiError, ClaimState, ErrorCode, FileState, Observation, OperationPhase as P, ResolveResponse,
    ResolvedReference,
};

/// One thing that can happen to a Tenant.
#[derive(Clone, Debug)]
enum Happening {
    Want(u8),
    Retry(u8),
    Reconcile(u8),
    Suspend(bool),
    Lost,
    Refused(usize),
    Seen { ill: bool, edited: bool, free: bool, epoch: u64 },
    Running(usize),
    Ended(usize),
    NeverGot,
    Later(u16),
    Deleted,
}

const CODES: [ErrorCode; 9] = [
    ErrorCode::Invalid,
    ErrorCode::PolicyRefused,
    ErrorCode::NotFound,
    ErrorCode::OperationMismatch,
    ErrorCode::Busy,
    ErrorCode::StaleEpoch,
    ErrorCode::ClaimedByOther,
    ErrorCode::Overloaded,
    ErrorCode::HostFault,
];
const PHASES: [P; 7] = [P::Preflight, P::Pull, P::Write, P::Start, P::Verify, P::Rollback, P::Finish];
const OUTCOMES: [Outcome; 5] =
    [Outcome::Succeeded, Outcome::Aborted, Outcome::RolledBack, Outcome::Held, Outcome::RollbackFailed];

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (1_u8..5).prop_map(Happening::Want),
        any::<u8>().prop_map(Happening::Retry),
        any::<u8>().prop_map(Happening::Reconcile),
        any::<bool>().prop_map(Happening::Suspend),
        Just(Happening::Lost),
        (0..CODES.len()).prop_map(Happening::Refused),
        (any::<bool>(), any::<bool>(), any::<bool>(), 0_u64..20)
            .prop_map(|(ill, edited, free, epoch)| Happening::Seen { ill, edited, free, epoch }),
        (0..PHASES.len()).prop_map(Happening::Running),
        (0..OUTCOMES.len()).prop_map(Happening::Ended),
        Just(Happening::NeverGot),
        (1_u16..400).prop_map(Happening::Later),
        Just(Happening::Deleted),
    ]
}

fn observation(ill: bool, edited: bool, free: bool, epoch: u64) -> Observation {
    let mut seen = Observation { epoch, ..running() };
    if ill {
        seen.health.problems.push("web is unhealthy".to_owned());
    }
    if edited {
        let mut changed = file("a.conf", FileState::Differs);
        changed.hand_edited = true;
        seen.files.push(changed);
    }
    if free {
        seen.claim = ClaimState::Free;
    }
    seen
}

fn digests(references: Vec<String>, which: u64) -> ResolveResponse {
    let digest = match which % 3 {
        0 => None,
        other => Some(format!("sha256:d{other}")),
    };
    let found = |reference| ResolvedReference { reference, digest: digest.clone(), problem: None };
    ResolveResponse { references: references.into_iter().map(found).collect() }
}

fn in_flight(world: &World) -> bool {
    world.status.upgrade.as_ref().is_some_and(|upgrade| upgrade.outcome.is_none())
}

fn step(world: &mut World, happening: &Happening) -> Option<Decision> {
    let error;
    let seen;
    match happening {
        Happening::Want(tag) => {
            world.want(&format!("v{tag}"));
            return None;
        }
        Happening::Retry(value) => {
            world.subject.retry = Some(value.to_string());
            return None;
        }
        Happening::Reconcile(value) => {
            world.subject.reconcile = Some(value.to_string());
            return None;
        }
        Happening::Suspend(suspend) => {
            world.subject.suspend = *suspend;
            return None;
        }
        Happening::Later(seconds) => {
            world.now += i64::from(*seconds);
            return None;
        }
        Happening::Deleted => {
            world.subject.deleted_at = Some(Timestamp::from_second(world.now).unwrap());
            return None;
        }
        Happening::Lost => return Some(world.decide(Answer::Unreached(Unreached::Timeout, "no answer"))),
        Happening::Refused(code) => {
            error = ApiError { code: CODES[*code], field: None, message: "refused".to_owned() };
            let answer = if in_flight(world) { Answer::NotBegun(&error) } else { Answer::Refused(&error) };
            return Some(world.decide(answer));
        }
        Happening::Seen { ill, edited, free, epoch } => {
            seen = observation(*ill, *edited, *free, *epoch);
            if in_flight(world) {
                return Some(world.decide(Answer::NotAsked));
            }
            // A registry is asked in the middle of a pass: what was decided before its answer is not written.
            if let Some(Effect::Resolve { references }) = world.try_decide(Answer::Seen(&seen)).effect {
                world.resolved = Some(digests(references, *epoch));
            }
            let decision = world.decide(Answer::Seen(&seen));
            world.resolved = None;
            return Some(decision);
        }
        Happening::NeverGot if in_flight(world) => {
            seen = observation(false, false, false, 1);
            return Some(world.decide(Answer::Unknown(&seen)));
        }
        Happening::Running(phase) if in_flight(world) => {
            let status = operation(world, 3, &[PHASES[*phase]]);
            return Some(world.decide(Answer::Followed(&status, None)));
        }
        Happening::Ended(outcome) if in_flight(world) => {
            let status = ended(world, OUTCOMES[*outcome]);
            seen = running();
            return Some(world.decide(Answer::Followed(&status, Some(&seen))));
        }
        Happening::NeverGot | Happening::Running(_) | Happening::Ended(_) => {}
    }
    None
}

fn check_conditions(world: &World) -> Result<(), TestCaseError> {
    let status = &world.status;
    for condition in &status.conditions {
        prop_assert_eq!(condition.observed_generation, Some(world.subject.generation), "{:?}", condition);
        prop_assert!(!condition.reason.is_empty() && condition.message.len() <= 2_048);
    }
    let Some(phase) = status.phase else { return Ok(()) };
    let is = |kind| find(&status.conditions, kind).map(|condition| Truth::parse(&condition.status));
    let (ready, reconciling, stalled) = truths(phase);
    if let Some(ready) = ready {
        prop_assert_eq!(is(READY), Some(ready));
    }
    prop_assert_eq!(is(RECONCILING), Some(Truth::from(reconciling)));
    prop_assert_eq!(is(STALLED), Some(Truth::from(stalled)));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn p14_p4_p2_hold_over_any_history(story in prop::collection::vec(happening(), 1..60)) {
        let mut world = World::deployed("v1");
        world.decide(Answer::NotAsked);
        let mut highest = 0;
        for happening in &story {
            let before = world.status.clone();
            let flew = in_flight(&world);
            let Some(decision) = step(&mut world, happening) else { continue };
            // Deletion tells the Tenant's end, not its conditions.
            if world.subject.deleted_at.is_none() {
                check_conditions(&world)?;
            }
            let blocked = before.blocked_target.as_ref().map(|blocked| blocked.target_hash.clone());
            if let Some(Effect::Submit(submission)) = &decision.effect {
                prop_assert!(world.subject.deleted_at.is_none(), "begun for a deleted Tenant");
                prop_assert!(!world.subject.suspend, "begun while suspended");
                let retried = before.handled != decision.status.handled;
                prop_assert!(retried || blocked.as_ref() != Some(&submission.terms.target_hash), "P4: a blocked target");
                let upgrade = world.status.upgrade.as_ref().unwrap();
                prop_assert_eq!(&upgrade.id, submission.id.as_str());
                if submission.again {
                    prop_assert_eq!(submission.terms.epoch, highest, "P2: the same operation under another epoch");
                } else {
                    prop_assert!(submission.terms.epoch > highest, "P2: epochs only rise");
                    highest = submission.terms.epoch;
                }
            }
            if flew && in_flight(&world) && matches!(happening, Happening::Running(_) | Happening::Lost) {
                let id = |status: &tenantry_api::TenantStatus| status.upgrade.as_ref().map(|upgrade| upgrade.id.clone());
                prop_assert_eq!(id(&before), id(&world.status), "an operation in flight was replaced");
            }
            let succeeded = matches!(happening, Happening::Ended(0));
            if before.deployed != world.status.deployed {
                prop_assert!(succeeded, "P16: deployed without having been seen");
            }
            prop_assert!(world.status.history.len() <= 10);
        }
    }

    #[test]
    fn p15_the_same_facts_decide_the_same_and_a_second_look_writes_nothing(
        ill in any::<bool>(), edited in any::<bool>(), tag in 1_u8..3,
    ) {
        let mut world = World::deployed("v1");
        world.want(&format!("v{tag}"));
        let seen = observation(ill, edited, false, 3);
        prop_assert_eq!(world.try_decide(Answer::Seen(&seen)), world.try_decide(Answer::Seen(&seen)));
        if world.decide(Answer::Seen(&seen)).effect.is_none() {
            prop_assert_eq!(&world.try_decide(Answer::Seen(&seen)).status, &world.status);
        }
    }
}
