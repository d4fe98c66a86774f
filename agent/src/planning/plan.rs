//! A plan: everything that can be checked before an image is pulled, and what would change on the host.
//!
//! Guarantees: nothing of the tenant's is changed, no image is pulled or tagged, no record is written, no lock is taken. A
//! plan has a staged tree of its own, which is gone once the plan is made, so any number of plans can be made at once,
//! also beside an operation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use tenantry_api::names::OperationId;
use tenantry_planner::compare::expectations_on;
use tenantry_planner::model::{Copied, Model};
use tenantry_planner::steps::{Checked, ImageChoice, ImageEdit, Plan, PlannedImage, PreviousReference};
use tenantry_protocol::{Action, ComposeUse, FailureCategory, PlanReport, RunImage};

use super::changes::{Changes, patched_values};
use super::checks::{
    before, env, env_files, in_project_agent, manual_run, model, mounts, policy, ports, probes, reach,
    resources, space, unread,
};
use super::context::RequestContext;
use super::error::StepError;
use super::file_changes::{edit_images, file_changes};
use super::image_edits::image_edits;
use super::orphans::orphans;
use super::recreates::{Held, recreates};
use super::stage::{StagedRelease, StagedTree, checked_outside, hashes, next_texts, resolve_stage, stage};
use super::terms::terms;
use super::{data, images, way_back};
use crate::compose::{Compose, Discovered};
use crate::engine::ProjectContainer;
use crate::files::Stage;
use crate::host::OpenPlan;
use crate::observe::{Texts, other_projects, own, with_images};
use crate::store::Starts;

/// How many references are looked at side by side.
const SIDE_BY_SIDE: usize = 8;

/// A plan, and the release that it leads to.
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// The release, as compose will see it once its files are written.
    pub release: StagedRelease,
}

/// Checks everything and plans. `own` is the operation that has begun on it, where one has.
pub async fn plan(context: &RequestContext, own: Option<&OperationId>) -> Result<Planned, StepError> {
    let open = context.host.plans.open();
    let planned = Box::pin(planned(context, own, &open)).await;
    let removed = remove_stage(context, open.name().to_owned()).await;
    // Why there is no plan is told before what was left of it.
    let planned = planned?;
    removed.map(|()| planned)
}

/// Removes the plan's tree. A directory that was never there, or that is not allowed, is not made for that.
async fn remove_stage(context: &RequestContext, name: String) -> Result<(), StepError> {
    let (host, directory) = (context.host.clone(), context.request.place.directory.clone());
    context
        .blocking(move || match host.tree(&directory)? {
            Some(tree) => Ok(Stage::remove(&tree, &name)?),
            None => Ok(()),
        })
        .await
}

async fn planned(
    context: &RequestContext,
    own: Option<&OperationId>,
    open: &OpenPlan,
) -> Result<Planned, StepError> {
    directory(context)?;
    alone(context).await?;
    let compose = context.compose().await?;
    let (containers, staged) = tokio::join!(containers(context), staged(context, &compose, own, open));
    let containers = containers?;
    let inside = in_project_agent::service(context, &containers).await?;
    let Staged { changes, image_edits, texts, tree } = staged?;
    let (has_env, path) = (tree.discovered.env, tree.path.clone());
    // What is on disk is resolved already, unless the agent has just been started.
    let (staged, read_back, previous) = tokio::join!(
        resolve_stage(context, &compose, tree),
        env::check(context, open.name(), has_env, &path),
        previous(context, &containers)
    );
    let staged = staged?;
    read_back?;
    unread::check(context, &staged.tree.discovered)?;
    let old = previous.as_ref().map(|(_, model)| &**model);
    policy::check(context, &staged.model).await?;
    reach::check(context, &compose, &staged, texts).await?;
    let terms = terms(context).await?;
    let networks = resources::check(context, &staged.model, old).await?;
    let expected = expectations_on(networks, &staged.model, &terms.jobs);
    probes::check(context, &terms.verify, &expected, inside.as_deref())?;
    model::check(context, &staged.model, &changes)?;
    ports::check(&staged.model, old, !containers.is_empty())?;
    let orphans = orphans(context, &staged, old, &containers).await?;
    let (by_hand, env_files, chosen, references) = tokio::join!(
        manual_run::check(context, &staged),
        env_files::check(context, open.name(), &staged),
        chosen(context, &staged.model),
        references(context, &staged.model, old)
    );
    by_hand?;
    env_files?;
    let chosen = chosen?;
    let starts = starts(context).await?;
    let copied = copied(old, &containers, &starts);
    let held = Held { copied: &copied, starts: &starts };
    let models = (&*staged.model, old);
    let recreates = recreates(context.directory(), models, &changes, &expected, &containers, held);
    mounts::check(context, &staged.model, &changes, &recreates).await?;
    let before =
        before::check(context, &staged, &terms.verify, &containers, &recreates, chosen.choices.as_deref())
            .await?;
    let models: Vec<&Model> = std::iter::once(&*staged.model).chain(old).collect();
    let data = data::plan(context, &models).await?;
    let (previous_compose, previous_checked) = inputs_of(context, &compose, previous.as_ref()).await?;
    let plan = Plan {
        report: PlanReport { hash: String::new(), files: changes.counts, recreates },
        compose: staged.compose.clone(),
        previous_compose,
        writes: !changes.is_empty(),
        changed: changes.changed.clone(),
        files: changes.list(),
        image_edits,
        env_keys: patched_values(&context.request.manifest.env).into_keys().map(str::to_owned).collect(),
        first: containers.is_empty(),
        containers: containers.iter().map(|container| container.container.id.clone()).collect(),
        before,
        previous_images: previous_images(&containers),
        references: references?,
        left_running: orphans.left,
        left_files: changes.left.iter().map(ToString::to_string).collect(),
        removed: orphans.removed,
        data,
        choices: chosen.choices,
        images: chosen.images,
        inside,
        checked: staged.tree.checked.clone(),
        copied,
        copied_next: copied_next(&staged.model),
        previous_checked,
    };
    Ok(Planned { plan: plan.hashed(&context.request), release: staged.into_release() })
}

