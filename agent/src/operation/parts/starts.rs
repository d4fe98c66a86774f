//! What containers had before them when they were started: recorded, so that it is known whether they read files as they
//! are now.

use std::collections::{BTreeMap, BTreeSet};

use tenantry_api::names::{RelativePath, Sha256};
use tenantry_planner::model::Model;
use tenantry_planner::steps::JournalState;

use super::container_names;
use crate::engine::ProjectContainer;
use crate::files::Found;
use crate::host::restore_points::Line;
use crate::operation::context::OperationContext;
use crate::planning::{StepError, way_back::chosen};
use crate::store::{Start, Starts};

/// Puts the names of containers right and records what was made since Preflight: of which services.
pub async fn record_made(
    operation: &OperationContext,
    state: &JournalState,
    model: &Model,
) -> Result<BTreeSet<String>, StepError> {
    let before = state.plan().map(|plan| plan.containers.as_slice()).unwrap_or_default();
    let containers = operation.containers().await?;
    container_names::put_right(operation, model, &containers).await;
    let made: Vec<&ProjectContainer> =
        containers.iter().filter(|one| !before.contains(&one.container.id)).collect();
    record_starts(operation, model, &containers, &made).await?;
    Ok(made.into_iter().map(|one| one.container.service.clone()).collect())
}

/// Records what managed files the containers that were just started have before them.
pub async fn record_starts(
    operation: &OperationContext,
    model: &Model,
    all: &[ProjectContainer],
    started: &[&ProjectContainer],
) -> Result<(), StepError> {
    let directory = operation.directory();
    let files = managed(operation).await?;
    let mounted = |service: &str| -> Vec<RelativePath> {
        let service =
            model.services.iter().find(|(name, _)| name.as_str() == service).map(|(_, service)| service);
        let mounts =
            |file: &&RelativePath| service.is_some_and(|service| service.mounts(directory, file).is_some());
        files.iter().filter(mounts).cloned().collect()
    };
    let new: Vec<(String, String, Vec<RelativePath>)> = started
        .iter()
        .map(|one| (one.container.id.clone(), one.started_raw.clone(), mounted(&one.container.service)))
        .filter(|(_, _, files)| !files.is_empty())
        .collect();
    let alive: BTreeSet<String> = all.iter().map(|container| container.container.id.clone()).collect();
    let (host, uid, tree, cache) = (
        operation.host.clone(),
        operation.request.tenant.uid.clone(),
        operation.tree()?,
        operation.cache.clone(),
    );
    operation
        .blocking(move || {
            let old = host.store.starts(&uid)?;
            let mut starts = Starts { containers: old.containers.clone() };
            starts.containers.retain(|id, _| alive.contains(id));
            for (id, started_at, files) in new {
                let mut hashes: BTreeMap<RelativePath, Sha256> = BTreeMap::new();
                for file in files {
                    if let Found::File(seen) = tree.inspect(&file, &cache.hashes)? {
                        hashes.insert(file, seen.sha256);
                    }
                }
                starts.containers.insert(id, Start { started_at, files: hashes });
            }
            if starts != old {
                host.store.save_starts(&uid, &starts)?;
                cache.records_changed();
            }
            Ok(())
        })
        .await
}

/// Every managed file: those of the release, and those that were ours before.
async fn managed(operation: &OperationContext) -> Result<BTreeSet<RelativePath>, StepError> {
    let (host, request, tree) = (operation.host.clone(), operation.request.clone(), operation.tree()?);
    operation
        .blocking(move || {
            let baseline = host.store.baseline(&request.tenant.uid)?;
            let line = Line::of(&host.store, &request.tenant.uid, &request.place);
            let chosen =
                chosen(&request, &tree, &line)?.map(|point| point.baseline.files).unwrap_or_default();
            let asked = request.manifest.files.iter().map(|file| file.path.clone());
            Ok(asked.chain(baseline.files.into_keys()).chain(chosen.into_keys()).collect())
        })
        .await
}
