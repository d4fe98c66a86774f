//! What the agent sees of its host. A mirror of the agent's `observe` over a made-up disk and engine.

use std::collections::BTreeSet;

use tenantry_planner::compare::{self, Container, expectations, of_service, service_health, service_state};
use tenantry_planner::env::EnvFile;
use tenantry_planner::model::Model;
use tenantry_planner::steps::JournalState;
use tenantry_protocol::{
    ApiError, ClaimState, ComposeUse, EnvKeyState, EnvManifest, EnvObservation, FileManifest,
    FileObservation, FileState, Health, ImageRun, MountFreshness, Observation, ObserveRequest,
    OperationBrief, OperationState, RestorePointBrief, ServiceObservation, StaleFile,
};

use crate::agent::digest_of;
use crate::releases::{COMPOSE, DIRECTORY, ENV, VOLUME};
use crate::world::World;

/// What is on the host.
pub fn observation(world: &mut World, request: &ObserveRequest) -> Result<Observation, ApiError> {
    let uid = &request.tenant.uid;
    let model = world.host.disk.model(&mut world.releases);
    let held = &world.host.store.held;
    let claim = match held.others(uid, &request.place).next() {
        Some((claim, holds)) => ClaimState::Other {
            owner: format!("{}/{}", claim.namespace, claim.name),
            uid: claim.uid.clone(),
            holds: holds.to_owned(),
        },
        None if held.claims.get(uid).is_some_and(|claim| !claim.released) => ClaimState::Ours,
        None => ClaimState::Free,
    };
    let mut observation = Observation {
        claim,
        epoch: held.claims.get(uid).map_or(0, |claim| claim.epoch),
        operation: last_operation(world, request),
        directory_exists: world.host.disk.exists,
        files: request.manifest.files.iter().map(|file| file_observation(world, request, file)).collect(),
        leftover_files: leftovers(world, request),
        env: env(world, request),
        compose: world.host.disk.files.contains_key(COMPOSE).then(in_use),
        compose_problem: None,
        services: Vec::new(),
        removed_services: Vec::new(),
        foreign_containers: Vec::new(),
        health: Health::default(),
        image_differences: Vec::new(),
        restore_points: points(world, request),
        damage: None,
    };
    match model {
        None => {}
        Some(Err(problem)) => observation.compose_problem = Some(problem),
        Some(Ok(model)) => services(world, request, &model, &mut observation),
    }
    Ok(observation)
}

/// The compose files in use.
pub fn in_use() -> ComposeUse {
    ComposeUse {
        files: vec![COMPOSE.to_owned()],
        profiles: Vec::new(),
        command: "docker compose up -d".to_owned(),
    }
}

fn last_operation(world: &World, request: &ObserveRequest) -> Option<OperationBrief> {
    let uid = &request.tenant.uid;
    if let Some(running) = world.agent.running.get(uid) {
        let outcome = match &running.status.state {
            OperationState::Running => None,
            OperationState::Ended { outcome, .. } => Some(*outcome),
        };
        let target_hash = running.status.target_hash.clone();
        return Some(OperationBrief { id: running.id.clone(), target_hash, outcome });
    }
    let id = world.host.store.operations(uid).pop()?;
    let journal = world.host.store.journals.get(&(uid.clone(), id.clone()))?;
    if journal.records.is_empty() {
        return None;
    }
    let state = JournalState::fold(&journal.records);
    Some(OperationBrief { id, target_hash: state.target_hash().to_owned(), outcome: state.outcome() })
}

/// What can be gone back to, newest first.
fn points(world: &World, request: &ObserveRequest) -> Vec<RestorePointBrief> {
    let operations = world.host.store.operations(&request.tenant.uid);
    let whole = operations.into_iter().rev().filter_map(|id| {
        let point = world.host.disk.points.get(&id).filter(|point| point.whole)?;
        let baseline = point.baseline.clone().unwrap_or_default();
        Some(RestorePointBrief {
            id,
            at: jiff::Timestamp::UNIX_EPOCH,
            release: baseline.release,
            target_hash: baseline.target_hash.unwrap_or_else(|| "adopted".to_owned()),
            data: point.data.iter().map(|_| format!("volume {VOLUME}")).collect(),
            bytes: 1,
        })
    });
    whole.collect()
}

