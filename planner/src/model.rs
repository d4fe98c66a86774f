//! The resolved compose model, as `docker compose config --format json` tells it: only what Tenantry uses of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Deserialize;
use sha2::{Digest as _, Sha256 as Hasher};
use tenantry_api::names::{ProtectedPath, RelativePath, ServiceName};

use crate::policy::{Demand, demands};

mod attachments;
mod climb;
mod copied;
mod raw;

pub use attachments::{Joined, Meant, Published};
pub use climb::{Roots, seen_from_real};
pub use copied::{Copied, variables_told};

/// Why a resolved model could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Compose printed something else than a model.
    #[error("compose's resolved model does not decode at line {line}, column {column}")]
    Undecodable {
        /// The line of compose's JSON.
        line: usize,
        /// The column in that line.
        column: usize,
    },
    /// A relative path that can't be told apart from others where it leads.
    #[error(
        "{path} leaves the tenant's directory by '..' in a way that can't be followed: write the path out from /"
    )]
    Climbs {
        /// The path, as it is in the staged tree.
        path: String,
    },
    /// A service's name is none that Tenantry can handle.
    #[error("services.{name}: {problem}")]
    Service {
        /// The service.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

/// The resolved model of one project in its selected profiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The project's name.
    pub project: String,
    /// Every selected service.
    pub services: BTreeMap<ServiceName, Service>,
    /// Named volumes by their key in the compose file.
    pub volumes: BTreeMap<String, NamedVolume>,
    /// Networks by their key in the compose file.
    pub networks: BTreeMap<String, NamedNetwork>,
    /// What the project asks of its host beyond ordinary containers.
    pub demands: Vec<Demand>,
}

/// A named volume of the resolved model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedVolume {
    /// The engine's name for the volume.
    pub name: String,
    /// The volume's driver, where the compose file names one.
    pub driver: Option<String>,
    /// Options of the volume's driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Whether it is somebody else's, and only used.
    pub external: bool,
}

/// A network of the resolved model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedNetwork {
    /// The engine's name for the network.
    pub name: String,
    /// Whether it is somebody else's, and only used.
    pub external: bool,
    /// Hash of everything that the compose files say of it.
    pub definition: String,
}

/// A service of the resolved model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The reference that the service's containers are made from.
    pub image: String,
    /// Where the service's image comes from.
    pub image_from: ImageFrom,
    /// How many containers the service has.
    pub replicas: u32,
    /// What the service waits for.
    pub depends_on: BTreeMap<String, Condition>,
    /// Services with which this one is restarted, as compose has it: `restart: true`, or what follows from sharing and links.
    pub restarts_with: BTreeSet<String>,
    /// Services whose network, pid or ipc namespace this one has.
    pub shares: BTreeSet<String>,
    /// Configs and secrets that compose copies into each container when it starts it: `config app`, `secret key`. Unlike
    /// files they are in no mount, and no hash of compose's covers them.
    pub copied: Copied,
    /// Files that the service's environment is read from, absolute.
    pub env_files: Vec<String>,
    /// Host paths that are mounted into the service's containers, absolute.
    pub binds: Vec<Bind>,
    /// Named volumes that are mounted into the service's containers, by their key in the compose file.
    pub volumes: Vec<String>,
    /// Ports of the host that the service's containers listen on.
    pub ports: Vec<Port>,
    /// Whether the service publishes any port, on one of the host's that the engine chooses as well.
    pub publishes: bool,
    /// The networks and ports that the service's containers are meant to have.
    pub meant: Meant,
    /// The name of the service's one container, where the compose file gives one.
    pub container_name: Option<String>,
    /// Whether the compose file gives the service a healthcheck. The image may have one of its own.
    pub healthcheck: bool,
    /// What the engine does when a container of the service ends.
    pub restart: Restart,
    /// How long a container may take to stop, in milliseconds, where the compose file says so.
    pub stop_grace_ms: Option<u64>,
    /// Hash of everything about the service but its image.
    pub definition: String,
}

/// Where an image comes from, as `docker compose pull` and `up` find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageFrom {
    /// The host alone: it is only built, or `pull_policy` is `never` or `build`.
    Host,
    /// A registry, or, where none has it, the host: it has both `image` and `build`.
    RegistryOrHost,
    /// A registry.
    Registry,
}

/// What a service waits for in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// That the other was started.
    Started,
    /// That the other is healthy.
    Healthy,
    /// That the other ended with 0.
    CompletedSuccessfully,
}

/// What the engine does when a container ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// The container stays ended.
    No,
    /// The container is started again after a failure.
    OnFailure,
    /// The container is started again.
    Always,
}

/// A port of the host that a container listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The address, where the compose file gives one; otherwise the port is published on every address.
    pub host_ip: Option<String>,
    /// The port. Of a range the engine chooses one, so that a range is not in the model.
    pub published: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// A host path that is mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The host path, absolute.
    pub source: String,
    /// Whether compose or dockerd makes the path where it is missing.
    pub create: bool,
}

