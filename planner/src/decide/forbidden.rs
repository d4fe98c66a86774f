//! What a Tenant says where the API server lets its operator not do what the Tenant needs.

use jiff::Timestamp;
use tenantry_api::conditions::{READY, RECONCILING, STALLED, Truth, find, set};
use tenantry_api::tenant_status::{Phase, TenantStatus};

use super::events::{Event, EventType, event};

/// The reason of its conditions, and of its event.
pub const FORBIDDEN: &str = "Forbidden";

/// The status of a Tenant that can't be looked after, and the event that says so where it did not before. What is
/// missing is a sentence. That it is given is waited for, so nothing has stalled.
pub fn forbidden(
    status: &TenantStatus,
    generation: i64,
    missing: &str,
    now: Timestamp,
) -> (TenantStatus, Option<Event>) {
    let mut next = status.clone();
    next.phase = Some(status.phase.unwrap_or(Phase::Pending));
    next.observed_generation = Some(generation);
    next.summary = Some(FORBIDDEN.to_owned());
    let message = format!(
        "The operator lacks a right at the API server: {missing} `kubectl apply -f deploy/rbac.yaml` gives all that it \
         needs; it goes on by itself then."
    );
    let mut put = |kind, truth: Truth, message: &str| {
        set(&mut next.conditions, kind, truth, FORBIDDEN, message, generation, now);
    };
    put(READY, Truth::Unknown, &message);
    put(RECONCILING, Truth::True, &message);
    put(STALLED, Truth::False, "");
    let before = find(&status.conditions, READY);
    let told = before.is_some_and(|ready| ready.reason == FORBIDDEN && ready.message == message);
    let news = (!told).then(|| event(EventType::Warning, FORBIDDEN, &message));
    (next, news)
}
