//! By which terms a release is judged.

use tenantry_planner::steps::State;
use tenantry_protocol::Action;

use crate::operation::context::OperationContext;
use crate::planning::{StepError, way_back::chosen_by};
use crate::store::Terms;

/// By which terms the release is judged that this operation brings about, or, once it has failed, the one before.
pub async fn terms(operation: &OperationContext, state: &State) -> Result<Terms, StepError> {
    let request = &operation.request;
    if request.action == Action::Upgrade && state.failure().is_none() {
        return Ok(Terms::of(request));
    }
    let known = if state.failure().is_some() {
        let (host, uid) = (operation.host.clone(), request.tenant.uid.clone());
        operation.blocking(move || Ok(host.store.baseline(&uid)?.terms)).await?
    } else {
        chosen_by(operation).await?.and_then(|point| point.baseline.terms)
    };
    Ok(known.unwrap_or_else(|| {
        // A release that was there before us has none of its own, and a target's probes are for the target.
        let mut terms = Terms::of(request);
        terms.verify.http.clear();
        terms
    }))
}
