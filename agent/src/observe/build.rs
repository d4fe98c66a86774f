//! An observation, put together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use tenantry_api::names::{Directory, ServiceName};
use tenantry_api::tenant_status::Lacking;
use tenantry_planner::compare::{
    self, Container, Expected, Lifetime, expectations_on, of_service, service_health, service_state,
};
use tenantry_planner::images::meaning::Meanings;
use tenantry_planner::model::{ImageFrom, Model};
use tenantry_planner::policy::{Grants, Violation};
use tenantry_planner::steps::{JournalState, Record};
use tenantry_protocol::{
    ApiError, ClaimState, ForeignContainer, Health, ImageRun, Observation, ObserveRequest, OperationBrief,
    RestorePointBrief, ServiceObservation,
};

use super::copies::Texts;
use super::disk::{Disk, texts};
use super::freshness::{Contents, freshness, outdated};
use super::meaning::{asks, meanings};
use super::model::on_disk;
use super::other_projects::{self, named};
use super::resources;
use crate::compose::Discovered;
use crate::engine::{Engine, EngineError, Image, ProjectContainer, networks_for};
use crate::files::{Stamps, Tree};
use crate::host::restore_points::{Line, briefs};
use crate::host::{Host, TenantCache, damage, fault, store_refused};
use crate::store::{Baseline, Starts, StoreError};

/// How many images are looked at side by side.
const SIDE_BY_SIDE: usize = 8;

/// What our own records say of the release that was brought up last.
#[derive(Default)]
struct Past {
    starts: Starts,
    /// How long it was watched at most; absent where none was.
    watched: Option<Duration>,
}

/// What our own records and the disk say.
struct Local {
    damage: Option<String>,
    claim: ClaimState,
    epoch: u64,
    operation: Option<OperationBrief>,
    past: Past,
    restore_points: Vec<RestorePointBrief>,
    disk: Option<Disk>,
}

pub(super) async fn observation(
    host: &Arc<Host>,
    cache: &Arc<TenantCache>,
    request: &ObserveRequest,
) -> Result<(Observation, Stamps), ApiError> {
    let (shared, remembered, asked) = (host.clone(), cache.clone(), request.clone());
    let local = host.blocking(move || local(&shared, &remembered, &asked)).await??;
    let project = request.place.project.as_str();
    let (containers, model, others) = tokio::join!(
        host.engine.known_containers(project),
        model(host, cache, request, &local),
        other_projects::running(host, &request.place)
    );
    let containers = containers.map_err(fault)?;
    let Seen { compose, model, problem: compose_problem, meanings, unread } = model?;
    let directory_exists = local.disk.is_some();
    let mut observation = Observation {
        claim: local.claim,
        epoch: local.epoch,
        operation: local.operation,
        directory_exists,
        files: Vec::new(),
        leftover_files: Vec::new(),
        env: tenantry_protocol::EnvObservation::default(),
        images: Vec::new(),
        compose,
        compose_problem,
        services: Vec::new(),
        removed_services: Vec::new(),
        other_projects: others?,
        unread_files: Vec::new(),
        foreign_containers: foreign(&containers, request.place.directory.as_str()),
        health: Health::default(),
        image_differences: Vec::new(),
        resource_differences: Vec::new(),
        restore_points: local.restore_points,
        damage: local.damage,
        policy_revision: Some(host.policy.revision()),
        granted_verifications: Some(host.policy.allow().verify.iter().map(ToString::to_string).collect()),
        policy_file: host.policy.file().display().to_string(),
        lacking: told(host, unread.into_iter().collect()),
    };
    let own = own(containers, request.place.directory.as_str());
    let mut stamps = Stamps::default();
    let mut seen = Contents::new();
    if let Some(disk) = local.disk {
        if own.is_empty() {
            let found = disk.compose.ok().flatten();
            observation.other_projects.extend(found.and_then(|found| named(&request.place, &found)));
        }
        observation.unread_files = disk.unread;
        observation.files = disk.files;
        observation.leftover_files = disk.leftovers;
        observation.env = disk.env;
        (stamps, seen) = (disk.stamps, disk.seen);
    } else {
        observation.files = request.manifest.files.iter().map(missing).collect();
    }
    if let Some(model) = &model {
        observation.lacking = lacking(host, request, model, &observation.claim).await?;
        let images = Images::of(&*host.engine, model, &own).await.map_err(fault)?;
        let networks = networks_for(&*host.engine, model).await.map_err(fault)?;
        let expected = expectations_on(networks, model, &request.manifest.jobs);
        observation.resource_differences =
            resources::differences(&*host.engine, model, &expected, &own).await.map_err(fault)?;
        services(&mut observation, request, (model, &expected), &own, &images, &seen, &local.past);
        observation.images = meanings.image_states(&request.manifest, model);
        meanings.add_to_env(&mut observation.env);
    }
    Ok((observation, stamps))
}

