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
use tenantry_planner::env::EnvFile;
use tenantry_planner::model::Model;

mod network;

use crate::agent::{dies, tick};
use crate::disk::DATA;
use crate::host::{self, Child, Container};
use crate::oracle::Actor;
use crate::releases::{COMPOSE, ENV};
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
        let command = words.iter().find(|word| ["config", "up"].contains(&word.as_str()));
        if command.is_some_and(|word| word == "up") {
            return self.up(&words, asked).await;
        }
        tick(&self.shared, READ).await;
        Ok(printed(config(asked.directory, &words)))
    }

    async fn up(&self, words: &[String], asked: Run<'_>) -> Result<Output, RunError> {
        tick(&self.shared, READ).await;
        let directory = asked.directory.display().to_string();
        let read = config(asked.directory, words).and_then(|value| model(&value, &directory));
        let model = match read {
            Ok(model) => chosen(model, words),
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
            let wanted = Wanted { model, anew: words.iter().any(|word| word == "--force-recreate") };
            let child = up(self.shared.clone(), actor, Arc::new(wanted));
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
        service["networks"] = serde_json::json!({"default": null});
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

/// Of a model, the services that are named after `up` and its flags.
fn chosen(mut model: Model, words: &[String]) -> Model {
    let after = words.iter().position(|word| word == "up").map_or(words.len(), |at| at + 1);
    let named: Vec<&String> = words[after..].iter().filter(|word| !word.starts_with('-')).collect();
    model.services.retain(|name, _| named.iter().any(|word| *word == name.as_str()));
    model
}

/// What `docker compose up` is run over.
pub struct Wanted {
    /// The services.
    pub model: Model,
    /// Whether all of them are made anew.
    pub anew: bool,
}

/// `docker compose up -d` over every service of a model, by an agent's or a person's process.
pub async fn up(shared: Shared, actor: Actor, wanted: Arc<Wanted>) {
    let result = match network::ensure(&shared, &actor, &wanted.model).await {
        Ok(()) => bring_up(&shared, &actor, &wanted).await,
        Err(problem) => Err(problem),
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

async fn bring_up(shared: &Shared, actor: &Actor, wanted: &Wanted) -> Result<(), String> {
    for (name, service) in &wanted.model.services {
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
        let directory = shared.world().host.disk.directory();
        let of_it = |one: &&Container| one.service == name.as_str() && one.directory == directory;
        let (own, image) = {
            let world = shared.world();
            let own: Vec<_> = world.host.engine.containers.values().filter(of_it).cloned().collect();
            (own, world.host.engine.tags.get(&service.image).cloned())
        };
        let Some(image) = image else { return Err(format!("{}: no such image", service.image)) };
        let fits = |one: &&Container| {
            !wanted.anew
                && network::is_as_wanted(&shared.world(), one)
                && one.image_ref == service.image
                && one.image_id == image
                && one.definition == service.definition
        };
        let id = match own.iter().find(fits).map(|one| one.id.clone()) {
            Some(id) => id,
            None => {
                step(shared, actor, |world| {
                    // Another compose, of a person, may have made it meanwhile: its name is in use.
                    let made = world.host.engine.containers.values().filter(|one| of_it(one));
                    if made.into_iter().any(|one| own.iter().all(|known| known.id != one.id)) {
                        return Err(format!("{name}: the name of its container is in use"));
                    }
                    if name.as_str() == "db" {
                        let _ = std::fs::create_dir_all(world.host.disk.directory.join(DATA));
                    }
                    let (name, reference) = (name.as_str(), service.image.as_str());
                    let engine = &mut world.host.engine;
                    Ok(engine.create(&directory, name, reference, &image, &service.definition))
                })
                .await?
            }
        };
        for old in own.iter().filter(|one| one.id != id) {
            let grace = if shared.world().rng.u32(0..4) == 0 { DEAF } else { HEEDS };
            work(shared, actor, grace).await;
            step(shared, actor, |world| {
                if let Actor::Child { .. } = actor {
                    world.stops();
                }
                world.host.engine.containers.remove(&old.id);
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
        let rests = own.iter().find(|one| one.id == id).is_none_or(|one| {
            let world = shared.world();
            let seen = world.host.engine.seen(one, world.now());
            one.started.is_none()
                || one.ended.is_some()
                || seen.state == tenantry_planner::compare::ContainerState::Exited
        });
        if rests {
            step(shared, actor, |world| {
                network::is_there(world, &id)?;
                host::start(world, &id);
                Ok::<_, String>(())
            })
            .await?;
        }
    }
    Ok(())
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
