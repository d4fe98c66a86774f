//! What compose reads for a release, as it was when it was checked. Between Preflight and `up` lie a pull and a restore
//! point: a person may have edited a file meanwhile, or a container that can write to the directory.

use std::sync::Arc;

use tenantry_planner::model::Model;
use tenantry_planner::steps::Checked;
use tenantry_protocol::FailureCategory;

use crate::compose::Discovered;
use crate::operation::context::OperationContext;
use crate::planning::{StepError, checks::policy, stage::hashes};

/// What is to be started: the release as it was checked; where files were changed since, what is on disk, if the local
/// policy allows it (P13).
pub async fn release(
    operation: &OperationContext,
    checked: &Checked,
) -> Result<(Discovered, Arc<Model>), StepError> {
    let changed = differing(operation, checked).await?;
    if changed.is_empty() { operation.release().await } else { judged(operation, &changed).await }
}

/// What is on disk, as it was checked or as the local policy allows it.
pub async fn previous(
    operation: &OperationContext,
    checked: &Checked,
) -> Result<(Discovered, Arc<Model>), StepError> {
    judged(operation, &differing(operation, checked).await?).await
}

async fn judged(
    operation: &OperationContext,
    changed: &[String],
) -> Result<(Discovered, Arc<Model>), StepError> {
    let found = operation.on_disk().await?.ok_or_else(|| {
        let message = "containers ran here before, but there are no compose files to start them from again";
        StepError::new(FailureCategory::ComposeInvalid, message)
    })?;
    if !changed.is_empty() && !tenantry_faults::Bug::CheckOnce.is_seeded() {
        let names = changed.join(", ");
        tracing::warn!(tenant = %operation.request.tenant.name, operation = %operation.id, files = %names, "changed since they were checked");
        policy::judge(operation, &found.1).await.map_err(|error| {
            let message = format!(
                "{names} changed while the operation was under way, and what it says now is refused: {}",
                error.message
            );
            StepError { message, ..error }
        })?;
    }
    Ok(found)
}

async fn differing(operation: &OperationContext, checked: &Checked) -> Result<Vec<String>, StepError> {
    let now = hashes(operation, checked.keys().cloned().collect()).await?;
    let changed = now.iter().filter(|(path, hash)| checked.get(*path) != Some(*hash));
    Ok(changed.map(|(path, _)| path.clone()).collect())
}
