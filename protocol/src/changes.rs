//! What has changed on a host since it was asked last: one call that waits, for all of its tenants.

use serde::{Deserialize, Serialize};
use tenantry_api::names::TenantUid;

/// What has changed on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Changes {
    /// The moment up to which this tells: what is asked after next. Empty where the agent knows of none yet.
    pub mark: String,
    /// Those who have changed.
    pub changed: Changed,
}

/// Whose containers have changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "are", content = "tenants")]
pub enum Changed {
    /// The agent can't know: it was started since, or its engine's events broke off.
    Unknown,
    /// These tenants', of those who have a claim; none where the wait was over before anything happened.
    These(Vec<TenantUid>),
}
