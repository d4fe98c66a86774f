//! What each of the five outcomes means: the one table that decisions, conditions, events and the runbook's test read.

use tenantry_api::tenant_status::{Outcome, Phase};

/// Every outcome.
pub const OUTCOMES: [Outcome; 5] =
    [Outcome::Succeeded, Outcome::Aborted, Outcome::RolledBack, Outcome::Held, Outcome::RollbackFailed];

/// What runs on the host after an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// The target.
    Target,
    /// What ran before: the operation changed nothing.
    Unchanged,
    /// What ran before: it was restored.
    Restored,
    /// The release that failed.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// When something is begun again. No target that failed is ever tried again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retried {
    /// There is nothing to try again.
    NotNeeded,
    /// When the target changes by itself; the same target when a person asks.
    WithNewTarget,
    /// Only when a person asks, whatever the target is by then.
    OnRequest,
}

/// What an outcome means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// The phase of a Tenant whose upgrade ended so.
    pub phase: Phase,
    /// What runs on the host now.
    pub runs: Runs,
    /// When something is begun again.
    pub retried: Retried,
    /// What became of the release when its upgrade has just ended, to be put behind its tag.
    pub upgrade: &'static str,
    /// What became of the release that is blocked since, to be put behind its tag.
    pub blocked: &'static str,
    /// What became of going back to a restore point, to be put behind "Going back to" and the tag.
    pub rollback: &'static str,
    /// What became of the operation, to be put behind its id in an event.
    pub event: &'static str,
    /// What a person can do, in sentences; empty where nothing is to be done.
    pub next_step: &'static str,
}

const CHANGE_OR_RETRY: &str = "Change the spec, or try it again: `tenantry retry`, or a new value of the annotation tenantry.dev/retry.";

impl Meaning {
    /// The row of an outcome.
    pub const fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => Self {
                phase: Phase::Ready,
                runs: Runs::Target,
                retried: Retried::NotNeeded,
                upgrade: "is deployed",
                blocked: "is deployed",
                rollback: "succeeded",
                event: "succeeded",
                next_step: "",
            },
            Outcome::Aborted => Self {
                phase: Phase::Aborted,
                runs: Runs::Unchanged,
                retried: Retried::WithNewTarget,
                upgrade: "was not begun",
                blocked: "was not begun",
                rollback: "was not begun",
                event: "was given up before anything was changed",
                next_step: CHANGE_OR_RETRY,
            },
            Outcome::RolledBack => Self {
                phase: Phase::RolledBack,
                runs: Runs::Restored,
                retried: Retried::WithNewTarget,
                upgrade: "was rolled back",
                blocked: "failed and was rolled back",
                rollback: "failed and was undone",
                event: "failed, and the previous release was restored",
                next_step: CHANGE_OR_RETRY,
            },
            Outcome::Held => Self {
                phase: Phase::Held,
                runs: Runs::Failed,
                retried: Retried::WithNewTarget,
                upgrade: "failed and was left running",
                blocked: "failed and was left running on purpose",
                rollback: "failed, and it was left so",
                event: "failed and was left running on purpose",
                next_step: CHANGE_OR_RETRY,
            },
            Outcome::RollbackFailed => Self {
                phase: Phase::RollbackFailed,
                runs: Runs::Unknown,
                retried: Retried::OnRequest,
                upgrade: "failed, and so did its rollback",
                blocked: "failed, and so did its rollback",
                rollback: "failed",
                event: "failed, and so did its rollback: a person is needed",
                next_step: "A person is needed: see the host. Then try it again with `tenantry retry` (or a new value \
                            of the annotation tenantry.dev/retry), go back with `tenantry rollback`, or take what is there for the truth with \
                            `tenantry accept-host`.",
            },
        }
    }

    /// Whether the target is kept from being tried again.
    pub const fn blocks_target(self) -> bool {
        match self.retried {
            Retried::NotNeeded => false,
            Retried::WithNewTarget | Retried::OnRequest => true,
        }
    }

    /// Whether every other target is kept from being tried, too.
    pub const fn blocks_every_target(self) -> bool {
        match self.retried {
            Retried::NotNeeded | Retried::WithNewTarget => false,
            Retried::OnRequest => true,
        }
    }

    /// Whether what ran before the operation runs again, or still.
    pub const fn previous_runs(self) -> bool {
        match self.runs {
            Runs::Unchanged | Runs::Restored => true,
            Runs::Target | Runs::Failed | Runs::Unknown => false,
        }
    }
}
