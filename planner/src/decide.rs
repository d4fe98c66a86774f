//! What to do next for one Tenant: a pure function of what is wanted, what was seen, what status says, and the time.
//!
//! Nothing here awaits, reads a clock or the environment. The caller gathers [`Facts`], carries out the one
//! [`Effect`], and writes [`Decision::status`] where it differs from what is there.
//!
//! A part of the decision that can end the pass answers with a `Ruling`, or with `None` where the pass goes on.

use std::time::Duration;

use tenantry_api::conditions::find;
use tenantry_api::tenant_status::{Phase, TenantStatus};
use tenantry_protocol::Observation;
use tenantry_protocol::TARGET_OF_ADOPTED;

use crate::target::{Desired, Refusal};

mod accept;
mod adoption;
mod annotations;
mod approach;
mod conditions;
mod decision;
mod deletion;
mod drift;
mod ended;
mod events;
mod facts;
mod forbidden;
mod in_flight;
mod lifecycle;
pub mod outcomes;
mod passing;
mod policy;
mod progress;
mod reach;
mod rollback;
mod summary;
mod suspended;
mod unreached;
mod upgrade;

pub use conditions::truths;
pub use decision::{Decision, Effect, Finalizer, Submission};
pub use events::{Event, EventType};
pub use facts::{Answer, Facts, Subject, Unreached};
pub use forbidden::{FORBIDDEN, forbidden};
pub use rollback::further_back;

use adoption::differences;
use approach::unread_files;
use conditions::PhaseReport;
use decision::Ruling;
use lifecycle::{Block, Host, Lifecycle};

/// How long a Tenant that is as it should be is left alone.
pub const OBSERVE_EVERY: Duration = Duration::from_mins(1);
/// How long a deleted Tenant waits for a host that does not answer.
pub const ORPHAN_AFTER: Duration = Duration::from_mins(5);

/// How many items of a list a message names.
const SHOWN: usize = 8;

/// Decides.
pub fn decide(facts: &Facts<'_>) -> Decision {
    let mut draft = Draft::new(facts);
    draft.note_contact();
    let (ruling, finalizer) = match facts.subject.deleted_at {
        Some(deleted_at) => draft.delete(deleted_at),
        None => draft.keep(),
    };
    let Ruling { effect, requeue, .. } = ruling;
    let status = draft.into_status();
    let mut events = events::between(facts.status, &status, facts.subject);
    if facts.subject.deleted_at.is_some() && facts.subject.finalizer {
        events.extend(deletion::events(facts.status, &status, finalizer, facts.subject));
    }
    Decision { status, effect, finalizer, requeue, events }
}

/// A decision while it is made.
struct Draft<'a> {
    facts: &'a Facts<'a>,
    /// The status as it will be, but for what the two below hold.
    next: TenantStatus,
    lifecycle: Lifecycle,
    block: Option<Block>,
}

impl<'a> Draft<'a> {
    fn new(facts: &'a Facts<'a>) -> Self {
        let mut next = facts.status.clone();
        let lifecycle = Lifecycle::take(&mut next);
        let block = Block::take(&mut next, &lifecycle);
        Self { facts, next, lifecycle, block }
    }

    fn into_status(mut self) -> TenantStatus {
        self.keep_transitions();
        self.next.upgrade = self.lifecycle.into_status();
        self.next.blocked_target = self.block.map(Block::into_status);
        self.next
    }

    /// What was set and set back within one pass has not changed (P14).
    fn keep_transitions(&mut self) {
        for condition in &mut self.next.conditions {
            let before = find(&self.facts.status.conditions, &condition.type_);
            if let Some(before) = before.filter(|before| before.status == condition.status) {
                condition.last_transition_time = before.last_transition_time.clone();
            }
        }
    }

    /// Decides for a Tenant that is not deleted.
    fn keep(&mut self) -> (Ruling, Finalizer) {
        let ruling = match self.lifecycle.clone() {
            Lifecycle::InFlight(operation) => self.in_flight(&operation),
            Lifecycle::None | Lifecycle::Ended(..) => self.at_rest(),
        };
        self.report(&ruling);
        self.note_removed_annotations();
        self.next.observed_bundle_revision =
            self.facts.desired.ok().and_then(|desired| desired.bundle_revision.clone());
        let generation = Some(self.facts.subject.generation);
        self.next.observed_generation = generation;
        // What was set before this generation was seen speaks of it now, too.
        for condition in &mut self.next.conditions {
            condition.observed_generation = generation;
        }
        let holds = ruling.is_fencing() || self.next.deployed.is_some() || self.lifecycle != Lifecycle::None;
        let finalizer = if holds && !self.facts.subject.finalizer { Finalizer::Add } else { Finalizer::Keep };
        (ruling, finalizer)
    }

