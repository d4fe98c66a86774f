//! An operation in flight: how it stands, whether it ever began, and what of it status says.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tenantry_api::conditions::{bounded, whole_seconds};
use tenantry_api::tenant_status::{Outcome, Phase, PhaseState, PhaseStatus};
use tenantry_protocol::{ApiError, ErrorCode, Observation, OperationState, OperationStatus};

use super::conditions::PhaseReport;
use super::decision::Ruling;
use super::lifecycle::{End, Lifecycle, Operation, Purpose};
use super::progress;
use super::{Answer, Draft, Effect, Unreached};
use crate::text::sentence;

impl Draft<'_> {
    /// Decides while an operation is in flight as far as status knows.
    pub(super) fn in_flight(&mut self, operation: &Operation) -> Ruling {
        match self.facts.answer {
            Answer::Followed(seen, _) => self.follow(operation, seen),
            Answer::Unknown(observation) => self.never_begun(operation, observation),
            Answer::NotBegun(error) => self.not_begun(operation, error),
            Answer::Unreached(why, text) => self.unreached(why, text),
            // A person has to accept the host first; until then the refusal is said.
            Answer::Refused(error) if error.code == ErrorCode::RecordsDamaged => self.agent_refused(error),
            Answer::Refused(error) => self.unreached(Unreached::HostFault, &error.to_string()),
            Answer::NotAsked | Answer::Seen(_) => self.ask_again(operation, 0),
        }
    }

    /// Takes over how the operation stands.
    fn follow(&mut self, operation: &Operation, seen: &OperationStatus) -> Ruling {
        let operation = self.record_progress(operation, seen);
        match &seen.state {
            OperationState::Running => {
                let report = self.under_way(&operation, seen);
                Ruling { report: Some(report), ..self.ask_again(&operation, seen.seq) }
            }
            OperationState::Ended { outcome, failure, at } => {
                self.ended(&operation, seen, *outcome, failure.as_ref(), *at)
            }
        }
    }

    /// Asks for news of the operation in flight.
    fn ask_again(&mut self, operation: &Operation, after: u64) -> Ruling {
        let Some(id) = operation.id() else {
            self.end_unbegun(operation, "The operation's id is not one.");
            return Ruling::unchanged();
        };
        Ruling::unchanged().with(Effect::Follow { id, after })
    }

    /// The agent does not know the operation, or can't read what it knows.
    fn never_begun(&mut self, operation: &Operation, observation: &Observation) -> Ruling {
        if let Ok(desired) = self.facts.desired
            && let Some(ruling) = self.damaged(desired, observation)
        {
            return ruling;
        }
        let asked = self.handled().rollback_to;
        let desired = self.facts.desired.ok();
        let resubmitted = match &operation.purpose {
            _ if self.facts.subject.suspend => None,
            Purpose::Upgrade => desired.map(|desired| self.resubmit_upgrade(operation, desired, observation)),
            Purpose::Rollback { .. } => desired
                .or(self.facts.back)
                .map(|desired| self.resubmit_rollback(operation, desired, observation)),
        };
        let ruling = resubmitted.unwrap_or_else(|| {
            self.ask_again_to_go_back(operation, "Never reached the agent.");
            self.at_rest()
        });
        // The operation stays named until a higher epoch keeps it out, so that it is followed should it arrive after all.
        if !ruling.is_fencing() {
            self.lifecycle = Lifecycle::InFlight(operation.clone());
            self.restore_wish(operation, asked);
        }
        ruling
    }

    /// The agent refused the operation.
    fn not_begun(&mut self, operation: &Operation, error: &ApiError) -> Ruling {
        match error.code {
            ErrorCode::OperationMismatch => self.ask_again(operation, 0),
            ErrorCode::StaleEpoch => {
                self.ask_again_to_go_back(operation, "The host has seen a higher epoch.");
                Ruling::unchanged().within(Duration::ZERO)
            }
            ErrorCode::Busy | ErrorCode::Overloaded => self.host_is_busy(error),
            ErrorCode::HostFault => self.unreached(Unreached::HostFault, &error.to_string()),
            ErrorCode::Invalid
            | ErrorCode::PolicyRefused
            | ErrorCode::NotFound
            | ErrorCode::RecordsDamaged
            | ErrorCode::ClaimedByOther => {
                let reason = format!("The agent refuses it: {}", sentence(&error.to_string()));
                let mut end = self.end_unbegun(operation, &reason);
                end.category = Some("RequestRefused".to_owned());
                self.lifecycle = Lifecycle::Ended(operation.clone(), end.clone());
                Ruling::says(self.end_report(operation, &end, &reason, "RequestRefused"))
            }
        }
    }

    /// Ends an operation of which the agent has nothing to say.
    pub(super) fn end_untold(&mut self, operation: &Operation, outcome: Outcome, why: &str) -> End {
        let now = whole_seconds(self.facts.now);
        let mut operation = operation.clone();
        fail_last(&mut operation.phases, why, now);
        let end = End::of(outcome, Time(now));
        self.lifecycle = Lifecycle::Ended(operation, end.clone());
        end
    }

    /// Ends an operation that the agent never got: nothing was changed.
    pub(super) fn end_unbegun(&mut self, operation: &Operation, why: &str) -> End {
        self.end_untold(operation, Outcome::Aborted, why)
    }

    /// Keeps what the agent reports of the operation, whether the operation has ended or not.
    fn record_progress(&mut self, operation: &Operation, seen: &OperationStatus) -> Operation {
        if let Some(compose) = &seen.compose {
            self.next.compose = Some(progress::in_use(compose));
        }
        if let Some(report) = &seen.plan {
            let approach = self.next.plan.as_ref().map(|plan| plan.approach);
            self.next.plan = Some(progress::plan_summary(report, approach, &operation.purpose));
        }
        let mut operation = operation.clone();
        let phases = progress::phases(seen);
        if !phases.is_empty() {
            operation.phases = phases;
        }
        self.lifecycle = Lifecycle::InFlight(operation.clone());
        operation
    }

    fn under_way(&self, operation: &Operation, seen: &OperationStatus) -> PhaseReport {
        let (phase, doing) = progress::doing(seen, operation.from.is_none());
        let what = progress::what(operation);
        let waits = self.waiting(operation).map(|waits| format!(" {waits}")).unwrap_or_default();
        PhaseReport::of(phase, format!("{what}: {doing}.{waits}"))
    }

    /// What takes effect only when the operation in flight has ended.
    fn waiting(&self, operation: &Operation) -> Option<String> {
        let subject = self.facts.subject;
        if subject.deleted_at.is_some() {
            return Some("The Tenant is deleted when this has ended.".to_owned());
        }
        if subject.suspend {
            return Some("spec.suspend takes effect when this has ended.".to_owned());
        }
        let newer = match self.facts.desired {
            Ok(desired) => {
                let meant = operation.gives_up().map_or(&operation.target_hash, |given| &given.target_hash);
                desired.target_hash(self.next.resolved.as_ref()) != *meant
            }
            Err(_) => true,
        };
        newer.then(|| format!("The newer spec ({}) waits until this has ended.", subject.image_tag))
    }
}

/// The one phase of an operation that was only just named.
pub(super) fn planning(now: Time) -> PhaseStatus {
    let (name, state) = (Phase::Planning, PhaseState::Running);
    PhaseStatus { name, state, started_at: now, finished_at: None, message: None }
}

fn fail_last(phases: &mut [PhaseStatus], why: &str, now: jiff::Timestamp) {
    if let Some(last) = phases.last_mut().filter(|phase| phase.state == PhaseState::Running) {
        last.state = PhaseState::Failed;
        last.finished_at = Some(Time(now));
        last.message = Some(bounded(why, 1_024));
    }
}
