//! Annotations with which a person asks for something that is not desired state.
//!
//! Each is handled once per value, and the handled value is echoed in `status.handled`.

/// Look for moved tags and observe the host again now.
pub const RECONCILE: &str = "tenantry.dev/reconcile";
/// Try a blocked target again.
pub const RETRY: &str = "tenantry.dev/retry";
/// Let a deleted Tenant go without waiting for its host.
pub const ORPHAN: &str = "tenantry.dev/orphan";
