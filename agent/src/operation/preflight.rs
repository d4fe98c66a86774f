//! Preflight: everything that can be checked before an image is pulled, and the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use tenantry_api::names::RelativePath;
use tenantry_planner::compare::of_service;
use tenantry_planner::model::{Model, Mounted};
use tenantry_planner::steps::{Checked, PlanRecord, PlannedImage, PreviousReference, StepOutput};
use tenantry_protocol::{FailureCategory, PlanReport, Recreate, RunImage};

use super::back;
use super::changes::{Changes, planned as changes};
use super::checked;
use super::driver::{Performed, Wrong};
use super::env_check;
use super::hand_run;
use super::leaving::leaving;
use super::ports;
use super::staged::{Staged, resolve_staged, stage};
use super::work::Work;
use crate::compose::Discovered;
use crate::engine::{ProjectContainer, Reference};
use crate::files::{Change, Look, Tree};
use crate::observe::own;

/// Space that must be free on the tenant's disk besides what is written, in bytes.
const SPARE: u64 = 64 * 1024 * 1024;
const SIDE_BY_SIDE: usize = 8;

/// Checks everything and plans.
pub async fn preflight(work: &Work) -> Result<Performed, Wrong> {
    policy(work)?;
    let compose = work.compose().await?;
    let (containers, planned) = tokio::join!(containers(work), planned(work));
    let containers = containers?;
    let inside = super::inside::service(work, &containers).await?;
    let (changes, discovered, path, checked) = planned?;
    let (has_env, staged_at) = (discovered.env, path.clone());
    let resolving = resolve_staged(&compose, &work.request, discovered, path, work.log()?);
    // What is on disk is resolved already, unless the agent has just been started.
    let (staged, read_back, previous) =
        tokio::join!(resolving, env_check::check(work, has_env, &staged_at), previous(work, &containers));
    let staged = Arc::new(staged?);
    read_back?;
    super::policy::check(work, &compose, &staged).await?;
    model(work, &staged.model, &changes)?;
    let old = previous.as_ref().map(|(_, model)| &**model);
    ports::check(&staged.model, old, !containers.is_empty())?;
    let leaving = leaving(work, &staged, old, &containers).await?;
    let references = references(work, &staged.model, old).await?;
    keep_previous(work, &containers, &references).await?;
    let images = gone_back_to(work, &staged).await?;
    let models: Vec<&Model> = std::iter::once(&*staged.model).chain(old).collect();
    let data = super::data::plan(work, &models).await?;
    let previous_compose = previous.as_ref().map(|(found, _)| found.in_use(&compose, &work.request.place));
    let previous_checked = match &previous {
        Some((found, _)) => checked::now(work, found.inputs.clone()).await?,
        None => Checked::new(),
    };
    let plan = PlanRecord {
        report: PlanReport {
            hash: plan_hash(work, &changes),
            files: changes.counts,
            recreates: recreates(work, &staged, old, &changes, &containers),
        },
        compose: staged.compose.clone(),
        previous_compose,
        writes: !changes.is_empty(),
        changed: changes.changed.clone(),
        first: containers.is_empty(),
        containers: containers.iter().map(|container| container.container.id.clone()).collect(),
        previous_images: previous_images(&containers),
        references,
        left_running: leaving.left,
        left_files: changes.left.iter().map(ToString::to_string).collect(),
        removed: leaving.removed,
        data,
        images,
        inside,
        checked,
        previous_checked,
    };
    work.set_staged(staged);
    Ok(Performed { message: Some(summary(&plan)), did: StepOutput::Planned(Box::new(plan)) })
}

fn policy(work: &Work) -> Result<(), Wrong> {
    let allowed = work.host.allowed(&work.request.place.directory);
    allowed.map_err(|error| Wrong::new(FailureCategory::PolicyRefused, error.message))
}

/// The containers of the project; refused where another directory's are among them.
async fn containers(work: &Work) -> Result<Vec<ProjectContainer>, Wrong> {
    let all = work.host.engine.known_containers(work.request.place.project.as_str()).await?;
    let foreign = all.iter().find(|one| one.directory.trim_end_matches('/') != work.directory());
    if let Some(foreign) = foreign {
        let message = format!(
            "container {} of project {} was made from {}, not from {}: remove it or rename one of the projects",
            foreign.container.name,
            work.request.place.project,
            if foreign.directory.is_empty() { "an unknown directory" } else { &foreign.directory },
            work.directory()
        );
        return Err(Wrong::new(FailureCategory::AdoptionNeeded, message));
    }
    Ok(own(all, work.directory()))
}

