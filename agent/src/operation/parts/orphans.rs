//! Removes the orphans that a plan names: containers of services that the release no longer has.

use std::time::Duration;

use tenantry_planner::steps::{JournalState, RemovedService};

use crate::operation::context::OperationContext;
use crate::planning::StepError;

/// Removes what was planned: what holds something that the release needs before it is started, the rest after.
pub async fn remove(
    operation: &OperationContext,
    state: &JournalState,
    first: bool,
) -> Result<Vec<String>, StepError> {
    let planned = state.plan().map(|plan| plan.removed.as_slice()).unwrap_or_default();
    let planned: Vec<&RemovedService> = planned.iter().filter(|one| one.first == first).collect();
    if planned.is_empty() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    // Read anew: only what still is of this project and this directory, and was in the plan, is touched.
    for one in operation.containers().await? {
        let Some(removed) = planned.iter().find(|removed| removed.service == one.container.service) else {
            continue;
        };
        if removed.containers.contains(&one.container.id) {
            let grace = removed.grace_ms.map(Duration::from_millis);
            operation.host.engine.stop_and_remove(&one.container.id, grace).await?;
            names.push(removed.service.clone());
        }
    }
    Ok(names)
}
