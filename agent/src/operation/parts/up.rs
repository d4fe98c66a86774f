//! `docker compose up` of a release, and what else it takes until its containers have what is meant.

use tenantry_planner::model::Model;
use tenantry_planner::steps::JournalState;
use tenantry_protocol::FailureCategory;

use super::recipe::Recipe;
use super::{attachments, container_names, foreign};
use crate::compose::Discovered;
use crate::operation::context::OperationContext;
use crate::planning::StepError;

/// Brings a model up, after what a killed compose left half made is removed: what that was.
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
    let all: Vec<&str> = model.services.keys().map(tenantry_api::names::ServiceName::as_str).collect();
    let foreign = foreign::services(operation).await?;
    let ours = |name: &&str| Some(*name) != inside && !foreign.has(name);
    let names: Vec<&str> = all.iter().copied().filter(ours).collect();
    if names.is_empty() {
        return foreign.none_of(&all);
    }
    let recipe = Recipe { operation, discovered, names: &names };
    let first = recipe.run(&[], &names).await;
    attachments::mend(&recipe, model, state.began(), first).await?;
    foreign.none_of(&all)
}
