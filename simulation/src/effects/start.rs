//! References, `docker compose up`, restarts for changed files, and what is removed.

use std::sync::Arc;

use tenantry_agent::operation::StepResult;
use tenantry_agent::planning::StepError;
use tenantry_planner::model::Model;
use tenantry_planner::steps::JournalState;
use tenantry_protocol::FailureCategory;

use super::{Operation, no_compose_file};
use crate::agent::tick;
use crate::host::Child;
use crate::oracle::Actor;
use crate::releases::DIRECTORY;
use crate::scheduler::{Owner, Shared, Topic, sleep, until};
use crate::world::Fault;

/// How long `up` may take.
const UP_LIMIT: u64 = 600_000;

impl Operation {
    pub(super) async fn point(&self, state: &JournalState) -> Result<StepResult, StepError> {
        let before = state.plan().map(|plan| plan.references.clone()).unwrap_or_default();
        for planned in state.planned_images() {
            let there = before.iter().any(|old| {
                old.reference == planned.reference && old.image_id.as_ref() == Some(&planned.image_id)
            });
            if !there {
                self.put(&planned.reference, &planned.image_id).await?;
            }
        }
        Ok(StepResult::quietly())
    }

    async fn put(&self, reference: &str, image: &str) -> Result<(), StepError> {
        self.engine()?;
        if self.shared.world().host.engine.tags.get(reference).is_some_and(|now| now == image) {
            return Ok(());
        }
        if !self.shared.world().host.engine.images.contains(image) {
            return Err(StepError::new(FailureCategory::EngineFault, format!("no such image: {image}")));
        }
        self.change("a reference", |world| {
            world.host.engine.tags.insert(reference.to_owned(), image.to_owned());
        })
        .await;
        Ok(())
    }

    pub(super) async fn start(&self, state: &JournalState) -> Result<StepResult, StepError> {
        let model = self.release()?;
        self.up(model).await?;
        for removed in state.plan().map(|plan| plan.removed.clone()).unwrap_or_default() {
            for id in removed.containers {
                self.remove(&id).await?;
            }
        }
        Ok(StepResult::quietly())
    }

    async fn remove(&self, id: &str) -> Result<(), StepError> {
        self.engine()?;
        self.change("a container that is removed", |world| {
            world.stops(&self.id);
            world.host.engine.containers.remove(id);
        })
        .await;
        Ok(())
    }

    /// Runs `docker compose up`: a process of its own, which can outlive us.
    async fn up(&self, model: Arc<Model>) -> Result<(), StepError> {
        self.engine()?;
        tick(&self.shared, 20).await;
        let task = {
            let mut world = self.shared.world();
            let actor = Actor::Child { uid: self.uid.clone(), id: self.id.clone() };
            let child = compose(self.shared.clone(), actor, model);
            let task = world.spawn(Owner::Child, child);
            let other = world.host.child.is_some();
            world.require("P2", !other, || format!("{} runs compose while another one still does", self.id));
            let operation = (self.uid.clone(), self.id.clone());
            world.host.child = Some(Child { task, operation });
            task
        };
        let result =
            until(&self.shared, Topic::Child, UP_LIMIT, |world| world.compose_results.remove(&task)).await;
        tick(&self.shared, 5).await;
        match result {
            Some(Ok(())) => Ok(()),
            Some(Err(problem)) => Err(StepError::new(FailureCategory::StartFailed, problem)),
            None => Err(StepError::new(FailureCategory::StartFailed, "compose did not end in time")),
        }
    }

    /// Restarts what compose left alone though its files changed.
    pub(super) async fn refresh(&self, state: &JournalState) -> Result<StepResult, StepError> {
        let Some(plan) = state.plan().filter(|plan| !plan.changed.is_empty()) else {
            return Ok(StepResult::quietly());
        };
        let Some(model) = self.on_disk()? else { return Ok(StepResult::quietly()) };
        let containers: Vec<(String, String)> = {
            let world = self.shared.world();
            let old = |id: &String| plan.containers.contains(id);
            let own = world.host.engine.containers.values().filter(|one| old(&one.id) && one.ended.is_none());
            own.map(|one| (one.id.clone(), one.service.clone())).collect()
        };
        for (id, service) in containers {
            let mounts = model.services.iter().any(|(name, of)| {
                name.as_str() == service
                    && plan.changed.iter().any(|path| of.mounts(DIRECTORY, path).is_some())
            });
            let read_already = state.failure().is_none() && self.is_current(&id);
            if mounts && !read_already {
                self.engine()?;
                self.change("a container that is restarted", |world| {
                    world.stops(&self.id);
                    crate::host::start(world, &id);
                })
                .await;
            }
        }
        Ok(StepResult::quietly())
    }

    fn is_current(&self, id: &str) -> bool {
        let world = self.shared.world();
        let container = world.host.engine.containers.get(id);
        container.is_some_and(|one| {
            one.read.iter().all(|(path, read)| world.host.disk.files.get(path) == read.as_ref())
        })
    }

