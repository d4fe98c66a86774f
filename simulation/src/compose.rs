//! Compose: it reads the files that are on the disk, prints the model, and brings it up: a process of its own, which can
//! outlive the agent that began it.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::Value;
use tenantry_agent::compose::{ComposeError, Found, Launcher, Output, Run, RunError};
use tenantry_api::names::ServiceName;
use tenantry_planner::env::EnvFile;
use tenantry_planner::model::{Model, Service};

mod network;

use crate::agent::{dies, tick};
use crate::ailments::Ailment;
use crate::disk::DATA;
use crate::host::{self, Child, Container, Starter};
use crate::oracle::Actor;
use crate::releases::{COMPOSE, COPIED, ENV};
use crate::scheduler::{Owner, Shared, Topic, sleep, until};
use crate::world::{Fault, World};

/// How long reading the files takes at most, in milliseconds.
const READ: u64 = 60;
/// Some applications take no notice of SIGTERM.
const DEAF: u64 = 10_000;
const HEEDS: u64 = 200;

/// What starts compose for one process of the agent.
pub struct ComposeLauncher {
    shared: Shared,
}

impl ComposeLauncher {
    /// That of an agent's process.
    pub fn new(shared: &Shared) -> Self {
        Self { shared: shared.clone() }
    }

    async fn run(&self, asked: Run<'_>) -> Result<Output, RunError> {
        let words = words(asked.arguments);
        let command = words.iter().find_map(|word| match word.as_str() {
            "config" => Some(None),
            "up" => Some(Some(Command::up(&words))),
            "stop" => Some(Some(Command::Stop)),
            "restart" => Some(Some(Command::Restart)),
            _ => None,
        });
        if let Some(Some(command)) = command {
            return self.changes(command, &words, asked).await;
        }
        tick(&self.shared, READ).await;
        Ok(printed(config(asked.directory, &words)))
    }

    async fn changes(&self, command: Command, words: &[String], asked: Run<'_>) -> Result<Output, RunError> {
        tick(&self.shared, READ).await;
        let directory = asked.directory.display().to_string();
        let read = config(asked.directory, words).and_then(|value| Read::of(&value, &directory));
        let read = match read {
            Ok(read) => read.chosen(words),
            Err(problem) => return Ok(failed(problem)),
        };
        let task = {
            let mut world = self.shared.world();
            let operation = world.host.records.open().map(|(uid, id, _)| (uid.clone(), id.clone()));
            let Some(operation) = operation else {
                world.broken("P2", "compose is run, and no operation is in flight");
                return Ok(failed("nobody asked for it".to_owned()));
            };
            let actor = Actor::Child { uid: operation.0, id: operation.1 };
            let child = carry_out(self.shared.clone(), actor, command, Arc::new(read));
            let task = world.spawn(Owner::Child, child);
            let other = world.host.child.is_some();
            world.require("P2", !other, || "compose is run while another one still does".to_owned());
            world.host.child = Some(Child { task, _lock: asked.lock });
            task
        };
        let limit = u64::try_from(asked.limit.as_millis()).unwrap_or(u64::MAX);
        let ended =
            until(&self.shared, Topic::Child, limit, |world| world.compose_results.remove(&task)).await;
        tick(&self.shared, 5).await;
        match ended {
            Some(Ok(())) => Ok(printed(Ok(Value::Null))),
            Some(Err(problem)) => Ok(failed(problem)),
            None => {
                end(&mut self.shared.world());
                Err(RunError::Slow(asked.limit))
            }
        }
    }
}

/// What compose does to containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `up -d`, and whether it starts what it has made.
    Up(Recreate, bool),
    /// `stop`.
    Stop,
    /// `restart --no-deps`.
    Restart,
}

/// Which containers `up` makes anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recreate {
    /// Those that differ.
    Differing,
    /// All.
    All,
    /// None.
    None,
}

impl Command {
    fn up(words: &[String]) -> Self {
        let has = |flag: &str| words.iter().any(|word| word == flag);
        let recreate = match (has("--force-recreate"), has("--no-recreate")) {
            (true, _) => Recreate::All,
            (_, true) => Recreate::None,
            _ => Recreate::Differing,
        };
        Self::Up(recreate, !has("--no-start"))
    }
}

/// What compose has read.
pub struct Read {
    /// The model.
    pub model: Model,
    /// The content of the one inline config.
    content: Option<String>,
}

