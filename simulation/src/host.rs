//! The machine: its disk and its engine. Holds what survives the agent's process.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use tenantry_planner::compare::{
    self, Attached, Container as Seen, ContainerState, Endpoint, Namespace, Namespaces, NetworkKind,
};
use tenantry_protocol::ServiceHealth;

use crate::ailments::{self, Ailment};
use crate::disk::Disk;
use crate::records::Records;
use crate::releases::{Behaviour, Blob, PROJECT};
use crate::scheduler::{TaskId, Topic};
use crate::world::World;

/// What compose calls the project's network.
pub const NETWORK: &str = "acme_default";
/// Another project's container.
pub const FOREIGN: &str = "foreign";

/// The machine.
pub struct Host {
    /// Its disk.
    pub disk: Disk,
    /// What the agent's own records say, for whoever looks from outside.
    pub records: Records,
    /// Its engine.
    pub engine: Engine,
    /// An agent's compose process that runs.
    pub child: Option<Child>,
    /// A person's.
    pub by_hand: Option<TaskId>,
}

/// An agent's compose process.
#[derive(Debug)]
pub struct Child {
    /// Its task.
    pub task: TaskId,
    /// The tenant's lock as its standard input: held for as long as it lives.
    pub _lock: Option<OwnedFd>,
}

/// The engine.
#[derive(Default)]
pub struct Engine {
    /// Images that are local.
    pub images: BTreeSet<String>,
    /// References.
    pub tags: BTreeMap<String, String>,
    /// Containers by id; those of other projects as well.
    pub containers: BTreeMap<String, Container>,
    /// What each reference points to at the registry.
    pub registry: BTreeMap<String, String>,
    /// How well each image does.
    pub behaviours: BTreeMap<String, Behaviour>,
    /// The project's network.
    pub network: Option<Network>,
    /// The container that something is wrong with since before an operation.
    pub ailing: Option<String>,
    made: u64,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its id: another one whenever it is made anew.
    pub id: String,
    /// Hash of its definition.
    pub definition: String,
    /// When it was made.
    pub made: u64,
}

/// A container on the project's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The network's id.
    pub network: String,
    /// Whether others find the container there by its service's name.
    pub named: bool,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
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
    /// When compose last started it, and ran its hooks.
    pub hooked: Option<u64>,
    /// When and how somebody ended it.
    pub ended: Option<(u64, i64)>,
    /// What is wrong with it, whatever its image is like.
    pub ails: Option<Ailment>,
    /// The network that it is bound to.
    pub link: Option<Link>,
    /// The container whose network it has.
    pub shares: Option<String>,
    /// When that one had been started whose network it has joined.
    pub joined: Option<u64>,
    /// The inline config that compose has copied into it.
    pub copied: Option<String>,
    /// The managed files that it had read when it was started.
    pub read: BTreeMap<String, Option<Blob>>,
}

impl Container {
    /// It is paused no more.
    pub fn goes_on(&mut self) {
        self.ails.take_if(|ails| *ails == Ailment::Paused);
    }

    /// Whether somebody ended it, or something is wrong with it that no image explains.
    pub fn rests(&self) -> bool {
        self.started.is_none() || self.ended.is_some() || self.ails.is_some()
    }

    /// Has it join the network of another one: it is on none of its own then.
    pub fn share(&mut self, owner: Option<String>) {
        if owner.is_some() {
            self.link = None;
        }
        self.shares = owner;
    }
}

impl Engine {
    /// Makes a container of a directory's project, not started yet. Beside one that it replaces it has a name that
    /// says so.
    pub fn create(
        &mut self,
        directory: &str,
        service: &str,
        image_ref: &str,
        image_id: &str,
        definition: &str,
    ) -> String {
        self.made += 1;
        let id = format!("{:064x}", self.made);
        let name = proper_name(service);
        let taken = self.containers.values().any(|one| one.name == name);
        let container = Container {
            name: if taken { format!("{:012x}_{name}", self.made) } else { name },
            id: id.clone(),
            service: service.to_owned(),
            directory: directory.to_owned(),
            image_ref: image_ref.to_owned(),
            image_id: image_id.to_owned(),
            definition: definition.to_owned(),
            started: None,
            hooked: None,
            ended: None,
            ails: None,
            link: self.network.as_ref().map(|network| Link { network: network.id.clone(), named: true }),
            shares: None,
            joined: None,
            copied: None,
            read: BTreeMap::new(),
        };
        self.containers.insert(id.clone(), container);
        id
    }

    /// Makes the project's network.
    pub fn make_network(&mut self, definition: &str, now: u64) {
        self.made += 1;
        let id = format!("{:064x}", self.made);
        self.network = Some(Network { id, definition: definition.to_owned(), made: now });
    }

    /// The engine's networks.
    pub fn networks(&self) -> Vec<compare::Network> {
        let shown = |network: &Network| compare::Network {
            id: network.id.clone(),
            name: NETWORK.to_owned(),
            kind: NetworkKind::Publishes,
            made: Some(crate::world::timestamp(network.made)),
        };
        self.network.iter().map(shown).collect()
    }

