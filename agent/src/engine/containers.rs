//! Containers: found by the labels that compose gives them, and told by name what to do.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, HealthStatusEnum, HostConfig};
use bollard::query_parameters::{
    KillContainerOptions, ListContainersOptions, RemoveContainerOptions, RenameContainerOptions,
    StopContainerOptions,
};
use futures::{StreamExt as _, TryStreamExt as _};
use tenantry_planner::compare::{Container, ContainerState, Namespace, Namespaces};
use tenantry_protocol::ServiceHealth;

use super::networks::attached;
use super::{DockerEngine, EngineError, gone_is_fine};
use crate::limits::LONGEST_GRACE;

pub(super) const PROJECT: &str = "com.docker.compose.project";
pub(super) const SERVICE: &str = "com.docker.compose.service";
pub(super) const DIRECTORY: &str = "com.docker.compose.project.working_dir";
pub(super) const ONE_OFF: &str = "com.docker.compose.oneoff";
/// How many containers are looked at side by side.
const SIDE_BY_SIDE: usize = 8;
/// How long the engine may take beyond the grace period of a container that it stops.
pub(super) const STOP_MARGIN: Duration = Duration::from_secs(30);
pub(super) const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// A container of a compose project.
#[derive(Clone, Debug)]
pub struct ProjectContainer {
    /// What it does.
    pub container: Container,
    /// The directory that it was made from, as compose noted it; empty where it did not.
    pub directory: String,
    /// When it was last started, exactly as the engine writes it.
    pub started_raw: String,
    /// Whether `docker compose run` made it, so that it belongs to nobody's plan.
    pub one_off: bool,
}

impl DockerEngine {
    /// Every container of a project, whatever directory it was made from.
    pub async fn project_containers(&self, project: &str) -> Result<Vec<ProjectContainer>, EngineError> {
        self.listed(project, false).await
    }

    /// The same; a container of which no event came is not looked at again. Not for what follows a change of our own.
    pub async fn known_containers(&self, project: &str) -> Result<Vec<ProjectContainer>, EngineError> {
        self.listed(project, true).await
    }

