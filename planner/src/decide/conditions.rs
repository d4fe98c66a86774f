//! The table of phases, and how a phase becomes conditions that kstatus reads.

use tenantry_api::conditions::{DRIFTED, READY, RECONCILING, STALLED, Truth, find, set};
use tenantry_api::tenant_status::Phase;

use super::Draft;
use super::decision::Ruling;
use crate::target::RefusalReason;

/// What `Ready`, `Reconciling` and `Stalled` are in a phase. `None`: `Ready` stays as it was.
pub const fn truths(phase: Phase) -> (Option<Truth>, bool, bool) {
    match phase {
        Phase::Pending | Phase::HostUnreachable => (Some(Truth::Unknown), true, false),
        Phase::Planning
        | Phase::Pulling
        | Phase::Snapshotting
        | Phase::Writing
        | Phase::Starting
        | Phase::Verifying
        | Phase::RollingBack => (Some(Truth::False), true, false),
        Phase::Ready => (Some(Truth::True), false, false),
        Phase::AdoptionNeeded
        | Phase::Aborted
        | Phase::RolledBack
        | Phase::Held
        | Phase::RollbackFailed
        | Phase::Refused => (Some(Truth::False), false, true),
        Phase::Suspended => (None, false, false),
        Phase::Degraded => (Some(Truth::False), false, false),
    }
}

/// A phase with its reason and its message.
#[derive(Clone, Debug)]
pub(super) struct PhaseReport {
    pub phase: Phase,
    pub reason: String,
    pub message: String,
}

impl PhaseReport {
    pub fn of(phase: Phase, message: impl Into<String>) -> Self {
        Self { phase, reason: phase.as_str().to_owned(), message: message.into() }
    }

    pub fn with_reason(phase: Phase, reason: &str, message: impl Into<String>) -> Self {
        Self { phase, reason: reason.to_owned(), message: message.into() }
    }

    pub fn pending(host: &str) -> Self {
        Self::of(Phase::Pending, format!("Host {host} has not been looked at yet."))
    }

    pub fn suspended() -> Self {
        let message = "spec.suspend is set: nothing is done on the host until it is false again.";
        Self::of(Phase::Suspended, message)
    }

    pub fn refused(reason: RefusalReason, message: &str) -> Self {
        Self::with_reason(Phase::Refused, reason.as_str(), message)
    }
}

impl Draft<'_> {
    /// Puts what a ruling says into phase and conditions.
    pub(super) fn report(&mut self, ruling: &Ruling) {
        let Some(PhaseReport { phase, reason, message }) = &ruling.report else { return };
        let (ready, reconciling, stalled) = truths(*phase);
        self.next.phase = Some(*phase);
        self.next.observed_generation = Some(self.facts.subject.generation);
        let ready = ready.unwrap_or_else(|| {
            find(&self.next.conditions, READY)
                .map_or(Truth::Unknown, |condition| Truth::parse(&condition.status))
        });
        let told = |yes: bool| if yes { message.as_str() } else { "" };
        self.condition(READY, ready, reason, message);
        self.condition(RECONCILING, reconciling.into(), reason, told(reconciling));
        self.condition(STALLED, stalled.into(), reason, told(stalled));
        if find(&self.next.conditions, DRIFTED).is_none() {
            self.condition(DRIFTED, Truth::Unknown, "NotCompared", "Not compared yet.");
        }
        if *phase != Phase::Degraded {
            self.next.healthy_since = None;
        }
    }

    pub(super) fn condition(&mut self, kind: &str, truth: Truth, reason: &str, message: &str) {
        let (generation, now) = (self.facts.subject.generation, self.facts.now);
        set(&mut self.next.conditions, kind, truth, reason, message, generation, now);
    }
}
