//! A deleted Tenant: an operation in flight ends, the claim is given back, nothing on the host is stopped.

use std::time::Duration;

use jiff::Timestamp;
use tenantry_api::annotations::ORPHAN;
use tenantry_api::conditions::{DELETING, HOST_REACHABLE, Truth, find, whole_seconds};
use tenantry_api::tenant_status::TenantStatus;
use tenantry_protocol::ErrorCode;

use super::decision::Ruling;
use super::events::event;
use super::lifecycle::Lifecycle;
use super::unreached::BUSY_AGAIN;
use super::{Answer, Draft, Effect, Event, EventType, Finalizer, ORPHAN_AFTER, Subject, Unreached};

/// Why a deleted Tenant is still there.
struct Waiting {
    reason: &'static str,
    message: String,
}

impl Draft<'_> {
    pub(super) fn delete(&mut self, deleted_at: Timestamp) -> (Ruling, Finalizer) {
        let (mut ruling, finalizer) = self.let_go(deleted_at);
        let waiting = self.kept_by(finalizer, deleted_at);
        if let (Some(waiting), Some(report)) = (&waiting, &mut ruling.report) {
            report.message = format!("{} {}", waiting.message, report.message);
        }
        self.report(&ruling);
        if let Some(Waiting { reason, message }) = waiting {
            self.condition(DELETING, Truth::True, reason, &message);
            self.next.summary = Some("Deleting".to_owned());
        }
        (ruling, finalizer)
    }

    /// What our finalizer waits for, where it does.
    fn kept_by(&self, finalizer: Finalizer, deleted_at: Timestamp) -> Option<Waiting> {
        if finalizer != Finalizer::Keep || !self.facts.subject.finalizer {
            return None;
        }
        let host = &self.facts.subject.host;
        let (reason, what) = if matches!(self.facts.answer, Answer::Unreached(..) | Answer::Refused(_)) {
            let until = whole_seconds(self.goes_without_host_at(deleted_at));
            let what = format!(
                "it waits until {until} for host {host}, so that the claim on the directory is given back, and then goes \
                 without. To let it go at once, annotate it with {ORPHAN}=true."
            );
            ("WaitsForHost", what)
        } else {
            let in_flight =
                self.lifecycle.in_flight().map(|operation| operation.id.clone()).unwrap_or_default();
            ("WaitsForOperation", format!("operation {in_flight} on host {host} ends first."))
        };
        let message = format!("The Tenant is deleted: {what} Its containers go on running.");
        Some(Waiting { reason, message })
    }

    fn let_go(&mut self, deleted_at: Timestamp) -> (Ruling, Finalizer) {
        if !self.facts.subject.finalizer {
            return (Ruling::unchanged(), Finalizer::Keep);
        }
        if self.facts.subject.orphan {
            return (Ruling::unchanged(), Finalizer::Abandon);
        }
        let ruling = match (self.lifecycle.clone(), self.facts.answer) {
            // Never begun: there is nothing to wait for.
            (Lifecycle::InFlight(operation), Answer::Unknown(_)) => {
                self.end_unbegun(&operation, "The Tenant was deleted before this reached the agent.");
                Ruling::unchanged()
            }
            (Lifecycle::InFlight(operation), _) => self.in_flight(&operation),
            (Lifecycle::None | Lifecycle::Ended(..), _) => Ruling::unchanged(),
        };
        match self.facts.answer {
            Answer::Unreached(why, text) => self.wait_for_host(self.unreached(why, text), deleted_at),
            Answer::Refused(error) => match error.code {
                ErrorCode::Busy | ErrorCode::Overloaded => (ruling.within(BUSY_AGAIN), Finalizer::Keep),
                ErrorCode::HostFault
                | ErrorCode::StaleEpoch
                | ErrorCode::Invalid
                | ErrorCode::RecordsDamaged => {
                    let unreached = self.unreached(Unreached::HostFault, &error.to_string());
                    self.wait_for_host(unreached, deleted_at)
                }
                // The host holds nothing for this Tenant.
                ErrorCode::PolicyRefused
                | ErrorCode::NotFound
                | ErrorCode::OperationMismatch
                | ErrorCode::ClaimedByOther => (ruling, Finalizer::Remove),
            },
            Answer::NotAsked
            | Answer::NotBegun(_)
            | Answer::Seen(_)
            | Answer::Unknown(_)
            | Answer::Followed(..) => match self.lifecycle {
                Lifecycle::InFlight(_) => (ruling, Finalizer::Keep),
                Lifecycle::None | Lifecycle::Ended(..) => (ruling.with(Effect::Release), Finalizer::Remove),
            },
        }
    }

    /// Goes once the host has not answered for as long as a deleted Tenant waits.
    fn wait_for_host(&self, unreached: Ruling, deleted_at: Timestamp) -> (Ruling, Finalizer) {
        let left = self.goes_without_host_at(deleted_at).as_second() - self.facts.now.as_second();
        if left <= 0 {
            return (unreached, Finalizer::Abandon);
        }
        let requeue = unreached.requeue.min(Duration::from_secs(left.unsigned_abs()));
        (unreached.within(requeue), Finalizer::Keep)
    }

    /// When a host that does not answer is waited for no longer.
    fn goes_without_host_at(&self, deleted_at: Timestamp) -> Timestamp {
        let since = find(&self.next.conditions, HOST_REACHABLE)
            .filter(|condition| condition.status == Truth::False.as_str())
            .map_or(deleted_at, |condition| condition.last_transition_time.0);
        since.checked_add(ORPHAN_AFTER).unwrap_or(since)
    }
}

/// What people are told of a Tenant that is deleted: when that is seen, and when it goes.
pub(super) fn events(
    old: &TenantStatus,
    new: &TenantStatus,
    finalizer: Finalizer,
    subject: &Subject,
) -> Vec<Event> {
    let host = &subject.host;
    let waits = |status: &TenantStatus| {
        find(&status.conditions, DELETING).map(|one| (one.reason.clone(), one.message.clone()))
    };
    let runs_on = "What runs there was left as it is, with its files, volumes and restore points: `docker compose down` in \
                   the project's directory ends it, and another Tenant for that directory takes it over";
    match finalizer {
        Finalizer::Remove => {
            let text = format!("Host {host} holds nothing for this Tenant any more. {runs_on}.");
            vec![event(EventType::Normal, "Released", &text)]
        }
        Finalizer::Abandon => {
            let text = format!(
                "Went without host {host}, which is told once it answers again and there is a ComposeHost for it. {runs_on}."
            );
            vec![event(EventType::Warning, "Orphaned", &text)]
        }
        Finalizer::Keep | Finalizer::Add => match (waits(old), waits(new)) {
            (Some((before, _)), Some((now, _))) if before == now => Vec::new(),
            (_, Some((_, message))) => vec![event(EventType::Warning, "Deleting", &message)],
            (_, None) => Vec::new(),
        },
    }
}
