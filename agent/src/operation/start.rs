//! Start: references on the planned images, then `docker compose up` by the one safe recipe.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use tenantry_api::names::{RelativePath, Sha256};
use tenantry_planner::model::Model;
use tenantry_planner::steps::{PreviousReference, State};
use tenantry_protocol::{FailureCategory, OperateRequest, Place};

use super::back::chosen;
use super::checked;
use super::driver::{Performed, Wrong};
use super::leaving;
use super::names;
use super::taken;
use super::work::Work;
use crate::compose::{Discovered, explain, keep_output};
use crate::engine::{ProjectContainer, Reference};
use crate::files::Found;
use crate::limits::Limits;
use crate::store::{Start, Starts};

/// Puts the references of the compose file on the planned images.
pub async fn point(work: &Work, state: &State) -> Result<Performed, Wrong> {
    let before = state.plan().map(|plan| plan.references.as_slice()).unwrap_or_default();
    for planned in state.planned_images() {
        let there = |old: &PreviousReference| {
            old.reference == planned.reference && old.image_id.as_ref() == Some(&planned.image_id)
        };
        // Should one have been moved since, Verify sees that another image runs.
        if !before.iter().any(there) {
            put(work, &planned.reference, &planned.image_id).await?;
        }
    }
    Ok(Performed::quietly())
}

/// Makes a reference point to an image. One with a digest points where it points.
pub async fn put(work: &Work, reference: &str, image: &str) -> Result<(), Wrong> {
    let Some(Reference { repository, tag: Some(tag), digest: None }) = Reference::parse(reference) else {
        return Ok(());
    };
    if work.host.engine.image(reference).await?.is_some_and(|now| now.id == image) {
        return Ok(());
    }
    Ok(work.host.engine.tag(image, &repository, &tag).await?)
}

/// Starts the release.
pub async fn start(work: &Work, state: &State) -> Result<Performed, Wrong> {
    let checked = state.plan().map(|plan| plan.checked.clone()).unwrap_or_default();
    let (discovered, model) = checked::release(work, &checked).await?;
    let mut removed = leaving::remove(work, state, true).await?;
    removed.extend(bring_up(work, state, &discovered, &model).await?);
    removed.extend(leaving::remove(work, state, false).await?);
    let services = record_made(work, state, &model).await?;
    let mut text = match services.len() {
        0 => "compose left every container as it was".to_owned(),
        1..=8 => {
            format!("compose made containers of {}", services.into_iter().collect::<Vec<_>>().join(", "))
        }
        many => format!("compose made containers of {many} services"),
    };
    if !removed.is_empty() {
        let _ = write!(text, "; removed: {}", removed.join(", "));
    }
    Ok(Performed::saying(text))
}

/// Brings a model up, after what a killed compose left half made is removed: what that was.
pub async fn bring_up(
    work: &Work,
    state: &State,
    discovered: &Discovered,
    model: &Model,
) -> Result<Vec<String>, Wrong> {
    let removed = names::remove_half_made(work, model).await?;
    up(work, discovered, model, state.plan().and_then(|plan| plan.inside.as_deref())).await?;
    Ok(removed)
}

/// Puts the names of containers right and records what was made since Preflight: of which services.
pub async fn record_made(work: &Work, state: &State, model: &Model) -> Result<BTreeSet<String>, Wrong> {
    let before = state.plan().map(|plan| plan.containers.as_slice()).unwrap_or_default();
    let containers = work.containers().await?;
    names::put_right(work, model, &containers).await;
    let made: Vec<&ProjectContainer> =
        containers.iter().filter(|one| !before.contains(&one.container.id)).collect();
    record_starts(work, model, &containers, &made).await?;
    Ok(made.into_iter().map(|one| one.container.service.clone()).collect())
}

/// `docker compose up` over every selected service but the agent's own: that one is another container's to recreate.
async fn up(work: &Work, discovered: &Discovered, model: &Model, inside: Option<&str>) -> Result<(), Wrong> {
    if model.services.is_empty() {
        return Err(Wrong::new(
            FailureCategory::ComposeInvalid,
            "the compose files select no service: check profiles",
        ));
    }
    let all: Vec<&str> = model.services.keys().map(tenantry_api::names::ServiceName::as_str).collect();
    let taken = taken::over(work).await?;
    let ours = |name: &&str| Some(*name) != inside && !taken.has(name);
    let names: Vec<&str> = all.iter().copied().filter(ours).collect();
    if names.is_empty() {
        return taken.none_of(&all);
    }
    let directory = Path::new(work.directory());
    let arguments = up_arguments(&work.request.place, discovered, &[], &names);
    let limit = up_limit(&work.host.limits, &work.request);
    let output = work.compose().await?.run(directory, &arguments, limit, work.lock_for_child()?).await?;
    let (code, success) = (output.status.code(), output.status.success());
    let explained = explain("up", code, &output.stderr);
    keep_output(work.log()?, format!("up, operation {}", work.id), output.stderr).await;
    if success { taken.none_of(&all) } else { Err(explained.into()) }
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

/// Every managed file: those of the release, and those that were ours before.
async fn managed(work: &Work) -> Result<BTreeSet<RelativePath>, Wrong> {
    let (host, request, tree) = (work.host.clone(), work.request.clone(), work.tree()?);
    work.blocking(move || {
        let baseline = host.store.baseline(&request.tenant.uid)?;
        let chosen = chosen(&request, &tree)?.map(|point| point.baseline.files).unwrap_or_default();
        let asked = request.manifest.files.iter().map(|file| file.path.clone());
        Ok(asked.chain(baseline.files.into_keys()).chain(chosen.into_keys()).collect())
    })
    .await
}

/// Records what managed files the containers that were just started have before them.
pub async fn record_starts(
    work: &Work,
    model: &Model,
    all: &[ProjectContainer],
    started: &[&ProjectContainer],
) -> Result<(), Wrong> {
    let directory = work.directory();
    let files = managed(work).await?;
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
    let (host, uid, tree, tenant) =
        (work.host.clone(), work.request.tenant.uid.clone(), work.tree()?, work.tenant.clone());
    work.blocking(move || {
        let old = host.store.starts(&uid)?;
        let mut starts = Starts { containers: old.containers.clone() };
        starts.containers.retain(|id, _| alive.contains(id));
        for (id, started_at, files) in new {
            let mut hashes: BTreeMap<RelativePath, Sha256> = BTreeMap::new();
            for file in files {
                if let Found::File(seen) = tree.inspect(&file, &tenant.hashes)? {
                    hashes.insert(file, seen.sha256);
                }
            }
            starts.containers.insert(id, Start { started_at, files: hashes });
        }
        if starts != old {
            host.store.save_starts(&uid, &starts)?;
            tenant.records_changed();
        }
        Ok(())
    })
    .await
}
