//! Volumes, who uses data, and containers that are put to rest for a while.

use std::collections::HashMap;
use std::time::Duration;

use bollard::query_parameters::{ListContainersOptions, ListVolumesOptions, StopContainerOptions};

use tenantry_planner::compare::volumes::Stored;

use super::helpers::MADE;
use super::{DockerEngine, EngineError, gone_is_fine};

const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
const VOLUME: &str = "com.docker.compose.volume";
/// What compose made it from.
const CONFIG_HASH: &str = "com.docker.compose.config-hash";
const DIRECTORY: &str = "com.docker.compose.project.working_dir";
/// How long the engine may take beyond the grace period of a container that it stops.
const STOP_MARGIN: Duration = Duration::from_secs(30);
const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// A volume, as the engine knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The engine's name for it.
    pub name: String,
    /// What stores it and how, to be compared with what compose files say.
    pub stored: Stored,
    /// Where the engine sees its data.
    pub mountpoint: String,
    /// The project that it was made for.
    pub project: Option<String>,
    /// Whether we have made it ourselves, so that it holds nothing.
    pub made_by_us: bool,
}

/// A container, and what it mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataUser {
    /// Its id.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// Its service.
    pub service: String,
    /// Its project.
    pub project: String,
    /// The directory that it was made from.
    pub directory: String,
    /// Whether it is running, paused or about to be started again.
    pub running: bool,
    /// What it mounts.
    pub mounts: Vec<DataMount>,
}

/// A folder or volume that a container mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataMount {
    /// The volume's name; absent for a folder of the host.
    pub volume: Option<String>,
    /// The path on the host.
    pub source: String,
    /// Whether the container can write to it.
    pub writes: bool,
}

/// How a container is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// It runs, paused or not.
    pub running: bool,
    /// It is paused.
    pub paused: bool,
}

impl DockerEngine {
    /// A volume; `None` where there is none of that name.
    pub async fn volume(&self, name: &str) -> Result<Option<Volume>, EngineError> {
        let ask = |docker: bollard::Docker| async move { docker.inspect_volume(name).await };
        match self.read("look at a volume", ask).await {
            Ok(seen) => Ok(Some(understood(seen))),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The volumes that compose has made for a project's volume of that name in its compose file.
    pub async fn volumes_of(&self, project: &str, key: &str) -> Result<Vec<Volume>, EngineError> {
        let labels = vec![format!("{PROJECT}={project}"), format!("{VOLUME}={key}")];
        let options = ListVolumesOptions { filters: Some(HashMap::from([("label".to_owned(), labels)])) };
        let ask = |docker: bollard::Docker| async move { docker.list_volumes(Some(options)).await };
        let listed = self.read("list volumes", ask).await?;
        Ok(listed.volumes.unwrap_or_default().into_iter().map(understood).collect())
    }

    /// Every container, of whatever project, with what it mounts.
    pub async fn data_users(&self) -> Result<Vec<DataUser>, EngineError> {
        let options = ListContainersOptions { all: true, ..Default::default() };
        let ask = |docker: bollard::Docker| async move { docker.list_containers(Some(options)).await };
        let listed = self.read("list containers", ask).await?;
        Ok(listed
            .into_iter()
            .map(|seen| {
                let labels = seen.labels.unwrap_or_default();
                let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
                let state = seen.state.map(|state| state.to_string()).unwrap_or_default();
                let name = seen.names.unwrap_or_default().into_iter().next().unwrap_or_default();
                let mounts = seen.mounts.unwrap_or_default().into_iter().map(|mount| DataMount {
                    volume: mount.name.filter(|name| !name.is_empty()),
                    source: mount.source.unwrap_or_default(),
                    writes: mount.rw.unwrap_or(true),
                });
                DataUser {
                    id: seen.id.unwrap_or_default(),
                    name: name.trim_start_matches('/').to_owned(),
                    service: label(SERVICE),
                    project: label(PROJECT),
                    directory: label(DIRECTORY),
                    running: matches!(state.as_str(), "running" | "paused" | "restarting"),
                    mounts: mounts.collect(),
                }
            })
            .collect())
    }

    /// How a container is; `None` where there is none.
    pub async fn rest(&self, id: &str) -> Result<Option<Rest>, EngineError> {
        Ok(self.looked_at(id).await?.map(|(rest, _)| rest))
    }

    async fn looked_at(&self, id: &str) -> Result<Option<(Rest, Duration)>, EngineError> {
        let ask = |docker: bollard::Docker| async move { docker.inspect_container(id, None).await };
        match self.read("look at a container", ask).await {
            Ok(seen) => {
                let state = seen.state.unwrap_or_default();
                let rest = Rest {
                    running: state.running.unwrap_or_default(),
                    paused: state.paused.unwrap_or_default(),
                };
                let grace = seen.config.and_then(|config| config.stop_timeout);
                let grace = grace.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
                Ok(Some((rest, grace.unwrap_or(DEFAULT_GRACE))))
            }
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stops a container within its own grace period. One that is stopped or has gone is fine.
    pub async fn stop(&self, id: &str) -> Result<(), EngineError> {
        let Some((_, grace)) = self.looked_at(id).await? else { return Ok(()) };
        let ask = |docker: bollard::Docker| async move {
            docker.stop_container(id, None::<StopContainerOptions>).await
        };
        gone_is_fine(self.call("stop a container", grace + STOP_MARGIN, ask).await)
    }

    /// Pauses a container; one that is paused, or does not run, stays so.
    pub async fn pause(&self, id: &str) -> Result<(), EngineError> {
        match self.rest(id).await? {
            Some(Rest { running: true, paused: false }) => {
                let ask = |docker: bollard::Docker| async move { docker.pause_container(id).await };
                gone_is_fine(self.read("pause a container", ask).await)
            }
            _ => Ok(()),
        }
    }

    /// Lets a paused container go on.
    pub async fn unpause(&self, id: &str) -> Result<(), EngineError> {
        match self.rest(id).await? {
            Some(Rest { paused: true, .. }) => {
                let ask = |docker: bollard::Docker| async move { docker.unpause_container(id).await };
                gone_is_fine(self.read("let a container go on", ask).await)
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn understood(seen: bollard::models::Volume) -> Volume {
    Volume {
        name: seen.name,
        stored: Stored {
            driver: seen.driver,
            options: seen.options.into_iter().collect(),
            noted: seen.labels.contains_key(CONFIG_HASH),
        },
        mountpoint: seen.mountpoint,
        project: seen.labels.get(PROJECT).cloned(),
        made_by_us: seen.labels.contains_key(MADE),
    }
}
