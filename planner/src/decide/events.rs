//! What to tell people: the difference between the status that was and the one that is, as Kubernetes Events.

use tenantry_api::conditions::{DRIFTED, READY, Truth, bounded, find};
use tenantry_api::tenant_status::{HistoryEntry, Phase, TenantStatus};

use super::Subject;
use super::outcomes::{Meaning, Runs};

/// The longest note that the API takes is 1,024 bytes.
const NOTE_LIMIT: usize = 1_000;

/// A Kubernetes Event, not yet published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether something is wrong.
    pub type_: EventType,
    /// One word of a bounded set.
    pub reason: &'static str,
    /// A sentence.
    pub note: String,
}

/// The type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Something to look at.
    Warning,
}

/// The events between two statuses.
pub(super) fn between(old: &TenantStatus, new: &TenantStatus, subject: &Subject) -> Vec<Event> {
    let mut events = Vec::new();
    for entry in new.history.iter().filter(|entry| !old.history.iter().any(|known| known.id == entry.id)) {
        events.push(outcome(entry));
    }
    if let Some(event) = phase(old, new) {
        events.push(event);
    }
    if old.deployed.is_none() && new.deployed.is_some() && new.upgrade == old.upgrade {
        let text =
            format!("What is on host {} is the target already; it was taken over unchanged.", subject.host);
        events.push(event(EventType::Normal, "Adopted", &text));
    }
    if let Some(drift) = drift(old, new) {
        events.push(drift);
    }
    events
}

fn event(type_: EventType, reason: &'static str, note: &str) -> Event {
    Event { type_, reason, note: bounded(note, NOTE_LIMIT) }
}

fn outcome(entry: &HistoryEntry) -> Event {
    let from = entry.from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
    let said = if entry.message.is_empty() { String::new() } else { format!(" {}", entry.message) };
    let took = entry.finished_at.0.as_second() - entry.started_at.0.as_second();
    let meaning = Meaning::of(entry.outcome);
    let how = match (meaning.runs, &entry.from) {
        (Runs::Restored, None) => "failed and was taken back",
        (Runs::Restored | Runs::Target | Runs::Unchanged | Runs::Failed | Runs::Unknown, _) => meaning.event,
    };
    let kind = if meaning.blocks_target() { EventType::Warning } else { EventType::Normal };
    let text = format!("Operation {}{from} to {} {how} after {took} s.{said}", entry.id, entry.to);
    event(kind, entry.outcome.as_str(), &text)
}

fn phase(old: &TenantStatus, new: &TenantStatus) -> Option<Event> {
    let phase = new.phase?;
    if old.phase == Some(phase) && same_reason(old, new) {
        return None;
    }
    let message = find(&new.conditions, READY).map(|ready| ready.message.clone()).unwrap_or_default();
    let kind = match phase {
        Phase::Pending | Phase::Aborted | Phase::RolledBack | Phase::Held | Phase::RollbackFailed => {
            return None;
        }
        Phase::Ready if newly_ended(old, new) => return None,
        Phase::Planning
        | Phase::Pulling
        | Phase::Snapshotting
        | Phase::Writing
        | Phase::Starting
        | Phase::Verifying
        | Phase::Ready
        | Phase::Suspended => EventType::Normal,
        Phase::AdoptionNeeded
        | Phase::RollingBack
        | Phase::Degraded
        | Phase::Refused
        | Phase::HostUnreachable => EventType::Warning,
    };
    Some(event(kind, phase.as_str(), &message))
}

fn same_reason(old: &TenantStatus, new: &TenantStatus) -> bool {
    let reason = |status: &TenantStatus| find(&status.conditions, READY).map(|ready| ready.reason.clone());
    reason(old) == reason(new)
}

/// The outcome's own event says it already.
fn newly_ended(old: &TenantStatus, new: &TenantStatus) -> bool {
    new.history.first().map(|entry| &entry.id) != old.history.first().map(|entry| &entry.id)
}

fn drift(old: &TenantStatus, new: &TenantStatus) -> Option<Event> {
    let drifted = |status: &TenantStatus| {
        find(&status.conditions, DRIFTED)
            .map(|condition| (Truth::parse(&condition.status), condition.message.clone()))
    };
    match (drifted(old), drifted(new)) {
        (Some((Truth::True, _)), Some((Truth::True, _))) => None,
        (_, Some((Truth::True, message))) => Some(event(EventType::Warning, "Drifted", &message)),
        (Some((Truth::True, _)), Some((Truth::False, message))) => {
            Some(event(EventType::Normal, "DriftGone", &message))
        }
        _ => None,
    }
}
