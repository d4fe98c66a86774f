//! Containers are put to rest for their data and started again as `docker compose stop` and `up` do it: in the order of what
//! depends on what, with hooks.

use std::collections::{BTreeMap, BTreeSet};

use tenantry_api::names::ServiceName;
use tenantry_planner::compare::ContainerState;
use tenantry_planner::model::Model;

use super::foreign;
use super::recipe::{Recipe, change};
use crate::compose::Discovered;
use crate::engine::ProjectContainer;
use crate::operation::context::OperationContext;
use crate::planning::StepError;

/// Stops containers, those first that nobody depends on. Their services are stopped by compose where its files are there to
/// be read; whatever runs on is stopped by the engine.
pub async fn stop(
    operation: &OperationContext,
    files: Option<&(Discovered, std::sync::Arc<Model>)>,
    ids: &[String],
) -> Result<(), StepError> {
    if let Some((discovered, model)) = files {
        let containers = operation.containers().await?;
        let runs = |one: &&ProjectContainer| {
            ids.contains(&one.container.id) && one.container.state == ContainerState::Running
        };
        let services = known(model, containers.iter().filter(runs));
        let foreign = foreign::services(operation).await?;
        let services: Vec<&ServiceName> =
            services.iter().filter(|name| !foreign.has(name.as_str())).collect();
        if !services.is_empty() {
            change(operation, discovered, ("stop", &[]), services.into_iter()).await?;
        }
    }
    for id in ids.iter().rev() {
        operation.host.engine.stop(id).await?;
    }
    Ok(())
}

/// Starts these very containers again. None is made: where compose would, or can't start one, and for services that its
/// files do not have, the engine starts them. One that can't be started keeps no other one from it.
pub async fn start_again(
    operation: &OperationContext,
    files: Option<&(Discovered, std::sync::Arc<Model>)>,
    ids: &[String],
) -> Result<(), StepError> {
    let files = files.filter(|_| !tenantry_faults::Bug::StartPastCompose.is_seeded());
    if let Some((discovered, model)) = files {
        let services = startable(operation, model, ids).await?;
        let names: Vec<&str> = services.iter().map(ServiceName::as_str).collect();
        let recipe = Recipe { operation, discovered, names: &names };
        if !names.is_empty()
            && let Err(error) = recipe.run(&["--no-recreate"], &names).await
        {
            // A hook that fails, or a service that others wait for, must not leave the rest of what ran at rest.
            tracing::warn!(tenant = %operation.request.tenant.name, operation = %operation.id, problem = %error.message, "compose could not start everything again; the engine does");
        }
    }
    let mut first = Ok(());
    for id in ids {
        let rest = operation.host.engine.rest(id).await?;
        if rest.is_some_and(|rest| !rest.running) {
            let started = operation.host.engine.start_container(id).await;
            first = first.and(started.map_err(StepError::from));
        }
    }
    first
}

/// The services whose containers are all among these, and as many as there should be.
async fn startable(
    operation: &OperationContext,
    model: &Model,
    ids: &[String],
) -> Result<BTreeSet<ServiceName>, StepError> {
    let containers = operation.containers().await?;
    let foreign = foreign::services(operation).await?;
    let mut of_service: BTreeMap<&str, Vec<&ProjectContainer>> = BTreeMap::new();
    for one in &containers {
        of_service.entry(&one.container.service).or_default().push(one);
    }
    let whole = |name: &&ServiceName| {
        let all = of_service.get(name.as_str()).map(Vec::as_slice).unwrap_or_default();
        let wanted = model.services.get(*name).map_or(0, |service| service.replicas as usize);
        all.len() == wanted && all.iter().all(|one| ids.contains(&one.container.id))
    };
    let services = known(model, containers.iter().filter(|one| ids.contains(&one.container.id)));
    Ok(services.iter().filter(|name| !foreign.has(name.as_str())).filter(whole).cloned().collect())
}

/// The services of containers, as far as the model has them.
fn known<'a>(model: &Model, containers: impl Iterator<Item = &'a ProjectContainer>) -> BTreeSet<ServiceName> {
    let names: BTreeSet<&str> = containers.map(|one| one.container.service.as_str()).collect();
    model.services.keys().filter(|name| names.contains(name.as_str())).cloned().collect()
}
