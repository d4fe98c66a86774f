//! A deleted Tenant: an operation in flight ends, the claim is given back, nothing on the host is stopped.

use std::time::Duration;

use jiff::Timestamp;
use tenantry_api::conditions::{HOST_REACHABLE, Truth, find};
use tenantry_protocol::ErrorCode;

use super::decision::Ruling;
use super::lifecycle::Lifecycle;
use super::unreached::BUSY_AGAIN;
use super::{Answer, Draft, Effect, Finalizer, ORPHAN_AFTER, Unreached};

impl Draft<'_> {
    pub(super) fn delete(&mut self, deleted_at: Timestamp) -> (Ruling, Finalizer) {
        let (ruling, finalizer) = self.let_go(deleted_at);
        self.report(&ruling);
        (ruling, finalizer)
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
        let since = find(&self.next.conditions, HOST_REACHABLE)
            .filter(|condition| condition.status == Truth::False.as_str())
            .map_or(deleted_at, |condition| condition.last_transition_time.0);
        let waited = self.facts.now.as_second() - since.as_second();
        let most = i64::try_from(ORPHAN_AFTER.as_secs()).unwrap_or(i64::MAX);
        if waited >= most {
            return (unreached, Finalizer::Abandon);
        }
        let left = Duration::from_secs(u64::try_from(most - waited).unwrap_or(0).max(1));
        let requeue = unreached.requeue.min(left);
        (unreached.within(requeue), Finalizer::Keep)
    }
}
