//! The container that this process itself runs in, and a second one like it.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerSummaryStateEnum, HostConfig, Mount, MountPoint,
    MountType, RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptions, ListContainersOptions, RemoveContainerOptions, StopContainerOptions,
};

use super::containers::{DEFAULT_GRACE, STOP_MARGIN};
use super::{DockerEngine, EngineError, gone_is_fine};

/// Says which operation a finisher is for.
const FINISHER: &str = "tenantry.dev/finisher";
/// Compose puts such labels on images that it builds; a container that inherits them would be taken for a service's.
const OF_COMPOSE: &str = "com.docker.compose.";
/// How long the engine may take to make a container.
const MAKE_LIMIT: Duration = Duration::from_mins(1);

/// A container as it is, for another to be made like it.
#[derive(Clone, Debug)]
pub struct Likeness(ContainerInspectResponse);

/// Something that is mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Where from.
    pub from: MountedFrom,
    /// Where it is seen.
    pub at: String,
    /// Whether it can be written to.
    pub writable: bool,
}

/// Where a mount comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountedFrom {
    /// A path of the host.
    Host(String),
    /// A volume of this name.
    Volume(String),
    /// Anything that is gone with the container.
    Nowhere,
}

/// The id of the container that this process runs in: it stands in the path from which the engine mounts the
/// container's host name, or in the name of its control group.
pub fn own_id() -> Option<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    id_in(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
}

fn id_in(mounts: &str, groups: &str) -> Option<String> {
    let is_id = |text: &&str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let mut hostname = mounts.lines().filter(|line| line.contains("/hostname /etc/hostname "));
    let of_mount = |line: &str| {
        line.rsplit_once("/hostname /etc/hostname ")?.0.rsplit('/').next().filter(is_id).map(str::to_owned)
    };
    let of_group = |line: &str| {
        let last = line.rsplit('/').next()?;
        let name = last.strip_suffix(".scope").unwrap_or(last);
        name.rsplit('-').next().filter(is_id).map(str::to_owned)
    };
    hostname.find_map(of_mount).or_else(|| groups.lines().find_map(of_group))
}

impl Likeness {
    /// What it runs.
    pub fn image_id(&self) -> &str {
        self.0.image.as_deref().unwrap_or_default()
    }

