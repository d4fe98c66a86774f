//! Probes: whether this host's policy lets them be made, and whether they could pass at all.

use std::collections::BTreeMap;

use tenantry_api::names::ServiceName;
use tenantry_planner::compare::Expected;
use tenantry_planner::verify::{Surroundings, permitted};
use tenantry_protocol::VerifyPolicy;

use crate::planning::context::RequestContext;
use crate::planning::error::StepError;

/// Refuses probes that the local policy does not allow or that can't pass (P13).
pub fn check(
    context: &RequestContext,
    policy: &VerifyPolicy,
    expected: &BTreeMap<ServiceName, Expected>,
    agent: Option<&str>,
) -> Result<(), StepError> {
    let allow = context.host.policy.allow();
    let among = Surroundings { granted: &allow.verify, expected, agent };
    permitted(&policy.probes, &among).map_err(|(category, message)| StepError::new(category, message))
}