fn file_observation(world: &World, request: &ObserveRequest, file: &FileManifest) -> FileObservation {
    let baseline = world.host.store.baselines.get(&request.tenant.uid);
    let seen = world.host.disk.files.get(file.path.as_str());
    let state = match seen {
        None => FileState::Missing,
        Some(seen) if seen.sha256 == file.sha256 => FileState::Same,
        Some(_) => FileState::Differs,
    };
    let written = baseline.and_then(|baseline| baseline.files.get(&file.path));
    let edited = seen.is_some_and(|seen| written.is_some_and(|written| written.sha256 != seen.sha256));
    FileObservation {
        path: file.path.clone(),
        hand_edited: state != FileState::Same && edited,
        state,
        sha256: seen.map(|seen| seen.sha256.clone()),
    }
}

fn leftovers(world: &World, request: &ObserveRequest) -> Vec<FileObservation> {
    let Some(baseline) = world.host.store.baselines.get(&request.tenant.uid) else { return Vec::new() };
    let wanted = |path: &str| request.manifest.files.iter().any(|file| file.path.as_str() == path);
    let old = baseline.files.iter().filter(|(path, _)| !wanted(path.as_str()));
    old.filter_map(|(path, written)| {
        let seen = world.host.disk.files.get(path.as_str())?;
        Some(FileObservation {
            path: path.clone(),
            state: FileState::Differs,
            sha256: Some(seen.sha256.clone()),
            hand_edited: seen.sha256 != written.sha256,
        })
    })
    .collect()
}

fn env(world: &World, request: &ObserveRequest) -> EnvObservation {
    let content = world.host.disk.files.get(ENV);
    let parsed = content.and_then(|content| EnvFile::parse(content.text.as_bytes()).ok());
    let EnvManifest::Adopted { patch } = &request.manifest.env else { return EnvObservation::default() };
    let keys = patch.iter().map(|wanted| match &parsed {
        Some(env) => env.key_state(wanted),
        None => EnvKeyState { name: wanted.name.clone(), present: false, as_wanted: false },
    });
    EnvObservation { exists: content.is_some(), keys: keys.collect() }
}

fn services(world: &World, request: &ObserveRequest, model: &Model, observation: &mut Observation) {
    let engine = &world.host.engine;
    let now = world.now();
    let own = || engine.containers.values().filter(|container| container.directory == DIRECTORY);
    let containers: Vec<Container> = own().map(|container| engine.seen(container, now)).collect();
    let expected = expectations(model, &request.manifest.jobs);
    observation.health = compare::health(&expected, &containers);
    for (name, service) in &model.services {
        let of_it = of_service(&containers, name.as_str());
        let youngest = of_it.iter().max_by_key(|container| container.started_at);
        if let Some(other) = of_it.iter().find(|container| container.image_ref != service.image) {
            let text = format!("{name} runs {}, the compose files say {}", other.image_ref, service.image);
            observation.image_differences.push(text);
        }
        let wanted = engine.tags.get(&service.image);
        observation.services.push(ServiceObservation {
            name: name.clone(),
            image_ref: service.image.clone(),
            one_shot: expected.get(name).is_some_and(|expected| expected.one_shot),
            local_image: service.local_image,
            running: youngest.map(|container| ImageRun {
                image_id: container.image_id.clone(),
                repo_digest: Some(digest_of(&container.image_id)),
                current: of_it.iter().all(|one| Some(&one.image_id) == wanted),
            }),
            state: service_state(&of_it),
            health: service_health(&of_it),
            restart_count: of_it.iter().map(|container| container.restart_count).sum(),
            started_at: youngest.and_then(|container| container.started_at),
            mounts: freshness(world, name.as_str()),
        });
    }
    let known = |name: &str| model.services.keys().any(|service| service.as_str() == name);
    let removed = containers.iter().map(|one| one.service.clone()).filter(|name| !known(name));
    observation.removed_services = removed.collect::<BTreeSet<_>>().into_iter().collect();
}

/// Whether a service's containers have read their files as they are now. The agent knows it from its records of starts.
fn freshness(world: &World, service: &str) -> MountFreshness {
    let own = world.host.engine.containers.values().filter(|one| one.service == service);
    let mut files = Vec::new();
    for container in own.filter(|one| one.started.is_some()) {
        for (path, read) in &container.read {
            if world.host.disk.files.get(path) != read.as_ref() {
                let path = crate::releases::relative(path);
                files.push(StaleFile { path, mounted_singly: service == "web" });
            }
        }
    }
    if files.is_empty() { MountFreshness::Current } else { MountFreshness::Stale { files } }
}
