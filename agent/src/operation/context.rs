//! One operation in the middle of its work: what its steps share.

use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use tenantry_api::names::OperationId;
use tenantry_planner::model::Model;
use tenantry_planner::steps::JournalState;
use tenantry_protocol::{FailureCategory, OperationStatus, Progress};
use tokio::sync::watch;

use crate::compose::Discovered;
use crate::observe::no_compose_file;
use crate::planning::{RequestContext, StagedRelease, StepError};
use crate::store::TenantLock;

/// One operation in the middle of its work.
pub struct OperationContext {
    /// What it was asked, and where.
    asked: RequestContext,
    /// Which operation.
    pub id: OperationId,
    /// Who watches.
    pub status: watch::Sender<OperationStatus>,
    /// Held until it has ended: nobody else changes this tenant.
    lock: Mutex<Option<TenantLock>>,
    staged: Mutex<Option<Arc<StagedRelease>>>,
}

/// An operation can do all that its request's context can.
impl Deref for OperationContext {
    type Target = RequestContext;

    fn deref(&self) -> &RequestContext {
        &self.asked
    }
}

impl OperationContext {
    /// An operation that nothing has been done of in this process.
    pub fn new(
        asked: RequestContext,
        id: OperationId,
        status: watch::Sender<OperationStatus>,
        lock: TenantLock,
    ) -> Self {
        Self { asked, id, status, lock: Mutex::new(Some(lock)), staged: Mutex::default() }
    }

    /// The operation has ended: whoever asks for the tenant next gets it, once what is given back is dropped.
    pub fn unlock(&self) -> Option<TenantLock> {
        self.lock.lock().take()
    }

    /// The tenant's lock as the standard input of a child that changes something: see [`TenantLock::for_child`].
    pub fn lock_for_child(&self) -> Result<Option<OwnedFd>, StepError> {
        if tenantry_faults::Bug::ChildWithoutLock.is_seeded() {
            return Ok(None);
        }
        let held = self.lock.lock();
        let shared = held.as_ref().map(TenantLock::for_child).transpose();
        shared.map_err(|error| {
            StepError::new(FailureCategory::AgentFault, format!("the tenant's lock can't be shared: {error}"))
        })
    }

    /// Nobody else may have taken over in the meantime.
    pub fn still_ours(&self, state: &JournalState) -> Result<(), StepError> {
        let claim = self.host.store.claim_of(&self.request.tenant.uid);
        if claim
            .is_some_and(|claim| claim.operation.as_ref() == Some(&self.id) && claim.epoch == state.epoch())
        {
            return Ok(());
        }
        Err(StepError::new(FailureCategory::AgentFault, "the host's claim is no longer this operation's"))
    }

    /// The release that this process has planned, until it is no longer what the disk holds or will hold.
    pub fn set_staged(&self, staged: StagedRelease) {
        *self.staged.lock() = Some(Arc::new(staged));
    }

    /// The release that was planned is no longer what the disk holds.
    pub fn forget_staged(&self) {
        *self.staged.lock() = None;
    }

    /// The compose files and the model of what is on disk: the planned ones once they are written, else read anew.
    pub async fn release(&self) -> Result<(Discovered, Arc<Model>), StepError> {
        let staged = self.staged.lock().clone();
        if let Some(staged) = staged {
            return Ok((staged.discovered.clone(), staged.model.clone()));
        }
        let found = self.on_disk().await?;
        found.ok_or_else(|| no_compose_file(&self.request.place).into())
    }

    /// Tells watchers how far a step is.
    pub fn progress(&self, progress: Progress) {
        self.status.send_modify(|status| {
            status.progress = Some(progress);
            status.seq += 1;
        });
    }
}
