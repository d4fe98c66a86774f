//! The engine, as the agent's port sees it: each call takes its time, can fail, and can be the one at which the agent is
//! killed.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tenantry_agent::engine::{
    Answer, ComposeContainer, DataMount, DataUser, Engine, EngineError, Events, Executed, Heard, Helper,
    HelperState, Image, LastWords, Likeness, Owner, Program, ProjectContainer, PullProgress, Rest, Volume,
};
use tenantry_api::names::Argv;
use tenantry_planner::compare::Network;
use tokio_util::sync::CancellationToken;

use crate::agent::tick;
use crate::ailments::Ailment;
use crate::disk::DATA;
use crate::host::{self, Container, Starter};
use crate::oracle::Actor;
use crate::releases::{PROJECT, digest_of};
use crate::scheduler::{Shared, Topic, until};
use crate::world::{Fault, World};

/// The longest that a call takes, in milliseconds; one that stops something takes longer.
const CALL: u64 = 3;
const STOP: u64 = 400;
const PULL: u64 = 5_000;
/// The agent reads from its engine a few times for each occasion on which an engine is said to fail.
const READS_PER_OCCASION: u32 = 6;
/// How long the engine waits at most before it looks whether there is something to report.
const QUIET: u64 = 3_600_000;
/// What containers know and say, and nobody else may tell (P12).
pub const CANARY: &str = "canary-5d41402abc4b2a76";
/// Where tags of ours are that hold images.
pub const KEPT: &str = "tenantry.local/keep/";

/// The engine as one process of the agent has it.
pub struct EngineClient {
    shared: Shared,
    incarnation: u64,
    events: Arc<Events>,
}

impl EngineClient {
    /// That of an agent's process.
    pub fn new(shared: &Shared, incarnation: u64) -> Self {
        Self { shared: shared.clone(), incarnation, events: Arc::default() }
    }

    /// A call that only reads.
    async fn read<T>(&self, read: impl FnOnce(&mut World) -> T) -> Result<T, EngineError> {
        tick(&self.shared, CALL).await;
        let mut world = self.shared.world();
        let rate = world.scenario.rates.engine;
        if world.chance_of(rate, 1_000 * READS_PER_OCCASION) {
            return Err(away(&mut world));
        }
        Ok(read(&mut world))
    }

    /// A call that changes something of the tenant's.
    async fn change<T>(
        &self,
        what: &'static str,
        takes: u64,
        change: impl FnOnce(&mut World) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        tick(&self.shared, takes).await;
        let mut world = self.shared.world();
        let rate = world.scenario.rates.engine;
        if world.chance(rate) {
            return Err(away(&mut world));
        }
        world.mutates(&Actor::Agent { incarnation: self.incarnation }, what);
        change(&mut world)
    }

    async fn containers(&self, project: &str) -> Result<Vec<ProjectContainer>, EngineError> {
        let ours = project == PROJECT;
        self.read(|world| {
            let now = world.now();
            let engine = &world.host.engine;
            let of_project = engine.containers.values().filter(|one| ours == (one.id != host::FOREIGN));
            of_project.map(|one| seen(world, one, now)).collect()
        })
        .await
    }

    async fn stops(&self, what: &'static str, id: &str) -> Result<(), EngineError> {
        self.change(what, STOP, |world| {
            world.stops();
            host::stop(world, id);
            Ok(())
        })
        .await
    }

    async fn digest(&self, reference: &str) -> Result<String, EngineError> {
        let found = self.read(|world| {
            let rate = world.scenario.rates.registry;
            if world.chance(rate) {
                return Err(registry_down(world));
            }
            let image = world.host.engine.registry.get(reference);
            image.map(|image| digest_of(image)).ok_or_else(|| no_such("manifest unknown"))
        });
        found.await?
    }

    async fn pulls(&self, repository: &str, digest: &str) -> Result<(), EngineError> {
        tick(&self.shared, PULL).await;
        let mut world = self.shared.world();
        let rates = world.scenario.rates.clone();
        if world.chance(rates.registry) {
            return Err(registry_down(&mut world));
        }
        if world.chance(rates.disk) {
            world.count(Fault::DiskFull);
            return Err(refused("pull", 500, "no space left on device"));
        }
        let engine = &mut world.host.engine;
        let image = engine.behaviours.keys().find(|image| digest_of(image) == digest).cloned();
        let image = image.ok_or_else(|| no_such(&format!("{repository}@{digest}: manifest unknown")))?;
        engine.images.insert(image);
        Ok(())
    }

