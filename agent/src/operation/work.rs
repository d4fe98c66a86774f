//! One operation at work: the effects of its steps on this host.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tenantry_api::names::OperationId;
use tenantry_planner::model::Model;
use tenantry_planner::steps::{JournalState, Step};
use tenantry_protocol::{FailureCategory, OperateRequest, OperationPhase, OperationStatus, Progress};
use tokio::sync::watch;

use super::driver::{Effects, Performed, Wrong};
use super::staged::Staged;
use crate::compose::{Compose, Discovered};
use crate::core::{Host, Tenant, lock};
use crate::engine::ProjectContainer;
use crate::files::{FilesError, Tree};
use crate::observe::{no_compose_file, on_disk, own};
use crate::store::TenantLock;

/// How often an engine that is away is tried again.
const ENGINE_AGAIN: Duration = Duration::from_millis(500);

/// One operation at work.
pub struct Work {
    /// The machine.
    pub host: Arc<Host>,
    /// What is remembered of the tenant.
    pub tenant: Arc<Tenant>,
    /// Which operation.
    pub id: OperationId,
    /// What was asked.
    pub request: Arc<OperateRequest>,
    /// Who watches.
    pub status: watch::Sender<OperationStatus>,
    /// Held until it has ended: nobody else changes this tenant.
    lock: Mutex<Option<TenantLock>>,
    staged: Mutex<Option<Arc<Staged>>>,
}

impl Effects for Work {
    async fn perform(&self, step: Step, state: &JournalState) -> Result<Performed, Wrong> {
        self.still_ours(state)?;
        if step.phase() == Some(OperationPhase::Rollback) {
            self.engine_answers().await;
        }
        tracing::debug!(tenant = %self.request.tenant.name, operation = %self.id, ?step, "step");
        match step {
            Step::Preflight => Box::pin(super::preflight::preflight(self)).await,
            Step::Pull => super::pull::pull(self, state).await,
            Step::Snapshot => Box::pin(super::point::snapshot(self, state)).await,
            Step::Write => super::write::write(self).await,
            Step::RetagImages => super::start::point(self, state).await,
            Step::Start => Box::pin(super::start::start(self, state)).await,
            Step::Refresh | Step::RefreshPrevious => super::refresh::refresh(self, state).await,
            Step::HandOver | Step::HandBack => Box::pin(super::hand_over::hand_over(self, state, step)).await,
            Step::Verify => super::verify::verify(self, state).await,
            Step::Finish => super::finish::finish(self, state).await,
            Step::RestoreFiles => super::write::restore(self).await,
            Step::RestoreImages => super::rollback::restore_images(self, state).await,
            Step::RemoveCreated => super::rollback::remove_created(self, state).await,
            Step::StartPrevious => super::rollback::start_previous(self, state).await,
            Step::VerifyPrevious | Step::VerifyRevived => super::rollback::verify_previous(self, state).await,
            Step::Discard => super::finish::discard(self).await,
            Step::Hold => super::finish::hold(self).await,
            Step::Quiesce => super::users::quiesce(self, state).await,
            Step::Unquiesce => super::users::unquiesce(self, state).await,
            Step::Revive => super::users::revive(self, state).await,
            Step::StopForChosen | Step::StopForData => Box::pin(super::data::stop_for_data(self, step)).await,
            Step::RestoreChosen | Step::RestoreData => Box::pin(super::data::restore_data(self, step)).await,
        }
    }
}

impl Work {
    /// An operation that nothing has been done of in this process.
    pub fn new(
        host: Arc<Host>,
        tenant: Arc<Tenant>,
        id: OperationId,
        request: Arc<OperateRequest>,
        status: watch::Sender<OperationStatus>,
        lock: TenantLock,
    ) -> Self {
        Self { host, tenant, id, request, status, lock: Mutex::new(Some(lock)), staged: Mutex::default() }
    }

    /// The operation has ended: whoever asks for the tenant next gets it, once what is given back is dropped.
    pub fn unlock(&self) -> Option<TenantLock> {
        lock(&self.lock).take()
    }

    /// The tenant's lock as the standard input of a child that changes something: see [`TenantLock::for_child`].
    pub fn lock_for_child(&self) -> Result<Option<OwnedFd>, Wrong> {
        let held = lock(&self.lock);
        let shared = held.as_ref().map(TenantLock::for_child).transpose();
        shared.map_err(|error| {
            Wrong::new(FailureCategory::AgentFault, format!("the tenant's lock can't be shared: {error}"))
        })
    }

