//! Networks and volumes of the engine that a release can't be started on, or that compose would leave as they are.

use std::collections::BTreeSet;

use tenantry_planner::compare::{Networks, volumes};
use tenantry_planner::model::{Model, NamedVolume};
use tenantry_protocol::FailureCategory;

use crate::engine::networks_for;
use crate::planning::context::RequestContext;
use crate::planning::error::StepError;

/// Refuses a release that needs what is not there, or whose volumes are there and are otherwise. Gives the engine's
/// networks.
pub async fn check(
    context: &RequestContext,
    next: &Model,
    previous: Option<&Model>,
) -> Result<Networks, StepError> {
    let networks = networks_for(&*context.host.engine, next).await?;
    network(next, &networks)?;
    let used: BTreeSet<&String> = next.services.values().flat_map(|service| &service.volumes).collect();
    for key in used {
        if let Some(named) = next.volumes.get(key) {
            volume(context, next, (key, named), previous.and_then(|model| model.volumes.get(key))).await?;
        }
    }
    Ok(networks)
}

/// A network that is somebody else's must be there: compose makes none of them.
fn network(next: &Model, networks: &Networks) -> Result<(), StepError> {
    for (service, joined) in
        next.services.iter().flat_map(|(name, one)| one.meant.networks.iter().map(move |j| (name, j)))
    {
        if joined.external && !networks.may_hide && networks.called(&joined.name).next().is_none() {
            let name = &joined.name;
            let message = format!(
                "services.{service} is to be on network {name}, which is external and not on this host: make it \
                 (`docker network create {name}`, or start the project that it belongs to), or correct its name in the \
                 compose files"
            );
            return Err(StepError::new(FailureCategory::NetworkUnusable, message));
        }
    }
    Ok(())
}

async fn volume(
    context: &RequestContext,
    next: &Model,
    (key, meant): (&str, &NamedVolume),
    previous: Option<&NamedVolume>,
) -> Result<(), StepError> {
    let name = &meant.name;
    let refuse = |message: String| Err(StepError::new(FailureCategory::VolumeUnusable, message));
    let Some(is) = context.host.engine.volume(name).await? else {
        if !meant.external {
            return Ok(());
        }
        return refuse(format!(
            "volume {name} (volumes.{key}) is external and not on this host: make it (`docker volume create {name}`), or \
             correct its name in the compose files"
        ));
    };
    let Some(differs) = volumes::changed(meant, previous, &is.stored) else { return Ok(()) };
    let mounts = |volumes: &[String]| volumes.iter().any(|one| one == key);
    let users = next.services.iter().filter(|(_, one)| mounts(&one.volumes)).map(|(name, _)| name.as_str());
    let users = users.collect::<Vec<_>>().join(" ");
    refuse(format!(
        "volume {name} {differs} (volumes.{key}): compose never changes a volume that is there, so that its services would \
         go on with it as it is. Copy its data to where the new one will be, then, in {}, \
         `docker compose rm --stop --force {users} && docker volume rm {name}`, and retry; or leave volumes.{key} as it was",
        context.directory()
    ))
}
