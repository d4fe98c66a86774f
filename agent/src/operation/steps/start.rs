//! Start: `docker compose up` over the release, orphans that are in its way gone before it, the others after.

use std::fmt::Write as _;

use tenantry_planner::steps::JournalState;

use crate::operation::context::OperationContext;
use crate::operation::driver::StepResult;
use crate::operation::parts::{orphans, recheck, starts::record_made, up::bring_up};
use crate::planning::StepError;

/// Starts the release.
pub async fn start(operation: &OperationContext, state: &JournalState) -> Result<StepResult, StepError> {
    let checked = state.plan().map(|plan| plan.checked.clone()).unwrap_or_default();
    let (discovered, model) = recheck::release(operation, &checked).await?;
    let mut removed = orphans::remove(operation, state, true).await?;
    removed.extend(bring_up(operation, state, &discovered, &model).await?);
    removed.extend(orphans::remove(operation, state, false).await?);
    let services = record_made(operation, state, &model).await?;
    let mut text = match services.len() {
        0 => "compose made no container anew".to_owned(),
        1..=8 => {
            format!("compose made containers of {}", services.into_iter().collect::<Vec<_>>().join(", "))
        }
        many => format!("compose made containers of {many} services"),
    };
    if !removed.is_empty() {
        let _ = write!(text, "; removed: {}", removed.join(", "));
    }
    Ok(StepResult::saying(text))
}