async fn planned(work: &Work) -> Result<(Changes, Discovered, std::path::PathBuf, Checked), Wrong> {
    let (request, id) = (work.request.clone(), work.id.clone());
    let (tenant, tree, host) = (work.tenant.clone(), work.tree()?, work.host.clone());
    work.blocking(move || {
        let changes = changes(&request, &id, &tree, &tenant, &host.store)?;
        space(&tree, &changes)?;
        let (discovered, path, checked) = stage(&request, &id, &tree, &changes)?;
        Ok((changes, discovered, path, checked))
    })
    .await
}

fn space(tree: &Tree, changes: &Changes) -> Result<(), Wrong> {
    let length = |change: &Change| match change {
        Change::Write { content, .. } => content.len(),
        Change::Delete { .. } => 0,
    };
    let written: usize = changes.set.changes.iter().map(length).sum();
    // Once as new content, once as the restore point of as much.
    let (needed, free) = (written as u64 * 2 + SPARE, tree.free_bytes()?);
    if free >= needed {
        return Ok(());
    }
    let (free, needed) = (free >> 20, needed >> 20);
    let message =
        format!("{free} MiB are free on the disk of the tenant's directory, {needed} MiB are needed");
    Err(Wrong::new(FailureCategory::DiskFull, message))
}

/// What is on disk now. That it can't be read is no reason against a release that can.
async fn previous(work: &Work, containers: &[ProjectContainer]) -> Option<(Discovered, Arc<Model>)> {
    match work.on_disk().await {
        Ok(found) => found,
        Err(wrong) => {
            if !containers.is_empty() {
                tracing::warn!(tenant = %work.request.tenant.name, problem = %wrong.message, "the compose files on disk can't be read");
            }
            None
        }
    }
}

/// Checks of the staged model.
fn model(work: &Work, model: &Model, changes: &Changes) -> Result<(), Wrong> {
    for (reference, pulled) in model.references() {
        if Reference::parse(reference).is_none() {
            let message = format!(
                "the image reference {reference:?} is not one: an image tag or variable is empty or wrong"
            );
            return Err(Wrong::new(FailureCategory::ComposeInvalid, message));
        }
        if pulled && !work.host.config.allow.reference(reference) {
            let registry = crate::config::registry_of(reference);
            let message = format!(
                "{reference}: this host's policy does not allow the registry {registry}; a person can add it to \
                 allow.registries in the agent's policy file"
            );
            return Err(Wrong::new(FailureCategory::PolicyRefused, message));
        }
    }
    let tree = work.tree()?;
    for path in model.protected_binds(work.directory(), &work.request.manifest.protect) {
        if tree.look(&path)? == Look::Missing {
            let message = format!(
                "{path} is mounted into a service and lies below a protected path, but is not there: dockerd would \
                 create it as root. Create it, or take the mount out"
            );
            return Err(Wrong::new(FailureCategory::PathRefused, message));
        }
    }
    signals(work, model, changes)
}

/// A reload signal does not reach a file that is mounted by itself: the container still sees the old one.
fn signals(work: &Work, model: &Model, changes: &Changes) -> Result<(), Wrong> {
    for (at, rule) in
        work.request.manifest.on_change.iter().enumerate().filter(|(_, rule)| rule.signal.is_some())
    {
        let files = work.request.manifest.files.iter().map(|file| &file.path).chain(&changes.changed);
        let covered: Vec<&RelativePath> =
            files.filter(|file| rule.paths.iter().any(|path| file.is_at_or_below(path))).collect();
        for (name, service) in model.services.iter().filter(|(name, _)| rule.services.contains(name)) {
            let singly =
                covered.iter().find(|file| service.mounts(work.directory(), file) == Some(Mounted::Singly));
            if let Some(file) = singly {
                let message = format!(
                    "onChange[{at}] of the bundle signals {name} for {file}, but {name} mounts that file by itself and \
                     would keep seeing the old one: mount its folder, or leave the signal out so that {name} is restarted"
                );
                return Err(Wrong::new(FailureCategory::ComposeInvalid, message));
            }
        }
    }
    Ok(())
}

/// What every reference of both releases points to now.
async fn references(
    work: &Work,
    staged: &Model,
    previous: Option<&Model>,
) -> Result<Vec<PreviousReference>, Wrong> {
    let names = staged
        .references()
        .into_keys()
        .chain(previous.iter().flat_map(|model| model.references().into_keys()));
    let names: BTreeSet<String> = names.map(str::to_owned).collect();
    let looks = names.into_iter().map(|reference| async move {
        let image_id = work.host.engine.known_image(&reference).await?.map(|image| image.id);
        Ok::<_, Wrong>(PreviousReference { reference, image_id })
    });
    let mut found: Vec<PreviousReference> =
        futures::stream::iter(looks).buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
    found.sort_by(|a, b| a.reference.cmp(&b.reference));
    Ok(found)
}