fn directory(context: &RequestContext) -> Result<(), StepError> {
    let allowed = context.host.allowed(&context.request.place.directory);
    allowed.map_err(|error| StepError::new(FailureCategory::PolicyRefused, error.message))
}

/// Refuses a release beside another project of the same directory, which has the same data. Going back is allowed: it is
/// to what was there.
async fn alone(context: &RequestContext) -> Result<(), StepError> {
    if context.request.action != Action::Upgrade {
        return Ok(());
    }
    let place = &context.request.place;
    let others = other_projects::running(&context.host, place).await;
    let others = others.map_err(|error| StepError::new(FailureCategory::EngineFault, error.to_string()))?;
    let Some(other) = others.first() else { return Ok(()) };
    let message = format!(
        "project {} has containers from this directory, too ({}): beside {} it would be a second stack on the same data. \
         Take it down, or make a Tenant for it",
        other.name,
        other.containers.join(", "),
        place.project
    );
    Err(StepError::new(FailureCategory::AdoptionNeeded, message))
}

/// The containers of the project; refused where another directory's are among them.
async fn containers(context: &RequestContext) -> Result<Vec<ProjectContainer>, StepError> {
    let all = context.host.engine.known_containers(context.request.place.project.as_str()).await?;
    let foreign = all.iter().find(|one| one.directory.trim_end_matches('/') != context.directory());
    if let Some(foreign) = foreign {
        let message = format!(
            "container {} of project {} was made from {}, not from {}: remove it or rename one of the projects",
            foreign.container.name,
            context.request.place.project,
            if foreign.directory.is_empty() { "an unknown directory" } else { &foreign.directory },
            context.directory()
        );
        return Err(StepError::new(FailureCategory::AdoptionNeeded, message));
    }
    Ok(own(all, context.directory()))
}

/// What changes on disk, and the staged tree of it.
struct Staged {
    changes: Changes,
    image_edits: Vec<ImageEdit>,
    texts: Texts,
    tree: StagedTree,
}

/// The staged tree of what changes. Trees of plans that nobody makes any more are removed by the way.
async fn staged(
    context: &RequestContext,
    compose: &Compose,
    own: Option<&OperationId>,
    open: &OpenPlan,
) -> Result<Staged, StepError> {
    let (host, cache, request, tree) =
        (context.host.clone(), context.cache.clone(), context.request.clone(), context.tree()?);
    let own = own.cloned();
    let (changes, discovered, texts) = context
        .blocking(move || {
            Stage::remove_abandoned(&tree, |plan| host.plans.is_open(plan))?;
            let changes = file_changes(&request, own.as_ref(), &tree, &cache, &host.store)?;
            let (discovered, texts) = next_texts(&request, &tree, &changes, &host.policy.allow().compose)?;
            Ok((changes, discovered, texts))
        })
        .await?;
    policy::outside(context, &discovered.outside)?;
    let image_edits = image_edits(context, compose, &discovered, &texts).await?;
    let (request, tree, name) = (context.request.clone(), context.tree()?, open.name().to_owned());
    context
        .blocking(move || {
            let (mut changes, mut texts) = (changes, texts);
            edit_images(&request, &tree, &image_edits, &mut changes)?;
            let edited = with_images(&image_edits, |path| texts.get(path).cloned().unwrap_or_default())?;
            texts.extend(edited);
            space::check(&tree, &changes)?;
            let tree = stage(name, &tree, discovered, &texts)?;
            Ok(Staged { changes, image_edits, texts, tree })
        })
        .await
}

