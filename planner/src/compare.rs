//! What runs of a service, against what should: state, health, and a sentence for what is wrong.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tenantry_api::names::ServiceName;
use tenantry_protocol::{FailureCategory, Health, ServiceHealth, ServiceState};

use crate::model::Model;

/// A container as the engine reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The container's id.
    pub id: String,
    /// The container's name, without `/`.
    pub name: String,
    /// The service that the container belongs to.
    pub service: String,
    /// The reference that the container was made from.
    pub image_ref: String,
    /// The image that the container runs.
    pub image_id: String,
    /// What the container does.
    pub state: ContainerState,
    /// The code that the container ended with, where it ended.
    pub exit_code: i64,
    /// Whether the kernel ended the container for want of memory.
    pub oom_killed: bool,
    /// How often the engine has restarted the container.
    pub restart_count: u64,
    /// What the container's healthcheck says.
    pub health: ServiceHealth,
    /// When the container was last started; absent when it never was.
    pub started_at: Option<Timestamp>,
}

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, never started.
    Created,
    /// Runs.
    Running,
    /// Paused by a person.
    Paused,
    /// Ended, and the engine is about to start it again.
    Restarting,
    /// Being removed.
    Removing,
    /// Ended.
    Exited,
    /// The engine could not end it properly.
    Dead,
}

/// What is expected of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Whether the service runs once and ends.
    pub one_shot: bool,
    /// How many containers the service has.
    pub replicas: u32,
    /// The image that the containers run; absent: any.
    pub image_id: Option<String>,
}

/// What is wrong with a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// What may yet come right.
    Pending(String),
    /// What won't come right by itself.
    Final(FailureCategory, String),
}

impl Problem {
    /// The sentence.
    pub fn text(&self) -> &str {
        match self {
            Self::Pending(text) | Self::Final(_, text) => text,
        }
    }
}

/// What a model expects of its services, whatever image they run.
pub fn expectations(model: &Model, jobs: &[ServiceName]) -> BTreeMap<ServiceName, Expected> {
    let one_shots = model.one_shots(jobs);
    let expected = |name: &ServiceName, replicas| Expected {
        one_shot: one_shots.contains(&name),
        replicas,
        image_id: None,
    };
    model.services.iter().map(|(name, service)| (name.clone(), expected(name, service.replicas))).collect()
}

/// What is wrong with a service that has these containers, if anything.
pub fn problem(name: &str, expected: &Expected, containers: &[&Container]) -> Option<Problem> {
    let pending = |text: String| Some(Problem::Pending(text));
    let count = u32::try_from(containers.len()).unwrap_or(u32::MAX);
    if count < expected.replicas {
        return pending(match (count, expected.replicas) {
            (0, 1) => format!("{name} has no container"),
            (have, of) => format!("{name} has {have} of {of} containers"),
        });
    }
    let wrong = containers.iter().find_map(|container| container_problem(name, expected, container));
    match wrong {
        Some(last @ Problem::Final(..)) => Some(last),
        _ if count > expected.replicas => {
            pending(format!("{name} has {count} containers, {} are planned", expected.replicas))
        }
        other => other,
    }
}

fn container_problem(name: &str, expected: &Expected, container: &Container) -> Option<Problem> {
    if let Some(planned) = &expected.image_id
        && *planned != container.image_id
        && !tenantry_faults::Bug::AnyImageWillDo.is_seeded()
    {
        let (runs, planned) = (short(&container.image_id), short(planned));
        let text = format!("{name} runs image {runs}, planned is {planned}");
        return Some(Problem::Final(FailureCategory::WrongImage, text));
    }
    let pending = |text: String| Some(Problem::Pending(text));
    let code = container.exit_code;
    let memory = if container.oom_killed { " (out of memory)" } else { "" };
    match container.state {
        ContainerState::Created => pending(format!("{name} was made but not started")),
        ContainerState::Paused => pending(format!("{name} is paused")),
        ContainerState::Removing => pending(format!("{name} is being removed")),
        ContainerState::Restarting => {
            pending(format!("{name} ended with code {code}{memory} and is being restarted"))
        }
        ContainerState::Exited if expected.one_shot && code == 0 => None,
        ContainerState::Exited if tenantry_faults::Bug::CrashedIsHealthy.is_seeded() => None,
        ContainerState::Exited | ContainerState::Dead => {
            Some(Problem::Final(FailureCategory::Crashed, format!("{name} ended with code {code}{memory}")))
        }
        ContainerState::Running if expected.one_shot => {
            pending(format!("{name} is a one-shot and still runs"))
        }
        ContainerState::Running => match container.health {
            ServiceHealth::None | ServiceHealth::Healthy => None,
            ServiceHealth::Starting => pending(format!("{name} has not passed its healthcheck yet")),
            ServiceHealth::Unhealthy => pending(format!("{name} is unhealthy")),
        },
    }
}

/// Whether every service is as expected at this moment.
pub fn health(expected: &BTreeMap<ServiceName, Expected>, containers: &[Container]) -> Health {
    let mut health = Health::default();
    for (name, service) in expected {
        let own = of_service(containers, name.as_str());
        if let Some(problem) = problem(name.as_str(), service, &own) {
            health.problems.push(problem.text().to_owned());
        }
        if !service.one_shot && own.iter().any(|container| container.health == ServiceHealth::None) {
            health.without_healthcheck.push(name.to_string());
        }
    }
    health
}

/// The containers of one service.
pub fn of_service<'a>(containers: &'a [Container], service: &str) -> Vec<&'a Container> {
    containers.iter().filter(|container| container.service == service).collect()
}

/// How a service is as a whole: the worst of its containers.
pub fn service_state(containers: &[&Container]) -> ServiceState {
    let rank = |state: ContainerState| match state {
        ContainerState::Exited | ContainerState::Dead => 4,
        ContainerState::Restarting => 3,
        ContainerState::Created | ContainerState::Removing => 2,
        ContainerState::Paused => 1,
        ContainerState::Running => 0,
    };
    let Some(worst) = containers.iter().max_by_key(|c| (rank(c.state), c.exit_code)) else {
        return ServiceState::Absent;
    };
    match worst.state {
        ContainerState::Exited | ContainerState::Dead => ServiceState::Exited { code: worst.exit_code },
        ContainerState::Restarting => ServiceState::Restarting,
        ContainerState::Created | ContainerState::Removing => ServiceState::Created,
        ContainerState::Paused => ServiceState::Paused,
        ContainerState::Running => ServiceState::Running,
    }
}

/// What the healthchecks of a service say as a whole: the worst.
pub fn service_health(containers: &[&Container]) -> ServiceHealth {
    let rank = |health: ServiceHealth| match health {
        ServiceHealth::None => 0,
        ServiceHealth::Healthy => 1,
        ServiceHealth::Starting => 2,
        ServiceHealth::Unhealthy => 3,
    };
    containers.iter().map(|c| c.health).max_by_key(|health| rank(*health)).unwrap_or(ServiceHealth::None)
}

/// An image id as people write it.
pub fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

#[cfg(test)]
pub(crate) mod tests;