/// What the project asks for beyond the policy. Names that are others' are looked for where nothing is ours yet: what
/// runs has its names.
async fn lacking(
    host: &Arc<Host>,
    request: &ObserveRequest,
    model: &Arc<Model>,
    claim: &ClaimState,
) -> Result<Option<Lacking>, ApiError> {
    let (shared, judged, directory) = (host.clone(), model.clone(), request.place.directory.clone());
    let judge = move || super::policy::lacking(&shared, &judged, directory.as_str());
    let mut grants = host.blocking(judge).await?;
    if *claim == ClaimState::Free {
        let others = super::policy::foreign(host, model, request.place.project.as_str()).await;
        grants.extend(others.map_err(fault)?);
    }
    Ok(told(host, grants))
}

/// As it is told to whoever asks.
fn told(host: &Host, grants: Grants) -> Option<Lacking> {
    let told = |grants: Grants| grants.told(&host.policy.file().display().to_string());
    Some(grants).filter(|grants| !grants.is_empty()).map(told)
}

fn missing(file: &tenantry_protocol::FileManifest) -> tenantry_protocol::FileObservation {
    let (path, state) = (file.path.clone(), tenantry_protocol::FileState::Missing);
    tenantry_protocol::FileObservation {
        path,
        state,
        sha256: None,
        hand_edited: false,
        unmanaged: false,
        lines: None,
    }
}

fn local(host: &Host, cache: &TenantCache, request: &ObserveRequest) -> Result<Local, ApiError> {
    let uid = &request.tenant.uid;
    let store = |error: StoreError| store_refused(&error);
    let damage = damage(host, uid).map_err(store)?;
    if let Some(damage) = damage.filter(|_| cache.idle()) {
        return local_damaged(host, cache, request, &damage);
    }
    let baseline = host.store.baseline(uid).map_err(store)?;
    let line = Line::of(&host.store, uid, &request.place);
    let tree = host.tree(&request.place.directory).map_err(fault)?;
    Ok(Local {
        damage: None,
        claim: host.store.claim_state(uid, &request.place).map_err(store)?,
        epoch: host.store.claim_of(uid).map_or(0, |claim| claim.epoch),
        operation: last_operation(host, cache, request).map_err(store)?,
        past: Past {
            starts: host.store.starts(uid).map_err(store)?,
            watched: baseline.terms.as_ref().map(|terms| terms.verify.watched()),
        },
        restore_points: tree.as_ref().map_or(Ok(Vec::new()), |tree| briefs(tree, &line)).map_err(fault)?,
        disk: tree.map(|tree| disk(host, cache, request, &baseline, &tree)).transpose()?,
    })
}

fn disk(
    host: &Host,
    cache: &TenantCache,
    request: &ObserveRequest,
    baseline: &Baseline,
    tree: &Tree,
) -> Result<Disk, ApiError> {
    let allow = host.policy.allow();
    Disk::read(tree, cache, &request.place, &request.manifest, baseline, &allow.compose).map_err(fault)
}

