//! Containers of our own that work on one volume, where the agent itself does not see the engine's data; and whether it
//! does.
//!
//! A helper has nothing but this program, the volume, and the folder of archives: no network, no more rights than reading
//! and writing whatever owners, modes and attributes need, and no label of compose's, so that it is nobody's service. It
//! is known by its labels, ends by itself, and is removed by whoever made it, or by whoever comes after.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bollard::container::LogOutput;
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, MountVolumeOptions,
    VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptions, ListContainersOptions, LogsOptions, RemoveVolumeOptions,
};
use futures::StreamExt as _;

use super::containers::STOP_MARGIN;
use super::data::{Volume, understood};
use super::program::PROGRAM;
use super::{DockerEngine, EngineError, gone_is_fine, limited};

/// Says whose helper a container is.
const HELPER: &str = "tenantry.dev/helper";
/// Says that a volume was made by us: only for a look, or because the one that was meant had just gone.
pub(super) const MADE: &str = "tenantry.dev/made";
/// Where a helper sees the volume.
pub const VOLUME_AT: &str = "/volume";
/// Where it sees the folder of archives.
pub const ARCHIVE_DIR_AT: &str = "/restore-point";
/// What keeping and bringing back owners, modes, times, file capabilities and files of whomever takes.
const RIGHTS: [&str; 6] = ["CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "SETFCAP"];
const PROCESSES: i64 = 64;
/// How long the engine may take to make a container.
const MAKE_LIMIT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(100);
/// The most that is read of what a helper said: its last line alone may name a few long paths.
const SAID_LIMIT: usize = 1 << 20;

/// A helper that is to be made.
#[derive(Clone, Debug)]
pub struct Helper {
    /// The container's name.
    pub name: String,
    /// Whose it is.
    pub tenant: String,
    /// The image of this program.
    pub image: String,
    /// The volume's name.
    pub volume: String,
    /// Whether the volume is written to.
    pub writes_volume: bool,
    /// The folder of archives, as the engine sees it, and whether it is written to.
    pub archive_dir: Option<(String, bool)>,
    /// The program's arguments.
    pub arguments: Vec<String>,
}

/// How a helper is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HelperState {
    /// At work.
    Runs,
    /// It has ended, by itself or not.
    Ended {
        /// Its exit code.
        code: i64,
        /// What the engine says of that, if anything.
        problem: String,
    },
    /// There is none.
    Gone,
}

/// What a helper has said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// On standard output.
    pub said: String,
    /// On standard error.
    pub complained: String,
}

