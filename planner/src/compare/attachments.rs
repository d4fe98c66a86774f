//! What a container has of networks and ports, against what is meant (promise P19).
//!
//! Only that is blamed which `docker compose up` would mend, or which is evidently dead: a container that runs and is not
//! on a network that it is meant to be on, by the id that the network has today; that has another address than the one
//! written out; or of which the engine publishes a port not at all. What a container has beyond that is its owner's affair.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Container, ContainerState};
use crate::model::{Joined, Meant, Published, Service};

/// What the engine says that a container has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// The networks that it is on.
    pub endpoints: Vec<Endpoint>,
    /// The host's ports that lead to it. Nothing for a container that does not run.
    pub ports: Vec<Binding>,
}

/// A container on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The network's id.
    pub network: String,
    /// The network's name, as it was when the container was attached.
    pub name: String,
    /// The container's address of version 4.
    pub ipv4: Option<IpAddr>,
    /// The container's address of version 6.
    pub ipv6: Option<IpAddr>,
    /// The names that the container is found by, besides its own.
    pub aliases: Vec<String>,
}

/// A port of the host that leads to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The port within the container and its protocol. Example: `8080/tcp`.
    pub target: String,
    /// The host's address.
    pub host_ip: Option<IpAddr>,
    /// The host's port.
    pub host_port: u16,
}

/// A network of the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Its id. A network that is made anew has another one.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it does with ports.
    pub kind: NetworkKind,
    /// When it was made.
    pub made: Option<Timestamp>,
}

/// What a network does with ports that containers on it publish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkKind {
    /// They are bound on the host.
    #[default]
    Publishes,
    /// It leads nowhere: they are not bound, and another network of the container may do it.
    Internal,
    /// Its driver sees to it by itself, or not at all.
    Other,
}

/// All networks of the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Those that the engine shows.
    pub shown: Vec<Network>,
    /// Whether there may be more: a swarm shows a network of its own only once a container is on it.
    pub may_hide: bool,
}

impl Networks {
    /// The networks of that name, or with that id.
    pub fn called<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Network> {
        self.shown.iter().filter(move |network| network.name == name || network.id == name)
    }

    fn kind(&self, id: &str) -> NetworkKind {
        self.shown.iter().find(|network| network.id == id).map_or(NetworkKind::Other, |network| network.kind)
    }
}

/// What is meant, on the networks that the engine has today.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachments {
    /// What the compose files say.
    pub meant: Meant,
    /// The engine's networks.
    pub networks: Arc<Networks>,
}

impl Service {
    /// What its containers are meant to have on these networks.
    pub fn attachments(&self, networks: &Arc<Networks>) -> Attachments {
        Attachments { meant: self.meant.clone(), networks: networks.clone() }
    }
}

impl Attachments {
    /// What a container that runs does not have of what is meant, as the end of a sentence about it.
    pub fn lacking(&self, container: &Container) -> Option<String> {
        if container.state != ContainerState::Running || tenantry_faults::Bug::IgnoreAttachments.is_seeded() {
            return None;
        }
        let has = &container.attached;
        let network = self.meant.networks.iter().find_map(|joined| self.off(joined, has));
        network.or_else(|| self.unpublished(has))
    }

    /// Whether a container is still bound to a network that is gone, so that it can't be started any more.
    pub fn is_stranded(&self, container: &Container) -> bool {
        let rests = matches!(container.state, ContainerState::Created | ContainerState::Exited);
        let meant = |name: &str| self.meant.networks.iter().any(|joined| joined.name == name);
        let gone = |id: &str| self.networks.shown.iter().all(|network| network.id != id);
        let bound = &container.attached.endpoints;
        rests && bound.iter().any(|end| !end.network.is_empty() && meant(&end.name) && gone(&end.network))
    }

    /// Whether others don't find a container by its service's name on a network that was made since: compose connects the
    /// containers that it has to a network that it makes anew, but not by name. Where that was so before, it stays so.
    pub fn is_unnamed(&self, container: &Container, since: Timestamp) -> bool {
        let unnamed = |joined: &Joined| {
            let end = self.endpoint(joined, &container.attached);
            let network = end.and_then(|end| self.networks.shown.iter().find(|one| one.id == end.network));
            let anew = network.and_then(|network| network.made).is_some_and(|made| made >= since);
            anew && end.is_some_and(|end| !end.aliases.contains(&container.service))
        };
        self.meant.networks.iter().filter(|joined| joined.named).any(unnamed)
    }

    fn endpoint<'a>(&self, joined: &Joined, has: &'a Attached) -> Option<&'a Endpoint> {
        has.endpoints.iter().find(|end| self.networks.called(&joined.name).any(|one| one.id == end.network))
    }

    /// How a container is not on a network as it should be.
    fn off(&self, joined: &Joined, has: &Attached) -> Option<String> {
        let name = &joined.name;
        let Some(end) = self.endpoint(joined, has) else {
            let exists = self.networks.called(name).next().is_some();
            if !exists && joined.external && self.networks.may_hide {
                return None;
            }
            let why = match has.endpoints.iter().any(|end| end.name == *name) {
                _ if !exists => ", which is not on this host any more",
                true => " as it is now: it was made anew",
                false => "",
            };
            return Some(format!("is not on network {name}{why}"));
        };
        let differs =
            |meant: Option<IpAddr>, is: Option<IpAddr>| meant.zip(is).filter(|(meant, is)| meant != is);
        let (meant, is) = differs(joined.ipv4, end.ipv4).or_else(|| differs(joined.ipv6, end.ipv6))?;
        Some(format!("has the address {is} on network {name}, the compose files say {meant}"))
    }

    /// A port that is meant to be published and is not.
    fn unpublished(&self, has: &Attached) -> Option<String> {
        let kind = |end: &Endpoint| self.networks.kind(&end.network);
        let publishes = |end: &Endpoint| kind(end) == NetworkKind::Publishes && end.ipv4.is_some();
        let others = has.endpoints.iter().any(|end| kind(end) == NetworkKind::Other);
        if others || !has.endpoints.iter().any(publishes) {
            return None;
        }
        let missing = self.meant.ports.iter().find(|port| !has.ports.iter().any(|is| fits(port, is)))?;
        // The engine says nothing of addresses that it can't bind.
        let v6 = missing.host_ip.is_some_and(|address| address.is_ipv6());
        (!v6).then(|| format!("does not publish {missing}"))
    }
}

fn fits(meant: &Published, is: &Binding) -> bool {
    let address = match (meant.host_ip, is.host_ip) {
        (Some(meant), Some(is)) => meant == is || meant.is_unspecified() && is.is_unspecified(),
        (Some(meant), None) => meant.is_unspecified(),
        (None, _) => true,
    };
    let port = meant.host_ports.as_ref().is_none_or(|ports| ports.contains(&is.host_port));
    address && port && meant.target == is.target
}

#[cfg(test)]
mod tests;
