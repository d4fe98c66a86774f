//! The effects of steps on the made-up host: one match, each arm as the agent's own does it, effect for effect.
//!
//! A mirror of `agent/src/operation`. Between any two effects there is a pause where the agent can be killed.

mod data;
mod preflight;
mod start;
mod verify;
mod write;

pub use start::compose;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tenantry_agent::operation::{Effects, StepResult};
use tenantry_agent::planning::StepError;
use tenantry_agent::store::{Baseline, Terms, Written};
use tenantry_api::names::{OperationId, TenantUid};
use tenantry_planner::model::Model;
use tenantry_planner::steps::{JournalState, Step};
use tenantry_protocol::{Action, FailureCategory, OperateRequest};

use crate::agent::tick;
use crate::host::Change;
use crate::oracle::Actor;
use crate::scheduler::Shared;
use crate::world::{Fault, World};

/// One operation at work.
pub struct Operation {
    shared: Shared,
    uid: TenantUid,
    id: OperationId,
    request: Arc<OperateRequest>,
    incarnation: u64,
    staged: Mutex<Option<Staged>>,
}

/// The staged release, which a killed agent has lost.
#[derive(Clone)]
struct Staged {
    changes: Vec<Change>,
    model: Arc<Model>,
}

impl Effects for Operation {
    async fn perform(&self, step: Step, state: &JournalState) -> Result<StepResult, StepError> {
        self.still_ours(state)?;
        self.shared.world().agent.step = Some(step);
        self.shared.world().say(|_| format!("{} does {step:?}", self.id));
        tick(&self.shared, 5).await;
        let performed = match step {
            Step::Preflight => self.preflight().await,
            Step::Pull => self.pull(state).await,
            Step::Quiesce => self.quiesce(state).await,
            Step::Snapshot => self.snapshot(state).await,
            Step::Unquiesce => self.unquiesce(state).await,
            Step::Write => self.write(state).await,
            Step::StopForChosen | Step::StopForData => self.stop_for_data().await,
            Step::RestoreChosen => self.restore_chosen().await,
            Step::RetagImages => self.point(state).await,
            Step::Start => self.start(state).await,
            Step::Refresh | Step::RefreshPrevious => self.refresh(state).await,
            Step::HandOver | Step::HandBack => Ok(StepResult::quietly()),
            Step::Verify => self.verify(state).await,
            Step::Finish => self.finish(state).await,
            Step::Revive => self.revive(state).await,
            Step::VerifyRevived | Step::VerifyPrevious => self.verify_previous(state).await,
            Step::RestoreFiles => self.restore_files().await,
            Step::RestoreData => self.restore_data().await,
            Step::RestoreImages => self.restore_images(state).await,
            Step::RemoveCreated => self.remove_created(state).await,
            Step::StartPrevious => self.start_previous(state).await,
            Step::Discard => self.discard().await,
            Step::Hold => self.hold().await,
        };
        if let Err(wrong) = &performed {
            self.shared.world().say(|_| format!("{} {step:?} failed: {}", self.id, wrong.message));
        }
        tick(&self.shared, 5).await;
        performed
    }
}

impl Operation {
    /// An operation that nothing has been done of in this process.
    pub fn new(shared: &Shared, uid: &TenantUid, id: &OperationId, request: &Arc<OperateRequest>) -> Self {
        let incarnation = shared.world().agent.incarnation;
        let (uid, id, request) = (uid.clone(), id.clone(), request.clone());
        Self { shared: shared.clone(), uid, id, request, incarnation, staged: Mutex::default() }
    }

    /// Nobody else may have taken over in the meantime.
    fn still_ours(&self, state: &JournalState) -> Result<(), StepError> {
        let world = self.shared.world();
        let claim = world.host.store.held.claims.get(&self.uid);
        let ours = claim
            .is_some_and(|claim| claim.operation.as_ref() == Some(&self.id) && claim.epoch == state.epoch());
        if ours {
            return Ok(());
        }
        Err(StepError::new(FailureCategory::AgentFault, "the host's claim is no longer this operation's"))
    }

    fn actor(&self) -> Actor {
        Actor::Operation { uid: self.uid.clone(), id: self.id.clone(), incarnation: self.incarnation }
    }

    /// A change of the host by this operation, after a pause.
    async fn change<T>(&self, what: &'static str, change: impl FnOnce(&mut World) -> T) -> T {
        tick(&self.shared, 8).await;
        let mut world = self.shared.world();
        world.mutates(&self.actor(), what);
        change(&mut world)
    }

    /// Fails as the engine does now and then.
    fn engine(&self) -> Result<(), StepError> {
        let mut world = self.shared.world();
        let rate = world.scenario.rates.engine;
        if world.chance(rate) {
            world.count(Fault::EngineFault);
            return Err(StepError::new(FailureCategory::EngineFault, "Docker does not answer"));
        }
        Ok(())
    }

    /// Fails as a disk that is full.
    fn space(&self) -> Result<(), StepError> {
        let mut world = self.shared.world();
        let rate = world.scenario.rates.disk;
        if world.chance(rate) {
            world.count(Fault::DiskFull);
            return Err(StepError::new(FailureCategory::DiskFull, "no space is left on the disk"));
        }
        Ok(())
    }