impl Helper {
    fn body(&self) -> ContainerCreateBody {
        let volume = Mount {
            typ: Some(MountType::VOLUME),
            source: Some(self.volume.clone()),
            target: Some(VOLUME_AT.to_owned()),
            read_only: Some(!self.writes_volume),
            // An empty volume stays as it is. The label is for a volume that the engine would have to make.
            volume_options: Some(MountVolumeOptions {
                no_copy: Some(true),
                labels: Some(self.made()),
                ..Default::default()
            }),
            ..Mount::default()
        };
        let archives = self.archive_dir.clone().map(|(source, writes)| Mount {
            typ: Some(MountType::BIND),
            source: Some(source),
            target: Some(ARCHIVE_DIR_AT.to_owned()),
            read_only: Some(!writes),
            ..Mount::default()
        });
        let rights = RIGHTS.map(str::to_owned).to_vec();
        ContainerCreateBody {
            image: Some(self.image.clone()),
            entrypoint: Some(vec![PROGRAM.to_owned()]),
            cmd: Some(self.arguments.clone()),
            user: Some("0:0".to_owned()),
            labels: Some(HashMap::from([(HELPER.to_owned(), self.tenant.clone())])),
            host_config: Some(HostConfig {
                mounts: Some(std::iter::once(volume).chain(archives).collect()),
                network_mode: Some("none".to_owned()),
                cap_drop: Some(vec!["ALL".to_owned()]),
                cap_add: Some(rights),
                // Owners are kept as the host has them, and the archive directory is root's.
                userns_mode: Some("host".to_owned()),
                // The archive directory has no label that would let containers in.
                security_opt: Some(vec!["no-new-privileges".to_owned(), "label=disable".to_owned()]),
                readonly_rootfs: Some(true),
                pids_limit: Some(PROCESSES),
                // Whatever the host's logs go to, what is said is read back.
                log_config: Some(HostConfigLogConfig {
                    typ: Some("json-file".to_owned()),
                    config: Some(HashMap::new()),
                }),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }

    fn made(&self) -> HashMap<String, String> {
        HashMap::from([(MADE.to_owned(), self.tenant.clone())])
    }
}

impl DockerEngine {
    /// Ends and removes every helper of a tenant, whichever agent made it; how many there were. When this has returned,
    /// none of them touches anything any more.
    pub async fn clear_helpers(&self, tenant: &str) -> Result<usize, EngineError> {
        let (mut ended, deadline) = (0, Instant::now() + STOP_MARGIN);
        loop {
            let found = self.helpers(tenant).await?;
            if found.is_empty() {
                return Ok(ended);
            }
            for id in &found {
                match self.remove_container(id).await {
                    Ok(()) => ended += 1,
                    // It is on its way already.
                    Err(EngineError::Refused { status: 409, .. }) if Instant::now() < deadline => {}
                    Err(error) => return Err(error),
                }
            }
            if Instant::now() > deadline {
                let doing = "remove a helper container".to_owned();
                return Err(EngineError::Slow { doing, limit: STOP_MARGIN });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn helpers(&self, tenant: &str) -> Result<Vec<String>, EngineError> {
        let filters = HashMap::from([("label".to_owned(), vec![format!("{HELPER}={tenant}")])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        let ask = |docker: bollard::Docker| async move { docker.list_containers(Some(options)).await };
        let listed = self.read("list containers", ask).await?;
        Ok(listed.into_iter().filter_map(|one| one.id).collect())
    }

    /// Makes a helper and starts it; its id. Whatever becomes of it, it must be removed.
    pub async fn start_helper(&self, helper: &Helper) -> Result<String, EngineError> {
        let (options, body) =
            (CreateContainerOptions { name: Some(helper.name.clone()), ..Default::default() }, helper.body());
        let ask = |docker: bollard::Docker| async move { docker.create_container(Some(options), body).await };
        let id = self.call("make a helper container", MAKE_LIMIT, ask).await?.id;
        let started = match self.is_the_one(&helper.volume).await {
            Ok(()) => self.start_container(&id).await,
            Err(error) => Err(error),
        };
        if started.is_err() {
            // Why it was not started says more than why it can't be removed.
            let _ = self.remove_container(&id).await;
            if self.volume(&helper.volume).await?.is_some_and(|volume| volume.made_by_us) {
                self.remove_volume(&helper.volume).await?;
            }
        }
        started.map(|()| id)
    }

    /// The engine makes a volume that is missing: one that went away just now must not come back empty.
    async fn is_the_one(&self, volume: &str) -> Result<(), EngineError> {
        match self.volume(volume).await? {
            Some(found) if !found.made_by_us => Ok(()),
            _ => {
                let message = format!("volume {volume} has just been removed");
                Err(EngineError::Refused { doing: "mount a volume".to_owned(), status: 409, message })
            }
        }
    }

    /// How a helper is.
    pub async fn helper_state(&self, id: &str) -> Result<HelperState, EngineError> {
        let ask = |docker: bollard::Docker| async move { docker.inspect_container(id, None).await };
        match self.read("look at a container", ask).await {
            Ok(seen) => {
                let state = seen.state.unwrap_or_default();
                if state.running.unwrap_or_default() {
                    return Ok(HelperState::Runs);
                }
                let (code, problem) = (state.exit_code.unwrap_or(-1), state.error.unwrap_or_default());
                Ok(HelperState::Ended { code, problem })
            }
            Err(error) if error.is_missing() => Ok(HelperState::Gone),
            Err(error) => Err(error),
        }
    }

    /// The last lines that a helper has said.
    pub async fn heard(&self, id: &str, lines: u32) -> Result<Heard, EngineError> {
        let doing = "look at what a container said";
        let docker = self.client().await?;
        let options =
            LogsOptions { stdout: true, stderr: true, tail: lines.to_string(), ..LogsOptions::default() };
        let work = async {
            let mut log = Box::pin(docker.logs(id, Some(options)));
            let (mut said, mut complained) = (Vec::new(), Vec::new());
            while let Some(piece) = log.next().await {
                match piece.map_err(|error| EngineError::from_bollard(doing, &self.socket, error))? {
                    LogOutput::StdErr { message } => complained.extend_from_slice(&message),
                    LogOutput::StdOut { message } | LogOutput::Console { message } => {
                        said.extend_from_slice(&message);
                    }
                    LogOutput::StdIn { .. } => {}
                }
                if said.len() + complained.len() > SAID_LIMIT {
                    break;
                }
            }
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            Ok(Heard { said: text(said), complained: text(complained) })
        };
        limited(doing, self.limits.read, work).await?
    }

    /// Makes an empty volume of ours.
    pub async fn make_volume(&self, name: &str, tenant: &str) -> Result<Volume, EngineError> {
        let labels = HashMap::from([(MADE.to_owned(), tenant.to_owned())]);
        let wanted =
            VolumeCreateRequest { name: Some(name.to_owned()), labels: Some(labels), ..Default::default() };
        let ask = |docker: bollard::Docker| async move { docker.create_volume(wanted).await };
        self.read("make a volume", ask).await.map(understood)
    }

    /// Removes a volume of ours.
    pub async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        let ask = |docker: bollard::Docker| async move {
            docker.remove_volume(name, None::<RemoveVolumeOptions>).await
        };
        gone_is_fine(self.read("remove a volume of ours", ask).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p11_p13_a_helper_can_do_nothing_but_read_and_write_what_it_is_for() {
        let helper = Helper {
            name: "tenantry-helper-u-op-0".to_owned(),
            tenant: "u".to_owned(),
            image: "tenantry.local/helper:x".to_owned(),
            volume: "acme_db".to_owned(),
            writes_volume: false,
            archive_dir: Some(("/srv/acme/.tenantry/restore/op/data".to_owned(), true)),
            arguments: vec!["helper".to_owned()],
        };
        let body = serde_json::to_value(helper.body()).unwrap();
        let host = &body["HostConfig"];
        assert_eq!(host["NetworkMode"], "none");
        assert_eq!((&host["CapDrop"][0], &host["ReadonlyRootfs"]), (&"ALL".into(), &true.into()));
        assert!(host["SecurityOpt"].as_array().unwrap().contains(&"no-new-privileges".into()));
        assert!(host.get("RestartPolicy").is_none() && host.get("Privileged").is_none());
        assert!(host.get("Binds").is_none() && host.get("AutoRemove").is_none());
        let mounts = host["Mounts"].as_array().unwrap();
        let plain = |n: usize| (mounts[n]["Type"].clone(), mounts[n]["ReadOnly"].clone());
        assert_eq!(mounts.len(), 2);
        assert_eq!(plain(0), ("volume".into(), true.into()));
        assert_eq!(plain(1), ("bind".into(), false.into()));
        assert_eq!(mounts[0]["VolumeOptions"]["NoCopy"], true);
        let labels = body["Labels"].as_object().unwrap();
        assert!(labels.keys().all(|label| !label.contains("compose")), "{labels:?}");
    }
}