    async fn tags(&self, image: &str, repository: &str, tag: &str) -> Result<(), EngineError> {
        let name = format!("{repository}:{tag}");
        let put = |world: &mut World| {
            if !world.host.engine.images.contains(image) {
                return Err(no_such(&format!("No such image: {image}")));
            }
            world.host.engine.tags.insert(name.clone(), image.to_owned());
            Ok(())
        };
        if name.starts_with(KEPT) {
            return self.read(put).await?;
        }
        self.change("a reference", CALL, put).await
    }

    async fn untags(&self, name: &str) -> Result<(), EngineError> {
        let remove = |world: &mut World| {
            let engine = &mut world.host.engine;
            if let Some(image) = engine.tags.remove(name) {
                let named = engine.tags.values().any(|other| *other == image);
                let used = engine.containers.values().any(|one| one.image_id == image);
                if !named && !used {
                    engine.images.remove(&image);
                }
            }
        };
        if name.starts_with(KEPT) {
            return self.read(remove).await;
        }
        self.change("a reference that is taken away", CALL, |world| {
            remove(world);
            Ok(())
        })
        .await
    }
}

/// The engine is away for a moment.
fn away(world: &mut World) -> EngineError {
    world.count(Fault::EngineFault);
    EngineError::Down { socket: "unix:///engine".to_owned(), problem: "connection refused".to_owned() }
}

fn registry_down(world: &mut World) -> EngineError {
    world.count(Fault::RegistryDown);
    refused("ask the registry", 500, "the registry does not answer")
}

fn refused(doing: &str, status: u16, message: &str) -> EngineError {
    EngineError::Refused { doing: doing.to_owned(), status, message: message.to_owned() }
}

fn no_such(message: &str) -> EngineError {
    refused("find it", 404, message)
}

/// What no agent on this machine has a use for: it runs in no container, and sees all of its data.
fn unused<'a, T>(what: &str) -> Answer<'a, T>
where
    T: Send + 'a,
{
    let error = no_such(&format!("this engine has no {what}"));
    async move { Err(error) }.boxed()
}

fn seen(world: &World, one: &Container, now: u64) -> ProjectContainer {
    ProjectContainer {
        container: world.host.engine.seen(one, now),
        directory: one.directory.clone(),
        started_raw: one.started.map(|at| at.to_string()).unwrap_or_default(),
        one_off: false,
    }
}

fn image(world: &World, name: &str) -> Option<Image> {
    let engine = &world.host.engine;
    let local = |id: &String| engine.images.contains(id);
    let id = if name.starts_with("sha256:") {
        Some(name.to_owned()).filter(local)
    } else if let Some((_, digest)) = name.split_once('@') {
        engine.images.iter().find(|image| digest_of(image) == digest).cloned()
    } else {
        engine.tags.get(name).cloned().filter(local)
    }?;
    let tags = engine.tags.iter().filter(|(_, image)| **image == id).map(|(tag, _)| tag.clone()).collect();
    let from =
        engine.registry.iter().find(|(_, image)| **image == id).map(|(reference, _)| reference.as_str());
    let repository = from.and_then(|from| from.rsplit_once(':')).map_or("reg.example/app", |(name, _)| name);
    Some(Image { tags, repo_digests: vec![format!("{repository}@{}", digest_of(&id))], id })
}

/// What a container says that does not do well: why, and a secret that nobody else may hear of.
fn words(world: &World, id: &str) -> LastWords {
    let Some(one) = world.host.engine.containers.get(id) else { return LastWords::default() };
    let well = world.host.engine.well(one, world.now());
    let log = match (one.started, well) {
        (None, _) => Vec::new(),
        (Some(_), true) => vec!["listening".to_owned()],
        (Some(_), false) => vec![format!("token {CANARY}"), own_words(&one.service)],
    };
    LastWords { log, environment: vec![format!("API_TOKEN={CANARY}")], ..LastWords::default() }
}

/// What a service says that does not do well.
pub fn own_words(service: &str) -> String {
    format!("boom: {service} cannot open its config")
}

fn rest(world: &World, id: &str) -> Option<Rest> {
    let one = world.host.engine.containers.get(id)?;
    let dead = one.ails == Some(Ailment::Dead);
    let running = one.started.is_some() && one.ended.is_none() && !dead;
    Some(Rest { running, paused: running && one.ails == Some(Ailment::Paused) })
}

fn data_users(world: &World) -> Vec<DataUser> {
    let all = world.host.engine.containers.values();
    let user = |one: &Container| {
        let mounts = (one.service == "db").then(|| DataMount {
            volume: None,
            source: format!("{}/{DATA}", one.directory),
            writes: true,
        });
        DataUser {
            id: one.id.clone(),
            name: one.name.clone(),
            service: one.service.clone(),
            project: if one.id == host::FOREIGN { "other".to_owned() } else { PROJECT.to_owned() },
            directory: one.directory.clone(),
            running: one.started.is_some() && one.ended.is_none(),
            mounts: mounts.into_iter().collect(),
        }
    };
    all.map(user).collect()
}