    fn baseline(&self) -> Baseline {
        self.shared.world().host.store.baselines.get(&self.uid).cloned().unwrap_or_default()
    }

    fn staged(&self) -> Option<Staged> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_staged(&self, staged: Option<Staged>) {
        *self.staged.lock().unwrap_or_else(PoisonError::into_inner) = staged;
    }

    /// The model of what is on disk: the staged one once it is written, else read anew.
    fn release(&self) -> Result<Arc<Model>, StepError> {
        match self.staged() {
            Some(staged) => Ok(staged.model),
            None => self.on_disk()?.ok_or_else(no_compose_file),
        }
    }

    fn on_disk(&self) -> Result<Option<Arc<Model>>, StepError> {
        let mut world = self.shared.world();
        let World { host, releases, .. } = &mut *world;
        let model = host.disk.model(releases).transpose();
        model.map_err(|problem| StepError::new(FailureCategory::ComposeInvalid, problem))
    }

    /// Records what the operation left, as it was seen.
    async fn finish(&self, state: &JournalState) -> Result<StepResult, StepError> {
        let left: Vec<String> = state.plan().map(|plan| plan.left_files.clone()).unwrap_or_default();
        self.space()?;
        let old = self.baseline();
        // An agent that was killed here had recorded it; what it was worked out from may be pruned by now.
        if old.restore_point.as_ref() != Some(&self.id) {
            let baseline = self.new_baseline(state, old, &left)?;
            tick(&self.shared, 5).await;
            let mut world = self.shared.world();
            world.baseline_advances(&self.id, &baseline);
            world.host.store.baselines.insert(self.uid.clone(), baseline);
        }
        self.finish_files().await?;
        self.prune_points().await;
        self.release_images(|id, of| of != id).await;
        Ok(StepResult::quietly())
    }

    /// What is ours from now on.
    fn new_baseline(
        &self,
        state: &JournalState,
        old: Baseline,
        left: &[String],
    ) -> Result<Baseline, StepError> {
        let (images, restore_point) = (state.images().to_vec(), Some(self.id.clone()));
        let world = self.shared.world();
        if let Action::Rollback { to, .. } = &self.request.action {
            let point = world.host.disk.points.get(to).and_then(|point| point.baseline.clone());
            let gone = || StepError::new(FailureCategory::RestorePointUnusable, "the restore point is gone");
            return Ok(Baseline { images, restore_point, ..point.ok_or_else(gone)? });
        }
        let mut files = BTreeMap::new();
        for file in &self.request.manifest.files {
            if world.host.disk.files.contains_key(file.path.as_str()) {
                files.insert(file.path.clone(), Written { sha256: file.sha256.clone(), mode: 0o644 });
            }
        }
        let kept = old.files.into_iter().filter(|(path, _)| left.iter().any(|left| left == path.as_str()));
        files.extend(kept);
        Ok(Baseline {
            target_hash: Some(self.request.target_hash.clone()),
            files,
            images,
            restore_point,
            release: self.request.release.clone(),
            terms: Some(Terms::of(&self.request)),
        })
    }

    /// Forgets what was prepared.
    async fn discard(&self) -> Result<StepResult, StepError> {
        self.set_staged(None);
        self.finish_files().await?;
        tick(&self.shared, 5).await;
        self.shared.world().host.disk.points.remove(&self.id);
        self.release_images(|id, of| of == id).await;
        Ok(StepResult::quietly())
    }

    /// A failed release that is left running has written files, which are ours from now on.
    async fn hold(&self) -> Result<StepResult, StepError> {
        let mut baseline = self.baseline();
        for file in &self.request.manifest.files {
            let world = self.shared.world();
            let seen = world.host.disk.files.get(file.path.as_str());
            if let Some(seen) = seen.filter(|seen| seen.sha256 == file.sha256) {
                let written = Written { sha256: seen.sha256.clone(), mode: 0o644 };
                baseline.files.insert(file.path.clone(), written);
            }
        }
        tick(&self.shared, 5).await;
        self.shared.world().host.store.baselines.insert(self.uid.clone(), baseline);
        self.finish_files().await?;
        Ok(StepResult::quietly())
    }

    /// Lets go of images that were kept for operations.
    async fn release_images(&self, gone: impl Fn(&OperationId, &OperationId) -> bool) {
        let kept = self.shared.world().host.engine.kept.clone();
        let points = self.shared.world().host.disk.points.clone();
        for (uid, of, image) in kept {
            // What an older restore point leads back to stays as long as that point does.
            let pointed = of != self.id && points.contains_key(&of);
            if uid == self.uid && gone(&self.id, &of) && !pointed {
                tick(&self.shared, 3).await;
                self.shared.world().host.engine.kept.remove(&(uid, of, image));
            }
        }
    }

    /// Keeps images from being pruned.
    async fn keep(&self, images: impl IntoIterator<Item = String>) {
        for image in images {
            tick(&self.shared, 3).await;
            let mut world = self.shared.world();
            if world.host.engine.images.contains(&image) {
                world.host.engine.kept.insert((self.uid.clone(), self.id.clone(), image));
            }
        }
    }
}

fn no_compose_file() -> StepError {
    StepError::new(FailureCategory::ComposeInvalid, "there is no compose file")
}
