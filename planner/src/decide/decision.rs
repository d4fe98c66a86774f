//! What is decided: what to write, what to do on the host, and when to look again.

use std::time::Duration;

use tenantry_api::names::OperationId;
use tenantry_api::tenant_status::TenantStatus;
use tenantry_protocol::{AcceptRequest, ClaimRequest, FileContent, OperateRequest};

use super::OBSERVE_EVERY;
use super::conditions::PhaseReport;
use super::events::Event;
use crate::target::{Desired, OperationTerms};

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
    pub events: Vec<Event>,
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

/// Something to do on the host. At most one in a pass. An effect carries all that it is done with, so that none can be
/// left undone for want of a target.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Begin the operation that the decision's status names, once that status is written.
    Submit(Box<Submission>),
    /// Take over a project that is as it should be already, or a place that another Tenant never gave back.
    Claim(Box<ClaimRequest>),
    /// Take the host's present state for the truth.
    Accept(Box<AcceptRequest>),
    /// Give the claim back.
    Release,
    /// Ask the registry where these references point now; then decide again with the answer.
    Resolve {
        /// References of the resolved model.
        references: Vec<String>,
    },
    /// Wait for news of the operation in flight.
    Follow {
        /// The operation's id.
        id: OperationId,
        /// The number of the last status that was seen of the operation.
        after: u64,
    },
}

impl Effect {
    /// Whether the effect raises the host's epoch. Only a higher epoch keeps out what may still be on its way to the agent.
    pub const fn raises_epoch(&self) -> bool {
        match self {
            Self::Submit(_) | Self::Claim(_) | Self::Accept(_) => true,
            Self::Release | Self::Resolve { .. } | Self::Follow { .. } => false,
        }
    }

    /// Whether the effect changes something on the host, if only what the agent keeps of this Tenant.
    pub const fn changes_host(&self) -> bool {
        self.raises_epoch() || matches!(self, Self::Release)
    }
}

/// An operation to begin.
#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    /// The operation's id.
    pub id: OperationId,
    /// What the operation is to do.
    pub terms: OperationTerms,
    /// What the host is brought to; where a person goes back to a restore point, only how the host is watched counts.
    pub desired: Desired,
    /// Whether status named the operation already before this pass.
    pub again: bool,
}

impl Submission {
    /// Whether contents of files go with it. Going back needs nothing that is not on the host.
    pub const fn needs_contents(&self) -> bool {
        self.terms.rollback.is_none()
    }

    /// The request that begins the operation.
    pub fn request(&self, contents: Vec<FileContent>) -> OperateRequest {
        self.desired.operate_request(&self.terms, contents)
    }
}

/// How a pass ends: what a part of the decision answers that decides for the whole.
#[derive(Clone, Debug)]
pub(super) struct Ruling {
    /// What people see; `None` leaves what they saw.
    pub report: Option<PhaseReport>,
    /// The one thing to do on the host.
    pub effect: Option<Effect>,
    /// When to look again, at the latest.
    pub requeue: Duration,
}

impl Ruling {
    /// Leaves what people saw, and looks again as always.
    pub const fn unchanged() -> Self {
        Self { report: None, effect: None, requeue: OBSERVE_EVERY }
    }

    /// Says something, and looks again as always.
    pub const fn says(report: PhaseReport) -> Self {
        Self { report: Some(report), effect: None, requeue: OBSERVE_EVERY }
    }

    /// The same, with something to do on the host.
    pub fn with(self, effect: Effect) -> Self {
        Self { effect: Some(effect), ..self }
    }

    /// The same, and looks again at the latest after this.
    pub fn within(self, requeue: Duration) -> Self {
        Self { requeue, ..self }
    }

    /// Whether the effect keeps out what may still be on its way to the agent.
    pub fn is_fencing(&self) -> bool {
        self.effect.as_ref().is_some_and(Effect::raises_epoch)
    }
}
