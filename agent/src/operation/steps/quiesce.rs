//! Quiesce, Unquiesce and Revive: the containers that write to declared data rest while it is kept.

use tenantry_api::tenant::Consistency;
use tenantry_planner::steps::JournalState;
use tenantry_protocol::FailureCategory;

use crate::operation::context::OperationContext;
use crate::operation::driver::StepResult;
use crate::planning::StepError;

/// Stops or pauses the containers that write to the data.
pub async fn quiesce(operation: &OperationContext, state: &JournalState) -> Result<StepResult, StepError> {
    let Some(plan) = state.plan().and_then(|plan| plan.data.as_ref()) else {
        return Ok(StepResult::quietly());
    };
    for id in plan.containers.iter().rev() {
        match plan.consistency {
            Consistency::Stop => operation.host.engine.stop(id).await?,
            Consistency::Pause => operation.host.engine.pause(id).await?,
            Consistency::Live => {}
        }
    }
    Ok(StepResult::quietly())
}

/// Lets paused containers go on.
pub async fn unquiesce(operation: &OperationContext, state: &JournalState) -> Result<StepResult, StepError> {
    for id in resting(state) {
        operation.host.engine.unpause(id).await?;
    }
    Ok(StepResult::quietly())
}

/// Starts the very containers again that were stopped or paused.
pub async fn revive(operation: &OperationContext, state: &JournalState) -> Result<StepResult, StepError> {
    let engine = &operation.host.engine;
    let mut gone = 0;
    for id in resting(state) {
        match engine.rest(id).await? {
            None => gone += 1,
            Some(rest) if rest.paused => engine.unpause(id).await?,
            Some(rest) if rest.running => {}
            Some(_) => engine.start_container(id).await?,
        }
    }
    if gone > 0 {
        let message =
            format!("{gone} containers that were stopped for their data are gone: start the project by hand");
        return Err(StepError::new(FailureCategory::StartFailed, message));
    }
    Ok(StepResult::saying("the same containers were started again"))
}

fn resting(state: &JournalState) -> &[String] {
    state
        .plan()
        .and_then(|plan| plan.data.as_ref())
        .map(|data| data.containers.as_slice())
        .unwrap_or_default()
}