/// What is on disk now. That it can't be read is no reason against a release that can.
async fn previous(
    context: &RequestContext,
    containers: &[ProjectContainer],
) -> Option<(Discovered, Arc<Model>)> {
    match context.on_disk().await {
        Ok(found) => found,
        Err(wrong) => {
            if !containers.is_empty() {
                tracing::warn!(tenant = %context.request.tenant.name, problem = %wrong.message, "the compose files on disk can't be read");
            }
            None
        }
    }
}

/// The compose files of what is on disk, for people, and all that compose reads for it by hash.
async fn inputs_of(
    context: &RequestContext,
    compose: &Compose,
    previous: Option<&(Discovered, Arc<Model>)>,
) -> Result<(Option<ComposeUse>, Checked), StepError> {
    let Some((found, _)) = previous else { return Ok((None, Checked::new())) };
    let in_use = found.in_use(compose, &context.request.place);
    let mut checked = hashes(context, found.inputs.iter().map(ToString::to_string).collect()).await?;
    checked.extend(checked_outside(found));
    Ok((Some(in_use), checked))
}

/// The images of a release: chosen for an upgrade, known where a restore point is gone back to.
#[derive(Default)]
struct Chosen {
    choices: Option<Vec<ImageChoice>>,
    images: Vec<PlannedImage>,
}

async fn chosen(context: &RequestContext, model: &Model) -> Result<Chosen, StepError> {
    match way_back::chosen_by(context).await? {
        None => Ok(Chosen { choices: Some(images::choices(context, model).await?), ..Chosen::default() }),
        Some(point) => {
            Ok(Chosen { images: way_back::images(context, &point, model).await?, ..Chosen::default() })
        }
    }
}

/// What every reference of both releases points to now.
async fn references(
    context: &RequestContext,
    staged: &Model,
    previous: Option<&Model>,
) -> Result<Vec<PreviousReference>, StepError> {
    let names = staged
        .references()
        .into_keys()
        .chain(previous.iter().flat_map(|model| model.references().into_keys()));
    let names: BTreeSet<String> = names.map(str::to_owned).collect();
    let looks = names.into_iter().map(|reference| async move {
        let image_id = context.host.engine.known_image(&reference).await?.map(|image| image.id);
        Ok::<_, StepError>(PreviousReference { reference, image_id })
    });
    let mut found: Vec<PreviousReference> =
        futures::stream::iter(looks).buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
    found.sort_by(|a, b| a.reference.cmp(&b.reference));
    Ok(found)
}

/// What compose copied into each container: recorded, or else what it would copy now, for containers of before are taken to
/// have been made from the files that are there. Where a container was started since it was recorded, compose may have
/// copied anew: then it is either.
fn copied(
    model: Option<&Model>,
    containers: &[ProjectContainer],
    starts: &Starts,
) -> BTreeMap<String, Copied> {
    let by_files = |service: &str| Some(model?.services.get(service)?.copied.clone());
    let known = containers.iter().filter_map(|one| {
        let by_files = by_files(&one.container.service);
        let recorded = starts.containers.get(&one.container.id);
        let recorded =
            recorded.and_then(|start| Some((start.copied.clone()?, start.started_at == one.started_raw)));
        let copied = match (recorded, by_files) {
            (Some((recorded, false)), Some(by_files)) => recorded.or(&by_files),
            (Some((recorded, _)), _) => recorded,
            (None, by_files) => by_files?,
        };
        (!copied.is_empty()).then(|| (one.container.id.clone(), copied))
    });
    known.collect()
}

/// What containers had before them when they were started.
async fn starts(context: &RequestContext) -> Result<Starts, StepError> {
    let (host, uid) = (context.host.clone(), context.request.tenant.uid.clone());
    context.blocking(move || Ok(host.store.starts(&uid)?)).await
}

fn copied_next(model: &Model) -> BTreeMap<String, Copied> {
    let some = model.services.iter().filter(|(_, service)| !service.copied.is_empty());
    some.map(|(name, service)| (name.to_string(), service.copied.clone())).collect()
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
