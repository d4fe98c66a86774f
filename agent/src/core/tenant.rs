//! What is remembered of a tenant between calls. Nothing of it is needed: all is read again after a restart.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tenantry_api::names::OperationId;
use tenantry_protocol::{OperationState, OperationStatus};
use tokio::sync::watch;

use crate::compose::Discovered;
use crate::files::HashCache;
use crate::observe::{CachedModel, CachedObservation};

/// What is remembered of a tenant between calls.
#[derive(Default)]
pub struct Tenant {
    /// Hashes of its files.
    pub hashes: HashCache,
    /// The resolved model, with what it was read from.
    pub model: Mutex<Option<Arc<CachedModel>>>,
    /// The last observation, with what it was made from.
    pub seen: Mutex<Option<Arc<CachedObservation>>>,
    /// The choice of compose files that a run by hand was last seen to share.
    pub compared: Mutex<Option<Discovered>>,
    running: Mutex<Option<Running>>,
    records: AtomicU64,
}

/// An operation in flight, or the last one since the agent was started.
#[derive(Clone)]
pub struct Running {
    /// Which.
    pub id: OperationId,
    /// Its status as it changes.
    pub status: watch::Receiver<OperationStatus>,
}

impl Tenant {
    /// Rises whenever our own records of the tenant change.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::SeqCst)
    }

    /// Our own records of the tenant have changed.
    pub fn records_changed(&self) {
        self.records.fetch_add(1, Ordering::SeqCst);
    }

    /// The operation in flight, or the last one.
    pub fn running(&self) -> Option<Running> {
        lock(&self.running).clone()
    }

    /// Whether no operation is in flight in this process.
    pub fn idle(&self) -> bool {
        let running = |running: Running| running.status.borrow().state == OperationState::Running;
        !self.running().is_some_and(running)
    }

    /// An operation is in flight from now on.
    pub fn set_running(&self, running: Running) {
        *lock(&self.running) = Some(running);
        self.records_changed();
    }
}

/// A lock that is held for a moment only; a panic elsewhere does not take it along.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