    /// Nothing is in flight.
    fn at_rest(&mut self) -> Ruling {
        if self.facts.subject.suspend {
            return self.suspended();
        }
        if self.next.phase == Some(Phase::Suspended) {
            self.next.phase = None;
        }
        let desired = match self.facts.desired {
            Ok(desired) => desired,
            Err(refusal) => return self.only_goes_back().unwrap_or_else(|| refused(refusal)),
        };
        match self.facts.answer {
            Answer::NotAsked => self.not_looked_at(desired),
            Answer::Unreached(why, text) => self.unreached(why, text),
            Answer::Refused(error) | Answer::NotBegun(error) => self.agent_refused(error),
            Answer::Seen(observation)
            | Answer::Unknown(observation)
            | Answer::Followed(_, Some(observation)) => self.compare(desired, observation),
            Answer::Followed(_, None) => Ruling::unchanged().within(Duration::ZERO),
        }
    }

    /// What is known before the host is looked at: a target that is not deployed is not `Ready`.
    fn not_looked_at(&self, desired: &Desired) -> Ruling {
        let host = &self.facts.subject.host;
        if self.next.deployed.is_none() {
            return Ruling::says(PhaseReport::pending(host));
        }
        if self.at_target(&desired.target_hash(self.next.resolved.as_ref())) {
            return Ruling::unchanged();
        }
        let tag = &desired.intent.image_tag;
        let what = desired.intent.bundle.as_ref().map_or_else(
            || format!("{tag} is wanted"),
            |bundle| format!("{tag} is wanted as TemplateBundle {bundle} is now"),
        );
        Ruling::says(PhaseReport::of(Phase::Planning, format!("{what}; host {host} is looked at next.")))
    }

    /// The host was seen, and nothing of ours is in flight as far as status knows.
    fn compare(&mut self, desired: &Desired, observation: &Observation) -> Ruling {
        if let Some(ruling) = self.not_ours(desired, observation) {
            return ruling;
        }
        self.record_compose(observation);
        self.record_points(observation);
        self.note_policy(desired, observation);
        if let Some(ruling) =
            self.asked_to_accept(desired, observation).or_else(|| self.annotations(desired, observation))
        {
            return ruling;
        }
        let target = desired.target_hash(self.next.resolved.as_ref());
        self.forget_tries_of_others(&target);
        if let Some(ruling) = self.accepted(desired, observation, &target) {
            return ruling;
        }
        let usable = unread_files(desired, observation).and_then(|()| reach::reaches(desired, observation));
        if let Err(refusal) = usable {
            return refused(&refusal);
        }
        if self.at_target(&target) {
            self.forget_what_was_left(&target);
            self.stay(observation)
        } else if self.is_first_contact(observation) {
            self.meet(desired, observation, &target)
        } else if self.is_what_was_adopted(observation, &target) {
            self.block = None;
            self.deploy_seen(desired, observation, &target);
            self.stay(observation)
        } else {
            self.upgrade(desired, observation, &target)
        }
    }

    /// Ends the pass where the host must not be touched, whatever is wanted.
    fn not_ours(&mut self, desired: &Desired, observation: &Observation) -> Option<Ruling> {
        self.claimed_by_other(desired, observation)
            .or_else(|| self.damaged(desired, observation))
            .or_else(|| self.strange_operation(observation))
    }

    /// A target that the spec has turned away from is a new wish when it is asked for again.
    fn forget_what_was_left(&mut self, target: &str) {
        self.block = self.block.take().filter(|block| block.target_hash == target);
    }

    /// Whether a person has gone back to what was taken over as it was, and it is as wanted in all that was looked at
    /// then: nothing is to be done.
    fn is_what_was_adopted(&self, observation: &Observation, target: &str) -> bool {
        let adopted =
            self.next.deployed.as_ref().is_some_and(|deployed| deployed.target_hash == TARGET_OF_ADOPTED);
        let mut services =
            observation.services.iter().filter_map(|service| service.running.as_ref()).peekable();
        let left = self.block.as_ref().is_some_and(|block| block.target_hash == target);
        adopted
            && !left
            && self.lifecycle.host() == Host::Settled
            && differences(observation).is_empty()
            && services.peek().is_some()
            && services.all(|running| running.current)
    }

    /// Whether the target is what was last seen to run, and nothing else was started since.
    fn at_target(&self, target: &str) -> bool {
        let deployed = self.next.deployed.as_ref().is_some_and(|deployed| deployed.target_hash == target);
        deployed && self.lifecycle.host() == Host::Settled
    }
}

fn refused(refusal: &Refusal) -> Ruling {
    Ruling::says(PhaseReport::refused(refusal.reason, &refusal.message))
}

#[cfg(test)]
mod tests;
