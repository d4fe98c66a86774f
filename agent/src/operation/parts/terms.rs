//! By which terms the release is judged that runs at the end of an operation.

use tenantry_planner::steps::JournalState;

use crate::operation::context::OperationContext;
use crate::planning::{StepError, terms as planned};
use crate::store::Terms;

/// By which terms the release is judged that this operation brings about, or, once it has failed, the one before.
pub async fn terms(operation: &OperationContext, state: &JournalState) -> Result<Terms, StepError> {
    if state.failure().is_none() {
        return planned::terms(operation).await;
    }
    let (host, uid) = (operation.host.clone(), operation.request.tenant.uid.clone());
    let known = operation.blocking(move || Ok(host.store.baseline(&uid)?.terms)).await?;
    Ok(known.unwrap_or_else(|| planned::of_unknown(&operation.request)))
}
