//! What to do next for one Tenant: a pure function of what is wanted, what was seen, what status says, and the time.
//!
//! Nothing here awaits, reads a clock or the environment. The caller gathers [`Facts`], carries out the one
//! [`Effect`], and writes [`Decision::status`] where it differs from what is there.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use tenantry_api::conditions::Truth;
use tenantry_api::names::OperationId;
use tenantry_api::tenant::Approach;
use tenantry_api::tenant_status::{Phase, ResolvedImage, TenantStatus, UpgradeStatus};
use tenantry_protocol::{ApiError, Observation, OperationStatus, ResolveResponse};

use crate::target::{Desired, Refusal, RefusalReason, Rollback};

mod accept;
mod asks;
mod back;
mod begin;
mod contact;
mod flight;
mod leave;
mod notes;
mod steady;
mod verdict;

pub use notes::{Note, NoteKind};
pub use verdict::truths;

use verdict::Verdict;

/// How long a Tenant that is as it should be is left alone.
pub const OBSERVE_EVERY: Duration = Duration::from_mins(1);
/// How long a deleted Tenant waits for a host that does not answer.
pub const ORPHAN_AFTER: Duration = Duration::from_mins(5);

/// What of the Tenant itself the decision needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Its UID.
    pub uid: String,
    /// The generation of its spec.
    pub generation: i64,
    /// When its deletion was asked for.
    pub deleted_at: Option<Timestamp>,
    /// Whether our finalizer holds it.
    pub finalizer: bool,
    /// `spec.suspend`.
    pub suspend: bool,
    /// `spec.host`.
    pub host: String,
    /// `spec.imageTag`.
    pub image_tag: String,
    /// `tenantry.dev/reconcile`.
    pub reconcile: Option<String>,
    /// `tenantry.dev/retry`.
    pub retry: Option<String>,
    /// `tenantry.dev/rollback-to`.
    pub rollback_to: Option<String>,
    /// `tenantry.dev/accept-host`.
    pub accept_host: Option<String>,
    /// `tenantry.dev/claim`.
    pub claim: Option<String>,
    /// Whether its host's agent is known to be one that can't go back to a restore point.
    pub cannot_roll_back: bool,
    /// Whether its host's agent is known to be one that makes no other probes than by HTTP.
    pub only_http_probes: bool,
    /// Whether `tenantry.dev/orphan` is there.
    pub orphan: bool,
}

/// Why an agent was not reached as itself; bounded, for it is a condition's reason and a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unreached {
    /// Nothing answers at the address.
    NoAnswer,
    /// It did not answer in time.
    Timeout,
    /// Its certificate, or ours, is expired, of another authority, or not one at all.
    BadCertificate,
    /// It is another host's agent.
    WrongAgent,
    /// It answered something that is not an answer.
    BadAnswer,
    /// The agent answers, but Docker, compose or the disk of the host do not.
    HostFault,
    /// There is no such ComposeHost any more.
    HostMissing,
}

impl Unreached {
    /// The reason's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoAnswer => "NoAnswer",
            Self::Timeout => "Timeout",
            Self::BadCertificate => "BadCertificate",
            Self::WrongAgent => "WrongAgent",
            Self::BadAnswer => "BadAnswer",
            Self::HostFault => "HostFault",
            Self::HostMissing => "HostMissing",
        }
    }
}