impl Read {
    /// What is in its JSON.
    pub fn of(value: &Value, directory: &str) -> Result<Self, String> {
        let content = value["configs"][COPIED]["content"].as_str().map(str::to_owned);
        Ok(Self { model: model(value, directory)?, content })
    }

    /// The services that are named after the command and its flags.
    fn chosen(mut self, words: &[String]) -> Self {
        let command = |word: &String| matches!(word.as_str(), "up" | "stop" | "restart");
        let after = words.iter().position(command).map_or(words.len(), |at| at + 1);
        let named: Vec<&String> = words[after..].iter().filter(|word| !word.starts_with('-')).collect();
        self.model.services.retain(|name, _| named.iter().any(|word| *word == name.as_str()));
        self
    }

    /// What compose copies into a service's containers when it starts them.
    pub fn copies(&self, service: &str) -> Option<String> {
        let found = self.model.services.get(service);
        found.filter(|service| !service.copied.is_empty()).and_then(|_| self.content.clone())
    }
}

impl Launcher for ComposeLauncher {
    fn find(&self) -> BoxFuture<'_, Result<Found, ComposeError>> {
        async {
            tick(&self.shared, READ).await;
            Ok(Found {
                program: "docker-compose".into(),
                version: "made up".to_owned(),
                keeps_env_files: true,
                typed: "docker compose",
            })
        }
        .boxed()
    }

    fn compose<'a>(&'a self, _: &'a OsStr, run: Run<'a>) -> BoxFuture<'a, Result<Output, RunError>> {
        self.run(run).boxed()
    }

    fn by_hand<'a>(
        &'a self,
        directory: &'a Path,
        words: &'a [OsString],
    ) -> BoxFuture<'a, Result<Option<Output>, RunError>> {
        async move {
            tick(&self.shared, READ).await;
            let words = self::words(words);
            let sets_no_variable = words.first().is_some_and(|word| word == "env");
            let output = if sets_no_variable { Ok(Value::Null) } else { config(directory, &words) };
            Ok(Some(printed(output)))
        }
        .boxed()
    }
}

/// The process is ended, and with it its hold on the tenant's lock.
pub fn end(world: &mut World) -> bool {
    let Some(child) = world.host.child.take() else { return false };
    world.queue.abort(child.task);
    world.say(|_| "a compose process is ended".to_owned());
    true
}

fn words(words: &[OsString]) -> Vec<String> {
    words.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

fn printed(output: Result<Value, String>) -> Output {
    match output {
        Ok(Value::Null) => {
            Output { status: ExitStatus::from_raw(0), stdout: Vec::new(), stderr: String::new() }
        }
        Ok(value) => Output {
            status: ExitStatus::from_raw(0),
            stdout: value.to_string().into_bytes(),
            stderr: String::new(),
        },
        Err(problem) => failed(problem),
    }
}

fn failed(problem: String) -> Output {
    Output { status: ExitStatus::from_raw(1 << 8), stdout: Vec::new(), stderr: problem }
}

/// What stands after a flag.
fn flag<'a>(words: &'a [String], name: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| word == name)?;
    words.get(at + 1).map(String::as_str)
}

/// The resolved model of the files in a directory, as compose prints it.
pub fn config(directory: &Path, words: &[String]) -> Result<Value, String> {
    let at = |path: &str| directory.join(path);
    let project = flag(words, "--project-directory").map_or(directory.to_owned(), at);
    let file = flag(words, "-f").map_or_else(|| project.join(COMPOSE), at);
    let env = flag(words, "--env-file").map_or_else(|| project.join(ENV), PathBuf::from);
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let env = std::fs::read(env).unwrap_or_default();
    let env = EnvFile::parse(&env).map_err(|error| error.to_string())?;
    let mut value: Value =
        serde_json::from_str(&text).map_err(|error| format!("{}: yaml: {error}", file.display()))?;
    interpolate(&mut value, &env)?;
    let name = flag(words, "-p").map(str::to_owned);
    let folder = project.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    value["name"] = Value::from(name.unwrap_or(folder));
    let network = format!("{}_default", value["name"].as_str().unwrap_or_default());
    value["networks"]["default"]["name"] = Value::from(network);
    for service in value["services"].as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
        if service["network_mode"].is_null() {
            service["networks"] = serde_json::json!({"default": null});
        }
    }
    let binds = value["services"].as_object_mut().into_iter().flat_map(serde_json::Map::values_mut);
    for bind in binds.filter_map(|service| service.get_mut("volumes")?.as_array_mut()).flatten() {
        if let Some(source) = bind["source"].as_str().and_then(|source| source.strip_prefix("./")) {
            bind["source"] = Value::from(project.join(source).display().to_string());
        }
    }
    Ok(value)
}

