//! The state as operators see it.

use tenantry_api::names::OperationId;
use tenantry_protocol::{OperationState, OperationStatus};

use super::state::JournalState;

/// Between two records this many changes of progress have numbers of their own.
const PROGRESS_NUMBERS: u64 = 1 << 20;

impl JournalState {
    /// The status as operators see it. The status' number leaves room for changes of progress until the next record.
    pub fn status(&self, id: &OperationId) -> OperationStatus {
        let plan = self.plan();
        let state = match &self.ended {
            None => OperationState::Running,
            Some((at, outcome, failure)) => {
                OperationState::Ended { outcome: *outcome, failure: failure.clone(), at: *at }
            }
        };
        OperationStatus {
            id: id.clone(),
            seq: self.records * PROGRESS_NUMBERS,
            epoch: self.epoch(),
            target_hash: self.target_hash().to_owned(),
            state,
            phases: self.phases.clone(),
            plan: plan.map(|plan| plan.report.clone()),
            progress: None,
            left_running: plan.map(|plan| plan.left_running.clone()).unwrap_or_default(),
            left_files: plan.map(|plan| plan.left_files.clone()).unwrap_or_default(),
            images: self.images().to_vec(),
            compose: plan.map(|plan| plan.compose.clone()),
            release: self.release.clone(),
            data_restored: self.data_restored,
            waits_for: None,
        }
    }
}
