//! What all work on this host shares: policy, records, engine and compose; what is remembered, and what is refused.

mod journals;
mod local_policy;
mod plans;
mod refusals;
pub mod restore_points;
mod tenant_cache;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tenantry_api::names::Directory;
use tenantry_process::runtime::{Runtime, TokioRuntime, blocking, timeout};
use tenantry_protocol::{ApiError, Capability, ErrorCode, HostInfo};
use tokio::sync::Mutex;

use crate::compose::{Compose, ComposeError, Launcher, Programs};
use crate::config::Config;
use crate::engine::{DockerEngine, Engine};
use crate::files::{DiskIo, Tree};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::store::{OwnProcesses, Store, StoreError, StrayProcesses};

pub use journals::{damage, open_operation, recorded, request_of};
pub use local_policy::LocalPolicy;
pub use plans::{OpenPlan, Plans};
pub use refusals::{claim_refused, fault, refused, store_refused};
pub use tenant_cache::{CachedModel, CachedObservation, RunningOperation, TenantCache};

/// How long the answer to "who are you" waits for the engine.
const ASK_LIMIT: Duration = Duration::from_secs(3);

/// What all work on this host shares.
pub struct Host {
    /// What the agent was started with. What is allowed is in `policy`.
    pub config: Arc<Config>,
    /// What is allowed on this host, as the policy file says it now.
    pub policy: LocalPolicy,
    /// The agent's own records.
    pub store: Store,
    /// The container engine.
    pub engine: Arc<dyn Engine>,
    /// What starts compose.
    pub launcher: Arc<dyn Launcher>,
    /// The clock and tasks.
    pub runtime: Arc<dyn Runtime>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The layer through which every change to files goes.
    pub disk_io: DiskIo,
    /// How long others may take.
    pub limits: Limits,
    /// The plans that are being made.
    pub plans: Plans,
    compose: Mutex<Option<Compose>>,
}

/// What is below the agent on its machine. Everything that it does goes through here, so that the simulation can put a
/// machine of its own in place.
#[derive(Clone)]
pub struct Machine {
    /// The layer through which every change to files goes.
    pub disk_io: DiskIo,
    /// The container engine.
    pub engine: Arc<dyn Engine>,
    /// What starts compose.
    pub launcher: Arc<dyn Launcher>,
    /// The clock and tasks.
    pub runtime: Arc<dyn Runtime>,
    /// What frees a tenant's lock of those whom a killed agent has left behind.
    pub strays: Arc<dyn StrayProcesses>,
    /// How long others may take.
    pub limits: Limits,
}

impl Machine {
    /// This very machine, by the policy's word for its engine.
    pub fn of(config: &Config, disk_io: DiskIo, limits: Limits) -> Self {
        Self {
            disk_io,
            engine: Arc::new(DockerEngine::new(&config.docker_host, limits)),
            launcher: Arc::new(Programs::new(&config.docker_host)),
            runtime: Arc::new(TokioRuntime),
            strays: Arc::new(OwnProcesses),
            limits,
        }
    }
}

impl Host {
    /// Opens the records. Neither engine nor compose are needed for it.
    pub fn open(config: Arc<Config>, machine: Machine) -> Result<Self, StoreError> {
        let metrics: Arc<Metrics> = Arc::default();
        let disk_io = machine.disk_io.clone().counted_by(metrics.disk_changes());
        let store = Store::open(&config.state_dir, disk_io.clone())?.freed_by(machine.strays.clone());
        Ok(Self::on(Machine { disk_io, ..machine }, config, store, metrics))
    }

    /// The same beside whoever has the records open: see [`Store::beside`].
    pub fn beside(config: Arc<Config>, machine: Machine) -> Result<Self, StoreError> {
        let store = Store::beside(&config.state_dir, machine.disk_io.clone())?;
        Ok(Self::on(machine, config, store, Arc::default()))
    }

    fn on(machine: Machine, config: Arc<Config>, store: Store, metrics: Arc<Metrics>) -> Self {
        let Machine { disk_io, engine, launcher, runtime, limits, strays: _ } = machine;
        let (plans, compose) = (Plans::default(), Mutex::default());
        let policy = LocalPolicy::new(config.clone());
        Self { config, policy, store, engine, launcher, runtime, metrics, disk_io, limits, plans, compose }
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        self.runtime.now()
    }

    /// How long ago something was.
    pub fn since(&self, then: Instant) -> Duration {
        self.runtime.instant().saturating_duration_since(then)
    }

