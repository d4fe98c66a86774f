//! `docker compose up` by the one safe recipe.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use tenantry_planner::model::Model;
use tenantry_planner::steps::JournalState;
use tenantry_protocol::{FailureCategory, OperateRequest, Place};

use super::{container_names, foreign};
use crate::compose::{Discovered, explain, keep_output};
use crate::limits::Limits;
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
    up(operation, discovered, model, state.plan().and_then(|plan| plan.inside.as_deref())).await?;
    Ok(removed)
}

/// `docker compose up` over every selected service but the agent's own: that one is another container's to recreate.
async fn up(
    operation: &OperationContext,
    discovered: &Discovered,
    model: &Model,
    inside: Option<&str>,
) -> Result<(), StepError> {
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
    let directory = Path::new(operation.directory());
    let arguments = up_arguments(&operation.request.place, discovered, &[], &names);
    let limit = up_limit(&operation.host.limits, &operation.request);
    let output =
        operation.compose().await?.run(directory, &arguments, limit, operation.lock_for_child()?).await?;
    let (code, success) = (output.status.code(), output.status.success());
    let explained = explain("up", code, &output.stderr);
    let title = format!("up, operation {}", operation.id);
    keep_output(&*operation.host.runtime, operation.log()?, title, output.stderr).await;
    if success { foreign.none_of(&all) } else { Err(explained.into()) }
}

/// The one recipe.
pub fn up_arguments(
    place: &Place,
    discovered: &Discovered,
    more: &[&str],
    services: &[&str],
) -> Vec<OsString> {
    let mut arguments = discovered.arguments(place, Path::new(place.directory.as_str()));
    let named_alone =
        if tenantry_faults::Bug::StartWithDependencies.is_seeded() { "--quiet-pull" } else { "--no-deps" };
    let orphans = if tenantry_faults::Bug::TakeOrphansAway.is_seeded() {
        "--remove-orphans=true"
    } else {
        "--remove-orphans=false"
    };
    let recipe = ["up", "-d", named_alone, "--no-build", "--pull", "never", orphans];
    arguments.extend(recipe.iter().chain(more).chain(services).map(OsString::from));
    arguments
}

/// How long `up` may take.
pub fn up_limit(limits: &Limits, request: &OperateRequest) -> Duration {
    Duration::from_millis(request.verify.timeout_ms) + limits.up
}
