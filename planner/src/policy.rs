//! What a compose project asks of its host beyond ordinary containers, and what a host's own policy says to that (P13).
//!
//! Pure. [`Demand`]s are read from the resolved model, whatever the policy is; [`violations`] are those that the policy
//! does not grant. What is not known to be harmless is a demand: a field of compose that this version has never heard
//! of is refused until a person allows it.

mod demands;
mod feature;
pub mod grants;

use std::fmt;

pub(crate) use demands::demands;
pub use feature::{Feature, Verification};
pub use grants::Grants;

use crate::model::{Model, beneath};

/// The most services that a project may have.
pub const MAX_SERVICES: usize = 1_000;
/// The most containers that a project may have.
pub const MAX_CONTAINERS: u64 = 2_000;
/// The folder of a tenant's directory that no container sees by name.
const OWN_FOLDER: &str = tenantry_api::names::AGENT_FOLDER;
/// What containers are shown to know the time as the host does: nothing in it is anybody's secret.
const TIME: [&str; 2] = ["/etc/localtime", "/etc/timezone"];
const TIME_ZONES: &str = "/usr/share/zoneinfo";

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
    /// A file that compose itself reads for containers.
    Read(String),
    /// What no host grants, and what would be right.
    Never(String),
}

/// A demand that the policy does not grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field of the resolved model.
    pub at: String,
    /// What is wrong with it.
    pub lack: Lack,
}

/// Why something is not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What is wrong; where no line of a policy file grants it, with what would be right.
    pub problem: String,
    /// The line of the policy file that would grant it.
    pub needs: Option<Need>,
}

/// A line of a policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// Of `allow.registries`.
    Registry(String),
    /// Of `allow.compose`.
    Feature(Feature),
    /// Of `allow.mounts`.
    Mount(AllowedMount),
    /// Of `allow.verify`.
    Verification(Verification),
}

impl Lack {
    /// What no line of a policy file grants.
    pub fn never(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), needs: None }
    }

    /// What a line of a policy file would grant.
    pub fn of(need: Need, problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), needs: Some(need) }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.lack.problem)?;
        match &self.lack.needs {
            None => Ok(()),
            Some(need) => write!(f, " (needs {} in allow.{})", need.item(), need.list()),
        }
    }
}

impl fmt::Display for AllowedMount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.path, if self.read_only { ":ro" } else { "" })
    }
}

/// What of a model the policy does not grant to a tenant in `directory`.
pub fn violations(model: &Model, directory: &str, policy: &Policy) -> Vec<Violation> {
    let judged = |demand: &Demand| -> Vec<Violation> {
        let lacks = policy.judge(directory, &demand.wants).into_iter();
        lacks.map(|lack| Violation { at: demand.at.clone(), lack }).collect()
    };
    model.demands.iter().flat_map(judged).collect()
}

impl Policy {
    fn judge(&self, directory: &str, wants: &Wants) -> Vec<Lack> {
        match wants {
            Wants::Feature(feature, what) => self.feature(*feature, what).into_iter().collect(),
            Wants::Path { source, read_only, relabels } => {
                self.path(directory, source, *read_only, *relabels)
            }
            // What compose reads of it is seen by containers, as if it were mounted.
            Wants::Read(path) => self.path(directory, path, true, false),
            Wants::Never(problem) => vec![Lack::never(problem)],
        }
    }

    fn feature(&self, feature: Feature, what: &str) -> Option<Lack> {
        let lacks = !self.features.contains(&feature);
        lacks.then(|| Lack::of(Need::Feature(feature), what))
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

    /// Why a container of a tenant in `directory` may not see a host path, which must have no symlink in it.
    pub fn path(&self, directory: &str, source: &str, read_only: bool, relabels: bool) -> Vec<Lack> {
        if !is_normal(source) {
            return vec![Lack::never(format!("{source} is not a plain absolute path"))];
        }
        if source == "/" && read_only && !relabels {
            return self.feature(Feature::HostFiles, "/ is every file of the host").into_iter().collect();
        }
        if self.private.iter().any(|private| self.reveals(source, private)) {
            let problem = format!("{source} holds the agent's own files, which no container may see");
            return vec![Lack::never(problem)];
        }
        let mut lacks = Vec::new();
        if let Some(socket) = self.sockets.iter().find(|socket| is_at_or_below(socket, source)) {
            let what = if socket == source {
                format!("{source} is the engine's socket")
            } else {
                format!("{source} holds the engine's socket {socket}")
            };
            lacks.extend(self.feature(Feature::DockerSocket, &what));
            if socket == source {
                return lacks;
            }
        }
        match beneath(directory, source) {
            Some(inside) if is_own(inside) => {
                let problem = format!("{OWN_FOLDER} is the agent's own folder, which no container may see");
                lacks.push(Lack::never(problem));
            }
            Some(_) => {}
            None => lacks.extend(self.outside(source, read_only, relabels)),
        }
        lacks
    }

    /// Why a container may not see a host path that is not in its tenant's directory.
    fn outside(&self, source: &str, read_only: bool, relabels: bool) -> Vec<Lack> {
        let granted =
            |mount: &AllowedMount| is_at_or_below(source, &mount.path) && (read_only || !mount.read_only);
        let mut lacks = Vec::new();
        let ordinary = read_only && tells_time(source);
        if !(ordinary || self.mounts.iter().any(granted)) {
            let how = if read_only { "" } else { ", and mounted read-write" };
            let problem = format!("{source} is not in the tenant's directory{how}");
            lacks.push(if source.contains(':') {
                Lack::never(format!("{problem}; a path with ':' can't be allowed: give it another name"))
            } else {
                Lack::of(Need::Mount(AllowedMount { path: source.to_owned(), read_only }), problem)
            });
        }
        if relabels {
            let what =
                format!("{source} is not in the tenant's directory, and would get other SELinux labels");
            lacks.extend(self.feature(Feature::Relabelling, &what));
        }
        lacks
    }

    /// The same for where a host path really leads, `source` being what the compose file calls it. What tells the time
    /// is ordinary wherever it is kept.
    pub fn led_to(
        &self,
        directory: &str,
        source: &str,
        real: &str,
        read_only: bool,
        relabels: bool,
    ) -> Vec<Lack> {
        let mut lacks = self.path(directory, real, read_only, relabels);
        if read_only && TIME.contains(&source) {
            lacks.retain(|lack| !matches!(lack.needs, Some(Need::Mount(_))));
        }
        lacks
    }
}

fn is_at_or_below(path: &str, top: &str) -> bool {
    beneath(top, path).is_some()
}

fn tells_time(source: &str) -> bool {
    TIME.contains(&source) || is_at_or_below(source, TIME_ZONES)
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
