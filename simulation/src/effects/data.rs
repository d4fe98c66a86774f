//! The restore point with its data: made, kept, gone back to.

use tenantry_agent::operation::StepResult;
use tenantry_agent::planning::StepError;
use tenantry_api::tenant::Consistency;
use tenantry_planner::steps::{JournalState, PlannedImage};
use tenantry_protocol::{Action, FailureCategory};

use super::Operation;
use crate::agent::{digest_of, tick};
use crate::host::Point;
use crate::releases::{DIRECTORY, VOLUME};

impl Operation {
    /// Stops or pauses what mounts the data.
    pub(super) async fn quiesce(&self, state: &JournalState) -> Result<StepResult, StepError> {
        let Some(data) = state.plan().and_then(|plan| plan.data.clone()) else {
            return Ok(StepResult::quietly());
        };
        for id in data.containers {
            self.engine()?;
            self.change("a container that is quiesced", |world| {
                world.stops(&self.id);
                let now = world.now();
                if let Some(container) = world.host.engine.containers.get_mut(&id) {
                    match data.consistency {
                        Consistency::Stop if container.ended.is_none() => container.ended = Some((now, 0)),
                        Consistency::Pause => container.paused = true,
                        Consistency::Stop | Consistency::Live => {}
                    }
                }
            })
            .await;
        }
        Ok(StepResult::quietly())
    }

    /// Makes the restore point: files, records and data, durable and read back.
    pub(super) async fn snapshot(&self, state: &JournalState) -> Result<StepResult, StepError> {
        if self.staged().is_none() {
            self.preflight().await?;
        }
        let changes = self.staged().map(|staged| staged.changes).unwrap_or_default();
        self.shared.world().host.disk.points.remove(&self.id);
        let mut point = Point::default();
        for change in &changes {
            self.space()?;
            tick(&self.shared, 3).await;
            let kept = self.shared.world().host.disk.files.get(&change.path).cloned();
            point.files.push((change.path.clone(), kept));
        }
        if state.plan().is_some_and(|plan| plan.data.is_some()) {
            self.space()?;
            tick(&self.shared, 3_000).await;
            let mut world = self.shared.world();
            let chance = world.scenario.rates.disk;
            if world.chance(chance) {
                return Err(StepError::new(FailureCategory::SnapshotFailed, "what was read back differs"));
            }
            point.data = world.host.engine.volumes.get(VOLUME).cloned();
        }
        point.images = state
            .plan()
            .map(|plan| {
                let known = plan
                    .references
                    .iter()
                    .filter_map(|one| Some((one.reference.clone(), one.image_id.clone()?)));
                known
                    .map(|(reference, image_id)| PlannedImage {
                        repo_digest: Some(digest_of(&image_id)),
                        reference,
                        image_id,
                    })
                    .collect()
            })
            .unwrap_or_default();
        point.first = state.plan().is_none_or(|plan| plan.first);
        point.baseline = Some(self.baseline());
        self.shared.world().host.disk.points.insert(self.id.clone(), point);
        tick(&self.shared, 10).await;
        let mut world = self.shared.world();
        world.host.disk.exists = true;
        if let Some(point) = world.host.disk.points.get_mut(&self.id) {
            point.whole = true;
        }
        world.kept(&self.id);
        Ok(StepResult::quietly())
    }

    /// Lets paused containers go on.
    pub(super) async fn unquiesce(&self, state: &JournalState) -> Result<StepResult, StepError> {
        let data = state.plan().and_then(|plan| plan.data.clone());
        for id in data.map(|data| data.containers).unwrap_or_default() {
            self.engine()?;
            self.change("a container that goes on", |world| {
                if let Some(container) = world.host.engine.containers.get_mut(&id) {
                    container.paused = false;
                }
            })
            .await;
        }
        Ok(StepResult::quietly())
    }

    /// Starts the very containers again that were stopped or paused.
    pub(super) async fn revive(&self, state: &JournalState) -> Result<StepResult, StepError> {
        let data = state.plan().and_then(|plan| plan.data.clone());
        for id in data.map(|data| data.containers).unwrap_or_default() {
            self.engine()?;
            self.change("a container that is revived", |world| {
                let container = world.host.engine.containers.get_mut(&id);
                let stopped = container.is_some_and(|container| {
                    container.paused = false;
                    container.ended.is_some()
                });
                if stopped {
                    crate::host::start(world, &id);
                }
            })
            .await;
        }
        Ok(StepResult::quietly())
    }

    /// Stops whatever mounts the data.
    pub(super) async fn stop_for_data(&self) -> Result<StepResult, StepError> {
        let containers: Vec<String> = {
            let world = self.shared.world();
            let own = world.host.engine.containers.values().filter(|one| one.directory == DIRECTORY);
            own.filter(|one| one.service == "db").map(|one| one.id.clone()).collect()
        };
        for id in containers {
            self.engine()?;
            self.change("a container that mounts the data", |world| {
                let now = world.now();
                if let Some(container) = world.host.engine.containers.get_mut(&id) {
                    container.ended.get_or_insert((now, 0));
                }
            })
            .await;
        }
        Ok(StepResult::quietly())
    }

    /// Puts the data of the chosen restore point in place.
    pub(super) async fn restore_chosen(&self) -> Result<StepResult, StepError> {
        let Action::Rollback { to, .. } = &self.request.action else { return Ok(StepResult::quietly()) };
        let data = self.shared.world().host.disk.points.get(to).and_then(|point| point.data.clone());
        self.put_data(data).await
    }

    /// Puts the data back as this operation's own restore point holds it.
    pub(super) async fn restore_data(&self) -> Result<StepResult, StepError> {
        let data = self.shared.world().host.disk.points.get(&self.id).and_then(|point| point.data.clone());
        self.put_data(data).await
    }

    async fn put_data(&self, data: Option<String>) -> Result<StepResult, StepError> {
        let missing =
            || StepError::new(FailureCategory::RestorePointUnusable, "the restore point has no data");
        let data = data.ok_or_else(missing)?;
        // A person, or the engine when the machine was started again, may have started what uses it.
        self.stop_for_data().await?;
        self.space()?;
        // Extracted beside the live data, which takes its time; then exchanged in one go.
        tick(&self.shared, 3_000).await;
        self.change("the data", |world| world.data_is_put(&self.id, data)).await;
        // Whoever was started meanwhile has the old data before it.
        self.stop_for_data().await
    }

    /// Removes restore points beyond those that are kept; never the one that leads back from what runs.
    pub(super) async fn prune_points(&self) {
        let retain = usize::try_from(self.request.snapshot.retain).unwrap_or(1).max(1);
        let kept: Vec<_> = {
            let world = self.shared.world();
            let mut ours = world.host.store.operations(&self.uid);
            ours.retain(|id| world.host.disk.points.contains_key(id));
            ours.into_iter().rev().take(retain).collect()
        };
        tick(&self.shared, 3).await;
        let own = self.id.clone();
        self.shared.world().host.disk.points.retain(|id, _| *id == own || kept.contains(id));
    }
}
