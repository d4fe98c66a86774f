//! Quiesce, Unquiesce and Revive: the containers that write to declared data rest while it is kept.

use std::sync::Arc;

use tenantry_api::tenant::Consistency;
use tenantry_planner::model::Model;
use tenantry_planner::steps::JournalState;
use tenantry_protocol::FailureCategory;

use crate::compose::Discovered;
use crate::operation::context::OperationContext;
use crate::operation::driver::StepResult;
use crate::operation::parts::{recheck, restarts::bring_along, stops};
use crate::planning::StepError;

/// Stops or pauses the containers that write to the data.
pub async fn quiesce(operation: &OperationContext, state: &JournalState) -> Result<StepResult, StepError> {
    let Some(plan) = state.plan().and_then(|plan| plan.data.as_ref()) else {
        return Ok(StepResult::quietly());
    };
    match plan.consistency {
        Consistency::Stop => {
            stops::stop(operation, files(operation, state).await.as_ref(), &plan.containers).await?;
        }
        Consistency::Pause => {
            for id in plan.containers.iter().rev() {
                operation.host.engine.pause(id).await?;
            }
        }
        Consistency::Live => {}
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
    let (mut gone, mut stopped) = (0, Vec::new());
    for id in resting(state) {
        match engine.rest(id).await? {
            None => gone += 1,
            Some(rest) if rest.paused => engine.unpause(id).await?,
            Some(rest) if rest.running => {}
            Some(_) => stopped.push(id.clone()),
        }
    }
    let files = files(operation, state).await;
    stops::start_again(operation, files.as_ref(), &stopped).await?;
    if let Some((discovered, model)) = &files {
        bring_along(operation, state, discovered, model).await?;
    }
    if gone > 0 {
        let message =
            format!("{gone} containers that were stopped for their data are gone: start the project by hand");
        return Err(StepError::new(FailureCategory::StartFailed, message));
    }
    Ok(StepResult::saying("the same containers were started again"))
}

/// What ran before, as compose reads it. Where it can't be read, or is not what the policy allows, containers are stopped and
/// started without it, and no hook of it is run.
async fn files(operation: &OperationContext, state: &JournalState) -> Option<(Discovered, Arc<Model>)> {
    let checked = state.plan().map(|plan| plan.previous_checked.clone()).unwrap_or_default();
    match recheck::previous(operation, &checked).await {
        Ok(files) => Some(files),
        Err(error) => {
            tracing::warn!(tenant = %operation.request.tenant.name, operation = %operation.id, problem = %error.message, "containers are stopped and started without compose");
            None
        }
    }
}

fn resting(state: &JournalState) -> &[String] {
    state
        .plan()
        .and_then(|plan| plan.data.as_ref())
        .map(|data| data.containers.as_slice())
        .unwrap_or_default()
}
