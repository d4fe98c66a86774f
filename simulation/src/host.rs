//! The machine: its disk, its engine, and the agent's own records. Holds what survives the agent's process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fastrand::Rng;
use tenantry_agent::store::{Baseline, Held};
use tenantry_api::names::{OperationId, TenantUid};
use tenantry_planner::compare::{Container as Seen, ContainerState};
use tenantry_planner::model::Model;
use tenantry_planner::steps::{PlannedImage, Record};
use tenantry_protocol::{OperateRequest, ServiceHealth};

use crate::releases::{Behaviour, Blob, COMPOSE, ENV, Releases, VOLUME};
use crate::scheduler::TaskId;
use crate::world::World;

/// The machine.
#[derive(Default)]
pub struct Host {
    /// The agent's own records.
    pub store: Store,
    /// The tenant's directory.
    pub disk: Disk,
    /// The engine.
    pub engine: Engine,
    /// An agent's compose process that runs.
    pub child: Option<Child>,
    /// A person's.
    pub by_hand: Option<TaskId>,
    /// The tenant's own tree, which nobody of ours touches.
    pub protected: u64,
}

/// An agent's compose process.
#[derive(Clone, Debug)]
pub struct Child {
    /// Its task.
    pub task: TaskId,
    /// The operation that it was started for.
    pub operation: (TenantUid, OperationId),
}

/// The agent's own records.
#[derive(Default)]
pub struct Store {
    /// Claims, and who is gone.
    pub held: Held,
    /// Baselines.
    pub baselines: BTreeMap<TenantUid, Baseline>,
    /// Journals with their requests.
    pub journals: BTreeMap<(TenantUid, OperationId), Journal>,
}

/// An operation's journal and its request.
#[derive(Clone, Default)]
pub struct Journal {
    /// Rises with every operation of the tenant.
    pub number: u64,
    /// What was asked, while it is kept.
    pub request: Option<Arc<OperateRequest>>,
    /// What was asked, by a hash.
    pub asked: String,
    /// What is durable.
    pub records: Vec<Record>,
    /// What was written and not yet synced.
    pub unsynced: Option<Record>,
}

impl Store {
    /// A tenant's operations in the order in which they were begun.
    pub fn operations(&self, uid: &TenantUid) -> Vec<OperationId> {
        let own = self.journals.iter().filter(|((of, _), _)| of == uid);
        let mut all: Vec<(u64, OperationId)> =
            own.map(|((_, id), journal)| (journal.number, id.clone())).collect();
        all.sort();
        all.into_iter().map(|(_, id)| id).collect()
    }

    /// A journal by its operation alone.
    pub fn journal_of(&self, id: &OperationId) -> Option<(&TenantUid, &Journal)> {
        self.journals.iter().find(|((_, of), _)| of == id).map(|((uid, _), journal)| (uid, journal))
    }

    /// Whether an operation of this name has a record: without one it was never begun.
    pub fn journal_of_named(&self, name: &str) -> bool {
        self.journals.iter().any(|((_, id), journal)| id.as_str() == name && !journal.records.is_empty())
    }

    /// What becomes of records that were not synced when a process ended: those that are whole, and whether one is torn.
    pub fn crash(&mut self, rng: &mut Rng) -> (Vec<(OperationId, Record)>, bool) {
        let (mut whole, mut torn) = (Vec::new(), false);
        for ((_, id), journal) in &mut self.journals {
            if let Some(record) = journal.unsynced.take() {
                if rng.bool() {
                    journal.records.push(record.clone());
                    whole.push((id.clone(), record));
                } else {
                    torn = true;
                }
            }
        }
        (whole, torn)
    }
}

/// The tenant's directory.
#[derive(Default)]
pub struct Disk {
    /// Whether it is there.
    pub exists: bool,
    /// Every file.
    pub files: BTreeMap<String, Blob>,
    /// Transactions under way.
    pub transactions: BTreeMap<OperationId, Transaction>,
    /// Restore points.
    pub points: BTreeMap<OperationId, Point>,
    /// What a power cut may undo.
    pub volatile: Vec<Volatile>,
}

/// A restore point.
#[derive(Clone, Debug, Default)]
pub struct Point {
    /// Whether its record is durable and was read back.
    pub whole: bool,
    /// Files that the operation was to change, as they were.
    pub files: Vec<(String, Option<Blob>)>,
    /// Whether nothing ran before.
    pub first: bool,
    /// Where references pointed.
    pub images: Vec<PlannedImage>,
    /// The volume, where it was declared.
    pub data: Option<String>,
    /// The baseline as it was.
    pub baseline: Option<Baseline>,
}

/// A change that was made and not yet synced.
pub enum Volatile {
    /// A file that was put in its place or removed.
    Put(String, Option<Blob>),
    /// A record that was renamed.
    Stage(OperationId, bool, Stage),
}

/// The files of one operation.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// To the new release.
    pub new: Option<Half>,
    /// Back to the restore point.
    pub undo: Option<Half>,
}

