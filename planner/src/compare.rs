//! What runs of a service, against what should: state, health, and a sentence for what is wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tenantry_api::names::ServiceName;
use tenantry_protocol::{FailureCategory, Health, ServiceHealth, ServiceState};

use crate::model::{Model, Restart, Service};

mod attachments;
mod sharing;
pub mod volumes;

pub use attachments::{Attached, Attachments, Binding, Endpoint, Network, NetworkKind, Networks};
pub use sharing::{Namespace, Namespaces, is_cut_off, problem as sharing_problem};

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
    /// When the container last ended; absent when it never did.
    pub ended_at: Option<Timestamp>,
    /// The networks and ports that the container has.
    pub attached: Attached,
    /// Whose network, pid and ipc namespaces it has.
    pub namespaces: Namespaces,
}

impl Container {
    /// Whether the container has ended after it had run for longer than that.
    fn ended_after(&self, long: Duration) -> bool {
        let ran =
            self.started_at.zip(self.ended_at).and_then(|(from, to)| to.duration_since(from).try_into().ok());
        self.state == ContainerState::Exited && ran.is_some_and(|ran: Duration| ran > long)
    }
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

/// Whether the containers of a service run on or end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// They run until they are stopped: the engine starts them again.
    RunsOn,
    /// They run until they are stopped, though nothing starts them again: they publish ports, have a healthcheck, or had
    /// been running for long.
    Serves,
    /// They run, or have ended with 0 and are done: nothing starts them again after that, and nothing shows that they
    /// serve anybody.
    MayEnd {
        /// Whether the engine starts them again after a failure.
        retried: bool,
    },
    /// They have to end with 0: others wait for that, or they are named as jobs.
    Ends,
}

impl Lifetime {
    /// Whether a container is done that has ended with 0.
    pub fn is_done_by_ending(self) -> bool {
        match self {
            Self::RunsOn | Self::Serves => false,
            Self::MayEnd { .. } | Self::Ends => true,
        }
    }

    /// The same of a service that had been running for long: that is no job.
    #[must_use]
    pub fn of_one_that_ran_for_long(self) -> Self {
        match self {
            Self::MayEnd { .. } => Self::Serves,
            Self::RunsOn | Self::Serves | Self::Ends => self,
        }
    }

    fn of(service: &Service) -> Self {
        match service.restart {
            Restart::Always => Self::RunsOn,
            Restart::No | Restart::OnFailure if service.healthcheck || service.publishes => Self::Serves,
            Restart::No => Self::MayEnd { retried: false },
            Restart::OnFailure => Self::MayEnd { retried: true },
        }
    }
}

/// What is expected of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Whether the service runs on or ends.
    pub lifetime: Lifetime,
    /// How many containers the service has.
    pub replicas: u32,
    /// The image that the containers run; absent: any.
    pub image_id: Option<String>,
    /// The networks and ports that the containers have; absent: any.
    pub attached: Option<Attachments>,
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
    let expected = |(name, service): (&ServiceName, &Service)| {
        let lifetime = if one_shots.contains(&name) { Lifetime::Ends } else { Lifetime::of(service) };
        (name.clone(), Expected { lifetime, replicas: service.replicas, image_id: None, attached: None })
    };
    model.services.iter().map(expected).collect()
}

/// The same, of networks and ports as well, on an engine that has these networks.
pub fn expectations_on(
    networks: Networks,
    model: &Model,
    jobs: &[ServiceName],
) -> BTreeMap<ServiceName, Expected> {
    let networks = Arc::new(networks);
    let mut all = expectations(model, jobs);
    for (name, expected) in &mut all {
        expected.attached = model.services.get(name).map(|service| service.attachments(&networks));
    }
    all
}

/// What is wrong with a service that has these containers, if anything.
pub fn problem(name: &str, expected: &Expected, containers: &[&Container]) -> Option<Problem> {
    problem_of(name, expected, expected.lifetime, containers)
}

/// The same where another lifetime counts than is expected.
fn problem_of(
    name: &str,
    expected: &Expected,
    lifetime: Lifetime,
    containers: &[&Container],
) -> Option<Problem> {
    let pending = |text: String| Some(Problem::Pending(text));
    let count = u32::try_from(containers.len()).unwrap_or(u32::MAX);
    if count < expected.replicas {
        return pending(match (count, expected.replicas) {
            (0, 1) => format!("{name} has no container"),
            (have, of) => format!("{name} has {have} of {of} containers"),
        });
    }
    let wrong =
        containers.iter().find_map(|container| container_problem(name, expected, lifetime, container));
    match wrong {
        Some(last @ Problem::Final(..)) => Some(last),
        _ if count > expected.replicas => {
            pending(format!("{name} has {count} containers, {} are planned", expected.replicas))
        }
        other => other,
    }
}

fn container_problem(
    name: &str,
    expected: &Expected,
    lifetime: Lifetime,
    container: &Container,
) -> Option<Problem> {
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
        ContainerState::Exited if lifetime.is_done_by_ending() && code == 0 => None,
        ContainerState::Exited if lifetime == Lifetime::Serves && code == 0 => {
            let text = format!("{name} ended with code 0; if it is meant to end, name it in spec.jobs");
            Some(Problem::Final(FailureCategory::Crashed, text))
        }
        ContainerState::Exited if tenantry_faults::Bug::CrashedIsHealthy.is_seeded() => None,
        ContainerState::Exited | ContainerState::Dead => {
            Some(Problem::Final(FailureCategory::Crashed, format!("{name} ended with code {code}{memory}")))
        }
        ContainerState::Running if lifetime == Lifetime::Ends => {
            pending(format!("{name} is a one-shot and still runs"))
        }
        ContainerState::Running => match container.health {
            ServiceHealth::None | ServiceHealth::Healthy => {
                let lacking = expected.attached.as_ref().and_then(|attached| attached.lacking(container));
                lacking.and_then(|lacking| pending(format!("{name} {lacking}")))
            }
            ServiceHealth::Starting => pending(format!("{name} has not passed its healthcheck yet")),
            ServiceHealth::Unhealthy => pending(format!("{name} is unhealthy")),
        },
    }
}

/// Whether every service is as expected at this moment. What ran for longer than a release was `watched`, where one was,
/// is no job that was at work when it was seen running: it is not done by ending.
pub fn health(
    expected: &BTreeMap<ServiceName, Expected>,
    containers: &[Container],
    watched: Option<Duration>,
) -> Health {
    let mut health = Health::default();
    for (name, service) in expected {
        let own = of_service(containers, name.as_str());
        let ends = service.lifetime == Lifetime::Ends;
        let lifetime = match watched {
            // A one-shot that is at work again, as it is whenever somebody types `docker compose up -d`, is as it should be.
            _ if ends => Lifetime::MayEnd { retried: false },
            Some(long) if own.iter().any(|container| container.ended_after(long)) => {
                service.lifetime.of_one_that_ran_for_long()
            }
            Some(_) | None => service.lifetime,
        };
        if let Some(problem) = problem_of(name.as_str(), service, lifetime, &own) {
            health.problems.push(problem.text().to_owned());
        }
        let ended = own.iter().any(|container| container.state == ContainerState::Exited);
        if ended && lifetime.is_done_by_ending() {
            health.ended.extend((!ends).then(|| name.to_string()));
        } else if !ends && own.iter().any(|container| container.health == ServiceHealth::None) {
            health.without_healthcheck.push(name.to_string());
        }
        health.problems.extend(own.iter().find_map(|one| sharing::problem(one, containers)));
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
