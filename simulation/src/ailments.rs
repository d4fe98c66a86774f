//! What goes wrong with one container, whatever its image is like: before an operation, or in the middle of it.

use tenantry_planner::compare::ContainerState;

use crate::host::{self, Container, Starter};
use crate::scheduler::Topic;
use crate::world::{Fault, World};

/// How long a container runs that keeps ending.
const RUNS: u64 = 1_500;
/// From one start to the next: the engine waits in between.
const CYCLE: u64 = 4_000;

/// What is wrong with a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// Somebody paused it.
    Paused,
    /// The engine could not end it properly, and neither starts nor stops it any more.
    Dead,
    /// It keeps ending since then, and the engine starts it again.
    KeepsEnding {
        /// Since when.
        since: u64,
    },
}

/// Where a container is that keeps ending: whether it runs, how often it was started again, and when it last was.
pub fn cycle(since: u64, now: u64) -> (bool, u64, u64) {
    let age = now.saturating_sub(since);
    let times = age / CYCLE;
    (age % CYCLE >= CYCLE - RUNS, times + 1, since + times * CYCLE + CYCLE - RUNS)
}

/// When one that keeps ending next ends or starts.
pub fn next_change(since: u64, now: u64) -> u64 {
    let age = now.saturating_sub(since);
    let begun = since + age / CYCLE * CYCLE;
    if age % CYCLE < CYCLE - RUNS { begun + CYCLE - RUNS } else { begun + CYCLE }
}

/// Something goes wrong with one of the services that run, or what had gone wrong with one is put right.
pub fn come_and_go(world: &mut World) {
    if world.host.engine.ailing.is_some() {
        return cure(world);
    }
    let now = world.now();
    let runs = |one: &&Container| world.host.engine.seen(one, now).state == ContainerState::Running;
    let own: Vec<String> = world.own_containers().filter(runs).map(|one| one.id.clone()).collect();
    if own.is_empty() {
        return;
    }
    let id = own[world.rng.usize(0..own.len())].clone();
    let ails = [Ailment::Paused, Ailment::Dead, Ailment::KeepsEnding { since: now }][world.rng.usize(0..3)];
    world.count(match ails {
        Ailment::Paused => Fault::PausedByHand,
        Ailment::Dead => Fault::Dead,
        Ailment::KeepsEnding { .. } => Fault::KeepsEnding,
    });
    world.say(|world| {
        let service = world.host.engine.containers.get(&id).map_or("", |one| one.service.as_str());
        format!("{service}: {ails:?}")
    });
    world.disturb();
    let engine = &mut world.host.engine;
    if let Some(container) = engine.containers.get_mut(&id) {
        container.ails = Some(ails);
        engine.ailing = Some(id);
    }
    world.notify(Topic::Engine);
}

/// Everything that had gone wrong with a container, or that an operation had paused and that could not be taken back, is put
/// right: status says so, and compose does not do it.
pub fn cure(world: &mut World) {
    world.host.engine.ailing = None;
    let own = world.own_containers().filter(|one| one.ails.is_some());
    let ailing: Vec<(String, bool)> =
        own.map(|one| (one.id.clone(), one.ails == Some(Ailment::Dead))).collect();
    for (id, is_dead) in ailing {
        world.disturb();
        if let Some(one) = world.host.engine.containers.get_mut(&id) {
            one.ails = None;
        }
        // A dead one is made anew as it was.
        if is_dead {
            host::start(world, &id, Starter::Compose);
        }
    }
    world.notify(Topic::Engine);
}
