//! By which terms the release is judged that a request brings about.

use tenantry_protocol::{Action, OperateRequest};

use super::context::RequestContext;
use super::error::StepError;
use super::way_back::chosen_by;
use crate::store::Terms;

/// By which terms the release is judged that a request brings about.
pub async fn terms(context: &RequestContext) -> Result<Terms, StepError> {
    if context.request.action == Action::Upgrade {
        return Ok(Terms::of(&context.request));
    }
    let known = chosen_by(context).await?.and_then(|point| point.baseline.terms);
    Ok(known.unwrap_or_else(|| of_unknown(&context.request)))
}

/// A release that was there before us has no terms of its own, and a target's probes are for the target.
pub fn of_unknown(request: &OperateRequest) -> Terms {
    let mut terms = Terms::of(request);
    terms.verify.probes.clear();
    terms
}
