//! The journal's records.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tenantry_api::tenant::{OnFailure, RollbackData};
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::{Action, Failure, OperateRequest, ReleaseLabel, RunImage};

use super::Step;
use super::plan::{Plan, PlannedImage};

/// One record of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "record")]
pub enum Record {
    /// The operation was taken on.
    #[serde(rename_all = "camelCase")]
    Accepted {
        /// When it was taken on.
        at: Timestamp,
        /// The epoch that it runs under.
        epoch: u64,
        /// The target that it brings about.
        target_hash: String,
        /// What to do when the release does not come up.
        on_failure: OnFailure,
        /// What the operation is to do.
        #[serde(default)]
        action: Action,
        /// Whether a rollback after a failure restores data, too.
        #[serde(default)]
        rollback_data: RollbackData,
        /// What people call the release that is brought about.
        #[serde(default)]
        release: ReleaseLabel,
    },
    /// A step is about to be performed.
    Begun {
        /// The step.
        step: Step,
        /// When the step was begun.
        at: Timestamp,
    },
    /// A step was performed.
    Done {
        /// The step.
        step: Step,
        /// When the step was done.
        at: Timestamp,
        /// What the step found or did.
        did: StepOutput,
        /// What to tell people.
        message: Option<String>,
        /// The step that is begun with this very record.
        then: Option<Step>,
    },
    /// A step failed.
    Failed {
        /// The step.
        step: Step,
        /// When the step failed.
        at: Timestamp,
        /// Why the step failed.
        failure: Failure,
        /// The step that is begun with this very record.
        then: Option<Step>,
    },
    /// The agent was started again and took the operation up.
    Resumed {
        /// When the agent took the operation up.
        at: Timestamp,
    },
    /// The operation ended.
    Ended {
        /// When the operation ended.
        at: Timestamp,
        /// How the operation ended.
        outcome: Outcome,
        /// Why the operation failed, where it did.
        failure: Option<Failure>,
    },
}

impl Record {
    /// The first record of an operation.
    pub fn accepted(at: Timestamp, request: &OperateRequest) -> Self {
        Self::Accepted {
            at,
            epoch: request.epoch,
            target_hash: request.target_hash.clone(),
            on_failure: request.on_failure,
            action: request.action.clone(),
            rollback_data: request.rollback_data,
            release: request.release.clone(),
        }
    }
}

/// What a step found or did, as far as later steps need it. Never holds a secret value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "did")]
pub enum StepOutput {
    /// Nothing that later steps need.
    Nothing,
    /// The plan.
    Planned(Box<Plan>),
    /// Every reference's image.
    Pulled {
        /// One for each reference.
        images: Vec<PlannedImage>,
    },
    /// What was seen at the end.
    Verified {
        /// What every service runs.
        images: Vec<RunImage>,
    },
    /// Whether anything of the tenant's had been changed and was put back.
    Restored {
        /// True when something had been changed.
        touched: bool,
    },
}
