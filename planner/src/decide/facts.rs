//! What a decision is made from.

use jiff::Timestamp;
use tenantry_api::tenant_status::TenantStatus;
use tenantry_protocol::{ApiError, Observation, OperationStatus, ResolveResponse};

use crate::target::{Desired, Refusal};

/// What of the Tenant itself the decision needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The Tenant's UID.
    pub uid: String,
    /// The generation of the spec.
    pub generation: i64,
    /// When the Tenant's deletion was asked for.
    pub deleted_at: Option<Timestamp>,
    /// Whether our finalizer holds the Tenant.
    pub finalizer: bool,
    /// `spec.suspend`.
    pub suspend: bool,
    /// `spec.host`.
    pub host: String,
    /// What people call the release of `spec`.
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
    /// Whether the host's agent is known to be one that can't go back to a restore point.
    pub cannot_roll_back: bool,
    /// Whether its host's agent is known to be one that makes no other probes than by HTTP.
    pub only_http_probes: bool,
    /// Whether its host's agent is known to be one that does not look whether a release reaches an image.
    pub ignores_reach: bool,
    /// Whether `tenantry.dev/orphan` is there.
    pub orphan: bool,
}

/// Why an agent was not reached as itself; bounded, for it is a condition's reason and a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::VariantArray)]
pub enum Unreached {
    /// Nothing answers at the address.
    NoAnswer,
    /// The agent did not answer in time.
    Timeout,
    /// The agent's certificate, or ours, is expired, of another authority, or not one at all.
    BadCertificate,
    /// Another host's agent answers.
    WrongAgent,
    /// What was answered is no answer of an agent.
    BadAnswer,
    /// The agent answers, but Docker, compose or the disk of the host do not.
    HostFault,
    /// There is no such ComposeHost any more.
    HostMissing,
}

impl Unreached {
    /// The reason's word.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What the host's agent said, or why the agent said nothing.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// The agent was not asked.
    NotAsked,
    /// The agent was not reached as itself. The text says what happened, without a closing full stop.
    Unreached(Unreached, &'a str),
    /// The agent refused to be asked about this Tenant.
    Refused(&'a ApiError),
    /// The agent refused the operation that status names; nothing was begun.
    NotBegun(&'a ApiError),
    /// What the agent saw.
    Seen(&'a Observation),
    /// The agent does not know the operation that status names; what the agent saw instead.
    Unknown(&'a Observation),
    /// How the operation that status names stands; what the agent saw, once the operation has ended.
    Followed(&'a OperationStatus, Option<&'a Observation>),
}

impl<'a> Answer<'a> {
    /// What the agent saw once the operation that status names had ended.
    pub fn seen_at_end(self) -> Option<&'a Observation> {
        match self {
            Self::Followed(_, observation) => observation,
            Self::NotAsked
            | Self::Unreached(..)
            | Self::Refused(_)
            | Self::NotBegun(_)
            | Self::Seen(_)
            | Self::Unknown(_) => None,
        }
    }
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
    /// What its registry said, where [`super::Effect::Resolve`] asked.
    pub resolved: Option<&'a ResolveResponse>,
    /// What status says.
    pub status: &'a TenantStatus,
    /// The time.
    pub now: Timestamp,
}
