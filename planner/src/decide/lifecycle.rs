//! The latest operation of a Tenant and the target that is not tried again: read once from status, written back once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tenantry_api::names::OperationId;
use tenantry_api::tenant_status::{
    BlockedTarget, GivenUp, Outcome, PhaseStatus, ServiceFailure, TenantStatus, UpgradeStatus,
};

use super::outcomes::{Meaning, Runs};

/// Where a Tenant's latest operation stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Lifecycle {
    /// No operation was ever begun.
    None,
    /// Status names an operation whose end it does not know.
    InFlight(Operation),
    /// The latest operation has ended.
    Ended(Operation, End),
}

/// An operation, as it was begun.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Operation {
    pub id: String,
    pub epoch: i64,
    pub from: Option<String>,
    pub to: String,
    pub target_hash: String,
    pub bundle_revision: Option<String>,
    pub files_hash: Option<String>,
    pub purpose: Purpose,
    /// How the host stood when the operation began.
    pub began_on: Host,
    pub attempt: i32,
    /// Since when its target has failed for faults that pass, one try after the other.
    pub failing_since: Option<Time>,
    pub started_at: Time,
    pub phases: Vec<PhaseStatus>,
}

/// What an operation is for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Purpose {
    /// To bring a target about.
    Upgrade,
    /// To go back to a restore point, because a person asked for it.
    Rollback {
        /// The restore point's id.
        to: String,
        /// The target that the person gives up.
        gives_up: Option<GivenUp>,
    },
}

/// How the host stands to what status calls deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// What was last seen to run is what was last started.
    Settled,
    /// Something else was started since, and nobody has seen to it.
    Unsettled,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct End {
    pub outcome: Outcome,
    /// What kind of failure it was.
    pub category: Option<String>,
    /// The services that did not come up, and how many more there are.
    pub failures: (Vec<ServiceFailure>, i32),
    /// When its target is tried again by itself.
    pub retry_at: Option<Time>,
    pub at: Option<Time>,
    /// Whether a person has accepted the host since as the operation left it.
    pub accepted: bool,
    /// Whether data was restored, so that what was written since its restore point is lost.
    pub data_restored: bool,
}

impl End {
    /// An end of which no more is known.
    pub fn of(outcome: Outcome, at: Time) -> Self {
        Self {
            outcome,
            category: None,
            failures: (Vec::new(), 0),
            retry_at: None,
            at: Some(at),
            accepted: false,
            data_restored: false,
        }
    }
}

/// A target that is not tried again by itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Block {
    pub target_hash: String,
    pub image_tag: String,
    pub cause: Cause,
    pub reason: String,
    /// What kind of failure it was.
    pub category: Option<String>,
    /// The policy that refused it: under another one it is tried again.
    pub policy_revision: Option<String>,
    pub at: Time,
}

/// Why a target is not tried again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The target's upgrade ended so.
    Failed(Outcome),
    /// A person went back from the target, and going back ended so.
    GivenUp(Outcome),
    /// A person accepted the host as it is instead.
    Accepted,
}

impl Lifecycle {
    /// Takes the lifecycle out of a status.
    pub fn take(status: &mut TenantStatus) -> Self {
        let Some(upgrade) = status.upgrade.take() else { return Self::None };
        let end = upgrade.outcome.map(|outcome| End {
            outcome,
            category: upgrade.category.clone(),
            failures: (upgrade.failures.clone(), upgrade.more_failures),
            retry_at: upgrade.retry_at.clone(),
            at: upgrade.finished_at.clone(),
            accepted: upgrade.accepted,
            data_restored: upgrade.data_restored,
        });
        let operation = Operation::from(upgrade);
        match end {
            None => Self::InFlight(operation),
            Some(end) => Self::Ended(operation, end),
        }
    }

    /// The lifecycle as status keeps it.
    pub fn into_status(self) -> Option<UpgradeStatus> {
        let (operation, end) = match self {
            Self::None => return None,
            Self::InFlight(operation) => (operation, None),
            Self::Ended(operation, end) => (operation, Some(end)),
        };
        let mut upgrade = UpgradeStatus::from(operation);
        if let Some(End { outcome, category, failures, retry_at, at, accepted, data_restored }) = end {
            upgrade.outcome = Some(outcome);
            upgrade.category = category;
            (upgrade.failures, upgrade.more_failures) = failures;
            upgrade.retry_at = retry_at;
            upgrade.finished_at = at;
            upgrade.accepted = accepted;
            upgrade.data_restored = data_restored;
        }
        Some(upgrade)
    }

    /// The latest operation, in flight or ended.
    pub fn operation(&self) -> Option<&Operation> {
        match self {
            Self::None => None,
            Self::InFlight(operation) | Self::Ended(operation, _) => Some(operation),
        }
    }

    /// What kind of failure the latest operation ended with.
    pub fn category(&self) -> Option<String> {
        match self {
            Self::None | Self::InFlight(_) => None,
            Self::Ended(_, end) => end.category.clone(),
        }
    }

    /// The operation that is in flight.
    pub fn in_flight(&self) -> Option<&Operation> {
        match self {
            Self::InFlight(operation) => Some(operation),
            Self::None | Self::Ended(..) => None,
        }
    }