/// Changes that happen together.
#[derive(Clone, Debug)]
pub struct Half {
    /// Path, what must be there, what is to be there.
    pub steps: Vec<Change>,
    /// How far it is.
    pub stage: Stage,
}

/// A change to one file.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which file.
    pub path: String,
    /// What must be there.
    pub before: Option<Blob>,
    /// What is to be there.
    pub put: Option<Blob>,
}

/// How far a set of changes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Prepared.
    Plan,
    /// Committed.
    Commit,
    /// In place.
    Done,
}

impl Disk {
    /// Puts a file in its place; undone by a power cut until the folder is synced.
    pub fn put(&mut self, path: &str, blob: Option<Blob>) {
        let old = match blob {
            Some(blob) => self.files.insert(path.to_owned(), blob),
            None => self.files.remove(path),
        };
        self.volatile.push(Volatile::Put(path.to_owned(), old));
    }

    /// Everything is durable.
    pub fn sync(&mut self) {
        self.volatile.clear();
    }

    /// What a power cut leaves: of what was not synced, anything.
    pub fn power_cut(&mut self, rng: &mut Rng) {
        while let Some(change) = self.volatile.pop() {
            if rng.bool() {
                continue;
            }
            match change {
                Volatile::Put(path, Some(old)) => {
                    self.files.insert(path, old);
                }
                Volatile::Put(path, None) => {
                    self.files.remove(&path);
                }
                Volatile::Stage(operation, undo, stage) => {
                    let transaction = self.transactions.entry(operation).or_default();
                    let half = if undo { &mut transaction.undo } else { &mut transaction.new };
                    if let Some(half) = half {
                        half.stage = stage;
                    }
                }
            }
        }
    }

    /// The tag that compose would read from `.env`.
    pub fn tag(&self) -> Option<String> {
        let env = tenantry_planner::env::EnvFile::parse(self.files.get(ENV)?.text.as_bytes()).ok()?;
        env.get("IMAGE_TAG")?.literal().map(str::to_owned)
    }

    /// The resolved model of what is on disk; `None` where there is no compose file.
    pub fn model(&self, releases: &mut Releases) -> Option<Result<Arc<Model>, String>> {
        let compose = self.files.get(COMPOSE)?;
        Some(releases.model(compose, self.tag().as_deref()))
    }
}

/// The engine.
#[derive(Default)]
pub struct Engine {
    /// Images that are local.
    pub images: BTreeSet<String>,
    /// References.
    pub tags: BTreeMap<String, String>,
    /// Tags of ours that hold images: operation and image.
    pub kept: BTreeSet<(TenantUid, OperationId, String)>,
    /// Containers by id; those of other projects as well.
    pub containers: BTreeMap<String, Container>,
    /// What each reference points to at the registry.
    pub registry: BTreeMap<String, String>,
    /// How well each image does.
    pub behaviours: BTreeMap<String, Behaviour>,
    /// Volumes and what is in them.
    pub volumes: BTreeMap<String, String>,
    made: u64,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its service.
    pub service: String,
    /// The directory that it was made from.
    pub directory: String,
    /// The reference that it was made from.
    pub image_ref: String,
    /// The image that it runs.
    pub image_id: String,
    /// Hash of its service's definition.
    pub definition: String,
    /// When it was last started.
    pub started: Option<u64>,
    /// When and how somebody ended it.
    pub ended: Option<(u64, i64)>,
    /// Whether it is paused.
    pub paused: bool,
    /// The managed files that it had read when it was started.
    pub read: BTreeMap<String, Option<Blob>>,
}

impl Engine {
    /// Makes a container, not started yet.
    pub fn create(&mut self, service: &str, image_ref: &str, image_id: &str, definition: &str) -> String {
        self.made += 1;
        let id = format!("c{}", self.made);
        let container = Container {
            id: id.clone(),
            service: service.to_owned(),
            directory: crate::releases::DIRECTORY.to_owned(),
            image_ref: image_ref.to_owned(),
            image_id: image_id.to_owned(),
            definition: definition.to_owned(),
            started: None,
            ended: None,
            paused: false,
            read: BTreeMap::new(),
        };
        self.containers.insert(id.clone(), container);
        id
    }

    /// How a container is at a time.
    pub fn seen(&self, container: &Container, now: u64) -> Seen {
        let (state, exit_code, restart_count, health, started) = self.condition(container, now);
        Seen {
            id: container.id.clone(),
            name: format!("{}-{}", crate::releases::PROJECT, container.service),
            service: container.service.clone(),
            image_ref: container.image_ref.clone(),
            image_id: container.image_id.clone(),
            state,
            exit_code,
            oom_killed: false,
            restart_count,
            health,
            started_at: started.map(|at| {
                let millis = 1_800_000_000_000 + i64::try_from(at).unwrap_or(0);
                jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
            }),
        }
    }

    fn behaviour(&self, container: &Container) -> Behaviour {
        self.behaviours.get(&container.image_id).copied().unwrap_or(Behaviour::Good(300))
    }