/// What the host's agent said, or why it did not.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// It was not asked.
    NotAsked,
    /// It was not reached as itself. The text says what happened, without a closing full stop.
    Unreached(Unreached, &'a str),
    /// It refused to be asked about this Tenant.
    Refused(&'a ApiError),
    /// It refused the operation that status names; nothing was begun.
    NotBegun(&'a ApiError),
    /// What it saw.
    Seen(&'a Observation),
    /// It does not know the operation that status names; what it saw instead.
    Unknown(&'a Observation),
    /// How the operation that status names stands; what it saw, once that has ended.
    Followed(&'a OperationStatus, Option<&'a Observation>),
}

/// Everything that a decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The Tenant.
    pub subject: &'a Subject,
    /// What should be on its host, or why that can't be said.
    pub desired: Result<&'a Desired, &'a Refusal>,
    /// What a person goes back with who asks for that while there is nothing that should be on the host.
    pub back: Option<&'a Desired>,
    /// What the agent said.
    pub answer: Answer<'a>,
    /// What its registry said, where [`Effect::Resolve`] asked.
    pub resolved: Option<&'a ResolveResponse>,
    /// What status says.
    pub status: &'a TenantStatus,
    /// The time.
    pub now: Timestamp,
}

/// What to write, what to do, and when to look again.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The status as it should be. Written before the effect where that submits something.
    pub status: TenantStatus,
    /// The one thing to do on the host.
    pub effect: Option<Effect>,
    /// What to do with our finalizer.
    pub finalizer: Finalizer,
    /// When to look again, at the latest.
    pub requeue: Duration,
    /// What to tell people.
    pub notes: Vec<Note>,
}

/// What to do with our finalizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Finalizer {
    /// Leave it as it is.
    #[default]
    Keep,
    /// Put it on.
    Add,
    /// Take it off: nothing on the host is held for this Tenant any more.
    Remove,
    /// Take it off, and release the claim when the host is next reached.
    Abandon,
}

/// Something to do on the host. At most one in a pass.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Begin the operation that the decision's status names, once that status is written.
    Submit(Submission),
    /// Take over a project that is as it should be already.
    Claim {
        /// Above every epoch before.
        epoch: u64,
    },
    /// Take over a place that another Tenant never gave back.
    TakeOver {
        /// Above every epoch before.
        epoch: u64,
    },
    /// Take the host's present state for the truth.
    Accept {
        /// Above every epoch before.
        epoch: u64,
    },
    /// Give the claim back.
    Release,
    /// Ask the registry where these references point now; then decide again with the answer.
    Resolve {
        /// References of the resolved model.
        references: Vec<String>,
    },
    /// Wait for news of the operation in flight.
    Follow {
        /// Its id.
        id: OperationId,
        /// The last status that was seen of it.
        after: u64,
    },
}

/// An operation to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Its id.
    pub id: OperationId,
    /// Its epoch.
    pub epoch: u64,
    /// The target's hash.
    pub target_hash: String,
    /// `ImageOnly` or `Release`.
    pub approach: Approach,
    /// Digests of moved tags.
    pub pinned: Vec<ResolvedImage>,
    /// Set where a person goes back to a restore point.
    pub rollback: Option<Rollback>,
    /// Whether status named it already before this pass.
    pub again: bool,
}

/// Decides.
pub fn decide(facts: &Facts<'_>) -> Decision {
    let mut pass = Pass::new(facts);
    let finalizer = pass.run();
    pass.keep_transitions();
    let notes = notes::between(facts.status, &pass.next, facts.subject);
    Decision { status: pass.next, effect: pass.effect, finalizer, requeue: pass.requeue, notes }
}

/// A decision while it is made.
struct Pass<'a> {
    facts: &'a Facts<'a>,
    next: TenantStatus,
    effect: Option<Effect>,
    requeue: Duration,
}

impl<'a> Pass<'a> {
    fn new(facts: &'a Facts<'a>) -> Self {
        Self { facts, next: facts.status.clone(), effect: None, requeue: OBSERVE_EVERY }
    }

    /// What was set and set back within one pass has not changed (P14).
    fn keep_transitions(&mut self) {
        for condition in &mut self.next.conditions {
            let before = tenantry_api::conditions::find(&self.facts.status.conditions, &condition.type_);
            if let Some(before) = before.filter(|before| before.status == condition.status) {
                condition.last_transition_time = before.last_transition_time.clone();
            }
        }
    }

