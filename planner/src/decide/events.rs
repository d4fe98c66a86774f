//! What to tell people: the difference between the status that was and the one that is, as Kubernetes Events.

use std::fmt::Write as _;

use tenantry_api::conditions::{DRIFTED, READY, Truth, bounded, find};
use tenantry_api::tenant_status::{HistoryEntry, Outcome, Phase, ServiceFailure, TenantStatus};

use super::Subject;
use super::outcomes::{Meaning, Runs};
use crate::text::sentence;

/// The longest note that the API takes is 1,024 bytes.
const NOTE_LIMIT: usize = 1_000;
/// The longest action that the API takes.
const ACTION_LIMIT: usize = 128;
/// The most services of which an operation's end tells the last words.
const TOLD_SERVICES: usize = 3;

/// A Kubernetes Event, not yet published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether something is wrong.
    pub type_: EventType,
    /// One word of a bounded set.
    pub reason: &'static str,
    /// A sentence.
    pub note: String,
    /// The operation that it tells of.
    pub operation: Option<String>,
    /// The service of it, where it tells of one.
    pub service: Option<String>,
}

impl Event {
    /// What the Event says was done: the operation, and to which service, for Events that are alike but for their note
    /// count as one.
    pub fn action(&self) -> String {
        let operation = self.operation.as_deref().unwrap_or("Observe");
        let service = self.service.as_ref().map(|service| format!(" {service}")).unwrap_or_default();
        bounded(&format!("{operation}{service}"), ACTION_LIMIT)
    }
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
        events.push(outcome(entry, new));
        events.extend(last_words(entry, new));
    }
    let operation = new.upgrade.as_ref().map(|upgrade| upgrade.id.clone());
    if let Some(event) = next_try(old, new) {
        events.push(Event { operation, ..event });
    } else if let Some(event) = phase(old, new) {
        events.push(Event { operation, ..event });
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

pub(super) fn event(type_: EventType, reason: &'static str, note: &str) -> Event {
    Event { type_, reason, note: bounded(note, NOTE_LIMIT), operation: None, service: None }
}

fn outcome(entry: &HistoryEntry, status: &TenantStatus) -> Event {
    let from = entry.from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
    let said = if entry.message.is_empty() { String::new() } else { format!(" {}", entry.message) };
    let took = entry.finished_at.0.as_second() - entry.started_at.0.as_second();
    let meaning = Meaning::of(entry.outcome);
    let how = match (meaning.runs, &entry.from) {
        (Runs::Restored, None) => "failed and was taken back",
        (Runs::Restored | Runs::Target | Runs::Unchanged | Runs::Failed | Runs::Unknown, _) => meaning.event,
    };
    let kind = if meaning.blocks_target() { EventType::Warning } else { EventType::Normal };
    let of_it = status.upgrade.as_ref().filter(|upgrade| upgrade.id == entry.id);
    let category = of_it.and_then(|upgrade| upgrade.category.as_ref());
    let category = category.map(|category| format!(" ({category})")).unwrap_or_default();
    let text = format!("Operation {}{from} to {} {how} after {took} s{category}.{said}", entry.id, entry.to);
    Event { operation: Some(entry.id.clone()), ..event(kind, entry.outcome.as_str(), &text) }
}

/// What the services that did not come up said last, an event for each of the first.
fn last_words(entry: &HistoryEntry, status: &TenantStatus) -> Vec<Event> {
    let of_it = status.upgrade.as_ref().filter(|upgrade| upgrade.id == entry.id);
    let Some(upgrade) = of_it.filter(|upgrade| upgrade.outcome != Some(Outcome::Succeeded)) else {
        return Vec::new();
    };
    let told = upgrade.failures.iter().filter(|one| !one.log.is_empty() || one.healthcheck.is_some());
    let tell = |one: &ServiceFailure| Event {
        operation: Some(entry.id.clone()),
        service: Some(one.service.clone()),
        ..event(EventType::Warning, "ServiceFailed", &words(one))
    };
    told.take(TOLD_SERVICES).map(tell).collect()
}

/// What is wrong with a service, and as many of its last lines as an event has room for.
fn words(failure: &ServiceFailure) -> String {
    let mut text = format!("{}: {}", failure.during.as_str(), sentence(&failure.problem));
    if let Some(check) = &failure.healthcheck {
        let _ = write!(text, " Its healthcheck printed: {}", bounded(check.trim_end(), NOTE_LIMIT / 4));
    }
    let mut room = NOTE_LIMIT.saturating_sub(text.len() + 40);
    let fits = failure.log.iter().rev().take_while(|line| {
        let left = room.checked_sub(line.len() + 1);
        room = left.unwrap_or(0);
        left.is_some()
    });
    let mut lines: Vec<&str> = fits.map(String::as_str).collect();
    lines.reverse();
    if !lines.is_empty() {
        let _ = write!(text, " The last lines of its log:\n{}", lines.join("\n"));
    }
    text
}

/// A target that is tried again by itself.
fn next_try(old: &TenantStatus, new: &TenantStatus) -> Option<Event> {
    let at = |status: &TenantStatus| status.upgrade.as_ref().and_then(|upgrade| upgrade.retry_at.clone());
    let again = at(new)?;
    if at(old).as_ref() == Some(&again) {
        return None;
    }
    let ready = find(&new.conditions, READY)?;
    Some(event(EventType::Warning, "Retrying", &format!("{}: {}", ready.reason, ready.message)))
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
