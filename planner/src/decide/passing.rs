//! Faults that pass by themselves: a registry or a network that is away, an engine that is restarted. The same target is
//! tried again, less and less often, for an hour; then it is blocked like any other that failed.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tenantry_api::conditions::whole_seconds;
use tenantry_api::tenant_status::{Deployed, Outcome, Phase, PhaseState};
use tenantry_protocol::FailureCategory;

use super::Draft;
use super::conditions::PhaseReport;
use super::decision::Ruling;
use super::lifecycle::{End, Lifecycle, Operation, Purpose};
use super::progress;
use crate::text::sentence;

/// For how long a target is tried again.
const TRIED_FOR: SignedDuration = SignedDuration::from_hours(1);
/// The shortest pause where the failed try changed nothing: a registry that is restarted is back within seconds.
const PAUSE: SignedDuration = SignedDuration::from_secs(5);
/// The pause where the failed try was rolled back. Each such try stops what runs, so there is one more and no third.
const PAUSE_AFTER_ROLLBACK: SignedDuration = SignedDuration::from_mins(2);
/// The longest pause.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(5);

/// The next try of a target.
pub(super) struct Again {
    /// Since when it has failed.
    pub since: Time,
    /// When it is tried again.
    pub at: Time,
}

/// When the target of an operation that ended so is tried again by itself; `None` where that would not help. Pauses double:
/// each is as long as all before it together.
pub(super) fn again(
    operation: &Operation,
    outcome: Outcome,
    category: FailureCategory,
    ended: Timestamp,
) -> Option<Again> {
    if operation.purpose != Purpose::Upgrade || tenantry_faults::Bug::BlockOnPassingFault.is_seeded() {
        return None;
    }
    let shortest = shortest_pause(outcome, category)?;
    let ended = whole_seconds(ended);
    let since = operation.failing_since.as_ref().map_or(ended, |since| since.0);
    let failing = ended.duration_since(since);
    let was_tried_again = operation.failing_since.is_some();
    if failing >= TRIED_FOR || (outcome == Outcome::RolledBack && was_tried_again) {
        return None;
    }
    let pause = failing.clamp(shortest, LONGEST_PAUSE);
    let at = ended.checked_add(pause).ok()?.min(since.checked_add(TRIED_FOR).ok()?);
    Some(Again { since: Time(since), at: Time(at) })
}

/// How long is waited at least before the next try; `None` where the fault is none that passes, or a person is needed.
fn shortest_pause(outcome: Outcome, category: FailureCategory) -> Option<SignedDuration> {
    use FailureCategory::{EngineFault, RegistryUnreachable};
    match outcome {
        Outcome::Aborted => matches!(category, EngineFault | RegistryUnreachable).then_some(PAUSE),
        Outcome::RolledBack => (category == EngineFault).then_some(PAUSE_AFTER_ROLLBACK),
        Outcome::Succeeded | Outcome::Held | Outcome::RollbackFailed => None,
    }
}

/// What is said until the next try; `None` where there is none.
pub(super) fn waits(operation: &Operation, end: &End, deployed: Option<&Deployed>) -> Option<PhaseReport> {
    let at = end.retry_at.as_ref()?;
    let since = operation.failing_since.as_ref()?;
    let until = since.0.checked_add(TRIED_FOR).ok()?;
    let failed = operation.phases.iter().rev().find(|phase| phase.state == PhaseState::Failed);
    let why = failed.and_then(|phase| phase.message.as_deref()).unwrap_or("the agent gives no cause");
    let stays = match (end.outcome, deployed) {
        (Outcome::RolledBack, Some(deployed)) => format!(" {} was restored.", deployed.image_tag),
        (Outcome::Aborted, _) => " Nothing was changed.".to_owned(),
        _ => String::new(),
    };
    let then = match end.outcome {
        Outcome::RolledBack => String::new(),
        _ => format!(", and then less and less often until {until}"),
    };
    let message = format!(
        "{} failed, at first at {}, for a fault that may pass: {}{stays} It is tried again by itself at {}{then}.",
        progress::what(operation),
        since.0,
        sentence(why),
        at.0
    );
    Some(PhaseReport::with_reason(Phase::Planning, end.category.as_deref().unwrap_or("Planning"), message))
}

impl Draft<'_> {
    /// Ends the pass where this target is tried again, but not yet.
    pub(super) fn waits_for_next_try(&self, target: &str) -> Option<Ruling> {
        let Lifecycle::Ended(operation, end) = &self.lifecycle else { return None };
        let report = waits(operation, end, self.next.deployed.as_ref())?;
        let left = end.retry_at.as_ref()?.0.duration_since(self.facts.now);
        let waits = operation.target_hash == target && left.is_positive();
        waits.then(|| {
            Ruling::says(report).within(Duration::from_secs(left.as_secs().max(0).unsigned_abs() + 1))
        })
    }

    /// Since when this target has failed for faults that pass, where the next try is one of them.
    pub(super) fn failing_since(&self, target: &str) -> Option<Time> {
        match &self.lifecycle {
            Lifecycle::Ended(last, End { retry_at: Some(_), .. }) if last.target_hash == target => {
                last.failing_since.clone()
            }
            Lifecycle::None | Lifecycle::InFlight(_) | Lifecycle::Ended(..) => None,
        }
    }

    /// The next try is made at once, and counts as the first.
    pub(super) fn forget_tries(&mut self) {
        if let Lifecycle::Ended(operation, end) = &mut self.lifecycle {
            operation.failing_since = None;
            end.retry_at = None;
        }
    }

    /// Another target is wanted by now: should the one before come back, it is a new wish.
    pub(super) fn forget_tries_of_others(&mut self, target: &str) {
        if self.lifecycle.operation().is_some_and(|last| last.target_hash != target) {
            self.forget_tries();
        }
    }
}