    async fn listed(&self, project: &str, remember: bool) -> Result<Vec<ProjectContainer>, EngineError> {
        let filters = HashMap::from([("label".to_owned(), vec![format!("{PROJECT}={project}")])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        let ask = |docker: bollard::Docker| async move { docker.list_containers(Some(options)).await };
        let listed = self.read("list containers", ask).await?;
        let ids: Vec<String> = listed.into_iter().filter_map(|summary| summary.id).collect();
        // Before they are looked at: what happens to their networks from here on is told as of this project.
        self.events.belong(project, &ids);
        let looks = ids.into_iter().map(|id| self.container(id, remember));
        let found: Vec<Option<ProjectContainer>> =
            futures::stream::iter(looks).buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
        let mut containers: Vec<ProjectContainer> = found.into_iter().flatten().collect();
        containers.sort_by(|a, b| a.container.name.cmp(&b.container.name));
        Ok(containers)
    }

    /// `None` when it has gone since it was listed.
    async fn container(&self, id: String, remember: bool) -> Result<Option<ProjectContainer>, EngineError> {
        let moment = self.events.container(&id);
        if remember && let Some(known) = self.containers.get(&id, moment) {
            return Ok(Some(known));
        }
        let name = id.clone();
        let ask = |docker: bollard::Docker| async move { docker.inspect_container(&name, None).await };
        match self.read("look at a container", ask).await {
            Ok(seen) => {
                let container = understood(seen);
                self.containers.put(&id, moment, &container);
                Ok(Some(container))
            }
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a signal to a container.
    pub async fn signal(&self, id: &str, signal: &str) -> Result<(), EngineError> {
        let options = KillContainerOptions { signal: signal.to_owned() };
        let ask = |docker: bollard::Docker| async move { docker.kill_container(id, Some(options)).await };
        self.read("signal a container", ask).await
    }

    /// Gives a container another name.
    pub async fn rename(&self, id: &str, name: &str) -> Result<(), EngineError> {
        let options = RenameContainerOptions { name: name.to_owned() };
        let ask = |docker: bollard::Docker| async move { docker.rename_container(id, options).await };
        self.read("rename a container", ask).await
    }

    /// Stops and removes a container by its id. Its volumes stay.
    pub async fn stop_and_remove(&self, id: &str, grace: Option<Duration>) -> Result<(), EngineError> {
        let grace = grace.map(|grace| grace.min(LONGEST_GRACE));
        let seconds = grace.map(|grace| i32::try_from(grace.as_secs()).unwrap_or(i32::MAX));
        let options = StopContainerOptions { t: seconds, ..Default::default() };
        let ask = |docker: bollard::Docker| async move { docker.stop_container(id, Some(options)).await };
        let limit = grace.unwrap_or(DEFAULT_GRACE) + STOP_MARGIN;
        gone_is_fine(self.call("stop a container", limit, ask).await)?;
        let options = RemoveContainerOptions {
            v: tenantry_faults::Bug::RemoveVolumes.is_seeded(),
            force: true,
            link: false,
        };
        let ask = |docker: bollard::Docker| async move { docker.remove_container(id, Some(options)).await };
        gone_is_fine(self.call("remove a container", STOP_MARGIN, ask).await)
    }
}

fn understood(seen: ContainerInspectResponse) -> ProjectContainer {
    let attached = attached(&seen);
    let config = seen.config.unwrap_or_default();
    let labels = config.labels.unwrap_or_default();
    let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
    let state = seen.state.unwrap_or_default();
    let started_raw = state.started_at.unwrap_or_default();
    let health = state.health.and_then(|health| health.status);
    ProjectContainer {
        directory: label(DIRECTORY),
        one_off: label(ONE_OFF).eq_ignore_ascii_case("true"),
        container: Container {
            id: seen.id.unwrap_or_default(),
            name: seen.name.unwrap_or_default().trim_start_matches('/').to_owned(),
            service: label(SERVICE),
            image_ref: config.image.unwrap_or_default(),
            image_id: seen.image.unwrap_or_default(),
            state: container_state(state.status),
            exit_code: state.exit_code.unwrap_or_default(),
            oom_killed: state.oom_killed.unwrap_or_default(),
            restart_count: u64::try_from(seen.restart_count.unwrap_or_default()).unwrap_or_default(),
            health: service_health(health),
            namespaces: namespaces(seen.host_config.unwrap_or_default()),
            started_at: instant(&started_raw),
            ended_at: state.finished_at.as_deref().and_then(instant),
            attached,
        },
        started_raw,
    }
}

/// A time that the engine tells; it writes the year 1 for "never".
pub(super) fn instant(told: &str) -> Option<jiff::Timestamp> {
    told.parse().ok().filter(|at: &jiff::Timestamp| at.as_second() > 0)
}

fn namespaces(host: HostConfig) -> Namespaces {
    let namespace = |mode: Option<String>| match mode.as_deref() {
        Some("host") => Namespace::Host,
        Some(mode) => {
            mode.strip_prefix("container:").map_or(Namespace::Own, |id| Namespace::Of(id.to_owned()))
        }
        None => Namespace::Own,
    };
    Namespaces {
        network: namespace(host.network_mode),
        pid: namespace(host.pid_mode),
        ipc: namespace(host.ipc_mode),
    }
}

fn container_state(status: Option<ContainerStateStatusEnum>) -> ContainerState {
    use ContainerStateStatusEnum as Status;
    match status {
        Some(Status::RUNNING) => ContainerState::Running,
        Some(Status::PAUSED) => ContainerState::Paused,
        Some(Status::RESTARTING) => ContainerState::Restarting,
        Some(Status::REMOVING | Status::STOPPING) => ContainerState::Removing,
        Some(Status::EXITED) => ContainerState::Exited,
        Some(Status::DEAD) => ContainerState::Dead,
        Some(Status::CREATED | Status::EMPTY) | None => ContainerState::Created,
    }
}

fn service_health(status: Option<HealthStatusEnum>) -> ServiceHealth {
    match status {
        Some(HealthStatusEnum::STARTING) => ServiceHealth::Starting,
        Some(HealthStatusEnum::HEALTHY) => ServiceHealth::Healthy,
        Some(HealthStatusEnum::UNHEALTHY) => ServiceHealth::Unhealthy,
        Some(HealthStatusEnum::EMPTY | HealthStatusEnum::NONE) | None => ServiceHealth::None,
    }
}