    /// On the way back the engine is waited for, within bounds: that it went away is often why there is a way back.
    async fn engine_answers(&self) {
        let deadline = Instant::now() + self.host.limits.away;
        while let Err(error) = self.host.engine.version().await {
            if Instant::now() >= deadline {
                return;
            }
            tracing::warn!(operation = %self.id, %error, "waiting for the engine, to go back");
            tokio::time::sleep(ENGINE_AGAIN).await;
        }
    }

    /// Nobody else may have taken over in the meantime.
    fn still_ours(&self, state: &JournalState) -> Result<(), Wrong> {
        let claim = self.host.store.claim_of(&self.request.tenant.uid);
        if claim
            .is_some_and(|claim| claim.operation.as_ref() == Some(&self.id) && claim.epoch == state.epoch())
        {
            return Ok(());
        }
        Err(Wrong::new(FailureCategory::AgentFault, "the host's claim is no longer this operation's"))
    }

    /// The tenant's directory as plain text.
    pub fn directory(&self) -> &str {
        self.request.place.directory.as_str()
    }

    /// Opens the tenant's directory, made if need be.
    pub fn tree(&self) -> Result<Tree, FilesError> {
        Tree::create(std::path::Path::new(self.directory()), self.host.calls.clone())
    }

    /// The tenant's log of compose's output.
    pub fn log(&self) -> Result<PathBuf, Wrong> {
        Ok(self.host.store.compose_log(&self.request.tenant.uid)?)
    }

    /// The host's compose.
    pub async fn compose(&self) -> Result<Compose, Wrong> {
        Ok(self.host.compose().await?)
    }

    /// The staged release, while this process has it.
    pub fn staged(&self) -> Option<Arc<Staged>> {
        lock(&self.staged).clone()
    }

    /// Remembers the staged release.
    pub fn set_staged(&self, staged: Arc<Staged>) {
        *lock(&self.staged) = Some(staged);
    }

    /// The staged release is no longer what the disk holds.
    pub fn forget_staged(&self) {
        *lock(&self.staged) = None;
    }

    /// The compose files and the model of what is on disk: the staged ones once they are written, else read anew.
    pub async fn release(&self) -> Result<(Discovered, Arc<Model>), Wrong> {
        if let Some(staged) = self.staged() {
            return Ok((staged.discovered.clone(), staged.model.clone()));
        }
        let found = self.on_disk().await?;
        found.ok_or_else(|| no_compose_file(&self.request.place).into())
    }

    /// The compose files and the model of what is on disk now; `None` where there are none.
    pub async fn on_disk(&self) -> Result<Option<(Discovered, Arc<Model>)>, Wrong> {
        let (host, place) = (self.host.clone(), self.request.place.clone());
        let discovered = self
            .blocking(move || {
                let Some(tree) = host.tree(&place.directory)? else { return Ok(None) };
                let read = |path: &tenantry_api::names::RelativePath| {
                    tree.read(path, crate::files::FILE_LIMIT)
                        .map_err(|error| crate::observe::explained(&error))
                };
                Ok(crate::compose::inputs(&place, &read)?)
            })
            .await?;
        let Some(discovered) = discovered else { return Ok(None) };
        let (compose, log) = (self.compose().await?, self.log()?);
        let model =
            on_disk(&self.host, &self.tenant, &compose, &self.request.place, &discovered, log).await?;
        Ok(Some((discovered, model)))
    }

    /// The containers of this project that were made from this directory.
    pub async fn containers(&self) -> Result<Vec<ProjectContainer>, Wrong> {
        let all = self.host.engine.project_containers(self.request.place.project.as_str()).await?;
        Ok(own(all, self.directory()))
    }

    /// The same, as far as the engine has reported no change. For watching, where the next event brings the next look.
    pub async fn known_containers(&self) -> Result<Vec<ProjectContainer>, Wrong> {
        let all = self.host.engine.known_containers(self.request.place.project.as_str()).await?;
        Ok(own(all, self.directory()))
    }

    /// Runs work that blocks on the disk.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Wrong> + Send + 'static,
    ) -> Result<T, Wrong> {
        let fault =
            || Wrong::new(FailureCategory::AgentFault, "the agent met a fault of its own; its log says more");
        tokio::task::spawn_blocking(work).await.map_err(|_| fault())?
    }

    /// Tells watchers how far a pull is.
    pub fn progress(&self, progress: Progress) {
        self.status.send_modify(|status| {
            status.progress = Some(progress);
            status.seq += 1;
        });
    }
}