    fn condition(
        &self,
        container: &Container,
        now: u64,
    ) -> (ContainerState, i64, u64, ServiceHealth, Option<u64>) {
        use ContainerState::{Created, Exited, Paused, Running};
        let checked = container.service == "web";
        let none = |health| if checked { health } else { ServiceHealth::None };
        let Some(started) = container.started else {
            return (Created, 0, 0, none(ServiceHealth::Starting), None);
        };
        if let Some((_, code)) = container.ended {
            return (Exited, code, 0, none(ServiceHealth::Starting), Some(started));
        }
        let age = now.saturating_sub(started);
        let behaviour = self.behaviour(container);
        if container.service == "migrate" {
            let (took, code) = match behaviour {
                Behaviour::Sick => (2_000, 1),
                Behaviour::Good(healthy) => (healthy / 2, 0),
                _ => (1_000, 0),
            };
            let state = if age >= took { Exited } else { Running };
            return (state, if age >= took { code } else { 0 }, 0, ServiceHealth::None, Some(started));
        }
        if container.paused {
            return (Paused, 0, 0, none(ServiceHealth::Healthy), Some(started));
        }
        let health = |age: u64, healthy: u64| {
            none(if age >= healthy { ServiceHealth::Healthy } else { ServiceHealth::Starting })
        };
        match behaviour {
            Behaviour::Good(healthy) => (Running, 0, 0, health(age, healthy), Some(started)),
            Behaviour::Sick => {
                let sick = if age >= 10_000 { ServiceHealth::Unhealthy } else { ServiceHealth::Starting };
                (Running, 0, 0, none(sick), Some(started))
            }
            Behaviour::Crashes(_, end) if age >= end => {
                (Exited, 1, 0, none(ServiceHealth::Unhealthy), Some(started))
            }
            Behaviour::Crashes(healthy, _) => (Running, 0, 0, health(age, healthy), Some(started)),
            Behaviour::Loops(healthy, end) => {
                let times = age / end;
                (Running, 0, times, health(age % end, healthy), Some(started + times * end))
            }
            Behaviour::Wavers(healthy, bad) => {
                let wavers = (bad..bad + 1_500).contains(&age);
                let seen = if wavers { none(ServiceHealth::Unhealthy) } else { health(age, healthy) };
                (Running, 0, 0, seen, Some(started))
            }
        }
    }

    /// When the engine next reports something of this container.
    pub fn next_event(&self, container: &Container, now: u64) -> Option<u64> {
        let started = container.started?;
        if container.ended.is_some() {
            return None;
        }
        let age = now.saturating_sub(started);
        let marks: Vec<u64> = match self.behaviour(container) {
            Behaviour::Good(healthy) => vec![healthy / 2, healthy],
            Behaviour::Sick => vec![2_000, 10_000],
            Behaviour::Crashes(healthy, end) => vec![1_000, healthy, end],
            Behaviour::Loops(healthy, end) => {
                let base = age / end * end;
                vec![base + healthy, base + end, base + end + healthy]
            }
            Behaviour::Wavers(healthy, bad) => vec![1_000, healthy, bad, bad + 1_500],
        };
        marks.into_iter().filter(|mark| *mark > age).min().map(|mark| started + mark)
    }

    /// Whether everything that these services need runs and is well at a time.
    pub fn well(&self, container: &Container, now: u64) -> bool {
        let (state, code, _, health, _) = self.condition(container, now);
        match state {
            ContainerState::Running => matches!(health, ServiceHealth::Healthy | ServiceHealth::None),
            ContainerState::Exited => container.service == "migrate" && code == 0,
            _ => false,
        }
    }

    /// Removes images that neither a reference, nor a tag of ours, nor a container holds.
    pub fn prune(&mut self) {
        let held: BTreeSet<String> = self
            .tags
            .values()
            .cloned()
            .chain(self.kept.iter().map(|(_, _, image)| image.clone()))
            .chain(self.containers.values().map(|container| container.image_id.clone()))
            .collect();
        self.images.retain(|image| held.contains(image));
    }

    /// What a power cut and the start after it do to containers.
    pub fn reboot(&mut self, now: u64) {
        for container in self.containers.values_mut() {
            let ran = container.started.is_some() && container.ended.is_none();
            if ran && container.service != "migrate" {
                container.started = Some(now);
                container.paused = false;
            }
        }
    }
}

/// Starts a container: it reads its files as they are.
pub fn start(world: &mut World, id: &str) {
    let now = world.now();
    let files = &world.host.disk.files;
    let Some(container) = world.host.engine.containers.get_mut(id) else { return };
    let mut read = |path: &str| container.read.insert(path.to_owned(), files.get(path).cloned());
    match container.service.as_str() {
        "web" => drop(read("conf/app.conf")),
        "worker" => {
            read("conf/app.conf");
            read("conf/extra.conf");
        }
        _ => {}
    }
    container.started = Some(now);
    container.ended = None;
    container.paused = false;
    if container.service != "db" {
        // The application leaves a mark in its data.
        let mark = container.image_id.clone();
        let volume = world.host.engine.volumes.entry(VOLUME.to_owned()).or_default();
        *volume = mark;
    }
}