    fn run(&mut self) -> Finalizer {
        self.note_contact();
        if let Some(deleted_at) = self.facts.subject.deleted_at {
            return self.leave(deleted_at);
        }
        if self.in_flight().is_some() {
            self.fly();
        } else {
            self.rest();
        }
        let generation = Some(self.facts.subject.generation);
        self.next.observed_generation = generation;
        // What was set before this generation was seen speaks of it now, too.
        for condition in &mut self.next.conditions {
            condition.observed_generation = generation;
        }
        if self.holds_something() && !self.facts.subject.finalizer { Finalizer::Add } else { Finalizer::Keep }
    }

    /// Whether the host holds, or is about to hold, something for this Tenant that must be given back.
    fn holds_something(&self) -> bool {
        let begins = matches!(
            self.effect,
            Some(Effect::Submit(_) | Effect::Claim { .. } | Effect::TakeOver { .. } | Effect::Accept { .. })
        );
        begins || self.next.deployed.is_some() || self.next.upgrade.is_some()
    }

    /// Nothing is in flight.
    fn rest(&mut self) {
        if self.facts.subject.suspend {
            return self.suspended();
        }
        if self.next.phase == Some(Phase::Suspended) {
            self.next.phase = None;
        }
        let desired = match self.facts.desired {
            Ok(desired) => desired,
            Err(refusal) => {
                if !self.only_goes_back() {
                    self.refuse(refusal);
                }
                return;
            }
        };
        match self.facts.answer {
            Answer::NotAsked => self.settle(Verdict::pending(&self.facts.subject.host)),
            Answer::Unreached(why, text) => self.unreached(why, text),
            Answer::Refused(error) | Answer::NotBegun(error) => self.agent_refused(error),
            Answer::Seen(observation)
            | Answer::Unknown(observation)
            | Answer::Followed(_, Some(observation)) => {
                self.look(desired, observation);
            }
            Answer::Followed(_, None) => self.requeue = Duration::ZERO,
        }
    }

    /// The host was seen, and nothing of ours is in flight as far as status knows.
    fn look(&mut self, desired: &Desired, observation: &Observation) {
        if self.claimed_by_other(observation)
            || self.damaged(desired, observation)
            || self.strange_operation(observation)
        {
            return;
        }
        self.record_compose(observation);
        self.record_points(observation);
        if self.asked_to_accept(desired, observation) || self.handle_asks(desired, observation) {
            return;
        }
        let target = desired.target_hash(self.next.resolved.as_ref());
        if self.accepted(desired, observation, &target) {
            return;
        }
        if self.at_target(&target) {
            self.stay(observation);
        } else if self.is_first_contact(observation) {
            self.meet(desired, observation, &target);
        } else {
            self.upgrade(desired, observation, &target);
        }
    }

    /// Whether the target is what was last seen to run, and nothing else was started since.
    fn at_target(&self, target: &str) -> bool {
        let deployed = self.next.deployed.as_ref().is_some_and(|deployed| deployed.target_hash == target);
        deployed && !self.left_otherwise()
    }

    /// Whether something else than what is deployed was left on the host, and nobody has seen to it since.
    fn left_otherwise(&self) -> bool {
        use tenantry_api::tenant_status::Outcome::{Aborted, Held, RollbackFailed, RolledBack, Succeeded};
        self.next.upgrade.as_ref().is_some_and(|upgrade| {
            !upgrade.accepted
                && match upgrade.outcome {
                    Some(Held | RollbackFailed) => true,
                    Some(Aborted | RolledBack) | None => upgrade.unsettled,
                    Some(Succeeded) => false,
                }
        })
    }

    /// The operation that status names and whose end it does not know.
    fn in_flight(&self) -> Option<&UpgradeStatus> {
        self.next.upgrade.as_ref().filter(|upgrade| upgrade.outcome.is_none())
    }

    fn suspended(&mut self) {
        let message = "spec.suspend is set: nothing is done on the host until it is false again.";
        self.settle(Verdict::of(Phase::Suspended, message));
    }

