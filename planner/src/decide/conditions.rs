//! The table of phases, and how a phase becomes conditions that kstatus reads.

use tenantry_api::conditions::{DRIFTED, READY, RECONCILING, STALLED, Truth, find, set};
use tenantry_api::tenant_status::Phase;

use super::Draft;
use super::decision::Ruling;
use crate::target::RefusalReason;

/// What `Ready`, `Reconciling` and `Stalled` are in a phase. `None`: `Ready` is as the report says.
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
    /// What `Ready` is where the phase alone does not say it.
    pub ready: Truth,
    /// What it comes from in a few words, where the reason does not say it as well.
    pub cause: Option<String>,
}

impl PhaseReport {
    pub fn of(phase: Phase, message: impl Into<String>) -> Self {
        Self::with_reason(phase, phase.as_str(), message)
    }

    pub fn with_reason(phase: Phase, reason: &str, message: impl Into<String>) -> Self {
        Self { phase, reason: reason.to_owned(), message: message.into(), ready: Truth::Unknown, cause: None }
    }

    pub fn pending(host: &str) -> Self {
        Self::of(Phase::Pending, format!("Host {host} has not been looked at yet."))
    }

    /// The same, with what it comes from in a few words.
    pub fn because(self, cause: Option<String>) -> Self {
        Self { cause, ..self }
    }

    /// Nothing is done; `Ready` says how the host stands to what is wanted all the same.
    pub fn suspended(ready: Truth, known: &str) -> Self {
        let message =
            format!("spec.suspend is set: nothing is done on the host until it is false again. {known}");
        Self { ready, ..Self::of(Phase::Suspended, message.trim_end()) }
    }

    pub fn refused(reason: RefusalReason, message: &str) -> Self {
        Self::with_reason(Phase::Refused, reason.as_str(), message)
    }
}

impl Draft<'_> {
    /// Puts what a ruling says into phase and conditions.
    pub(super) fn report(&mut self, ruling: &Ruling) {
        let Some(report) = &ruling.report else { return };
        let PhaseReport { phase, reason, message, ready: otherwise, .. } = report;
        self.next.summary = Some(self.summary(report));
        let (ready, reconciling, stalled) = truths(*phase);
        self.next.phase = Some(*phase);
        self.next.observed_generation = Some(self.facts.subject.generation);
        let ready = ready.unwrap_or(*otherwise);
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
