//! What a compose project asks of its host beyond ordinary containers, and what a host's own policy says to that (P13).
//!
//! Pure. [`Demand`]s are read from the resolved model, whatever the policy is; [`violations`] are those that the policy
//! does not grant. What is not known to be harmless is a demand: a field of compose that this version has never heard
//! of is refused until a person allows it.

mod demands;
mod feature;

use std::fmt;

pub(crate) use demands::demands;
pub use feature::{Feature, Verification};

use crate::model::{Model, beneath};

/// The most services that a project may have.
pub const MAX_SERVICES: usize = 1_000;
/// The most containers that a project may have.
pub const MAX_CONTAINERS: u64 = 2_000;
/// The folder of a tenant's directory that no container sees by name.
const OWN_FOLDER: &str = tenantry_api::names::AGENT_FOLDER;

/// What a host grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Features of compose, by name.
    pub features: Vec<Feature>,
    /// Host directories, besides the tenant's own, that may be mounted.
    pub mounts: Vec<AllowedMount>,
    /// The engine's sockets: whoever has one has the host.
    pub sockets: Vec<String>,
    /// The agent's own files, which nothing may mount.
    pub private: Vec<String>,
}

/// A host directory, or a single file, that may be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedMount {
    /// Absolute and normal; everything below is included.
    pub path: String,
    /// Only where the mount is read-only.
    pub read_only: bool,
}

/// Something that a project asks of its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The field of the resolved model, for example `services.web.privileged`.
    pub at: String,
    /// What it asks for.
    pub wants: Wants,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wants {
    /// A feature; with what makes it one, in a few words.
    Feature(Feature, String),
    /// A host path inside a container.
    Path {
        /// The path.
        source: String,
        /// Whether it is only read.
        read_only: bool,
        /// Whether its security labels are changed.
        relabels: bool,
    },
    /// A file that compose itself reads.
    Read(String),
    /// What no host grants, and what would be right.
    Never(String),
}

/// A demand that the policy does not grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field of the resolved model.
    pub at: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.problem)
    }
}

/// What of a model the policy does not grant to a tenant in `directory`.
pub fn violations(model: &Model, directory: &str, policy: &Policy) -> Vec<Violation> {
    let judged = |demand: &Demand| {
        let problem = policy.judge(directory, &demand.wants).err()?;
        Some(Violation { at: demand.at.clone(), problem })
    };
    model.demands.iter().filter_map(judged).collect()
}

impl Policy {
    fn judge(&self, directory: &str, wants: &Wants) -> Result<(), String> {
        match wants {
            Wants::Feature(feature, what) => self.feature(*feature, what),
            Wants::Path { source, read_only, relabels } => {
                self.path(directory, source, *read_only, *relabels)
            }
            Wants::Read(path) => match beneath(directory, path) {
                Some(inside) if !is_own(inside) => Ok(()),
                _ => Err(format!("{path} is not in the tenant's directory: move it there")),
            },
            Wants::Never(problem) => Err(problem.clone()),
        }
    }

    fn feature(&self, feature: Feature, what: &str) -> Result<(), String> {
        if self.features.contains(&feature) {
            return Ok(());
        }
        Err(format!("{what}, which this host's policy does not allow; {}", person(feature)))
    }

    /// Whether a mount shows files of the agent's own that a person has not named, as for an agent that is part of a
    /// project itself.
    fn reveals(&self, source: &str, private: &str) -> bool {
        let below = beneath(private, source).is_some();
        let named = |mount: &AllowedMount| {
            beneath(private, &mount.path).is_some() && beneath(&mount.path, source).is_some()
        };
        let above = beneath(source, private).is_some_and(|rest| !rest.is_empty());
        above || below && !self.mounts.iter().any(named)
    }

    /// Whether a container of a tenant in `directory` may see a host path, which must have no symlink in it.
    pub fn path(&self, directory: &str, source: &str, read_only: bool, relabels: bool) -> Result<(), String> {
        if !is_normal(source) {
            return Err(format!("{source} is not a plain absolute path"));
        }
        let or_below = |path: &str, top: &str| beneath(top, path).is_some();
        if self.private.iter().any(|private| self.reveals(source, private)) {
            return Err(format!("{source} holds the agent's own files, which no container may see"));
        }
        if let Some(socket) = self.sockets.iter().find(|socket| or_below(socket, source)) {
            let what = if socket == source {
                format!("{source} is the engine's socket")
            } else {
                format!("{source} holds the engine's socket {socket}")
            };
            self.feature(Feature::DockerSocket, &what)?;
            if socket == source {
                return Ok(());
            }
        }
        match beneath(directory, source) {
            Some(inside) if is_own(inside) => {
                return Err(format!("{OWN_FOLDER} is the agent's own folder, which no container may see"));
            }
            Some(_) => return Ok(()),
            None => {}
        }
        let granted =
            |mount: &&AllowedMount| or_below(source, &mount.path) && (read_only || !mount.read_only);
        if !self.mounts.iter().any(|mount| granted(&mount)) {
            let how = if read_only { "" } else { " read-write" };
            return Err(format!(
                "{source} is not in the tenant's directory, and this host's policy does not allow mounting it{how}; a \
                 person can add it to allow.mounts in the agent's policy file"
            ));
        }
        if relabels {
            return Err(format!(
                "{source} is not in the tenant's directory, so its SELinux labels stay as they are"
            ));
        }
        Ok(())
    }
}

fn person(feature: Feature) -> String {
    format!("a person can add {feature} to allow.compose in the agent's policy file")
}

fn is_own(inside: &str) -> bool {
    inside.split('/').next() == Some(OWN_FOLDER)
}

fn is_normal(path: &str) -> bool {
    let Some(relative) = path.strip_prefix('/') else { return false };
    relative.is_empty() || relative.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests;
