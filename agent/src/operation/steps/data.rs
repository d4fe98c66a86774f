//! Declared data comes back: that of the restore point that a person chose, or, on the way back, of this operation's own.

use std::path::PathBuf;
use std::sync::Arc;

use tenantry_api::names::OperationId;
use tenantry_planner::model::Model;
use tenantry_planner::steps::{JournalState, Step};
use tenantry_protocol::{Action, FailureCategory};

use crate::compose::Discovered;
use crate::host::restore_points::{self, Line};
use crate::operation::context::OperationContext;
use crate::operation::driver::StepResult;
use crate::operation::parts::progress::CopyProgress;
use crate::operation::parts::volumes::{self, Reach, Sight};
use crate::operation::parts::{recheck, stops};
use crate::planning::StepError;
use crate::planning::data::{chosen_parts, named, volume_of};
use crate::planning::data_users::data_users;
use crate::snapshot::{ArchiveDir, Part, What};

/// How often data is brought back again because somebody started what uses it meanwhile.
const RESTORES: u32 = 3;

/// The data that a step brings back: that of the restore point that a person chose, or of this operation's own.
async fn parts_of(operation: &OperationContext, step: Step) -> Result<(OperationId, Vec<Part>), StepError> {
    if let (Step::StopForChosen | Step::RestoreChosen, Action::Rollback { to, .. }) =
        (step, &operation.request.action)
    {
        return Ok((to.clone(), chosen_parts(operation).await?));
    }
    let (uid, id, tree) = (operation.request.tenant.uid.clone(), operation.id.clone(), operation.tree()?);
    let point = operation.blocking(move || Ok(restore_points::load(&tree, &Line::alone(&uid), &id)?)).await?;
    Ok((operation.id.clone(), point.map(|point| point.data).unwrap_or_default()))
}

/// Stops the containers that use the data which a later step brings back.
pub async fn stop_for_data(
    operation: &OperationContext,
    state: &JournalState,
    step: Step,
) -> Result<StepResult, StepError> {
    volumes::clear(operation).await?;
    let files = files(operation, state, step).await;
    stop_for(operation, files.as_ref(), &parts_of(operation, step).await?.1).await?;
    Ok(StepResult::quietly())
}

/// What compose reads at a step: the release on the way there, what ran before on the way back. Nothing where it can't be
/// read or is no longer allowed: then containers are stopped without it.
async fn files(
    operation: &OperationContext,
    state: &JournalState,
    step: Step,
) -> Option<(Discovered, Arc<Model>)> {
    let plan = state.plan()?;
    let files = match step {
        Step::StopForChosen | Step::RestoreChosen => recheck::release(operation, &plan.checked).await,
        _ => recheck::previous(operation, &plan.previous_checked).await,
    };
    files.ok()
}

/// Brings the data of a step back.
pub async fn restore_data(
    operation: &OperationContext,
    state: &JournalState,
    step: Step,
) -> Result<StepResult, StepError> {
    volumes::clear(operation).await?;
    let (point, parts) = parts_of(operation, step).await?;
    let files = files(operation, state, step).await;
    restore(operation, files.as_ref(), &point, &parts).await
}

/// Stops whatever of this project mounts such data, so that it can be replaced; whether there was any.
async fn stop_for(
    operation: &OperationContext,
    files: Option<&(Discovered, Arc<Model>)>,
    parts: &[Part],
) -> Result<bool, StepError> {
    let what: Vec<What> = parts.iter().map(|part| part.what.clone()).collect();
    let users = data_users(operation, &what, false).await?;
    let ids: Vec<String> = users.into_iter().map(|user| user.id).collect();
    if ids.is_empty() {
        return Ok(false);
    }
    if let Err(error) = stops::stop(operation, files, &ids).await {
        // A hook that fails must not keep data from being brought back.
        tracing::warn!(tenant = %operation.request.tenant.name, operation = %operation.id, problem = %error.message, "compose could not stop what uses the data; the engine does");
        stops::stop(operation, None, &ids).await?;
    }
    Ok(true)
}

/// Brings all parts of a restore point back, each wholly or not at all.
async fn restore(
    operation: &OperationContext,
    files: Option<&(Discovered, Arc<Model>)>,
    point: &OperationId,
    parts: &[Part],
) -> Result<StepResult, StepError> {
    for _ in 0..RESTORES {
        // A person, or the engine after a reboot, may have started them again.
        stop_for(operation, files, parts).await?;
        let helped = put_back(operation, point, parts).await?;
        // Who was started meanwhile has mounted what is no longer the data, or has written to what a helper brought back.
        let disturbed = stop_for(operation, files, parts).await?;
        if !(disturbed && helped) {
            let told = parts.iter().map(|part| named(&part.what)).collect::<Vec<_>>().join(", ");
            return Ok(StepResult::saying(format!("brought back as they were then: {told}")));
        }
    }
    let message =
        "containers that use the data were started each time that it was brought back: leave them stopped";
    Err(StepError::new(FailureCategory::RestorePointUnusable, message))
}

/// Does so once; whether a helper had a part in it.
async fn put_back(
    operation: &OperationContext,
    point: &OperationId,
    parts: &[Part],
) -> Result<bool, StepError> {
    let (mut sight, mut reached) = (Sight::default(), Vec::new());
    for part in parts {
        reached.push(reach(operation, &mut sight, &part.what).await?);
    }
    let helped = reached.contains(&Some(Reach::Helped));
    let bytes = parts.iter().filter_map(|part| part.archive.as_ref()).map(|archive| archive.bytes).sum();
    let follow = Arc::new(CopyProgress::new(operation, bytes));
    for (n, (part, reach)) in parts.iter().zip(reached).enumerate() {
        match reach {
            Some(Reach::Helped) => Box::pin(volumes::restore(operation, point, n, part, &*follow)).await?,
            Some(Reach::Seen(at)) => {
                restore_seen(operation, point, n, part.clone(), Some(at), follow.clone()).await?;
            }
            None => restore_seen(operation, point, n, part.clone(), None, follow.clone()).await?,
        }
    }
    Ok(helped)
}

async fn restore_seen(
    operation: &OperationContext,
    point: &OperationId,
    n: usize,
    part: Part,
    at: Option<PathBuf>,
    follow: Arc<CopyProgress>,
) -> Result<(), StepError> {
    let (tree, uid, point) = (operation.tree()?, operation.request.tenant.uid.clone(), point.clone());
    operation
        .blocking(move || {
            let uid = restore_points::maker(&tree, &point)?.unwrap_or(uid);
            let archive_dir = ArchiveDir::open(&tree, &uid, &point)?;
            match at {
                Some(at) => archive_dir.restore_volume(n, &part, &at, &*follow)?,
                None => archive_dir.restore(n, &part, &*follow)?,
            }
            Ok(())
        })
        .await
}

/// How what a restore point holds is reached; a path is where it is.
async fn reach(
    operation: &OperationContext,
    sight: &mut Sight,
    what: &What,
) -> Result<Option<Reach>, StepError> {
    match volume_of(operation, what).await? {
        None => Ok(None),
        Some(volume) => sight.of(operation, &volume).await.map(Some),
    }
}
