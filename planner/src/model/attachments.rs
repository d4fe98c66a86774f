//! What a service's containers are meant to have of networks and ports, as the compose files say.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::Deserialize;

use super::NamedNetwork;

/// Where a service's containers are meant to be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meant {
    /// The networks that they are on; empty where they have none of their own: the host's, another's, or none at all.
    pub networks: Vec<Joined>,
    /// The ports that they publish.
    pub ports: Vec<Published>,
}

/// A network that a service's containers are meant to be on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// The engine's name for it, or its id.
    pub name: String,
    /// Whether it is somebody else's, and only used.
    pub external: bool,
    /// The address that they are given on it, where the compose files say so.
    pub ipv4: Option<IpAddr>,
    /// The same of version 6.
    pub ipv6: Option<IpAddr>,
    /// Whether they are found on it by the service's name.
    pub named: bool,
}

/// A port that a service's containers are meant to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The host's address, where the compose files say one.
    pub host_ip: Option<IpAddr>,
    /// The host's ports of which it is one; absent where the engine chooses.
    pub host_ports: Option<RangeInclusive<u16>>,
    /// The port within the container, and its protocol, as the engine writes them. Example: `8080/tcp`.
    pub target: String,
}

impl std::fmt::Display for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host_ip {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            Some(address) => write!(f, "{address}:")?,
            None => {}
        }
        match &self.host_ports {
            Some(ports) if ports.start() == ports.end() => write!(f, "{}:", ports.start())?,
            Some(ports) => write!(f, "{}-{}:", ports.start(), ports.end())?,
            None => {}
        }
        f.write_str(&self.target)
    }
}

/// What a service's fields say of networks and ports.
#[derive(Default, Deserialize)]
pub(super) struct Written {
    network_mode: Option<String>,
    networks: Option<BTreeMap<String, Option<WrittenNetwork>>>,
    #[serde(default)]
    ports: Option<Vec<WrittenPort>>,
}

#[derive(Default, Deserialize)]
struct WrittenNetwork {
    ipv4_address: Option<String>,
    ipv6_address: Option<String>,
}

#[derive(Deserialize)]
struct WrittenPort {
    host_ip: Option<String>,
    published: Option<String>,
    target: u16,
    protocol: Option<String>,
}

impl Written {
    /// The same by the engine's names.
    pub(super) fn meant(self, networks: &BTreeMap<String, NamedNetwork>) -> Meant {
        let joined = match self.network_mode.as_deref() {
            None | Some("") => named(self.networks.unwrap_or_default(), networks),
            Some("none" | "host" | "disabled") => Vec::new(),
            Some(mode) if mode.starts_with("service:") || mode.starts_with("container:") => Vec::new(),
            Some("default") => vec![outside("bridge")],
            Some(name) => vec![outside(name)],
        };
        let ports = self.ports.unwrap_or_default().into_iter().filter_map(WrittenPort::published);
        Meant { networks: joined, ports: ports.collect() }
    }
}

/// A network of the engine that is none of the compose files'.
fn outside(name: &str) -> Joined {
    Joined { name: name.to_owned(), external: true, ..Joined::default() }
}

fn named(
    written: BTreeMap<String, Option<WrittenNetwork>>,
    networks: &BTreeMap<String, NamedNetwork>,
) -> Vec<Joined> {
    let joined = |(key, one): (String, Option<WrittenNetwork>)| {
        let network = networks.get(&key)?;
        let one = one.unwrap_or_default();
        let address = |text: Option<String>| text.and_then(|text| text.parse().ok());
        Some(Joined {
            // The engine's own networks know no names.
            named: !["bridge", "host", "none"].contains(&network.name.as_str()),
            name: network.name.clone(),
            external: network.external,
            ipv4: address(one.ipv4_address),
            ipv6: address(one.ipv6_address),
        })
    };
    written.into_iter().filter_map(joined).collect()
}

impl WrittenPort {
    /// `None` where what is written is not understood: then nothing is said about it.
    fn published(self) -> Option<Published> {
        let host_ip = match self.host_ip.filter(|text| !text.is_empty()) {
            Some(text) => Some(text.trim_matches(['[', ']']).parse().ok()?),
            None => None,
        };
        let host_ports = match self.published.as_deref() {
            None | Some("" | "0") => None,
            Some(text) => Some(range(text)?),
        };
        let target = format!("{}/{}", self.target, self.protocol.as_deref().unwrap_or("tcp"));
        Some(Published { host_ip, host_ports, target })
    }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.parse().ok()?..=last.parse().ok()?)
}