    pub(super) async fn restore_images(&self, state: &JournalState) -> Result<StepResult, StepError> {
        let Some(plan) = state.plan() else { return Ok(StepResult::quietly()) };
        for previous in plan.references.clone() {
            let ran = plan.previous_images.iter().find(|image| image.reference == previous.reference);
            if let Some(image) = previous.image_id.as_ref().or(ran.map(|image| &image.image_id)) {
                self.put(&previous.reference, image).await?;
            } else {
                let ours = state.planned_images().iter().find(|image| image.reference == previous.reference);
                let Some(ours) = ours else { continue };
                self.change("a reference that is taken away", |world| {
                    if world.host.engine.tags.get(&previous.reference) == Some(&ours.image_id) {
                        world.host.engine.tags.remove(&previous.reference);
                    }
                })
                .await;
            }
        }
        Ok(StepResult::quietly())
    }

    pub(super) async fn remove_created(&self, state: &JournalState) -> Result<StepResult, StepError> {
        let before = state.plan().map(|plan| plan.containers.clone()).unwrap_or_default();
        for (id, _) in self.made_since(&before) {
            self.remove(&id).await?;
        }
        Ok(StepResult::quietly())
    }

    fn made_since(&self, before: &[String]) -> Vec<(String, String)> {
        let world = self.shared.world();
        let own = world.host.engine.containers.values().filter(|one| one.directory == DIRECTORY);
        let made = own.filter(|one| !before.contains(&one.id));
        made.map(|one| (one.id.clone(), one.service.clone())).collect()
    }

    pub(super) async fn start_previous(&self, state: &JournalState) -> Result<StepResult, StepError> {
        let model = self.on_disk()?.ok_or_else(no_compose_file)?;
        let before = state.plan().map(|plan| plan.containers.clone()).unwrap_or_default();
        for (id, service) in self.made_since(&before) {
            if !model.services.keys().any(|name| name.as_str() == service) {
                self.remove(&id).await?;
            }
        }
        self.up(model).await?;
        Ok(StepResult::quietly())
    }
}

/// `docker compose up -d` over every service of a model.
pub async fn compose(shared: Shared, actor: Actor, model: Arc<Model>) {
    let result = up(&shared, &actor, &model).await;
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

async fn up(shared: &Shared, actor: &Actor, model: &Model) -> Result<(), String> {
    for (name, service) in &model.services {
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
        let of_it =
            |one: &&crate::host::Container| one.service == name.as_str() && one.directory == DIRECTORY;
        let (own, image) = {
            let world = shared.world();
            let own: Vec<_> = world.host.engine.containers.values().filter(of_it).cloned().collect();
            (own, world.host.engine.tags.get(&service.image).cloned())
        };
        let Some(image) = image else { return Err(format!("{}: no such image", service.image)) };
        let fits = |one: &&crate::host::Container| {
            one.image_ref == service.image && one.image_id == image && one.definition == service.definition
        };
        let keeps = own.iter().find(fits).map(|one| one.id.clone());
        let id = match keeps.clone() {
            Some(id) => id,
            None => {
                step(shared, actor, |world| {
                    // Another compose, of a person, may have made it meanwhile: its name is in use.
                    let made = world.host.engine.containers.values().filter(|one| of_it(one));
                    if made.into_iter().any(|one| own.iter().all(|known| known.id != one.id)) {
                        return Err(format!("{name}: the name of its container is in use"));
                    }
                    let image = image.as_str();
                    Ok(world.host.engine.create(name.as_str(), &service.image, image, &service.definition))
                })
                .await?
            }
        };
        for old in own.iter().filter(|one| one.id != id) {
            // Some applications take no notice of SIGTERM.
            let grace = if shared.world().rng.u32(0..4) == 0 { 10_000 } else { 200 };
            work(shared, actor, grace).await;
            step(shared, actor, |world| {
                if let Actor::Child { id, .. } = actor {
                    world.stops(id);
                }
                world.host.engine.containers.remove(&old.id);
            })
            .await;
        }
        let rests = own.iter().find(|one| one.id == id).is_none_or(|one| {
            let world = shared.world();
            let seen = world.host.engine.seen(one, world.now());
            one.started.is_none()
                || one.ended.is_some()
                || seen.state == tenantry_planner::compare::ContainerState::Exited
        });
        if rests {
            step(shared, actor, |world| crate::host::start(world, &id)).await;
        }
    }
    Ok(())
}

/// An effect of compose's.
async fn step<T>(shared: &Shared, actor: &Actor, change: impl FnOnce(&mut crate::world::World) -> T) -> T {
    let pause = shared.world().rng.u64(5..400);
    work(shared, actor, pause).await;
    let mut world = shared.world();
    world.mutates(actor, "a container by compose");
    change(&mut world)
}

/// Compose works for a while. Its agent may be killed meanwhile; unless compose outlives that, it is gone then.
async fn work(shared: &Shared, actor: &Actor, ms: u64) {
    for _ in 0..3 {
        let waits = matches!(actor, Actor::Child { .. }) && shared.world().agent.step.is_some();
        if waits {
            crate::agent::dies(&mut shared.world());
        }
        sleep(shared, ms / 3 + 1).await;
    }
}
