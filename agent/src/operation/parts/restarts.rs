//! Services are restarted by compose itself, which keeps their order and runs their hooks; and with them go those who can't
//! do without: who shares a namespace, and who has `restart: true` for them.

use std::collections::BTreeSet;

use tenantry_api::names::ServiceName;
use tenantry_planner::compare::Container;
use tenantry_planner::model::Model;
use tenantry_planner::restarts::{left_behind, turns};
use tenantry_planner::steps::JournalState;
use tenantry_protocol::FailureCategory;

use super::{foreign, recipe::change};
use crate::compose::Discovered;
use crate::operation::context::OperationContext;
use crate::planning::StepError;

/// Restarts services that run, with `docker compose restart --no-deps`: who else must be is asked of [`bring_along`], so
/// that nobody is started whom a person had stopped.
pub async fn restart(
    operation: &OperationContext,
    state: &JournalState,
    discovered: &Discovered,
    model: &Model,
    services: &BTreeSet<ServiceName>,
) -> Result<(), StepError> {
    if services.is_empty() {
        return Ok(());
    }
    let foreign = foreign::services(operation).await?;
    // The agent's own container is another's to restart: see `hand_over`.
    let inside = state.plan().and_then(|plan| plan.inside.as_deref());
    let ours = |name: &&ServiceName| Some(name.as_str()) != inside && !foreign.has(name.as_str());
    for turn in turns(model, &services.iter().filter(ours).cloned().collect()) {
        change(operation, discovered, ("restart", &["--no-deps"]), turn.iter()).await?;
    }
    Ok(())
}

/// Restarts whoever was left behind by what this operation has started anew, until nobody is: which services.
pub async fn bring_along(
    operation: &OperationContext,
    state: &JournalState,
    discovered: &Discovered,
    model: &Model,
) -> Result<BTreeSet<ServiceName>, StepError> {
    let Some(since) = state.began() else { return Ok(BTreeSet::new()) };
    let inside = state.plan().and_then(|plan| plan.inside.as_deref());
    let mut all = BTreeSet::new();
    // Each round brings those along who hang on the ones before, so there are no more rounds than services.
    for _ in 0..=model.services.len() {
        let containers: Vec<Container> =
            operation.containers().await?.into_iter().map(|one| one.container).collect();
        let mut behind = left_behind(model, &containers, since);
        behind.retain(|name| Some(name.as_str()) != inside);
        if behind.is_empty() {
            return Ok(all);
        }
        restart(operation, state, discovered, model, &behind).await?;
        all.extend(behind);
    }
    let names = all.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ");
    let message =
        format!("services restart each other for ever: {names}; look at what they share and depend on");
    Err(StepError::new(FailureCategory::StartFailed, message))
}
