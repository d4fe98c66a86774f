//! Which step comes next: forward while all goes well, and the ways back.

use tenantry_api::tenant::{Consistency, RollbackData};
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::{Action, Failure};

use super::Step;
use super::state::{JournalState, Next};
use crate::text::sentence;

/// Every step of the way forward, in order.
const FORWARD: [Step; 14] = [
    Step::Preflight,
    Step::Pull,
    Step::Quiesce,
    Step::Snapshot,
    Step::Unquiesce,
    Step::Write,
    Step::StopForChosen,
    Step::RestoreChosen,
    Step::RetagImages,
    Step::Start,
    Step::Refresh,
    Step::HandOver,
    Step::Verify,
    Step::Finish,
];

/// Every step of the way back to the previous release, in order.
const BACK: [Step; 10] = [
    Step::RestoreFiles,
    Step::RemoveCreated,
    Step::StopForData,
    Step::RestoreData,
    Step::RestoreImages,
    Step::StartPrevious,
    Step::RefreshPrevious,
    Step::HandBack,
    Step::VerifyPrevious,
    Step::Discard,
];

impl JournalState {
    pub(super) fn forward(&self) -> Next {
        let open = self.first_open(FORWARD.into_iter().filter(|step| self.is_wanted(*step)));
        open.map_or(Next::End(Outcome::Succeeded, None), Next::Do)
    }

    /// Whether there is anything to do in a step of the way forward.
    fn is_wanted(&self, step: Step) -> bool {
        match step {
            Step::Pull => !self.goes_back() && !tenantry_faults::Bug::StopBeforePull.is_seeded(),
            Step::Quiesce => self.quiesces(),
            Step::Unquiesce => self.quiesces() && self.consistency() == Some(Consistency::Pause),
            Step::Write => self.plan().is_some_and(|plan| plan.writes),
            Step::StopForChosen | Step::RestoreChosen => {
                matches!(self.action(), Action::Rollback { data: true, .. })
            }
            Step::HandOver => self.is_inside(),
            _ => true,
        }
    }

    pub(super) fn backward(&self, failed: Step, failure: &Failure) -> Next {
        let end = |outcome| Next::End(outcome, Some(failure.clone()));
        if let Some(second) = self.rollback_failure() {
            return Next::End(Outcome::RollbackFailed, Some(both(failure, second)));
        }
        let (steps, outcome) = match failed {
            Step::Preflight | Step::Pull => (vec![Step::Discard], Outcome::Aborted),
            Step::Quiesce | Step::Snapshot | Step::Unquiesce => revival(self.quiesces()),
            Step::Write => self.unwritten(),
            Step::Start | Step::Refresh | Step::Verify if self.holds() => (vec![Step::Hold], Outcome::Held),
            // The release was seen healthy: it stays, with its restore point, until a person has looked.
            Step::Finish => (Vec::new(), Outcome::Held),
            _ => (self.rollback(self.restores_data(failed)), Outcome::RolledBack),
        };
        self.first_open(steps).map_or_else(|| end(outcome), Next::Do)
    }

    /// Write failed: before its moment nothing was changed, after it all of it is put back.
    fn unwritten(&self) -> (Vec<Step>, Outcome) {
        let stopped = self.quiesces() && self.consistency() == Some(Consistency::Stop);
        if self.touched() && stopped {
            return (self.rollback(false), Outcome::RolledBack);
        }
        let (rest, aborted) = revival(stopped);
        let steps = [Step::RestoreFiles].into_iter().chain(rest).collect();
        (steps, if self.touched() { Outcome::RolledBack } else { aborted })
    }

    fn rollback(&self, data: bool) -> Vec<Step> {
        let first = self.plan().is_some_and(|plan| plan.first);
        let wanted = |step: &Step| match step {
            Step::RemoveCreated => first,
            Step::StopForData | Step::RestoreData => data,
            Step::HandBack => self.is_inside() && !first,
            Step::StartPrevious | Step::RefreshPrevious | Step::VerifyPrevious => !first,
            _ => true,
        };
        BACK.into_iter().filter(wanted).collect()
    }

    /// Whether the way back restores data. Until this operation has begun to put older data in place, or to start a
    /// release that writes, the data is as the previous release left it.
    fn restores_data(&self, failed: Step) -> bool {
        let started = matches!(failed, Step::Start | Step::Refresh | Step::HandOver | Step::Verify);
        self.plan().is_some_and(|plan| plan.data.is_some())
            && match self.action() {
                Action::Upgrade => self.rollback_data() == RollbackData::Always && started,
                Action::Rollback { data, .. } => {
                    *data && (started || matches!(failed, Step::RestoreChosen | Step::RetagImages))
                }
            }
    }

    fn goes_back(&self) -> bool {
        matches!(self.action(), Action::Rollback { .. })
    }

    fn quiesces(&self) -> bool {
        self.plan().and_then(|plan| plan.data.as_ref()).is_some_and(super::DataPlan::quiesces)
    }

    fn consistency(&self) -> Option<Consistency> {
        self.plan().and_then(|plan| plan.data.as_ref()).map(|data| data.consistency)
    }

    fn is_inside(&self) -> bool {
        self.plan().is_some_and(|plan| plan.inside.is_some())
    }

    fn first_open(&self, order: impl IntoIterator<Item = Step>) -> Option<Step> {
        order.into_iter().find(|step| !self.was_done(*step))
    }
}

/// Nothing was changed; what was stopped or paused for the snapshot goes on. That nothing happened is claimed only
/// once it was seen to run again (P8).
fn revival(quiesced: bool) -> (Vec<Step>, Outcome) {
    let mut steps = if quiesced { vec![Step::Revive, Step::VerifyRevived] } else { Vec::new() };
    steps.push(Step::Discard);
    (steps, Outcome::Aborted)
}

/// What failed first, with what failed in going back.
fn both(first: &Failure, second: &Failure) -> Failure {
    let message =
        format!("{} The rollback then failed: {}", sentence(&first.message), sentence(&second.message));
    let mut services = first.services.clone();
    services.first.extend(second.services.first.iter().cloned());
    services.more = services.more.saturating_add(second.services.more);
    let policy = first.policy.clone().or_else(|| second.policy.clone());
    Failure { message, services, policy, ..first.clone() }
}