/// The same where our own records can't be read: what is on the disk is told, and nothing is concluded from records.
fn local_damaged(
    host: &Host,
    cache: &TenantCache,
    request: &ObserveRequest,
    damage: &StoreError,
) -> Result<Local, ApiError> {
    let uid = &request.tenant.uid;
    let claim = match host.store.claim_state(uid, &request.place) {
        Ok(claim) => claim,
        // Its own record is what is damaged: nobody else holds the place.
        Err(StoreError::Damaged { .. }) => ClaimState::Ours,
        Err(error) => return Err(store_refused(&error)),
    };
    let tree = host.tree(&request.place.directory).map_err(fault)?;
    let baseline = Baseline::default();
    let said = match damage {
        StoreError::Damaged { path, problem } => format!("{} is damaged: {problem}", path.display()),
        other => other.to_string(),
    };
    Ok(Local {
        damage: Some(said),
        claim,
        epoch: host.store.claim_of(uid).map_or(0, |claim| claim.epoch),
        operation: None,
        past: Past::default(),
        restore_points: Vec::new(),
        disk: tree.map(|tree| disk(host, cache, request, &baseline, &tree)).transpose()?,
    })
}

fn last_operation(
    host: &Host,
    cache: &TenantCache,
    request: &ObserveRequest,
) -> Result<Option<OperationBrief>, StoreError> {
    if let Some(running) = cache.running() {
        let status = running.status.borrow();
        let outcome = match &status.state {
            tenantry_protocol::OperationState::Running => None,
            tenantry_protocol::OperationState::Ended { outcome, .. } => Some(*outcome),
        };
        let target_hash = status.target_hash.clone();
        return Ok(Some(OperationBrief { id: running.id, target_hash, outcome }));
    }
    let uid = &request.tenant.uid;
    let Some((journal, records)) = host.store.latest_journal::<Record>(uid)? else { return Ok(None) };
    if records.is_empty() {
        return Ok(None);
    }
    let state = JournalState::fold(&records);
    let target_hash = state.target_hash().to_owned();
    Ok(Some(OperationBrief { id: journal.operation().clone(), target_hash, outcome: state.outcome() }))
}

/// The texts that compose reads of a directory as it is now.
async fn read_texts(
    host: &Arc<Host>,
    directory: &Directory,
    discovered: &Discovered,
) -> Result<Texts, ApiError> {
    let (shared, directory, discovered) = (host.clone(), directory.clone(), discovered.clone());
    let read = move || match shared.tree(&directory)? {
        Some(tree) => texts(&tree, &discovered),
        None => Ok(Texts::new()),
    };
    host.blocking(read).await?.map_err(fault)
}

/// The compose files in use and their model, or why there is none; and what the request would mean to it.
#[derive(Default)]
struct Seen {
    compose: Option<tenantry_protocol::ComposeUse>,
    model: Option<Arc<Model>>,
    problem: Option<String>,
    meanings: Arc<Meanings>,
    /// What the policy does not grant of what compose would read: there is no model then.
    unread: Vec<Violation>,
}

/// What compose says of what is on the disk.
async fn model(
    host: &Arc<Host>,
    cache: &TenantCache,
    request: &ObserveRequest,
    local: &Local,
) -> Result<Seen, ApiError> {
    let discovered = match local.disk.as_ref().map(|disk| &disk.compose) {
        None | Some(Ok(None)) => return Ok(Seen::default()),
        Some(Err(problem)) => return Ok(Seen { problem: Some(problem.message.clone()), ..Seen::default() }),
        Some(Ok(Some(discovered))) => discovered,
    };
    let compose = match host.compose().await {
        Ok(compose) => compose,
        Err(error) => return Err(fault(error)),
    };
    let in_use = Some(discovered.in_use(&compose, &request.place));
    let log = host.store.compose_log(&request.tenant.uid).map_err(|error| store_refused(&error))?;
    let model = match on_disk(host, cache, &compose, &request.place, discovered, log).await {
        Ok(model) => model,
        Err(problem) => {
            let unread = discovered.outside.lacking.clone();
            return Ok(Seen { compose: in_use, problem: Some(problem.message), unread, ..Seen::default() });
        }
    };
    let meanings = if asks(&request.manifest) {
        let texts = read_texts(host, &request.place.directory, discovered).await?;
        let of = (&request.place, &request.manifest);
        meanings(host, cache, &compose, of, discovered, texts).await
    } else {
        Arc::default()
    };
    Ok(Seen { compose: in_use, model: Some(model), meanings, ..Seen::default() })
}

