//! Annotations with which a person asks for something that is not desired state.
//!
//! Each is handled once per value, and the handled value is echoed in `status.handled`.

/// Look for moved tags and observe the host again now.
pub const RECONCILE: &str = "tenantry.dev/reconcile";
/// Try a blocked target again.
pub const RETRY: &str = "tenantry.dev/retry";
/// Let a deleted Tenant go without waiting for its host.
pub const ORPHAN: &str = "tenantry.dev/orphan";
/// Go back to a restore point: its id, then, separated by commas, `data` to restore declared paths and volumes too, and
/// any token, to ask again. An empty id means the newest. Example: `3f2a-7,data,monday`.
pub const ROLLBACK_TO: &str = "tenantry.dev/rollback-to";
/// Take the host's present state for the truth, after the agent's records were damaged or a rollback failed.
pub const ACCEPT_HOST: &str = "tenantry.dev/accept-host";
/// Take directory and project over from a Tenant that never gave them back.
pub const CLAIM: &str = "tenantry.dev/claim";
