//! The table of phases: which three truths each one is, to kstatus.

use jiff::Timestamp;
use tenantry_api::conditions::{DRIFTED, READY, RECONCILING, STALLED, Truth, find, whole_seconds};
use tenantry_api::tenant_status::Phase;

use super::{Pass, Unreached, sentence};
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
pub(super) struct Verdict {
    pub phase: Phase,
    pub reason: String,
    pub message: String,
}

impl Verdict {
    pub fn of(phase: Phase, message: impl Into<String>) -> Self {
        Self { phase, reason: phase.as_str().to_owned(), message: message.into() }
    }

    pub fn with_reason(phase: Phase, reason: &str, message: impl Into<String>) -> Self {
        Self { phase, reason: reason.to_owned(), message: message.into() }
    }

    pub fn pending(host: &str) -> Self {
        Self::of(Phase::Pending, format!("Host {host} has not been looked at yet."))
    }

    pub fn refused(reason: RefusalReason, message: &str) -> Self {
        Self::with_reason(Phase::Refused, reason.as_str(), message)
    }

    pub fn unreachable(host: &str, why: Unreached, text: &str, since: Timestamp) -> Self {
        let next = match why {
            Unreached::NoAnswer | Unreached::Timeout => {
                "What runs there goes on running; see that the machine is up and tenantry-agent runs."
            }
            Unreached::BadCertificate => "See that both certificates are valid and of the same authority.",
            Unreached::WrongAgent => {
                "See that spec.connection.dial.address and spec.identity of the ComposeHost belong together."
            }
            Unreached::BadAnswer => "See that a tenantry-agent of a fitting version listens at that address.",
            Unreached::HostFault => "See to Docker and the disk on that machine.",
            Unreached::HostMissing => "Make the ComposeHost again.",
        };
        let since = whole_seconds(since);
        let message = format!("Host {host}, since {since}: {}. {next}", sentence(text));
        Self::with_reason(Phase::HostUnreachable, why.as_str(), message)
    }
}

impl Pass<'_> {
    /// Puts a verdict into phase and conditions.
    pub(super) fn settle(&mut self, verdict: Verdict) {
        let Verdict { phase, reason, message } = verdict;
        let (ready, reconciling, stalled) = truths(phase);
        self.next.phase = Some(phase);
        self.next.observed_generation = Some(self.facts.subject.generation);
        let ready = ready.unwrap_or_else(|| {
            find(&self.next.conditions, READY)
                .map_or(Truth::Unknown, |condition| Truth::parse(&condition.status))
        });
        let told = |yes: bool| if yes { message.clone() } else { String::new() };
        self.condition(READY, ready, &reason, &message);
        self.condition(RECONCILING, reconciling.into(), &reason, &told(reconciling));
        self.condition(STALLED, stalled.into(), &reason, &told(stalled));
        if find(&self.next.conditions, DRIFTED).is_none() {
            self.condition(DRIFTED, Truth::Unknown, "NotCompared", "Not compared yet.");
        }
        if phase != Phase::Degraded {
            self.next.healthy_since = None;
        }
    }
}
