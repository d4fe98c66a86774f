//! The project's network, as compose sees to it: one that is defined otherwise is made anew, and those that were on it are
//! connected again, but not by name. What breaks off between leaves them on none.

use tenantry_planner::model::Model;

use super::step;
use crate::host::{self, Container, Link};
use crate::oracle::Actor;
use crate::scheduler::Shared;
use crate::world::{Fault, World};

/// Makes it, where there is none as the model says.
pub(super) async fn ensure(shared: &Shared, actor: &Actor, model: &Model) -> Result<(), String> {
    let Some(wanted) = model.networks.get("default") else { return Ok(()) };
    let known = shared.world().host.engine.network.clone();
    let mut dangling = Vec::new();
    match known {
        Some(known) if known.definition == wanted.definition => return Ok(()),
        Some(_) => dangling = take_away(shared, actor, model).await,
        None => {}
    }
    let fails = {
        let mut world = shared.world();
        // Networks are seldom made: this often it is seen.
        let rate = 3 * world.scenario.rates.compose;
        *actor != Actor::Person && world.chance(rate)
    };
    if fails {
        shared.world().count(Fault::NetworkTaken);
        return Err("Pool overlaps with other one on this address space".to_owned());
    }
    step(shared, actor, |world| {
        let now = world.now();
        let engine = &mut world.host.engine;
        engine.make_network(&wanted.definition, now);
        let network = engine.network.as_ref().map(|network| network.id.clone()).unwrap_or_default();
        for one in engine.containers.values_mut().filter(|one| dangling.contains(&one.id)) {
            one.link = Some(Link { network: network.clone(), named: false });
        }
    })
    .await;
    Ok(())
}

/// Stops the containers of these services, takes them off the network, and removes it: which they were.
async fn take_away(shared: &Shared, actor: &Actor, model: &Model) -> Vec<String> {
    let on_it: Vec<String> = {
        let world = shared.world();
        let named =
            |one: &&Container| one.link.is_some() && model.services.contains_key(one.service.as_str());
        world.own_containers().filter(named).map(|one| one.id.clone()).collect()
    };
    for id in &on_it {
        step(shared, actor, |world| {
            if *actor != Actor::Person {
                world.stops();
            }
            host::stop(world, id);
        })
        .await;
    }
    step(shared, actor, |world| {
        let engine = &mut world.host.engine;
        engine.network = None;
        for one in engine.containers.values_mut().filter(|one| on_it.contains(&one.id)) {
            one.link = None;
        }
    })
    .await;
    on_it
}

/// Compose looks at the network of a container only while it runs; who has another one's is on none.
pub(super) fn is_as_wanted(world: &World, one: &Container) -> bool {
    let engine = &world.host.engine;
    let runs = one.started.is_some() && one.ended.is_none();
    !runs
        || one.shares.is_some()
        || one.link.as_ref().map(|link| &link.network) == engine.network.as_ref().map(|network| &network.id)
}

/// The engine starts no container that is bound to a network that is gone.
pub(super) fn is_there(world: &World, id: &str) -> Result<(), String> {
    let engine = &world.host.engine;
    let link = engine.containers.get(id).and_then(|one| one.link.as_ref());
    let gone =
        link.is_some_and(|link| engine.network.as_ref().is_none_or(|network| network.id != link.network));
    if gone { Err(format!("{id}: its network was not found")) } else { Ok(()) }
}