/// The model of a directory that is where it is.
pub fn model(value: &Value, directory: &str) -> Result<Model, String> {
    Model::parse(value.to_string().as_bytes(), directory, directory).map_err(|error| error.to_string())
}

fn interpolate(value: &mut Value, env: &EnvFile) -> Result<(), String> {
    match value {
        Value::String(text) if text.contains('$') => {
            let becomes = interpolated(text, env)?;
            *text = becomes;
        }
        Value::Array(all) => all.iter_mut().try_for_each(|one| interpolate(one, env))?,
        Value::Object(all) => all.values_mut().try_for_each(|one| interpolate(one, env))?,
        _ => {}
    }
    Ok(())
}

/// `${NAME}`, `${NAME-}` and `${NAME:?}` are all that our files have.
fn interpolated(text: &str, env: &EnvFile) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        let (inside, after) = after.split_once('}').ok_or("a variable has no end")?;
        let name: String =
            inside.chars().take_while(|one| one.is_ascii_alphanumeric() || *one == '_').collect();
        let value = env.get(&name).and_then(|value| value.literal()).unwrap_or_default();
        if value.is_empty() && inside.ends_with(":?") {
            return Err(format!("required variable {name} is missing a value"));
        }
        out.push_str(before);
        out.push_str(value);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// A command of compose's, by an agent's or a person's process.
pub async fn carry_out(shared: Shared, actor: Actor, command: Command, read: Arc<Read>) {
    let result = match command {
        Command::Up(recreate, starts) => up(&shared, &actor, (recreate, starts), &read).await,
        Command::Stop => rest(&shared, &actor, &read, halt).await,
        Command::Restart => rest(&shared, &actor, &read, begin).await,
    };
    let mut world = shared.world();
    let own = world.queue.current();
    if actor == Actor::Person {
        world.host.by_hand = None;
        return;
    }
    if world.host.child.as_ref().is_some_and(|child| child.task == own) {
        world.host.child = None;
    }
    world.compose_results.insert(own, result);
    world.notify(Topic::Child);
}

/// Stops or restarts what runs of services.
async fn rest(
    shared: &Shared,
    actor: &Actor,
    read: &Read,
    becomes: impl Fn(&mut World, &str) -> Result<(), String>,
) -> Result<(), String> {
    for name in read.model.services.keys() {
        for one in own(shared, name.as_str()) {
            work(shared, actor, HEEDS).await;
            step(shared, actor, |world| {
                world.stops();
                becomes(world, &one.id)
            })
            .await?;
        }
    }
    Ok(())
}

/// The containers of a service that were made from the tenant's directory.
fn own(shared: &Shared, service: &str) -> Vec<Container> {
    let world = shared.world();
    let directory = world.host.disk.directory();
    let of_it = |one: &&Container| one.service == service && one.directory == directory;
    world.host.engine.containers.values().filter(of_it).cloned().collect()
}

/// The engine stops a container.
#[allow(clippy::unnecessary_wraps)]
fn halt(world: &mut World, id: &str) -> Result<(), String> {
    host::stop(world, id);
    Ok(())
}

/// The engine starts a container.
fn begin(world: &mut World, id: &str) -> Result<(), String> {
    network::is_there(world, id)?;
    host::startable(world, id)?;
    host::start(world, id, Starter::Compose);
    Ok(())
}

async fn up(shared: &Shared, actor: &Actor, how: (Recreate, bool), read: &Read) -> Result<(), String> {
    network::ensure(shared, actor, &read.model).await?;
    for name in read.model.services.keys() {
        sleep(shared, 40).await;
        let fails = {
            let mut world = shared.world();
            let rate = world.scenario.rates.compose;
            *actor != Actor::Person && world.chance(rate)
        };
        if fails {
            shared.world().count(Fault::ComposeFailed);
            return Err(format!("{name}: its port is taken"));
        }
        converge(shared, actor, how, (read, name)).await?;
    }
    Ok(())
}

