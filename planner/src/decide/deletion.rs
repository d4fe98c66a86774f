//! A deleted Tenant: an operation in flight ends, the claim is given back, nothing on the host is stopped.

use std::time::Duration;

use jiff::Timestamp;
use tenantry_api::conditions::{HOST_REACHABLE, Truth, find};
use tenantry_protocol::ErrorCode;

use super::{Answer, Effect, Finalizer, ORPHAN_AFTER, Pass, Unreached};

impl Pass<'_> {
    pub(super) fn leave(&mut self, deleted_at: Timestamp) -> Finalizer {
        if !self.facts.subject.finalizer {
            return Finalizer::Keep;
        }
        if self.facts.subject.orphan {
            return Finalizer::Abandon;
        }
        if self.in_flight().is_some() {
            match self.facts.answer {
                // Never begun: there is nothing to wait for.
                Answer::Unknown(_) => {
                    self.forget_unbegun("The Tenant was deleted before this reached the agent.");
                }
                _ => self.fly(),
            }
        }
        match self.facts.answer {
            Answer::Unreached(why, text) => {
                self.unreached(why, text);
                return self.wait_for_host(deleted_at);
            }
            Answer::Refused(error) => match error.code {
                ErrorCode::Busy | ErrorCode::Overloaded => {
                    self.requeue = Duration::from_secs(5);
                    return Finalizer::Keep;
                }
                ErrorCode::HostFault
                | ErrorCode::StaleEpoch
                | ErrorCode::Invalid
                | ErrorCode::RecordsDamaged => {
                    self.unreached(Unreached::HostFault, &error.to_string());
                    return self.wait_for_host(deleted_at);
                }
                // The host holds nothing for this Tenant.
                ErrorCode::PolicyRefused
                | ErrorCode::NotFound
                | ErrorCode::OperationMismatch
                | ErrorCode::ClaimedByOther => return Finalizer::Remove,
            },
            _ => {}
        }
        if self.in_flight().is_some() {
            return Finalizer::Keep;
        }
        self.effect = Some(Effect::Release);
        Finalizer::Remove
    }

    /// Goes once the host has not answered for as long as a deleted Tenant waits.
    fn wait_for_host(&mut self, deleted_at: Timestamp) -> Finalizer {
        self.effect = None;
        let since = find(&self.next.conditions, HOST_REACHABLE)
            .filter(|condition| condition.status == Truth::False.as_str())
            .map_or(deleted_at, |condition| condition.last_transition_time.0);
        let waited = self.facts.now.as_second() - since.as_second();
        let most = i64::try_from(ORPHAN_AFTER.as_secs()).unwrap_or(i64::MAX);
        if waited >= most {
            return Finalizer::Abandon;
        }
        let left = u64::try_from(most - waited).unwrap_or(0);
        self.requeue = self.requeue.min(Duration::from_secs(left.max(1)));
        Finalizer::Keep
    }
}
