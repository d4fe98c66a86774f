//! How each service was before an operation (promise P18): what keeps an upgrade from being begun, and what a way back has
//! reached when it finds things as bad as they were, and no worse.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tenantry_api::names::ServiceName;
use tenantry_protocol::ServiceHealth;

use crate::compare::{Container, ContainerState, Expected};
use crate::model::Model;

/// A container that the engine started again and that has run for less than this keeps ending: the engine itself takes a
/// start for a success only after ten seconds.
const STEADY_AFTER: Duration = Duration::from_secs(10);

/// How a service was: the worst of its containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Was {
    /// It had no container.
    Absent,
    /// A container was made and not started.
    Created,
    /// The engine could not end a container properly.
    Dead,
    /// A person had paused it.
    Paused,
    /// It kept ending, and the engine started it again.
    Restarting {
        /// The code that it last ended with.
        code: i64,
    },
    /// It ran, after the engine had started it again within the time that a release is watched: it may end again.
    Restarted,
    /// It had ended.
    Exited {
        /// With this code.
        code: i64,
    },
    /// It ran, and its healthcheck failed.
    Unhealthy,
    /// It ran, and its healthcheck had not said anything yet.
    Starting,
    /// It ran and was healthy, or has no healthcheck.
    Running {
        /// Whether it had been running for longer than a release is watched.
        long: bool,
    },
}

/// How services were, by their names. One that is not named had no container.
pub type Before = BTreeMap<String, Was>;

/// How every service is that has containers. `watched` is how long a release is watched at most.
pub fn before(containers: &[Container], now: Timestamp, watched: Duration) -> Before {
    let mut all = Before::new();
    for container in containers {
        let is = Was::of(container, now, watched);
        let worst = all.entry(container.service.clone()).or_insert(is);
        if is.severity() > worst.severity() {
            *worst = is;
        }
    }
    all
}

impl Was {
    /// How one container is, and has been for a while.
    fn of(container: &Container, now: Timestamp, watched: Duration) -> Self {
        let code = container.exit_code;
        let age = container.started_at.map(|at| u64::try_from(now.as_second() - at.as_second()).unwrap_or(0));
        let again = |within: u64| container.restart_count > 0 && age.is_some_and(|age| age < within);
        match Self::seen(container) {
            Self::Running { .. } | Self::Starting | Self::Unhealthy if again(STEADY_AFTER.as_secs()) => {
                Self::Restarting { code }
            }
            Self::Running { .. } | Self::Starting if again(watched.as_secs()) => Self::Restarted,
            Self::Running { .. } => Self::Running { long: age.is_some_and(|age| age > watched.as_secs()) },
            other => other,
        }
    }

    /// How one container is at this moment.
    pub fn seen(container: &Container) -> Self {
        let code = container.exit_code;
        match container.state {
            ContainerState::Created | ContainerState::Removing => Self::Created,
            ContainerState::Paused => Self::Paused,
            ContainerState::Dead => Self::Dead,
            ContainerState::Restarting => Self::Restarting { code },
            ContainerState::Exited => Self::Exited { code },
            ContainerState::Running => match container.health {
                ServiceHealth::Unhealthy => Self::Unhealthy,
                ServiceHealth::Starting => Self::Starting,
                ServiceHealth::None | ServiceHealth::Healthy => Self::Running { long: false },
            },
        }
    }

    /// Whether it ran, well or not.
    pub fn ran(self) -> bool {
        matches!(
            self,
            Self::Running { .. }
                | Self::Starting
                | Self::Unhealthy
                | Self::Restarting { .. }
                | Self::Restarted
        )
    }

    /// Whether others that wait for it would have waited in vain.
    pub fn is_broken(self) -> bool {
        match self {
            Self::Unhealthy | Self::Restarting { .. } | Self::Dead => true,
            Self::Exited { code } => code != 0,
            Self::Absent
            | Self::Created
            | Self::Paused
            | Self::Starting
            | Self::Restarted
            | Self::Running { .. } => false,
        }
    }

    /// Whether its containers did not stay up.
    pub fn kept_ending(self) -> bool {
        matches!(self, Self::Restarting { .. } | Self::Restarted | Self::Exited { .. } | Self::Dead)
    }

