//! The plan that a step carries out.

use tenantry_planner::steps::{JournalState, Plan};
use tenantry_protocol::FailureCategory;

use crate::planning::StepError;

/// The plan that Preflight recorded. No step after it comes without one.
pub fn planned(state: &JournalState) -> Result<Plan, StepError> {
    let none = || StepError::new(FailureCategory::AgentFault, "there is no plan");
    state.plan().cloned().ok_or_else(none)
}