    /// How the host stands now to what status calls deployed, as far as that can be known.
    pub fn host(&self) -> Host {
        match self {
            Self::None | Self::Ended(_, End { accepted: true, .. }) => Host::Settled,
            Self::InFlight(operation) => operation.began_on,
            Self::Ended(operation, end) => match Meaning::of(end.outcome).runs {
                Runs::Target => Host::Settled,
                Runs::Unchanged | Runs::Restored => operation.began_on,
                Runs::Failed | Runs::Unknown => Host::Unsettled,
            },
        }
    }

    /// Whether no operation is known to have changed the host. One that changed nothing may have been begun where an
    /// earlier one left its release running.
    pub fn is_untouched(&self) -> bool {
        match self {
            Self::None => true,
            Self::InFlight(operation) => operation.began_on == Host::Settled,
            Self::Ended(operation, end) => {
                Meaning::of(end.outcome).runs == Runs::Unchanged && operation.began_on == Host::Settled
            }
        }
    }

    /// Why a target is blocked that is blocked with this outcome.
    pub fn cause(&self, outcome: Outcome, target_hash: &str) -> Cause {
        let Self::Ended(Operation { purpose: Purpose::Rollback { gives_up: Some(given), .. }, .. }, end) =
            self
        else {
            return Cause::Failed(outcome);
        };
        let ended_so = match outcome {
            Outcome::RolledBack => end.outcome == Outcome::Succeeded,
            Outcome::Succeeded | Outcome::Aborted | Outcome::Held | Outcome::RollbackFailed => {
                end.outcome == outcome
            }
        };
        if ended_so && given.target_hash == target_hash {
            Cause::GivenUp(outcome)
        } else {
            Cause::Failed(outcome)
        }
    }
}

impl Operation {
    /// The id. `None` where status holds no valid id: we did not write it, and no agent can know it.
    pub fn id(&self) -> Option<OperationId> {
        OperationId::parse(&self.id).ok()
    }

    /// The epoch as agents count it.
    pub fn epoch(&self) -> u64 {
        u64::try_from(self.epoch).unwrap_or(0)
    }

    /// The restore point that a person goes back to.
    pub fn rollback_to(&self) -> Option<&str> {
        match &self.purpose {
            Purpose::Upgrade => None,
            Purpose::Rollback { to, .. } => Some(to),
        }
    }

    /// The target that a person gives up by going back.
    pub fn gives_up(&self) -> Option<&GivenUp> {
        match &self.purpose {
            Purpose::Upgrade => None,
            Purpose::Rollback { gives_up, .. } => gives_up.as_ref(),
        }
    }
}

impl From<UpgradeStatus> for Operation {
    fn from(upgrade: UpgradeStatus) -> Self {
        let gives_up = upgrade.gives_up;
        Self {
            id: upgrade.id,
            epoch: upgrade.epoch,
            from: upgrade.from,
            to: upgrade.to,
            target_hash: upgrade.target_hash,
            bundle_revision: upgrade.bundle_revision,
            files_hash: upgrade.files_hash,
            purpose: upgrade.rollback_to.map_or(Purpose::Upgrade, |to| Purpose::Rollback { to, gives_up }),
            began_on: if upgrade.unsettled { Host::Unsettled } else { Host::Settled },
            attempt: upgrade.attempt,
            failing_since: upgrade.failing_since,
            started_at: upgrade.started_at,
            phases: upgrade.phases,
        }
    }
}

impl From<Operation> for UpgradeStatus {
    fn from(operation: Operation) -> Self {
        let (rollback_to, gives_up) = match operation.purpose {
            Purpose::Upgrade => (None, None),
            Purpose::Rollback { to, gives_up } => (Some(to), gives_up),
        };
        Self {
            id: operation.id,
            epoch: operation.epoch,
            from: operation.from,
            to: operation.to,
            target_hash: operation.target_hash,
            bundle_revision: operation.bundle_revision,
            files_hash: operation.files_hash,
            rollback_to,
            gives_up,
            unsettled: operation.began_on == Host::Unsettled,
            accepted: false,
            data_restored: false,
            attempt: operation.attempt,
            started_at: operation.started_at,
            finished_at: None,
            outcome: None,
            category: None,
            failures: Vec::new(),
            more_failures: 0,
            failing_since: operation.failing_since,
            retry_at: None,
            phases: operation.phases,
        }
    }
}

impl Block {
    /// Takes the blocked target out of a status.
    pub fn take(status: &mut TenantStatus, lifecycle: &Lifecycle) -> Option<Self> {
        let BlockedTarget {
            target_hash,
            image_tag,
            outcome,
            reason,
            category,
            accepted,
            policy_revision,
            at,
        } = status.blocked_target.take()?;
        let cause = if accepted { Cause::Accepted } else { lifecycle.cause(outcome, &target_hash) };
        Some(Self { target_hash, image_tag, cause, reason, category, policy_revision, at })
    }

    /// The blocked target as status keeps it.
    pub fn into_status(self) -> BlockedTarget {
        let Self { target_hash, image_tag, cause, reason, category, policy_revision, at } = self;
        let (accepted, outcome) = (cause == Cause::Accepted, cause.outcome());
        BlockedTarget { target_hash, image_tag, outcome, reason, category, accepted, policy_revision, at }
    }
}

impl Cause {
    /// The outcome whose meaning the block has. Accepting a host changes nothing on it.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Failed(outcome) | Self::GivenUp(outcome) => outcome,
            Self::Accepted => Outcome::Aborted,
        }
    }
}
