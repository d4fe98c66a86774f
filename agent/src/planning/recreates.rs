//! Which services are recreated or restarted, and why, as far as a plan can tell.

use std::collections::BTreeMap;

use tenantry_api::names::ServiceName;
use tenantry_planner::compare::{Expected, is_cut_off, of_service};
use tenantry_planner::model::{Copied, Model, Service};
use tenantry_protocol::Recreate;

use super::changes::Changes;
use crate::engine::ProjectContainer;
use crate::store::Starts;

/// Why a service is restarted that has the namespace of a container that was started anew since.
const CUT_OFF: &str = "what it shares was started anew since";
/// Why a service is restarted of which a container was started while a symlink of its mounts led somewhere else.
const LED_ELSEWHERE: &str = "a symlink of its mounts leads elsewhere now";

/// What is known of containers beside what the engine says.
#[derive(Clone, Copy)]
pub struct Held<'a> {
    /// What compose copied into each.
    pub copied: &'a BTreeMap<String, Copied>,
    /// What each was started with.
    pub starts: &'a Starts,
}

/// Services that compose will recreate or that are restarted, and why.
pub fn recreates(
    directory: &str,
    (next, previous): (&Model, Option<&Model>),
    changes: &Changes,
    expected: &BTreeMap<ServiceName, Expected>,
    containers: &[ProjectContainer],
    held: Held<'_>,
) -> Vec<Recreate> {
    let own: Vec<_> = containers.iter().map(|container| container.container.clone()).collect();
    let mut all = Vec::new();
    for (name, service) in &next.services {
        let old = previous.and_then(|model| model.services.get(name));
        let runs = of_service(&own, name.as_str());
        let mounts = changes.changed.iter().find(|file| service.mounts(directory, file).is_some());
        let cause = if runs.is_empty() {
            (service.replicas > 0).then(|| "new".to_owned())
        } else if runs.iter().any(|container| container.image_ref != service.image) {
            Some("image changed".to_owned())
        } else if changes.env && service.reads_env_file(directory, ".env") {
            Some("reads .env".to_owned())
        } else if old.is_some_and(|old| old.definition != service.definition) {
            Some("configuration changed".to_owned())
        } else if let Some(name) = runs.iter().find_map(|one| changed_copy(service, held.copied.get(&one.id)))
        {
            Some(format!("{name} changed"))
        } else if let Some(network) = previous.and_then(|previous| changed_network(service, next, previous)) {
            Some(format!("network {network} changed"))
        } else {
            let attached = expected.get(name).and_then(|expected| expected.attached.as_ref());
            let lacking = attached.and_then(|attached| runs.iter().find_map(|one| attached.lacking(one)));
            let cut_off = || runs.iter().any(|one| is_cut_off(one, &own)).then(|| CUT_OFF.to_owned());
            let led = || is_led_elsewhere(directory, (name, service), containers, held.starts);
            let led = || led().then(|| LED_ELSEWHERE.to_owned());
            lacking.or_else(|| mounts.map(|file| format!("mounts {file}"))).or_else(led).or_else(cut_off)
        };
        all.extend(cause.map(|cause| Recreate { service: name.to_string(), cause }));
    }
    with_followers(next, all)
}

fn is_led_elsewhere(
    directory: &str,
    (name, service): (&ServiceName, &Service),
    containers: &[ProjectContainer],
    starts: &Starts,
) -> bool {
    let own = containers.iter().filter(|one| one.container.service == name.as_str());
    let mut known = own.filter_map(|one| starts.of(&one.container.id, &one.started_raw));
    known.any(|start| start.is_led_elsewhere(service, directory))
}

/// A config or secret that compose copied into a container otherwise than the service means it.
fn changed_copy<'a>(service: &'a Service, held: Option<&'a Copied>) -> Option<&'a str> {
    held.and_then(|held| service.copied.differing(held).first().copied())
}

/// With those who go along: who shares a namespace with one of them, or is restarted with it.
fn with_followers(model: &Model, mut all: Vec<Recreate>) -> Vec<Recreate> {
    let mut next = 0;
    while let Some(leader) = all.get(next).map(|one| one.service.clone()) {
        next += 1;
        for (name, service) in &model.services {
            if all.iter().any(|one| one.service == name.as_str()) {
                continue;
            }
            let cause = if service.shares.contains(&leader) {
                format!("shares with {leader}")
            } else if service.restarts_with.contains(&leader) {
                format!("restarts with {leader}")
            } else {
                continue;
            };
            all.push(Recreate { service: name.to_string(), cause });
        }
    }
    all.sort_by(|a, b| a.service.cmp(&b.service));
    all
}

/// A network of a service that compose makes anew, since the compose files say something else of it.
fn changed_network<'a>(service: &Service, next: &'a Model, previous: &Model) -> Option<&'a str> {
    let joined = |name: &str| service.meant.networks.iter().any(|joined| joined.name == name);
    let was = |key: &str| previous.networks.get(key);
    let changed = next.networks.iter().find(|(key, network)| {
        let differs =
            was(key).is_some_and(|was| was.name == network.name && was.definition != network.definition);
        !network.external && joined(&network.name) && differs
    });
    changed.map(|(_, network)| network.name.as_str())
}
