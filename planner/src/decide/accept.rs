//! Damaged records of the agent, and a person who takes the host's present state for the truth.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tenantry_api::conditions::whole_seconds;
use tenantry_api::tenant_status::{BlockedTarget, Handled, Outcome, Phase};
use tenantry_protocol::Observation;

use super::adoption::differences;
use super::annotations::asked;
use super::conditions::Verdict;
use super::{Effect, Pass, listed, sentence};
use crate::target::{Desired, RefusalReason};

/// How many differences a message names.
const SHOWN: usize = 8;

impl Pass<'_> {
    /// Ends the pass where the agent can't read its own records: nothing is begun before a person has accepted the host.
    pub(super) fn damaged(&mut self, desired: &Desired, observation: &Observation) -> bool {
        let Some(damage) = &observation.damage else { return false };
        if self.asked_to_accept(desired, observation) {
            return true;
        }
        let message = format!(
            "The agent of host {} can't rely on its records: {}. Nothing is done for this Tenant. Look at what is in {} \
             and what runs; then `tenantry accept-host {}` takes that for the truth.",
            self.facts.subject.host,
            sentence(damage),
            desired.intent.place.directory,
            desired.intent.tenant.name,
        );
        self.settle(Verdict::refused(RefusalReason::RecordsDamaged, &message));
        true
    }

    /// Accepts the host where that is asked for. True when the pass ends here. What differs from what is wanted is not
    /// overwritten afterwards: that is asked for by itself.
    pub(super) fn asked_to_accept(&mut self, desired: &Desired, observation: &Observation) -> bool {
        let handled = self.handled().accept_host;
        let Some(value) = asked(self.facts.subject.accept_host.as_deref(), handled.as_deref()) else {
            return false;
        };
        let epoch = self.next_epoch(observation);
        let target = desired.target_hash(self.next.resolved.as_ref());
        let inconsistent = observation.damage.is_some() || self.left_otherwise();
        if inconsistent || !self.at_target(&target) {
            self.next.blocked_target = Some(BlockedTarget {
                target_hash: target,
                image_tag: desired.intent.image_tag.to_string(),
                outcome: Outcome::Aborted,
                reason: "A person accepted the host as it is.".to_owned(),
                accepted: true,
                at: Time(whole_seconds(self.facts.now)),
            });
        }
        self.give_up_in_flight();
        if inconsistent {
            // Nobody has seen that it still runs; what is there now is looked at next.
            self.next.deployed = None;
        }
        if let Some(upgrade) = &mut self.next.upgrade {
            upgrade.accepted = true;
        }
        self.next.handled.get_or_insert_with(Handled::default).accept_host = Some(value);
        let message = format!(
            "What is on host {} is taken for the truth; it is compared with {} next.",
            self.facts.subject.host, desired.intent.image_tag
        );
        self.settle(Verdict::of(Phase::Planning, message));
        self.effect = Some(Effect::Accept { epoch });
        self.requeue = Duration::ZERO;
        true
    }

    /// An operation whose end nobody can tell any more has left nobody knows what.
    fn give_up_in_flight(&mut self) {
        if self.in_flight().is_none() {
            return;
        }
        let why = "Nobody can tell how it ended: the agent's records were damaged, and a person accepted the host as it is.";
        self.forget_unbegun(why);
        if let Some(upgrade) = &mut self.next.upgrade {
            upgrade.outcome = Some(Outcome::RollbackFailed);
        }
        self.record_history(why);
    }

    /// After the host was accepted: what is there is the target, or it is left as it is until a person asks.
    pub(super) fn accepted(&mut self, desired: &Desired, observation: &Observation, target: &str) -> bool {
        let accepted = |blocked: &BlockedTarget| blocked.accepted && blocked.target_hash == target;
        if !self.next.blocked_target.as_ref().is_some_and(accepted) {
            return false;
        }
        let mut differences = differences(observation);
        for service in &observation.services {
            if service.running.as_ref().is_some_and(|image| !image.current) {
                differences
                    .push(format!("{} runs another image than {} is", service.name, service.image_ref));
            }
        }
        for container in &observation.foreign_containers {
            differences.push(format!("container {} was made from {}", container.name, container.directory));
        }
        if !observation.services.iter().any(|service| service.running.is_some()) {
            differences.push("nothing runs".to_owned());
        }
        if differences.is_empty() {
            self.next.blocked_target = None;
            self.deploy_seen(desired, observation, target);
            self.stay(observation);
            return true;
        }
        let wanted = &desired.intent.image_tag;
        let message = format!(
            "The host was accepted as it is, and differs from {wanted}: {}. It is left so. Set the annotation \
             tenantry.dev/retry to a new value to apply {wanted}, or change the spec.",
            listed(&differences, SHOWN)
        );
        self.settle(Verdict::of(Phase::Aborted, message));
        true
    }
}