    fn refuse(&mut self, refusal: &Refusal) {
        self.settle(Verdict::refused(refusal.reason, &refusal.message));
    }

    fn agent_refused(&mut self, error: &ApiError) {
        use tenantry_protocol::ErrorCode as Code;
        let host = &self.facts.subject.host;
        let reason = match error.code {
            Code::Overloaded | Code::Busy => return self.wait_for_host_to_end(error),
            Code::HostFault => return self.unreached(Unreached::HostFault, &sentence(&error.to_string())),
            Code::PolicyRefused => RefusalReason::PolicyRefused,
            Code::ClaimedByOther => RefusalReason::ClaimedByOther,
            Code::RecordsDamaged => RefusalReason::RecordsDamaged,
            Code::Invalid | Code::NotFound | Code::OperationMismatch | Code::StaleEpoch => {
                RefusalReason::RequestRefused
            }
        };
        let message = format!("The agent of host {host} refuses: {}.", sentence(&error.to_string()));
        self.settle(Verdict::refused(reason, &message));
    }

    /// Something else is in flight there, and ends by itself.
    fn wait_for_host_to_end(&mut self, error: &ApiError) {
        let message =
            format!("Waits for host {}: {}.", self.facts.subject.host, sentence(&error.to_string()));
        self.settle(Verdict::of(Phase::Planning, message));
        self.requeue = Duration::from_secs(5);
    }

    fn unreached(&mut self, why: Unreached, text: &str) {
        use tenantry_api::conditions::{HOST_REACHABLE, find};
        let since =
            find(&self.next.conditions, HOST_REACHABLE).map(|condition| condition.last_transition_time.0);
        let since = since.unwrap_or(self.facts.now);
        self.settle(Verdict::unreachable(&self.facts.subject.host, why, text, since));
        let waited = u64::try_from(self.facts.now.as_second() - since.as_second()).unwrap_or(0);
        self.requeue = Duration::from_secs((waited / 2).clamp(2, 30));
    }

    /// What this pass learnt about the way to the host.
    fn note_contact(&mut self) {
        let host = &self.facts.subject.host;
        let (truth, reason, message) = match self.facts.answer {
            Answer::NotAsked => {
                if tenantry_api::conditions::find(&self.next.conditions, "HostReachable").is_some() {
                    return;
                }
                (Truth::Unknown, "NotContacted", format!("The agent of host {host} has not been asked yet."))
            }
            Answer::Unreached(why, text) => {
                (Truth::False, why.as_str(), format!("Host {host}: {}.", sentence(text)))
            }
            Answer::Refused(error) | Answer::NotBegun(error)
                if error.code == tenantry_protocol::ErrorCode::HostFault =>
            {
                (Truth::False, "HostFault", format!("Host {host}: {}.", sentence(&error.to_string())))
            }
            _ => (Truth::True, "Answered", format!("The agent of host {host} answers.")),
        };
        self.condition(tenantry_api::conditions::HOST_REACHABLE, truth, reason, &message);
        if truth == Truth::False {
            self.condition(
                tenantry_api::conditions::DRIFTED,
                Truth::Unknown,
                reason,
                "The host does not answer.",
            );
        }
    }

    fn condition(&mut self, kind: &str, truth: Truth, reason: &str, message: &str) {
        let generation = self.facts.subject.generation;
        tenantry_api::conditions::set(
            &mut self.next.conditions,
            kind,
            truth,
            reason,
            message,
            generation,
            self.facts.now,
        );
    }
}

/// A text as part of a sentence: one line, without a closing full stop.
fn sentence(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    tenantry_api::conditions::bounded(line.trim_end_matches('.'), 1_024)
}

/// The first few of a list, and how many more there are.
fn listed<T: AsRef<str>>(items: &[T], most: usize) -> String {
    let mut text = items.iter().take(most).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    if items.len() > most {
        let _ = write!(text, " and {} more", items.len() - most);
    }
    text
}

#[cfg(test)]
mod tests;
