//! The effects of an operation's steps on this host: which step is carried out where.

use std::time::Duration;

use tenantry_planner::steps::{JournalState, Step};
use tenantry_protocol::OperationPhase;

use super::context::OperationContext;
use super::driver::{Effects, StepResult};
use super::parts::last_words::with_last_words;
use super::steps::{
    data, finish, hand_over, preflight, pull, quiesce, refresh, retag_images, rollback, snapshot, start,
    verify, write,
};
use crate::planning::StepError;

/// How often an engine that is away is tried again.
const ENGINE_AGAIN: Duration = Duration::from_millis(500);

impl Effects for OperationContext {
    async fn perform(&self, step: Step, state: &JournalState) -> Result<StepResult, StepError> {
        self.still_ours(state)?;
        if step.phase() == Some(OperationPhase::Rollback) {
            engine_answers(self).await;
        }
        tracing::debug!(tenant = %self.request.tenant.name, operation = %self.id, ?step, "step");
        let policy = self.host.policy.revision();
        match self.carry_out(step, state).await {
            Ok(result) => Ok(result),
            Err(error) => Err(Box::pin(with_last_words(self, state, step, error)).await.judged_by(&policy)),
        }
    }
}

impl OperationContext {
    async fn carry_out(&self, step: Step, state: &JournalState) -> Result<StepResult, StepError> {
        match step {
            Step::Preflight => Box::pin(preflight::preflight(self)).await,
            Step::Pull => pull::pull(self, state).await,
            Step::Snapshot => Box::pin(snapshot::snapshot(self, state)).await,
            Step::Write => write::write(self, state).await,
            Step::RetagImages => retag_images::retag_images(self, state).await,
            Step::Start => Box::pin(start::start(self, state)).await,
            Step::Refresh | Step::RefreshPrevious => refresh::refresh(self, state).await,
            Step::HandOver | Step::HandBack => Box::pin(hand_over::hand_over(self, state, step)).await,
            Step::Verify => verify::verify(self, state).await,
            Step::Finish => finish::finish(self, state).await,
            Step::RestoreFiles => write::restore(self).await,
            Step::RestoreImages => rollback::restore_images(self, state).await,
            Step::RemoveCreated => rollback::remove_created(self, state).await,
            Step::StartPrevious => rollback::start_previous(self, state).await,
            Step::VerifyPrevious | Step::VerifyRevived => rollback::verify_previous(self, state).await,
            Step::Discard => finish::discard(self).await,
            Step::Hold => finish::hold(self).await,
            Step::Quiesce => quiesce::quiesce(self, state).await,
            Step::Unquiesce => quiesce::unquiesce(self, state).await,
            Step::Revive => quiesce::revive(self, state).await,
            Step::StopForChosen | Step::StopForData => Box::pin(data::stop_for_data(self, state, step)).await,
            Step::RestoreChosen | Step::RestoreData => Box::pin(data::restore_data(self, state, step)).await,
        }
    }
}

/// On the way back the engine is waited for, within bounds: that it went away is often why there is a way back.
async fn engine_answers(operation: &OperationContext) {
    let began = operation.host.runtime.instant();
    while let Err(error) = operation.host.engine.version().await {
        if operation.host.since(began) >= operation.host.limits.away {
            return;
        }
        tracing::warn!(operation = %operation.id, %error, "waiting for the engine, to go back");
        operation.host.runtime.sleep(ENGINE_AGAIN).await;
    }
}