    /// What a container that is to be reached lacks on its network, if anything: its name, where the network was made
    /// since.
    pub fn unreachable(&self, container: &Container, since: u64) -> Option<&'static str> {
        if container.shares.is_some() {
            return None;
        }
        match (&container.link, &self.network) {
            (Some(link), Some(network)) if link.network != network.id => Some("is on a network that is gone"),
            (Some(link), Some(network)) if !link.named && network.made >= since => {
                Some("is not found by its name")
            }
            (Some(_), Some(_)) => None,
            _ => Some("is on no network"),
        }
    }

    fn attached(container: &Container) -> Attached {
        let end = |link: &Link| Endpoint {
            network: link.network.clone(),
            name: NETWORK.to_owned(),
            ipv4: None,
            ipv6: None,
            aliases: link.named.then(|| container.service.clone()).into_iter().collect(),
        };
        Attached { endpoints: container.link.iter().map(end).collect(), ports: Vec::new() }
    }

    /// How a container is at a time.
    pub fn seen(&self, container: &Container, now: u64) -> Seen {
        let (state, exit_code, restart_count, health, started) = self.condition(container, now);
        Seen {
            id: container.id.clone(),
            name: container.name.clone(),
            service: container.service.clone(),
            image_ref: container.image_ref.clone(),
            image_id: container.image_id.clone(),
            state,
            exit_code,
            oom_killed: false,
            restart_count,
            health,
            started_at: started.map(crate::world::timestamp),
            ended_at: container.ended.map(|(at, _)| crate::world::timestamp(at)),
            attached: Self::attached(container),
            namespaces: Namespaces {
                network: container.shares.clone().map_or(Namespace::Own, Namespace::Of),
                ..Namespaces::default()
            },
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
        use ContainerState::{Created, Dead, Exited, Paused, Restarting, Running};
        let checked = container.service == "web";
        let none = |health| if checked { health } else { ServiceHealth::None };
        if container.ails == Some(Ailment::Dead) {
            return (Dead, DIED, 0, none(ServiceHealth::Unhealthy), container.started);
        }
        let Some(started) = container.started else {
            return (Created, 0, 0, none(ServiceHealth::Starting), None);
        };
        if let Some((_, code)) = container.ended {
            return (Exited, code, 0, none(ServiceHealth::Starting), Some(started));
        }
        match container.ails {
            Some(Ailment::Paused) => return (Paused, 0, 0, none(ServiceHealth::Healthy), Some(started)),
            Some(Ailment::KeepsEnding { since }) => {
                let (runs, times, started) = ailments::cycle(since, now);
                let state = if runs { Running } else { Restarting };
                return (state, 1, times, none(ServiceHealth::Starting), Some(started));
            }
            Some(Ailment::Dead) | None => {}
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
        if let Some(Ailment::KeepsEnding { since }) = container.ails {
            return Some(ailments::next_change(since, now));
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

    /// Removes images that neither a tag nor a container holds.
    pub fn prune(&mut self) {
        let held: BTreeSet<String> = self
            .tags
            .values()
            .cloned()
            .chain(self.containers.values().map(|container| container.image_id.clone()))
            .collect();
        self.images.retain(|image| held.contains(image));
    }

    /// What a power cut and the start after it do to containers.
    pub fn reboot(&mut self, now: u64) {
        self.ailing = None;
        self.containers.values_mut().for_each(|one| one.ails = None);
        for container in self.containers.values_mut() {
            let ran = container.started.is_some() && container.ended.is_none();
            if ran && container.service != "migrate" {
                container.started = Some(now);
                // No hook runs, and nobody could have one run.
                container.hooked = Some(now);
                container.joined = container.shares.as_ref().map(|_| now);
            }
        }
    }
}

/// What a container ends with that the engine kills.
const DIED: i64 = 137;

/// What compose calls the one container of a service.
pub fn proper_name(service: &str) -> String {
    format!("{PROJECT}-{service}-1")
}

/// Whether the engine would start a container at all.
pub fn startable(world: &World, id: &str) -> Result<(), &'static str> {
    let is_dead = world.host.engine.containers.get(id).is_some_and(|one| one.ails == Some(Ailment::Dead));
    if is_dead { Err("container is marked for removal and cannot be started") } else { Ok(()) }
}

/// Who starts a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starter {
    /// Compose, which runs its hooks.
    Compose,
    /// Whoever asks the engine for it, past compose.
    Engine,
}

/// Starts a container: it reads its files as they are.
pub fn start(world: &mut World, id: &str, starter: Starter) {
    let now = world.now();
    world.host.disk.look();
    let files = world.host.disk.files();
    let all = &world.host.engine.containers;
    let owner = all.get(id).and_then(|one| all.get(one.shares.as_ref()?));
    let joined = owner.and_then(|owner| owner.started);
    let Some(container) = world.host.engine.containers.get_mut(id) else { return };
    container.joined = joined;
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
    if starter == Starter::Compose {
        container.hooked = Some(now);
    }
    container.ended = None;
    container.goes_on();
    if !matches!(container.service.as_str(), "db" | "side") {
        // The application leaves a mark in its data.
        let mark = container.image_id.clone();
        world.host.disk.mark(&mark);
    }
    world.notify(Topic::Engine);
}

/// Ends a container, unless it has ended already.
pub fn stop(world: &mut World, id: &str) {
    let now = world.now();
    if let Some(container) = world.host.engine.containers.get_mut(id)
        && container.started.is_some()
    {
        container.goes_on();
        container.ended.get_or_insert((now, 0));
    }
    world.notify(Topic::Engine);
}