/// How a managed file is seen inside a service's containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// As a mount of its own: a running container keeps the old file.
    Singly,
    /// Within a mounted directory.
    InDirectory,
}

impl Model {
    /// Reads compose's JSON. Paths below `read_in` are taken as below `lives_in`: a staged tree is read in another
    /// folder than the one that it is for.
    pub fn parse(json: &[u8], read_in: &str, lives_in: &str) -> Result<Self, ModelError> {
        let text = String::from_utf8_lossy(json);
        let text = if read_in == lives_in { text } else { relocate(&text, read_in, lives_in).into() };
        let undecodable =
            |error: serde_json::Error| ModelError::Undecodable { line: error.line(), column: error.column() };
        let value: serde_json::Value = serde_json::from_str(&text).map_err(undecodable)?;
        let demands = demands(&value);
        let document: raw::Document = serde_json::from_value(value).map_err(undecodable)?;
        document.model(demands)
    }

    /// Services that run once and end: others wait for their success, or `jobs` names them.
    pub fn one_shots(&self, jobs: &[ServiceName]) -> Vec<&ServiceName> {
        let waited_for = |name: &ServiceName| {
            let condition = |service: &Service| service.depends_on.get(name.as_str()).copied();
            self.services.values().any(|service| condition(service) == Some(Condition::CompletedSuccessfully))
        };
        self.services.keys().filter(|name| jobs.contains(name) || waited_for(name)).collect()
    }

    /// Everything that a service depends on, directly or not.
    pub fn dependencies(&self, service: &str) -> BTreeSet<&str> {
        let on = |name: &str| self.services.get(name).into_iter().flat_map(|one| one.depends_on.keys());
        let mut open: Vec<&str> = on(service).map(String::as_str).collect();
        let mut found = BTreeSet::new();
        while let Some(next) = open.pop() {
            if found.insert(next) {
                open.extend(on(next).map(String::as_str));
            }
        }
        found
    }

    /// Each image reference once, with the furthest that any service gets it from.
    pub fn references(&self) -> BTreeMap<&str, ImageFrom> {
        let mut references = BTreeMap::new();
        for service in self.services.values() {
            let from = references.entry(service.image.as_str()).or_insert(ImageFrom::Host);
            *from = service.image_from.max(*from);
        }
        references
    }

    /// Host paths at or below protected ones, relative to `directory`, that dockerd would create if they are missing.
    pub fn protected_binds(&self, directory: &str, protect: &[ProtectedPath]) -> Vec<RelativePath> {
        let binds = self.services.values().flat_map(|service| &service.binds).filter(|bind| bind.create);
        let mut found: Vec<RelativePath> = binds
            .filter_map(|bind| beneath(directory, &bind.source))
            .filter_map(|path| RelativePath::parse(path).ok())
            .filter(|path| protect.iter().any(|protected| protected.covers(path)))
            .collect();
        found.sort();
        found.dedup();
        found
    }
}

impl Service {
    /// How `file`, a path relative to `directory`, is seen inside this service's containers, if at all.
    pub fn mounts(&self, directory: &str, file: &RelativePath) -> Option<Mounted> {
        let mut within = None;
        for bind in &self.binds {
            match beneath(directory, &bind.source) {
                Some(path) if path == file.as_str() => return Some(Mounted::Singly),
                Some(path)
                    if path.is_empty()
                        || file.as_str().strip_prefix(path).is_some_and(|r| r.starts_with('/')) =>
                {
                    within = Some(Mounted::InDirectory);
                }
                _ => {}
            }
        }
        within
    }

    /// What of `directory` is mounted into this service's containers.
    pub fn mounted(&self, directory: &str) -> BTreeSet<RelativePath> {
        let within = self.binds.iter().filter_map(|bind| beneath(directory, &bind.source));
        within.filter_map(|path| RelativePath::parse(path).ok()).collect()
    }

    /// Whether the service's environment is read from `file`, a path relative to `directory`.
    pub fn reads_env_file(&self, directory: &str, file: &str) -> bool {
        self.env_files.iter().any(|path| beneath(directory, path) == Some(file))
    }
}

/// `path` relative to `directory`; empty for the directory itself, `None` when it lies elsewhere.
pub fn beneath<'a>(directory: &str, path: &'a str) -> Option<&'a str> {
    let rest = path.strip_prefix(directory.trim_end_matches('/'))?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// A path without what says nothing: doubled and closing slashes, `.`, and `..` with what it takes back, as the engine
/// itself reads mounts.
pub fn plain_path(path: &str) -> String {
    let Some(relative) = path.strip_prefix('/') else { return path.to_owned() };
    let mut parts: Vec<&str> = Vec::new();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    format!("/{}", parts.join("/"))
}

fn relocate(text: &str, from: &str, to: &str) -> String {
    let quoted = |path: &str| serde_json::Value::from(path).to_string().trim_matches('"').to_owned();
    text.replace(&quoted(from), &quoted(to))
}

fn digest(value: &serde_json::Value) -> String {
    let hash = Hasher::digest(value.to_string().as_bytes());
    hash.iter().take(16).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