    /// Runs work that blocks on the disk.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let broke_off = |_| fault("the agent met a fault of its own; its log says more");
        blocking(&*self.runtime, work).await.map_err(broke_off)
    }

    /// The host's compose plugin. Looked for until it is found, then remembered.
    pub async fn compose(&self) -> Result<Compose, ComposeError> {
        let mut known = self.compose.lock().await;
        if let Some(compose) = known.as_ref() {
            return Ok(compose.clone());
        }
        let found = Compose::find(self.launcher.clone()).await?;
        *known = Some(found.clone());
        Ok(found)
    }

    /// What this agent says of itself and its machine.
    pub async fn info(&self) -> HostInfo {
        self.policy.look(self.now());
        let asked = timeout(&*self.runtime, ASK_LIMIT, async {
            tokio::join!(self.engine.version(), self.engine.data_root(), self.compose())
        });
        let mut problems: Vec<String> = self.policy.problem().into_iter().collect();
        let (docker, root, compose) = if let Some((docker, root, compose)) = asked.await {
            let docker = docker.map_err(|error| problems.push(error.to_string())).ok();
            (docker, root.ok().flatten(), compose.map_err(|error| problems.push(error.to_string())).ok())
        } else {
            problems.push(format!("the Docker engine does not answer within {} s", ASK_LIMIT.as_secs()));
            (None, None, None)
        };
        let (free, total) = disk(root.as_deref().unwrap_or("/"));
        HostInfo {
            identity: self.config.identity.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: vec![
                Capability::ImageOnly,
                Capability::Release,
                Capability::Rollback,
                Capability::Probes,
                Capability::Images,
                Capability::Edits,
            ],
            docker_version: docker,
            compose_version: compose.map(|compose| compose.version().to_owned()),
            disk_free_bytes: free,
            disk_total_bytes: total,
            max_operations: self.config.max_operations,
            policy_revision: Some(self.policy.revision()),
            problems,
        }
    }

    /// A tenant's directory, if the policy allows it and it is what its path says. The policy file is looked at for it, for
    /// every call about a tenant begins here.
    pub fn allowed(&self, directory: &Directory) -> Result<(), ApiError> {
        self.policy.look(self.now());
        let allow = self.policy.allow();
        if let Some(own) = allow.own_files_in(directory) {
            let message =
                format!("{directory} and the agent's own {own} lie in each other: use another directory");
            return Err(refused(ErrorCode::PolicyRefused, "place.directory", message));
        }
        if allow.directory(directory) {
            return no_link(directory);
        }
        let allowed: Vec<&str> = allow.directories.iter().map(Directory::as_str).collect();
        let message = format!(
            "{directory} is not at or below a directory that this host's policy allows ({}); a person can add it to \
             allow.directories in {}, which is read again by itself",
            allowed.join(", "),
            self.policy.file().display()
        );
        Err(refused(ErrorCode::PolicyRefused, "place.directory", message))
    }

    /// Opens a tenant's directory; `None` when it is missing.
    pub fn tree(&self, directory: &Directory) -> Result<Option<Tree>, crate::files::FilesError> {
        match Tree::open(Path::new(directory.as_str()), self.disk_io.clone()) {
            Ok(tree) => Ok(Some(tree)),
            Err(crate::files::FilesError::NoDirectory(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Refuses a directory that is reached through a symlink: the policy allows paths, and a symlink would make them mean
/// something else.
fn no_link(directory: &Directory) -> Result<(), ApiError> {
    let above: Vec<&Path> = Path::new(directory.as_str()).ancestors().collect();
    for part in above.into_iter().rev() {
        let Ok(target) = std::fs::read_link(part) else { continue };
        let real = std::fs::canonicalize(directory.as_str()).ok();
        let advice = real.map_or_else(
            || "give the directory's real path".to_owned(),
            |real| format!("give the directory's real path, {}", real.display()),
        );
        let message = format!("{} is a symlink to {}: {advice}", part.display(), target.display());
        return Err(refused(ErrorCode::Invalid, "place.directory", message));
    }
    Ok(())
}

/// Free and all bytes of the disk that holds `path`, or of the root's where that is not to be seen.
fn disk(path: &str) -> (u64, u64) {
    let seen = rustix::fs::statvfs(path).or_else(|_| rustix::fs::statvfs("/"));
    seen.map(|disk| (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)).unwrap_or_default()
}