    /// What is mounted into it.
    pub fn mounts(&self) -> Vec<Mounted> {
        let all = self.0.mounts.iter().flatten();
        all.map(|mount| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let from = match mount.typ.as_deref() {
                Some("bind") => MountedFrom::Host(text(&mount.source)),
                Some("volume") => MountedFrom::Volume(text(&mount.name)),
                _ => MountedFrom::Nowhere,
            };
            Mounted { from, at: text(&mount.destination), writable: mount.rw.unwrap_or_default() }
        })
        .collect()
    }

    /// A container with the same image, environment, user, rights and mounts, that belongs to no project. It holds none
    /// of the project's networks, for compose may have to make those anew.
    fn another(self, command: Vec<String>, labels: HashMap<String, String>) -> ContainerCreateBody {
        let Self(own) = self;
        let config = own.config.unwrap_or_default();
        let host = own.host_config.unwrap_or_default();
        let network = host.network_mode.filter(|mode| mode == "host").unwrap_or_else(|| "none".to_owned());
        let mut command = command.into_iter();
        ContainerCreateBody {
            image: own.image,
            entrypoint: command.next().map(|program| vec![program]),
            cmd: Some(command.collect()),
            env: config.env,
            user: config.user,
            working_dir: config.working_dir,
            labels: Some(labels),
            host_config: Some(HostConfig {
                mounts: Some(own.mounts.into_iter().flatten().filter_map(mount).collect()),
                network_mode: Some(network),
                // It ends by removing itself; until then whatever ends it is no reason to leave its work undone.
                restart_policy: Some(RestartPolicy {
                    name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
                    maximum_retry_count: None,
                }),
                privileged: host.privileged,
                cap_add: host.cap_add,
                cap_drop: host.cap_drop,
                group_add: host.group_add,
                security_opt: host.security_opt,
                userns_mode: host.userns_mode,
                readonly_rootfs: host.readonly_rootfs,
                tmpfs: host.tmpfs,
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }
}

fn mount(point: MountPoint) -> Option<Mount> {
    let (typ, source) = match point.typ?.as_str() {
        "bind" => (MountType::BIND, point.source?),
        "volume" => (MountType::VOLUME, point.name?),
        _ => return None,
    };
    Some(Mount {
        typ: Some(typ),
        source: Some(source),
        target: point.destination,
        read_only: Some(!point.rw.unwrap_or_default()),
        ..Mount::default()
    })
}

impl DockerEngine {
    /// A container as it is.
    pub async fn likeness(&self, id: &str) -> Result<Likeness, EngineError> {
        let ask = |docker: bollard::Docker| async move { docker.inspect_container(id, None).await };
        self.read("look at a container", ask).await.map(Likeness)
    }

    /// The containers that recreate the agent for an operation, by id, and whether each of them runs or will.
    pub async fn finishers(&self, operation: &str) -> Result<Vec<(String, bool)>, EngineError> {
        let filters = HashMap::from([("label".to_owned(), vec![format!("{FINISHER}={operation}")])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        let ask = |docker: bollard::Docker| async move { docker.list_containers(Some(options)).await };
        let listed = self.read("list containers", ask).await?;
        let ended = |state: &ContainerSummaryStateEnum| {
            matches!(state, ContainerSummaryStateEnum::EXITED | ContainerSummaryStateEnum::CREATED)
        };
        Ok(listed
            .into_iter()
            .filter_map(|one| Some((one.id?, !one.state.as_ref().is_some_and(ended))))
            .collect())
    }

    /// Makes and starts a container like this one that runs `command` for an operation. One of that name is never made
    /// a second time.
    pub async fn make_finisher(
        &self,
        like: Likeness,
        name: &str,
        operation: &str,
        command: Vec<String>,
    ) -> Result<(), EngineError> {
        let mut labels = HashMap::from([(FINISHER.to_owned(), operation.to_owned())]);
        let image = like.image_id().to_owned();
        let ask = |docker: bollard::Docker| async move { docker.inspect_image(&image).await };
        let image = self.read("look at an image", ask).await?;
        let inherited = image.config.and_then(|config| config.labels).unwrap_or_default();
        let of_compose = inherited.into_keys().filter(|label| label.starts_with(OF_COMPOSE));
        labels.extend(of_compose.map(|label| (label, String::new())));
        let body = like.another(command, labels);
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..Default::default() };
        let ask = |docker: bollard::Docker| async move { docker.create_container(Some(options), body).await };
        match self.call("make a container", MAKE_LIMIT, ask).await {
            // It was made before.
            Ok(_) | Err(EngineError::Refused { status: 409, .. }) => {}
            Err(error) => return Err(error),
        }
        self.start_container(name).await
    }

    /// Starts a container that is there.
    pub async fn start_container(&self, name: &str) -> Result<(), EngineError> {
        let ask = |docker: bollard::Docker| async move { docker.start_container(name, None).await };
        self.call("start a container", MAKE_LIMIT, ask).await
    }

    /// Stops a container, which then stays stopped.
    pub async fn stop_container(&self, id: &str) -> Result<(), EngineError> {
        let ask = |docker: bollard::Docker| async move {
            docker.stop_container(id, None::<StopContainerOptions>).await
        };
        gone_is_fine(self.call("stop a container", DEFAULT_GRACE + STOP_MARGIN, ask).await)
    }

    /// Removes a container, running or not. Its volumes stay.
    pub async fn remove_container(&self, name: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptions { v: false, force: true, link: false };
        let ask = |docker: bollard::Docker| async move { docker.remove_container(name, Some(options)).await };
        gone_is_fine(self.call("remove a container", STOP_MARGIN, ask).await)
    }

    /// The containers of one service, whatever directory they were made from.
    pub async fn service_containers(
        &self,
        project: &str,
        service: &str,
    ) -> Result<Vec<super::ProjectContainer>, EngineError> {
        let all = self.project_containers(project).await?;
        Ok(all.into_iter().filter(|one| one.container.service == service && !one.one_off).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f0c4b3f7a8a1a1d3a0c9c6c2f2d8f3b9d1d7f0e6a5b4c3d2e1f0a9b8c7d6e5f";

    #[test]
    fn the_own_container_is_known_by_its_host_name_file_or_its_control_group() {
        let mount = format!(
            "700 650 254:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw,relatime - ext4 /dev/vda rw"
        );
        assert_eq!(id_in(&mount, "0::/"), Some(ID.to_owned()));
        for group in [format!("12:memory:/docker/{ID}"), format!("0::/system.slice/docker-{ID}.scope")] {
            assert_eq!(id_in("", &group), Some(ID.to_owned()), "{group}");
        }
        let host = "21 1 254:1 / / rw,relatime - ext4 /dev/vda rw";
        assert_eq!(id_in(host, "0::/init.scope\n12:memory:/user.slice"), None);
    }
}
