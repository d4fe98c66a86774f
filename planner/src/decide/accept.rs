//! Damaged records of the agent, and a person who takes the host's present state for the truth.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tenantry_api::conditions::whole_seconds;
use tenantry_api::tenant_status::{Handled, Outcome, Phase};
use tenantry_protocol::{AcceptRequest, Observation};

use super::adoption::differences;
use super::annotations::asked;
use super::conditions::PhaseReport;
use super::decision::Ruling;
use super::lifecycle::{Block, Cause, Host, Lifecycle};
use super::reach::reaches;
use super::{Draft, Effect, SHOWN};
use crate::target::{Desired, RefusalReason};
use crate::text::{clause, listed};

impl Draft<'_> {
    /// Ends the pass where the agent can't read its own records: nothing is begun before a person has accepted the host.
    pub(super) fn damaged(&mut self, desired: &Desired, observation: &Observation) -> Option<Ruling> {
        let damage = observation.damage.as_ref()?;
        if let Some(accepts) = self.asked_to_accept(desired, observation) {
            return Some(accepts);
        }
        let message = format!(
            "The agent of host {} can't rely on its records: {}. Nothing is done for this Tenant. Look at what is in {} \
             and what runs; then `tenantry accept-host {}` takes that for the truth.",
            self.facts.subject.host,
            clause(damage),
            desired.intent.place.directory,
            desired.intent.tenant.name,
        );
        Some(Ruling::says(PhaseReport::refused(RefusalReason::RecordsDamaged, &message)))
    }

    /// Accepts the host where a person asks for that. What differs from what is wanted is not overwritten afterwards:
    /// overwriting is asked for by itself.
    pub(super) fn asked_to_accept(&mut self, desired: &Desired, observation: &Observation) -> Option<Ruling> {
        let handled = self.handled().accept_host;
        let value = asked(self.facts.subject.accept_host.as_deref(), handled.as_deref())?;
        let epoch = self.next_epoch(observation);
        let target = desired.target_hash(self.next.resolved.as_ref());
        let inconsistent = observation.damage.is_some() || self.lifecycle.host() == Host::Unsettled;
        if inconsistent || !self.at_target(&target) {
            self.block = Some(Block {
                target_hash: target,
                image_tag: desired.intent.image_tag.to_string(),
                cause: Cause::Accepted,
                reason: "A person accepted the host as it is.".to_owned(),
                category: None,
                policy_revision: None,
                at: Time(whole_seconds(self.facts.now)),
            });
        }
        self.accept_end();
        if inconsistent {
            // Nobody has seen that what was deployed still runs; what is there now is looked at next.
            self.next.deployed = None;
        }
        self.next.handled.get_or_insert_with(Handled::default).accept_host = Some(value);
        let message = format!(
            "What is on host {} is taken for the truth; it is compared with {} next.",
            self.facts.subject.host, desired.intent.image_tag
        );
        let request = AcceptRequest {
            tenant: desired.intent.tenant.clone(),
            place: desired.intent.place.clone(),
            manifest: desired.manifest.clone(),
            epoch,
        };
        let report = PhaseReport::of(Phase::Planning, message);
        Some(Ruling::says(report).with(Effect::Accept(Box::new(request))).within(Duration::ZERO))
    }

    /// A person accepts the host as the latest operation left it. An operation whose end nobody can tell any more may
    /// have left anything.
    fn accept_end(&mut self) {
        if let Lifecycle::InFlight(operation) = self.lifecycle.clone() {
            let why = "Nobody can tell how it ended: the agent's records were damaged, and a person accepted the host as it is.";
            let end = self.end_untold(&operation, Outcome::RollbackFailed, why);
            self.record_history(&operation, &end, why);
        }
        if let Lifecycle::Ended(_, end) = &mut self.lifecycle {
            end.accepted = true;
        }
    }

    /// After the host was accepted: what is there is the target, or it is left as it is until a person asks.
    pub(super) fn accepted(
        &mut self,
        desired: &Desired,
        observation: &Observation,
        target: &str,
    ) -> Option<Ruling> {
        self.block.as_ref().filter(|block| block.cause == Cause::Accepted && block.target_hash == target)?;
        let differences = accepted_differences(desired, observation);
        if differences.is_empty() {
            self.block = None;
            self.deploy_seen(desired, observation, target);
            return Some(self.stay(observation));
        }
        let wanted = &desired.intent.image_tag;
        let message = format!(
            "The host was accepted as it is, and differs from {wanted}: {}. It is left so. Set the annotation \
             tenantry.dev/retry to a new value to apply {wanted}, or change the spec.",
            listed(&differences, SHOWN)
        );
        Some(Ruling::says(PhaseReport::of(Phase::Aborted, message)))
    }
}

/// What keeps an accepted host from being the target.
fn accepted_differences(desired: &Desired, observation: &Observation) -> Vec<String> {
    let mut differences = differences(observation);
    differences.extend(reaches(desired, observation).err().map(|refusal| clause(&refusal.message)));
    for service in &observation.services {
        if service.running.as_ref().is_some_and(|image| !image.current) {
            differences.push(format!("{} runs another image than {} is", service.name, service.image_ref));
        }
    }
    for container in &observation.foreign_containers {
        differences.push(format!("container {} was made from {}", container.name, container.directory));
    }
    if !observation.services.iter().any(|service| service.running.is_some()) {
        differences.push("nothing runs".to_owned());
    }
    differences
}