    /// Which of several containers speaks for their service.
    fn severity(self) -> u8 {
        match self {
            Self::Dead => 8,
            Self::Paused => 7,
            Self::Restarting { .. } => 6,
            Self::Exited { code } if code != 0 => 5,
            Self::Created => 4,
            Self::Absent => 3,
            Self::Unhealthy => 2,
            Self::Exited { .. } | Self::Starting | Self::Restarted => 1,
            Self::Running { .. } => 0,
        }
    }

    /// How far a service is from being well: what is not higher than before is not worse.
    fn rank(self, expected: &Expected) -> u8 {
        match self {
            Self::Exited { code: 0 } if expected.lifetime.is_done_by_ending() => 0,
            Self::Running { .. } => 0,
            // Nobody saw it pass its healthcheck: that it does not now is no worse.
            Self::Starting | Self::Unhealthy | Self::Restarted => 1,
            Self::Restarting { .. } | Self::Exited { .. } | Self::Dead | Self::Paused => 3,
            Self::Created | Self::Absent => 4,
        }
    }

    /// Whether a service that was so before is no worse now, though it is not well: nobody can ask more of a way back.
    pub fn excuses(self, now: Self, expected: &Expected) -> bool {
        let was = self.rank(expected);
        was >= Self::Unhealthy.rank(expected) && now.rank(expected) <= was
    }

    /// In words, to be put behind the service's name.
    pub fn said(self) -> String {
        match self {
            Self::Absent => "had no container".to_owned(),
            Self::Created => "was made but not started".to_owned(),
            Self::Dead => "was dead".to_owned(),
            Self::Paused => "was paused".to_owned(),
            Self::Restarting { code } => format!("kept ending with code {code}"),
            Self::Restarted => "had just been started again by the engine".to_owned(),
            Self::Exited { code } => format!("had ended with code {code}"),
            Self::Unhealthy => "was unhealthy".to_owned(),
            Self::Starting => "had not passed its healthcheck yet".to_owned(),
            Self::Running { .. } => "was running".to_owned(),
        }
    }
}

/// Why an operation is not begun: what is so already, and would be told as its failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hindrance<'a> {
    /// The service.
    pub service: &'a ServiceName,
    /// How it is.
    pub is: Was,
}

/// Services of a release in a state that stops its upgrade. `changed` are those that the release changes: what these
/// are like may be mended by it, and so may what depends on them. Whoever goes back does so because things are bad:
/// then only what compose can't get past counts.
pub fn hindrances<'a>(
    model: &'a Model,
    before: &Before,
    changed: &BTreeSet<&str>,
    goes_back: bool,
) -> Vec<Hindrance<'a>> {
    if tenantry_faults::Bug::BlameForBefore.is_seeded() {
        return Vec::new();
    }
    let stops = |service: &ServiceName, is: Was| match is {
        Was::Paused | Was::Dead => true,
        Was::Restarting { .. } | Was::Unhealthy => !goes_back && !is_mended(model, service.as_str(), changed),
        Was::Absent
        | Was::Created
        | Was::Exited { .. }
        | Was::Starting
        | Was::Restarted
        | Was::Running { .. } => false,
    };
    let found = model.services.iter().filter(|(_, service)| service.replicas > 0).filter_map(|(name, _)| {
        let is = *before.get(name.as_str())?;
        stops(name, is).then_some(Hindrance { service: name, is })
    });
    found.collect()
}

/// Whether a release changes a service, or what it depends on, however far away.
fn is_mended(model: &Model, service: &str, changed: &BTreeSet<&str>) -> bool {
    changed.contains(service) || model.dependencies(service).iter().any(|name| changed.contains(name))
}

impl Hindrance<'_> {
    /// What is wrong, and what to type. `compose` is what a person types in the directory before a command.
    pub fn said(&self, compose: &str) -> String {
        let service = self.service;
        match self.is {
            Was::Paused => format!("{service} is paused: `{compose} unpause {service}`"),
            Was::Dead => format!(
                "{service} is dead, which the engine could not end properly: `{compose} rm -sf {service}`, and if that \
                 fails, restart the engine"
            ),
            Was::Restarting { code } => format!(
                "{service} keeps ending with code {code}, and nothing of it is changed: see `{compose} logs {service}`, \
                 mend it, or `{compose} stop {service}`"
            ),
            is => format!(
                "{service} {}, and nothing of it is changed: see `{compose} logs {service}` and mend it",
                is.said().replacen("was", "is", 1)
            ),
        }
    }
}

#[cfg(test)]
mod tests;