/// Reports what happens to containers, until the agent ends.
async fn report(shared: Shared, events: Arc<Events>) {
    loop {
        let next = {
            let world = shared.world();
            let (now, engine) = (world.now(), &world.host.engine);
            let next = engine.containers.values().filter_map(|one| engine.next_event(one, now)).min();
            next.map_or(QUIET, |at| at.saturating_sub(now).max(1))
        };
        let mut waits = true;
        until(&shared, Topic::Engine, next, move |_| (!std::mem::take(&mut waits)).then_some(())).await;
        events.wake();
    }
}

impl Engine for EngineClient {
    fn events(&self) -> &Events {
        &self.events
    }

    fn follow_events(&self, end: CancellationToken) -> BoxFuture<'static, ()> {
        let reporting = report(self.shared.clone(), self.events.clone());
        async move {
            let _ = end.run_until_cancelled(reporting).await;
        }
        .boxed()
    }

    fn version(&self) -> Answer<'_, String> {
        self.read(|_| "made up".to_owned()).boxed()
    }

    fn data_root(&self) -> Answer<'_, Option<String>> {
        self.read(|_| None).boxed()
    }

    fn project_containers<'a>(&'a self, project: &'a str) -> Answer<'a, Vec<ProjectContainer>> {
        self.containers(project).boxed()
    }

    fn known_containers<'a>(&'a self, project: &'a str) -> Answer<'a, Vec<ProjectContainer>> {
        self.containers(project).boxed()
    }

    fn compose_containers(&self) -> Answer<'_, Vec<ComposeContainer>> {
        self.read(|world| {
            let all = world.host.engine.containers.values();
            let told = all.map(|one| ComposeContainer {
                name: one.id.clone(),
                project: if one.id == host::FOREIGN { "other".to_owned() } else { PROJECT.to_owned() },
                service: one.service.clone(),
                directory: one.directory.clone(),
                running: one.started.is_some() && one.ended.is_none(),
                ..ComposeContainer::default()
            });
            told.collect()
        })
        .boxed()
    }

    fn service_containers<'a>(
        &'a self,
        project: &'a str,
        service: &'a str,
    ) -> Answer<'a, Vec<ProjectContainer>> {
        async move {
            let all = self.containers(project).await?;
            Ok(all.into_iter().filter(|one| one.container.service == service).collect())
        }
        .boxed()
    }

    fn rest<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Rest>> {
        self.read(|world| rest(world, id)).boxed()
    }

    fn signal<'a>(&'a self, _: &'a str, _: &'a str) -> Answer<'a, ()> {
        unused("signal")
    }

    fn rename<'a>(&'a self, id: &'a str, name: &'a str) -> Answer<'a, ()> {
        self.change("a container's name", CALL, move |world| {
            let engine = &mut world.host.engine;
            if engine.containers.values().any(|one| one.name == name) {
                return Err(refused("rename a container", 409, "the name is in use"));
            }
            let one = engine.containers.get_mut(id).ok_or_else(|| no_such("No such container"))?;
            name.clone_into(&mut one.name);
            Ok(())
        })
        .boxed()
    }

    fn start_container<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        self.change("a container that is started again", CALL, |world| {
            if !world.host.engine.containers.contains_key(name) {
                return Err(no_such("No such container"));
            }
            host::startable(world, name).map_err(|problem| refused("start a container", 409, problem))?;
            if rest(world, name).is_some_and(|rest| !rest.running) {
                host::start(world, name, Starter::Engine);
            }
            Ok(())
        })
        .boxed()
    }

    fn stop<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        self.stops("a container that is stopped", id).boxed()
    }

    fn stop_container<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        self.stops("a container that is stopped", id).boxed()
    }

    fn pause<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        self.change("a container that is paused", CALL, |world| {
            let runs = rest(world, id).is_some_and(|rest| rest.running);
            if let Some(one) = world.host.engine.containers.get_mut(id).filter(|_| runs) {
                one.ails = Some(Ailment::Paused);
            }
            Ok(())
        })
        .boxed()
    }

    fn unpause<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        self.change("a container that goes on", CALL, |world| {
            if let Some(one) = world.host.engine.containers.get_mut(id) {
                one.goes_on();
            }
            Ok(())
        })
        .boxed()
    }

    fn stop_and_remove<'a>(&'a self, id: &'a str, _: Option<Duration>) -> Answer<'a, ()> {
        self.change("a container that is removed", STOP, |world| {
            if world.host.engine.containers.get(id).is_some_and(|one| one.started.is_some()) {
                world.stops();
            }
            world.host.engine.containers.remove(id);
            world.notify(Topic::Engine);
            Ok(())
        })
        .boxed()
    }

    fn remove_container<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        self.stop_and_remove(name, None)
    }

    fn execute<'a>(&'a self, _: &'a str, _: &'a Argv, _: Duration) -> Answer<'a, Executed> {
        unused("command")
    }

    fn last_words<'a>(&'a self, id: &'a str, _: u32) -> Answer<'a, LastWords> {
        self.read(|world| words(world, id)).boxed()
    }

    fn exit_code<'a>(&'a self, _: &'a str) -> Answer<'a, Option<i64>> {
        unused("command")
    }

    fn known_image<'a>(&'a self, name: &'a str) -> Answer<'a, Option<Image>> {
        self.image(name)
    }

    fn image<'a>(&'a self, name: &'a str) -> Answer<'a, Option<Image>> {
        self.read(|world| image(world, name)).boxed()
    }

    fn remote_digest<'a>(&'a self, reference: &'a str) -> Answer<'a, String> {
        self.digest(reference).boxed()
    }

    fn pull<'a>(
        &'a self,
        repository: &'a str,
        digest: &'a str,
        progress: &'a mut (dyn FnMut(PullProgress) + Send),
    ) -> Answer<'a, ()> {
        async move {
            self.pulls(repository, digest).await?;
            progress(PullProgress { done: 1, total: 1 });
            Ok(())
        }
        .boxed()
    }

    fn tag<'a>(&'a self, image: &'a str, repository: &'a str, tag: &'a str) -> Answer<'a, ()> {
        self.tags(image, repository, tag).boxed()
    }

    fn untag<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        self.untags(name).boxed()
    }

    fn tags_of<'a>(&'a self, repository: &'a str) -> Answer<'a, Vec<String>> {
        self.read(move |world| {
            let prefix = format!("{repository}:");
            let names = world.host.engine.tags.keys();
            names.filter_map(|name| name.strip_prefix(&prefix).map(str::to_owned)).collect()
        })
        .boxed()
    }

    fn names_like<'a>(&'a self, repositories: &'a str) -> Answer<'a, Vec<String>> {
        self.read(move |world| {
            // Only a star at the end is asked for.
            let prefix = repositories.trim_end_matches('*');
            world.host.engine.tags.keys().filter(|name| name.starts_with(prefix)).cloned().collect()
        })
        .boxed()
    }

    fn volume_project<'a>(&'a self, _: &'a str) -> Answer<'a, Owner> {
        self.read(|_| None).boxed()
    }

    fn network_project<'a>(&'a self, _: &'a str) -> Answer<'a, Owner> {
        self.read(|_| None).boxed()
    }

    fn container_project<'a>(&'a self, _: &'a str) -> Answer<'a, Owner> {
        self.read(|_| None).boxed()
    }

    fn networks(&self) -> Answer<'_, Vec<Network>> {
        self.read(|world| world.host.engine.networks()).boxed()
    }

    fn is_in_swarm(&self) -> Answer<'_, bool> {
        self.read(|_| false).boxed()
    }

    fn volume<'a>(&'a self, _: &'a str) -> Answer<'a, Option<Volume>> {
        self.read(|_| None).boxed()
    }

    fn volumes_of<'a>(&'a self, _: &'a str, _: &'a str) -> Answer<'a, Vec<Volume>> {
        self.read(|_| Vec::new()).boxed()
    }

    fn data_users(&self) -> Answer<'_, Vec<DataUser>> {
        self.read(|world| data_users(world)).boxed()
    }

    fn make_volume<'a>(&'a self, _: &'a str, _: &'a str) -> Answer<'a, Volume> {
        unused("volume")
    }

    fn remove_volume<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        unused("volume")
    }

    fn clear_helpers<'a>(&'a self, _: &'a str) -> Answer<'a, usize> {
        self.read(|_| 0).boxed()
    }

    fn start_helper<'a>(&'a self, _: &'a Helper) -> Answer<'a, String> {
        unused("helper")
    }

    fn helper_state<'a>(&'a self, _: &'a str) -> Answer<'a, HelperState> {
        unused("helper")
    }

    fn heard<'a>(&'a self, _: &'a str, _: u32) -> Answer<'a, Heard> {
        unused("helper")
    }

    fn own_image<'a>(&'a self, _: &'a Arc<Program>) -> Answer<'a, String> {
        unused("helper")
    }

    fn likeness<'a>(&'a self, _: &'a str) -> Answer<'a, Likeness> {
        unused("container of the agent's")
    }

    fn finishers<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<(String, bool)>> {
        self.read(|_| Vec::new()).boxed()
    }

    fn make_finisher<'a>(&'a self, _: Likeness, _: &'a str, _: &'a str, _: Vec<String>) -> Answer<'a, ()> {
        unused("container of the agent's")
    }
}