/// A restore point without its images would be none.
async fn keep_previous(
    work: &Work,
    containers: &[ProjectContainer],
    references: &[PreviousReference],
) -> Result<(), Wrong> {
    let running = containers.iter().map(|container| container.container.image_id.clone());
    let pointed = references.iter().filter_map(|reference| reference.image_id.clone());
    let images: Vec<String> = running.chain(pointed).collect();
    super::keep::keep(&work.host.engine, &work.request.tenant.uid, &work.id, &images).await.map_err(|wrong| {
        let message = format!("an image that a rollback would need can't be kept: {}", wrong.message);
        Wrong { message, ..wrong }
    })
}

fn previous_images(containers: &[ProjectContainer]) -> Vec<RunImage> {
    let all: BTreeMap<&str, &ProjectContainer> =
        containers.iter().map(|container| (container.container.service.as_str(), container)).collect();
    all.into_iter()
        .map(|(service, container)| RunImage {
            service: service.to_owned(),
            reference: container.container.image_ref.clone(),
            image_id: container.container.image_id.clone(),
            repo_digest: None,
        })
        .collect()
}

/// The images of the release that is gone back to; none for an upgrade, which learns them by Pull. Where nothing is
/// pulled, the staged release is compared here with what a person would see.
async fn gone_back_to(work: &Work, staged: &Staged) -> Result<Vec<PlannedImage>, Wrong> {
    let Some(point) = back::chosen_by(work).await? else { return Ok(Vec::new()) };
    let (checked, images) =
        tokio::join!(hand_run::check(work, staged), back::images(work, &point, &staged.model));
    checked?;
    images
}

/// Services that compose will recreate or that are restarted, and why.
fn recreates(
    work: &Work,
    staged: &Staged,
    previous: Option<&Model>,
    changes: &Changes,
    containers: &[ProjectContainer],
) -> Vec<Recreate> {
    let own: Vec<_> = containers.iter().map(|container| container.container.clone()).collect();
    let mut all = Vec::new();
    for (name, service) in &staged.model.services {
        let old = previous.and_then(|model| model.services.get(name));
        let runs = of_service(&own, name.as_str());
        let mounts = changes.changed.iter().find(|file| service.mounts(work.directory(), file).is_some());
        let cause = if runs.is_empty() {
            (service.replicas > 0).then(|| "new".to_owned())
        } else if runs.iter().any(|container| container.image_ref != service.image) {
            Some("image changed".to_owned())
        } else if changes.env && service.reads_env_file(work.directory(), ".env") {
            Some("reads .env".to_owned())
        } else if old.is_some_and(|old| old.definition != service.definition) {
            Some("configuration changed".to_owned())
        } else {
            mounts.map(|file| format!("mounts {file}"))
        };
        all.extend(cause.map(|cause| Recreate { service: name.to_string(), cause }));
    }
    all
}

/// Hash over everything that changes; what holds secrets enters as a hash only.
fn plan_hash(work: &Work, changes: &Changes) -> String {
    let content = |change: &Change| match change {
        Change::Write { content, .. } => Some(crate::files::sha256(content)),
        Change::Delete { .. } => None,
    };
    let files: BTreeMap<String, _> =
        changes.set.changes.iter().map(|change| (change.path().to_string(), content(change))).collect();
    let text = format!("{}\n{files:?}", work.request.target_hash);
    format!("sha256:{}", crate::files::sha256(text.as_bytes()))
}

fn summary(plan: &PlanRecord) -> String {
    let files = &plan.report.files;
    let mut text = format!(
        "{} files are created, {} changed, {} deleted; {} services are touched",
        files.created,
        files.modified,
        files.deleted,
        plan.report.recreates.len()
    );
    if !plan.removed.is_empty() {
        let names: Vec<&str> = plan.removed.iter().map(|one| one.service.as_str()).collect();
        let _ = write!(text, "; no longer in the release and removed: {}", names.join(", "));
    }
    if !plan.left_running.is_empty() {
        let _ = write!(text, "; no longer in the release and left running: {}", plan.left_running.join(", "));
    }
    if !plan.left_files.is_empty() {
        let _ = write!(
            text,
            "; no longer in the release, edited by hand and left: {}",
            plan.left_files.join(", ")
        );
    }
    text
}
