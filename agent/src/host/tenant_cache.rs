//! What is remembered of a tenant between calls. Nothing of it is needed: all is read again after a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tenantry_api::names::OperationId;
use tenantry_planner::images::meaning::Meanings;
use tenantry_planner::model::Model;
use tenantry_protocol::{Observation, OperationState, OperationStatus, Place};
use tokio::sync::watch;

use crate::compose::{Discovered, Links};
use crate::engine::Generation;
use crate::files::{HashCache, Stamps};

/// A resolved model and what it was read from.
pub struct CachedModel {
    /// Whose it is.
    pub place: Place,
    /// The files that it was read from, as they were.
    pub stamps: Stamps,
    /// Where its mounts led by links.
    pub links: Links,
    /// The model.
    pub model: Arc<Model>,
}

/// An observation and what it was made from.
pub struct CachedObservation {
    /// A digest of the request that it answers.
    pub request: [u8; 32],
    /// How far the engine's events were heard.
    pub generation: Generation,
    /// The state of our own records: see [`TenantCache::records`].
    pub records: u64,
    /// The policy that it was judged by.
    pub policy: String,
    /// The files that it was read from, as they were.
    pub stamps: Stamps,
    /// When it was made.
    pub made: Instant,
    /// The observation's hash.
    pub hash: String,
    /// The observation.
    pub observation: Observation,
}

/// What is remembered of a tenant between calls.
#[derive(Default)]
pub struct TenantCache {
    /// Hashes of its files.
    pub hashes: HashCache,
    /// The resolved model, with what it was read from.
    pub model: Mutex<Option<Arc<CachedModel>>>,
    /// The last observation, with what it was made from.
    pub seen: Mutex<Option<Arc<CachedObservation>>>,
    /// The choice of compose files that a run by hand was last seen to share.
    pub compared: Mutex<Option<Discovered>>,
    /// What compose last said that requests would mean.
    pub meanings: KnownMeanings,
    running: Mutex<Option<RunningOperation>>,
    records: AtomicU64,
}

/// What compose last said that requests would mean, each by a digest of all that it depends on.
#[derive(Default)]
pub struct KnownMeanings(Mutex<Vec<([u8; 32], Arc<Meanings>)>>);

impl KnownMeanings {
    /// As many as are remembered: what is on disk, and what is about to be.
    const MOST: usize = 2;

    /// What is known.
    pub fn get(&self, of: &[u8; 32]) -> Option<Arc<Meanings>> {
        self.0.lock().iter().find(|(known, _)| known == of).map(|(_, meanings)| meanings.clone())
    }

    /// Remembers an answer.
    pub fn put(&self, of: [u8; 32], meanings: Arc<Meanings>) {
        let mut known = self.0.lock();
        known.retain(|(known, _)| *known != of);
        known.insert(0, (of, meanings));
        known.truncate(Self::MOST);
    }
}

/// An operation in flight, or the last one since the agent was started.
#[derive(Clone)]
pub struct RunningOperation {
    /// Which.
    pub id: OperationId,
    /// Its status as it changes.
    pub status: watch::Receiver<OperationStatus>,
}

impl TenantCache {
    /// Rises whenever our own records of the tenant change.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::SeqCst)
    }

    /// Our own records of the tenant have changed.
    pub fn records_changed(&self) {
        self.records.fetch_add(1, Ordering::SeqCst);
    }

    /// The operation in flight, or the last one.
    pub fn running(&self) -> Option<RunningOperation> {
        self.running.lock().clone()
    }

    /// Whether no operation is in flight in this process.
    pub fn idle(&self) -> bool {
        let running = |running: RunningOperation| running.status.borrow().state == OperationState::Running;
        !self.running().is_some_and(running)
    }

    /// An operation is in flight from now on.
    pub fn set_running(&self, running: RunningOperation) {
        *self.running.lock() = Some(running);
        self.records_changed();
    }
}
