//! The calls of the protocol: what each does, without how it travels.

mod adoption;
mod changes;
mod operations;
#[cfg(test)]
mod tests;
pub mod validate;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use tenantry_api::names::{Identity, OperationId, TenantUid};
use tenantry_protocol::{
    AcceptRequest, ApiError, ClaimRequest, ClaimResponse, ErrorCode, HostInfo, ObserveRequest,
    ObserveResponse, OperateRequest, OperationStatus, ReleaseRequest, ResolveRequest, ResolveResponse,
    ResolvedReference,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::files::DiskIo;
use crate::host::{Host, Machine, TenantCache, damage, open_operation, refused, store_refused};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::observe::{MAX_REFERENCES, observe, remove_left};
use crate::store::StoreError;

/// How many references are asked for side by side.
const SIDE_BY_SIDE: usize = 4;

/// Why an agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The agent's own records can't be used.
    #[error("the agent's records can't be used: {0}")]
    Records(#[from] StoreError),
}

/// The agent of a host.
pub struct Agent {
    host: Arc<Host>,
    caches: Mutex<HashMap<TenantUid, Arc<TenantCache>>>,
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
    end: CancellationToken,
    /// When this process began, in nanoseconds of the clock: its marks are no other process's.
    began: i128,
}

impl Agent {
    /// Opens the records, takes up what was in flight, and begins to follow the engine's events. An engine that does
    /// not answer yet is no obstacle.
    pub async fn start(config: Arc<Config>) -> Result<Arc<Self>, StartError> {
        let machine = Machine::of(&config, DiskIo::default(), Limits::default());
        Self::start_on(config, machine).await
    }

    /// The same on a machine that may be another one than this.
    pub async fn start_on(config: Arc<Config>, machine: Machine) -> Result<Arc<Self>, StartError> {
        let slots = config.max_operations as usize;
        let host = Arc::new(Host::open(config, machine)?);
        if let Err(error) = remove_left(&host.config.state_dir) {
            tracing::warn!(%error, "copies that an agent left behind can't be removed");
        }
        let began = host.now().as_nanosecond();
        let agent = Arc::new(Self {
            host,
            began,
            caches: Mutex::default(),
            slots: Arc::new(Semaphore::new(slots)),
            tasks: TaskTracker::new(),
            end: CancellationToken::new(),
        });
        let events = agent.host.engine.follow_events(agent.end.clone());
        agent.spawn_until_end(events);
        agent.resume().await;
        Ok(agent)
    }

    /// Counters of what this agent does.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.host.metrics.clone()
    }

    /// What this agent says of itself and its machine.
    pub async fn host(&self) -> HostInfo {
        self.host.info().await
    }

    /// What is on the host.
    pub async fn observe(&self, request: ObserveRequest) -> Result<ObserveResponse, ApiError> {
        let cache = self.cache(&request.tenant.uid);
        observe(&self.host, &cache, request).await
    }

    /// The digests that references point to now.
    pub async fn resolve(&self, request: ResolveRequest) -> Result<ResolveResponse, ApiError> {
        if request.references.len() > MAX_REFERENCES {
            let problem = format!("are more than {MAX_REFERENCES}");
            return Err(refused(ErrorCode::Invalid, "references", problem));
        }
        self.host.policy.look(self.host.now());
        let asked = request.references.into_iter().map(|reference| self.resolve_one(reference));
        let references = futures::stream::iter(asked).buffered(SIDE_BY_SIDE).collect().await;
        Ok(ResolveResponse { references })
    }

    async fn resolve_one(&self, reference: String) -> ResolvedReference {
        let problem = if crate::engine::Reference::parse(&reference).is_none() {
            "is no image reference".to_owned()
        } else if !self.host.policy.allow().reference(&reference) {
            "its registry is not allowed by this host's policy".to_owned()
        } else {
            match self.host.engine.remote_digest(&reference).await {
                Ok(digest) => return ResolvedReference { reference, digest: Some(digest), problem: None },
                Err(error) => error.to_string(),
            }
        };
        ResolvedReference { reference, digest: None, problem: Some(problem) }
    }

    /// Takes a directory and project that are already as wanted.
    pub async fn claim(&self, operator: &Identity, request: ClaimRequest) -> Result<ClaimResponse, ApiError> {
        self.host.allowed(&request.place.directory)?;
        let cache = self.cache(&request.tenant.uid);
        operations::not_busy(&cache, None)?;
        if request.take_over {
            for held in self.host.store.holders(&request.tenant.uid, &request.place) {
                operations::not_busy(&self.cache(&held.uid), None)?;
            }
        }
        let (host, remembered, operator) = (self.host.clone(), cache.clone(), operator.to_string());
        self.host.blocking(move || adoption::claim(&host, &remembered, operator, &request)).await?
    }

    /// Takes the host's present state for the truth.
    pub async fn accept(
        &self,
        operator: &Identity,
        request: AcceptRequest,
    ) -> Result<ClaimResponse, ApiError> {
        self.host.allowed(&request.place.directory)?;
        let cache = self.cache(&request.tenant.uid);
        operations::not_busy(&cache, None)?;
        let (host, remembered, operator) = (self.host.clone(), cache.clone(), operator.to_string());
        self.host.blocking(move || adoption::accept(&host, &remembered, operator, &request)).await?
    }

    /// Gives a claim back.
    pub async fn release(&self, _operator: &Identity, request: ReleaseRequest) -> Result<(), ApiError> {
        let cache = self.cache(&request.tenant.uid);
        operations::not_busy(&cache, None)?;
        let host = self.host.clone();
        let uid = request.tenant.uid;
        let released = self.host.blocking(move || {
            let _lock = host.store.lock(&uid).map_err(|error| store_refused(&error))?;
            // One that waits to be taken up again would go on in a place that is another's by then (P2). From records
            // that are damaged nothing is taken up.
            if let (Ok(None), Ok(Some(open))) = (damage(&host, &uid), open_operation(&host, &uid)) {
                return Err(operations::busy_with(&open));
            }
            host.store.release(&uid).map_err(|error| store_refused(&error))
        });
        released.await??;
        cache.records_changed();
        Ok(())
    }

    /// Begins an operation, or tells how the one with this id stands.
    pub async fn operate(
        self: &Arc<Self>,
        operator: &Identity,
        id: OperationId,
        body: OperateRequest,
    ) -> Result<OperationStatus, ApiError> {
        self.begin(operator, id, body).await
    }

    /// How an operation stands, as soon as its `seq` is above `after` or `wait` is over.
    pub async fn operation(
        &self,
        id: &OperationId,
        after: u64,
        wait: Duration,
    ) -> Result<OperationStatus, ApiError> {
        self.wait_for(id, after, wait).await
    }

    /// Stops taking new work; an operation in flight is left to its journal.
    pub async fn shutdown(&self) {
        self.end.cancel();
        self.slots.close();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn cache(&self, uid: &TenantUid) -> Arc<TenantCache> {
        self.caches.lock().entry(uid.clone()).or_default().clone()
    }
}