/// Brings one service up.
async fn converge(
    shared: &Shared,
    actor: &Actor,
    (recreate, starts): (Recreate, bool),
    (read, name): (&Read, &ServiceName),
) -> Result<(), String> {
    let Some(service) = read.model.services.get(name) else { return Ok(()) };
    let old = own(shared, name.as_str());
    let image = shared.world().host.engine.tags.get(&service.image).cloned();
    let image = image.ok_or_else(|| format!("{}: no such image", service.image))?;
    let network = service.shares.first().and_then(|of| own(shared, of).first().map(|one| one.id.clone()));
    let fits = |one: &&Container| match recreate {
        Recreate::All => false,
        Recreate::None => true,
        Recreate::Differing => {
            let same = one.image_ref == service.image && one.image_id == image;
            same && one.definition == service.definition
                && one.shares == network
                && network::is_as_wanted(&shared.world(), one)
        }
    };
    let id = if let Some(fitting) = old.iter().find(fits) {
        fitting.id.clone()
    } else {
        halt_followers(shared, actor, read, name).await;
        make(shared, actor, &old, (name, service), (&image, network)).await?
    };
    for one in old.iter().filter(|one| one.id != id) {
        let grace = if shared.world().rng.u32(0..4) == 0 { DEAF } else { HEEDS };
        work(shared, actor, grace).await;
        step(shared, actor, |world| {
            if let Actor::Child { .. } = actor {
                world.stops();
            }
            world.host.engine.containers.remove(&one.id);
        })
        .await;
    }
    step(shared, actor, |world| {
        let proper = host::proper_name(name.as_str());
        let engine = &mut world.host.engine;
        if engine.containers.values().all(|one| one.name != proper)
            && let Some(one) = engine.containers.get_mut(&id)
        {
            one.name = proper;
        }
    })
    .await;
    let rests = {
        let world = shared.world();
        world.host.engine.containers.get(&id).is_some_and(|one| {
            let seen = world.host.engine.seen(one, world.now());
            let ended = seen.state == tenantry_planner::compare::ContainerState::Exited;
            one.started.is_none() || one.ended.is_some() || ended || one.ails == Some(Ailment::Dead)
        })
    };
    if rests && starts {
        let copies = read.copies(name.as_str());
        step(shared, actor, |world| {
            if let Some(one) = world.host.engine.containers.get_mut(&id) {
                one.copied = copies;
            }
            begin(world, &id)
        })
        .await?;
    }
    Ok(())
}

/// Who has `restart: true` for a service is stopped before that one is made anew, and started when it comes to them.
async fn halt_followers(shared: &Shared, actor: &Actor, read: &Read, name: &ServiceName) {
    let followers = read.model.services.iter().filter(|(_, one)| one.restarts_with.contains(name.as_str()));
    for (follower, _) in followers {
        for one in own(shared, follower.as_str()) {
            step(shared, actor, |world| {
                if let Actor::Child { .. } = actor {
                    world.stops();
                }
                host::stop(world, &one.id);
            })
            .await;
        }
    }
}

async fn make(
    shared: &Shared,
    actor: &Actor,
    old: &[Container],
    (name, service): (&ServiceName, &Service),
    (image, network): (&str, Option<String>),
) -> Result<String, String> {
    step(shared, actor, |world| {
        let directory = world.host.disk.directory();
        // Another compose, of a person, may have made it meanwhile: its name is in use.
        let of_it = |one: &&Container| one.service == name.as_str() && one.directory == directory;
        let mut made = world.host.engine.containers.values().filter(of_it);
        if made.any(|one| old.iter().all(|known| known.id != one.id)) {
            return Err(format!("{name}: the name of its container is in use"));
        }
        if name.as_str() == "db" {
            let _ = std::fs::create_dir_all(world.host.disk.directory.join(DATA));
        }
        let engine = &mut world.host.engine;
        let id = engine.create(&directory, name.as_str(), &service.image, image, &service.definition);
        if let Some(one) = engine.containers.get_mut(&id) {
            one.share(network);
        }
        Ok(id)
    })
    .await
}

/// An effect of compose's.
async fn step<T>(shared: &Shared, actor: &Actor, change: impl FnOnce(&mut World) -> T) -> T {
    let pause = shared.world().rng.u64(5..400);
    work(shared, actor, pause).await;
    let mut world = shared.world();
    world.mutates(actor, "a container by compose");
    change(&mut world)
}

/// Compose works for a while. Its agent may be killed meanwhile; unless compose outlives that, it is gone then.
async fn work(shared: &Shared, actor: &Actor, ms: u64) {
    for _ in 0..3 {
        let waits = matches!(actor, Actor::Child { .. }) && shared.world().agent.up;
        if waits {
            dies(&mut shared.world());
        }
        sleep(shared, ms / 3 + 1).await;
    }
}
