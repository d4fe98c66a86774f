//! The agent's core: what the calls of the protocol do, without how they travel.

use std::sync::Arc;
use std::time::Duration;

use tenantry_api::names::OperationId;
use tenantry_protocol::{
    ApiError, ClaimRequest, ClaimResponse, ErrorCode, HostInfo, ObserveRequest, ObserveResponse, OperateRequest,
    OperationStatus, ReleaseRequest, ResolveRequest, ResolveResponse,
};

use crate::config::Config;
use crate::metrics::Metrics;

/// Why the core could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The agent's own records can't be used.
    #[error("the agent's records in {folder}: {problem}")]
    Records {
        /// The folder.
        folder: String,
        /// What is wrong with them.
        problem: String,
    },
}

/// The agent's core.
pub struct Core {
    config: Arc<Config>,
    metrics: Arc<Metrics>,
}

fn pending() -> ApiError {
    ApiError { code: ErrorCode::HostFault, field: None, message: "being built".to_owned() }
}

impl Core {
    /// Opens the records, resumes or rolls back what was in flight, and begins the engine's event stream.
    pub async fn start(config: Arc<Config>) -> Result<Arc<Self>, StartError> {
        Ok(Arc::new(Self { config, metrics: Arc::default() }))
    }
    /// What is counted: operations, phases and observations by the core, the rest by the server.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }
    /// What this agent says of itself and its machine.
    pub async fn host(&self) -> HostInfo {
        HostInfo {
            identity: self.config.identity.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: Vec::new(),
            docker_version: None,
            compose_version: None,
            disk_free_bytes: 0,
            disk_total_bytes: 0,
            max_operations: self.config.max_operations,
            problems: Vec::new(),
        }
    }
    /// What is on the host.
    pub async fn observe(&self, _request: ObserveRequest) -> Result<ObserveResponse, ApiError> {
        Err(pending())
    }
    /// The digests that references point to now.
    pub async fn resolve(&self, _request: ResolveRequest) -> Result<ResolveResponse, ApiError> {
        Err(pending())
    }
    /// Takes a directory and project that are already as wanted.
    pub async fn claim(&self, _request: ClaimRequest) -> Result<ClaimResponse, ApiError> {
        Err(pending())
    }
    /// Gives a claim back.
    pub async fn release(&self, _request: ReleaseRequest) -> Result<(), ApiError> {
        Err(pending())
    }
    /// Begins an operation, or tells how the one with this id stands.
    pub async fn operate(self: &Arc<Self>, _id: OperationId, _body: OperateRequest) -> Result<OperationStatus, ApiError> {
        Err(pending())
    }
    /// How an operation stands, as soon as its `seq` is above `after` or `wait` is over.
    pub async fn operation(&self, _id: &OperationId, _after: u64, _wait: Duration) -> Result<OperationStatus, ApiError> {
        Err(pending())
    }
    /// Stops taking new work; an operation in flight is left to its journal.
    pub async fn shutdown(&self) {}
}