fn is_from(container: &ProjectContainer, directory: &str) -> bool {
    container.directory.trim_end_matches('/') == directory || tenantry_faults::Bug::AnyDirectory.is_seeded()
}

fn foreign(containers: &[ProjectContainer], directory: &str) -> Vec<ForeignContainer> {
    let foreign = containers.iter().filter(|container| !is_from(container, directory));
    foreign
        .map(|container| ForeignContainer {
            name: container.container.name.clone(),
            directory: container.directory.clone(),
        })
        .collect()
}

/// The containers of the project that were made from this directory.
pub fn own(containers: Vec<ProjectContainer>, directory: &str) -> Vec<ProjectContainer> {
    containers.into_iter().filter(|container| is_from(container, directory) && !container.one_off).collect()
}

/// The images that references point to and that containers run.
struct Images(BTreeMap<String, Option<Image>>);

impl Images {
    async fn of(engine: &dyn Engine, model: &Model, own: &[ProjectContainer]) -> Result<Self, EngineError> {
        let mut names: BTreeSet<String> = model.references().into_keys().map(str::to_owned).collect();
        names.extend(own.iter().map(|container| container.container.image_id.clone()));
        let looks = names.into_iter().map(|name| async move {
            let image = engine.known_image(&name).await?;
            Ok::<_, EngineError>((name, image))
        });
        let found: Vec<_> = futures::stream::iter(looks).buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
        Ok(Self(found.into_iter().collect()))
    }

    fn get(&self, name: &str) -> Option<&Image> {
        self.0.get(name).and_then(Option::as_ref)
    }
}

fn services(
    observation: &mut Observation,
    request: &ObserveRequest,
    (model, expected): (&Model, &BTreeMap<ServiceName, Expected>),
    own: &[ProjectContainer],
    images: &Images,
    files: &Contents,
    past: &Past,
) {
    let directory = request.place.directory.as_str();
    let containers: Vec<Container> = own.iter().map(|container| container.container.clone()).collect();
    observation.health = compare::health(expected, &containers, past.watched);
    for (name, service) in &model.services {
        let of_it = of_service(&containers, name.as_str());
        let raw: Vec<&ProjectContainer> =
            own.iter().filter(|c| c.container.service == name.as_str()).collect();
        let youngest = of_it.iter().max_by_key(|container| container.started_at);
        if let Some(other) = of_it.iter().find(|container| container.image_ref != service.image) {
            let difference =
                format!("{name} runs {}, the compose files say {}", other.image_ref, service.image);
            observation.image_differences.push(difference);
        }
        observation.services.push(ServiceObservation {
            name: name.clone(),
            image_ref: service.image.clone(),
            one_shot: expected.get(name).is_some_and(|expected| expected.lifetime == Lifetime::Ends),
            local_image: service.image_from == ImageFrom::Host,
            running: youngest.map(|container| image_run(container, &of_it, &service.image, images)),
            state: service_state(&of_it),
            health: service_health(&of_it),
            restart_count: of_it.iter().map(|container| container.restart_count).sum(),
            started_at: youngest.and_then(|container| container.started_at),
            mounts: freshness(service, directory, &raw, files, &past.starts),
            outdated: outdated(service, &raw, &past.starts),
        });
    }
    let known = |name: &str| model.services.contains_key(name);
    let removed = containers.iter().map(|c| c.service.clone()).filter(|name| !known(name));
    observation.removed_services = removed.collect::<BTreeSet<_>>().into_iter().collect();
}

fn image_run(youngest: &Container, all: &[&Container], reference: &str, images: &Images) -> ImageRun {
    let wanted = images.get(reference).map(|image| image.id.as_str());
    ImageRun {
        image_id: youngest.image_id.clone(),
        repo_digest: images.get(&youngest.image_id).and_then(|image| image.repo_digest(reference)),
        current: all.iter().all(|container| Some(container.image_id.as_str()) == wanted),
    }
}
