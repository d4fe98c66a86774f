//! Files: the transaction of `agent/src/files/transaction.rs`, state for state.

use tenantry_agent::operation::StepResult;
use tenantry_agent::planning::StepError;
use tenantry_planner::steps::{JournalState, StepOutput};
use tenantry_protocol::FailureCategory;

use super::Operation;
use crate::agent::tick;
use crate::host::{Change, Half, Stage, Volatile};
use crate::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Files {
    None,
    Prepared,
    Committed,
    Done,
    Restoring,
    Restored,
}

impl Operation {
    fn files(&self, world: &World) -> Files {
        let Some(transaction) = world.host.disk.transactions.get(&self.id) else { return Files::None };
        let stage = |half: &Option<Half>| half.as_ref().map(|half| half.stage);
        match (stage(&transaction.undo), stage(&transaction.new)) {
            (Some(Stage::Commit), _) => Files::Restoring,
            (Some(Stage::Done), _) => Files::Restored,
            (_, Some(Stage::Commit)) => Files::Committed,
            (_, Some(Stage::Done)) => Files::Done,
            (_, Some(Stage::Plan)) => Files::Prepared,
            (_, None) => Files::None,
        }
    }

    pub(super) async fn write(&self, _: &JournalState) -> Result<StepResult, StepError> {
        let state = self.files(&self.shared.world());
        match state {
            Files::Done => return Ok(StepResult::quietly()),
            Files::Committed => {
                self.roll_forward(false).await?;
                return Ok(StepResult::quietly());
            }
            Files::None | Files::Prepared => {}
            Files::Restoring | Files::Restored => {
                return Err(StepError::new(FailureCategory::WriteFailed, "its files were restored"));
            }
        }
        if self.staged().is_none() {
            self.preflight().await?;
        }
        let changes = self.staged().map(|staged| staged.changes).unwrap_or_default();
        self.stage(&changes, false).await?;
        self.commit(&changes, false).await?;
        Ok(StepResult::saying(format!("{} files were written together", changes.len())))
    }

    /// Writes the new content beside the old. Nothing of the tenant's is touched.
    async fn stage(&self, changes: &[Change], undo: bool) -> Result<(), StepError> {
        for _ in changes {
            self.space()?;
            tick(&self.shared, 3).await;
        }
        let mut world = self.shared.world();
        world.host.disk.exists = true;
        let half = Some(Half { steps: changes.to_vec(), stage: Stage::Plan });
        let transaction = world.host.disk.transactions.entry(self.id.clone()).or_default();
        if undo {
            transaction.undo = half;
        } else {
            transaction.new = half;
        }
        Ok(())
    }

    async fn commit(&self, changes: &[Change], undo: bool) -> Result<(), StepError> {
        tick(&self.shared, 5).await;
        {
            let world = self.shared.world();
            let moved = changes
                .iter()
                .find(|change| world.host.disk.files.get(&change.path) != change.before.as_ref());
            if let Some(moved) = moved.filter(|_| !undo) {
                let message = format!("{} was changed in the meantime", moved.path);
                return Err(StepError::new(FailureCategory::HandEdited, message));
            }
        }
        if tenantry_faults::Bug::RenameBeforeCommit.is_seeded() {
            self.apply(undo).await?;
        }
        self.mark(undo, Stage::Commit).await;
        self.roll_forward(undo).await
    }

    /// Goes on after a commit, once its record is durable.
    async fn roll_forward(&self, undo: bool) -> Result<(), StepError> {
        tick(&self.shared, 3).await;
        self.shared.world().host.disk.volatile.retain(|one| !matches!(one, Volatile::Stage(..)));
        self.apply(undo).await
    }

    async fn mark(&self, undo: bool, stage: Stage) {
        self.change("a record of files", |world| {
            let transaction = world.host.disk.transactions.entry(self.id.clone()).or_default();
            let half = if undo { &mut transaction.undo } else { &mut transaction.new };
            if let Some(half) = half {
                let old = std::mem::replace(&mut half.stage, stage);
                world.host.disk.volatile.push(Volatile::Stage(self.id.clone(), undo, old));
            }
        })
        .await;
    }

    /// Puts everything in its place; each part can be done again.
    async fn apply(&self, undo: bool) -> Result<(), StepError> {
        let steps = {
            let world = self.shared.world();
            let transaction = world.host.disk.transactions.get(&self.id);
            let half = transaction.and_then(|one| if undo { one.undo.clone() } else { one.new.clone() });
            half.map(|half| half.steps).unwrap_or_default()
        };
        for step in steps {
            self.change("a file", |world| {
                let World { host, oracle, .. } = world;
                // What a person had edited before is what is gone back to. An edit since the commit is lost, as any that
                // comes a moment before: the set is to be whole.
                let whole = if undo { step.put.as_ref() } else { step.before.as_ref() };
                oracle.put(&step.path, whole);
                host.disk.put(&step.path, step.put.clone());
            })
            .await;
        }
        tick(&self.shared, 5).await;
        self.shared.world().host.disk.sync();
        self.mark(undo, Stage::Done).await;
        Ok(())
    }

    /// Puts files and `.env` back as they were.
    pub(super) async fn restore_files(&self) -> Result<StepResult, StepError> {
        self.set_staged(None);
        let state = self.files(&self.shared.world());
        let touched = match state {
            Files::None => false,
            Files::Restored => true,
            Files::Prepared => {
                tick(&self.shared, 3).await;
                self.shared.world().host.disk.transactions.remove(&self.id);
                false
            }
            Files::Restoring => {
                self.roll_forward(true).await?;
                true
            }
            Files::Committed | Files::Done => {
                let point = self.shared.world().host.disk.points.get(&self.id).cloned();
                let missing =
                    || StepError::new(FailureCategory::RestorePointUnusable, "there is no restore point");
                let point = point.ok_or_else(missing)?;
                let changes: Vec<Change> = {
                    let world = self.shared.world();
                    let now = |path: &str| world.host.disk.files.get(path).cloned();
                    let differs = point.files.into_iter().filter(|(path, put)| now(path) != *put);
                    differs.map(|(path, put)| Change { before: now(&path), path, put }).collect()
                };
                self.stage(&changes, true).await?;
                self.commit(&changes, true).await?;
                true
            }
        };
        Ok(StepResult { did: StepOutput::Restored { touched }, message: None })
    }

    /// Removes what was staged, durably.
    pub(super) async fn finish_files(&self) -> Result<(), StepError> {
        tick(&self.shared, 5).await;
        let state = self.files(&self.shared.world());
        // A power cut took the last record back.
        if matches!(state, Files::Committed | Files::Restoring) {
            self.roll_forward(state == Files::Restoring).await?;
        }
        let mut world = self.shared.world();
        world.settle_set(&self.id);
        world.host.disk.transactions.remove(&self.id);
        world.host.disk.sync();
        Ok(())
    }
}
