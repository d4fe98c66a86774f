//! What all work on this host shares: policy, records, engine and compose; what is remembered, and what is refused.

mod journals;
mod plans;
mod refusals;
pub mod restore_points;
mod tenant_cache;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tenantry_api::names::Directory;
use tenantry_protocol::{ApiError, Capability, ErrorCode, HostInfo};
use tokio::sync::Mutex;

use crate::compose::{Compose, ComposeError};
use crate::config::Config;
use crate::engine::Engine;
use crate::files::{DiskIo, Tree};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};

pub use journals::{damage, open_operation, recorded, request_of};
pub use plans::{OpenPlan, Plans};
pub use refusals::{claim_refused, fault, refused, store_refused};
pub use tenant_cache::{CachedModel, CachedObservation, RunningOperation, TenantCache};

/// How long the answer to "who are you" waits for the engine.
const ASK_LIMIT: Duration = Duration::from_secs(3);

/// What all work on this host shares.
pub struct Host {
    /// The local policy.
    pub config: Arc<Config>,
    /// The agent's own records.
    pub store: Store,
    /// The Docker engine.
    pub engine: Engine,
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

impl Host {
    /// Opens the records. Neither engine nor compose are needed for it.
    pub fn open(config: Arc<Config>, disk_io: DiskIo, limits: Limits) -> Result<Self, StoreError> {
        let metrics: Arc<Metrics> = Arc::default();
        let disk_io = disk_io.counted_by(metrics.disk_changes());
        let store = Store::open(&config.state_dir, disk_io.clone())?;
        let engine = Engine::new(&config.docker_host, limits);
        Ok(Self {
            config,
            store,
            engine,
            metrics,
            disk_io,
            limits,
            plans: Plans::default(),
            compose: Mutex::default(),
        })
    }

    /// The same beside whoever has the records open: see [`Store::beside`].
    pub fn beside(config: Arc<Config>, disk_io: DiskIo, limits: Limits) -> Result<Self, StoreError> {
        let store = Store::beside(&config.state_dir, disk_io.clone())?;
        let engine = Engine::new(&config.docker_host, limits);
        Ok(Self {
            config,
            store,
            engine,
            metrics: Arc::default(),
            disk_io,
            limits,
            plans: Plans::default(),
            compose: Mutex::default(),
        })
    }

    /// The host's compose plugin. Looked for until it is found, then remembered.
    pub async fn compose(&self) -> Result<Compose, ComposeError> {
        let mut known = self.compose.lock().await;
        if let Some(compose) = known.as_ref() {
            return Ok(compose.clone());
        }
        let found = crate::compose::find(&self.config.docker_host).await?;
        *known = Some(found.clone());
        Ok(found)
    }

    /// What this agent says of itself and its machine.
    pub async fn info(&self) -> HostInfo {
        let asked = tokio::time::timeout(ASK_LIMIT, async {
            tokio::join!(self.engine.version(), self.engine.data_root(), self.compose())
        });
        let mut problems = Vec::new();
        let (docker, root, compose) = if let Ok((docker, root, compose)) = asked.await {
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
            ],
            docker_version: docker,
            compose_version: compose.map(|compose| compose.version().to_owned()),
            disk_free_bytes: free,
            disk_total_bytes: total,
            max_operations: self.config.max_operations,
            problems,
        }
    }

    /// A tenant's directory, if the policy allows it.
    pub fn allowed(&self, directory: &Directory) -> Result<(), ApiError> {
        if let Some(own) = self.config.allow.own_files_in(directory) {
            let message =
                format!("{directory} and the agent's own {own} lie in each other: use another directory");
            return Err(refused(ErrorCode::PolicyRefused, "place.directory", message));
        }
        if self.config.allow.directory(directory) {
            return Ok(());
        }
        let allowed: Vec<&str> = self.config.allow.directories.iter().map(Directory::as_str).collect();
        let message = format!(
            "{directory} is not at or below a directory that this host's policy allows ({}); a person can add it to \
             allow.directories in the agent's policy file",
            allowed.join(", ")
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

/// Free and all bytes of the disk that holds `path`, or of the root's where that is not to be seen.
fn disk(path: &str) -> (u64, u64) {
    let seen = rustix::fs::statvfs(path).or_else(|_| rustix::fs::statvfs("/"));
    seen.map(|disk| (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)).unwrap_or_default()
}

/// Runs work that blocks on the disk.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| fault("the agent met a fault of its own; its log says more"))
}
