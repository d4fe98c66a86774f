//! The engine's networks, against which what containers have of networks and ports is judged (P19).

use std::time::Duration;

use tenantry_planner::compare::Networks;
use tenantry_planner::model::Model;

use crate::engine::networks_for;
use crate::operation::context::OperationContext;
use crate::planning::StepError;

/// How long to wait for an engine that is away.
const AGAIN: Duration = Duration::from_secs(2);

/// The engine's networks for a model that is about to be watched; an engine that is away is waited for.
pub async fn networks(operation: &OperationContext, model: &Model) -> Result<Networks, StepError> {
    let host = &operation.host;
    let began = host.runtime.instant();
    loop {
        match networks_for(&*host.engine, model).await {
            Ok(networks) => return Ok(networks),
            Err(error) if host.since(began) > host.limits.away => return Err(error.into()),
            Err(_) => host.runtime.sleep(AGAIN).await,
        }
    }
}
