//! `docker compose up` of a release, and what else it takes until its containers have what is meant.

use std::collections::BTreeSet;

use tenantry_api::names::ServiceName;
use tenantry_planner::model::Model;
use tenantry_planner::steps::JournalState;
use tenantry_protocol::FailureCategory;

use super::mend::mend;
use super::recipe::Recipe;
use super::{container_names, foreign};
use crate::compose::Discovered;
use crate::operation::context::OperationContext;
use crate::planning::StepError;

/// Brings a model up, after what a killed compose left half made is removed: what that was. What containers have of it that
/// is not as meant then, and that compose does not see by itself, is mended: see [`mend`].
pub async fn bring_up(
    operation: &OperationContext,
    state: &JournalState,
    discovered: &Discovered,
    model: &Model,
) -> Result<Vec<String>, StepError> {
    let removed = container_names::remove_half_made(operation, model).await?;
    up(operation, state, discovered, model).await?;
    Ok(removed)
}

/// `docker compose up` over every selected service but the agent's own: that one is another container's to recreate.
async fn up(
    operation: &OperationContext,
    state: &JournalState,
    discovered: &Discovered,
    model: &Model,
) -> Result<(), StepError> {
    let inside = state.plan().and_then(|plan| plan.inside.as_deref());
    if model.services.is_empty() {
        return Err(StepError::new(
            FailureCategory::ComposeInvalid,
            "the compose files select no service: check profiles",
        ));
    }
    let all: Vec<&str> = model.services.keys().map(ServiceName::as_str).collect();
    let foreign = foreign::services(operation).await?;
    let ours = |name: &&str| Some(*name) != inside && !foreign.has(name);
    let names: Vec<&str> = all.iter().copied().filter(ours).collect();
    if names.is_empty() {
        return foreign.none_of(&all);
    }
    let recipe = Recipe { operation, discovered, names: &names };
    let there: BTreeSet<String> =
        operation.containers().await?.into_iter().map(|one| one.container.id).collect();
    let first = recipe.run(&[], &names).await;
    mend(&recipe, state, model, &there, first).await?;
    foreign.none_of(&all)
}
