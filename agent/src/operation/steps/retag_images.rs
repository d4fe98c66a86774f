//! `RetagImages`: the references of the compose file are put on the planned images.

use tenantry_planner::steps::{JournalState, PreviousReference};

use crate::operation::context::OperationContext;
use crate::operation::driver::StepResult;
use crate::operation::parts::references::put;
use crate::planning::StepError;

/// Puts the references of the compose file on the planned images.
pub async fn retag_images(
    operation: &OperationContext,
    state: &JournalState,
) -> Result<StepResult, StepError> {
    let before = state.plan().map(|plan| plan.references.as_slice()).unwrap_or_default();
    for planned in state.planned_images() {
        let there = |old: &PreviousReference| {
            old.reference == planned.reference && old.image_id.as_ref() == Some(&planned.image_id)
        };
        // Should one have been moved since, Verify sees that another image runs.
        if !before.iter().any(there) {
            put(operation, &planned.reference, &planned.image_id).await?;
        }
    }
    Ok(StepResult::quietly())
}
