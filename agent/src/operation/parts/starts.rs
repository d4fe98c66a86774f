//! What containers had before them when they were started: recorded, so that it is known whether they read files as they
//! are now.

use std::collections::{BTreeMap, BTreeSet};

use tenantry_api::names::{RelativePath, Sha256};
use tenantry_planner::model::{Copied, Model, Service};
use tenantry_planner::steps::JournalState;

use super::container_names;
use crate::compose::links;
use crate::engine::ProjectContainer;
use crate::files::Found;
use crate::host::restore_points::Line;
use crate::operation::context::OperationContext;
use crate::planning::{StepError, way_back::chosen};
use crate::store::{Start, Starts};

/// A container that was just started, and what is before it.
struct Started {
    id: String,
    at: String,
    files: Vec<RelativePath>,
    mounted: Option<BTreeSet<RelativePath>>,
    copied: Option<Copied>,
}

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
    record_copied(operation, state, &containers).await?;
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
        let service = model.services.get(service);
        let mounts =
            |file: &&RelativePath| service.is_some_and(|service| service.mounts(directory, file).is_some());
        files.iter().filter(mounts).cloned().collect()
    };
    let links = links(model, directory);
    let by_links = |service: &str| {
        let found = model.services.get(service);
        let is_linked =
            |service: &&Service| service.binds.iter().any(|bind| links.contains_key(&bind.source));
        found.filter(is_linked).map(|service| service.mounted(directory))
    };
    let copied = |service: &str| {
        let found = model.services.get(service);
        found.map(|service| service.copied.clone()).filter(|copied| !copied.is_empty())
    };
    let new: Vec<Started> = started
        .iter()
        .map(|one| Started {
            id: one.container.id.clone(),
            at: one.started_raw.clone(),
            files: mounted(&one.container.service),
            mounted: by_links(&one.container.service),
            copied: copied(&one.container.service),
        })
        .filter(|one| !one.files.is_empty() || one.mounted.is_some() || one.copied.is_some())
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
            for one in new {
                let mut files: BTreeMap<RelativePath, Sha256> = BTreeMap::new();
                for file in one.files {
                    if let Found::File(seen) = tree.inspect(&file, &cache.hashes)? {
                        files.insert(file, seen.sha256);
                    }
                }
                // Who was only restarted has what was copied into it before.
                let known = old.containers.get(&one.id).and_then(|start| start.copied.clone());
                let copied = known.or(one.copied);
                let Started { id, at: started_at, mounted, .. } = one;
                starts.containers.insert(id, Start { started_at, files, mounted, copied });
            }
            if starts != old {
                host.store.save_starts(&uid, &starts)?;
                cache.records_changed();
            }
            Ok(())
        })
        .await
}

/// Keeps what is known of the containers that stayed: the next operation has other files to go by.
async fn record_copied(
    operation: &OperationContext,
    state: &JournalState,
    containers: &[ProjectContainer],
) -> Result<(), StepError> {
    let Some(plan) = state.plan().filter(|plan| !plan.copied.is_empty()) else { return Ok(()) };
    let stayed = containers.iter().filter_map(|one| {
        let copied = plan.copied.get(&one.container.id)?;
        Some((one.container.id.clone(), one.started_raw.clone(), copied.clone()))
    });
    let stayed: Vec<_> = stayed.collect();
    let (host, uid) = (operation.host.clone(), operation.request.tenant.uid.clone());
    operation
        .blocking(move || {
            let old = host.store.starts(&uid)?;
            let mut starts = old.clone();
            for (id, started_at, copied) in stayed {
                let start = Start { started_at, files: BTreeMap::new(), mounted: None, copied: None };
                starts.containers.entry(id).or_insert(start).copied.get_or_insert(copied);
            }
            if starts != old {
                host.store.save_starts(&uid, &starts)?;
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
