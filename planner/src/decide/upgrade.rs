//! Beginning an upgrade: whether the target is blocked, and the name and epoch that the operation gets.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tenantry_api::conditions::{DRIFTED, Truth, whole_seconds};
use tenantry_api::names::OperationId;
use tenantry_api::tenant::Approach;
use tenantry_api::tenant_status::{Outcome, Phase};
use tenantry_protocol::Observation;

use super::adoption::{another_project, replaces_own_files};
use super::approach::expected_plan;
use super::conditions::PhaseReport;
use super::decision::Ruling;
use super::in_flight::planning;
use super::lifecycle::{Block, Cause, Host, Lifecycle, Operation, Purpose};
use super::outcomes::Meaning;
use super::policy::LOOKED_AT_AGAIN;
use super::progress;
use super::{Draft, Effect, Submission, refused};
use crate::target::{Desired, OperationTerms, Refusal, RefusalReason};
use crate::text::{listed, sentence};

impl Draft<'_> {
    /// Begins an upgrade, unless the target is blocked or the host forbids it.
    pub(super) fn upgrade(&mut self, desired: &Desired, observation: &Observation, target: &str) -> Ruling {
        if let Some(report) = self.blocked(desired, observation, target) {
            return Ruling::says(report);
        }
        if let Some(ruling) = self.waits_for_next_try(target) {
            return ruling;
        }
        if let Some(ruling) = self.not_granted(desired, observation) {
            return ruling;
        }
        // What was taken over may have its name from elsewhere than the directory says.
        let other = observation.other_projects.iter().find(|other| other.named_by.is_none());
        let own = another_project(desired, other).or_else(|| replaces_own_files(desired, observation));
        if let Some(ruling) = own {
            return ruling;
        }
        let approach = match self.permitted(desired, observation) {
            Ok(approach) => approach,
            Err(refusal) => {
                if refusal.reason == RefusalReason::HandEdited {
                    self.condition(DRIFTED, Truth::True, "HandEdited", &refusal.message);
                }
                return refused(&refusal);
            }
        };
        self.next.plan = Some(expected_plan(observation, approach));
        match self.named(self.next_epoch(observation)) {
            Ok((id, epoch)) => self.submit(desired, target, approach, id, epoch),
            Err(refusal) => refused(&refusal),
        }
    }

    /// Submits the upgrade that status names and that the agent never got, under the same id where that still fits.
    pub(super) fn resubmit_upgrade(
        &mut self,
        operation: &Operation,
        desired: &Desired,
        observation: &Observation,
    ) -> Ruling {
        let target = desired.target_hash(self.next.resolved.as_ref());
        let fits = operation.target_hash == target && observation.epoch <= operation.epoch();
        let (true, Some(id)) = (fits, operation.id()) else {
            let mut operation = operation.clone();
            // The operation may still arrive: the target is applied under a higher epoch, also where it seems to be reached.
            if self.next.deployed.is_some() {
                operation.began_on = Host::Unsettled;
            }
            self.end_unbegun(&operation, "Never reached the agent; what is wanted has changed since.");
            return self.compare(desired, observation);
        };
        match self.permitted(desired, observation) {
            Ok(approach) => {
                let terms = self.terms(desired, operation.epoch(), target, approach);
                let again = Submission { id, terms, desired: desired.clone(), again: true };
                Ruling::unchanged().with(Effect::Submit(Box::new(again)))
            }
            Err(refusal) => {
                self.end_unbegun(operation, &refusal.message);
                refused(&refusal)
            }
        }
    }

    fn submit(
        &mut self,
        desired: &Desired,
        target: &str,
        approach: Approach,
        id: OperationId,
        epoch: Epoch,
    ) -> Ruling {
        let attempt = match self.lifecycle.operation() {
            Some(last) if last.target_hash == target => last.attempt.saturating_add(1),
            Some(_) | None => 1,
        };
        let now = Time(whole_seconds(self.facts.now));
        let operation = Operation {
            id: id.to_string(),
            epoch: epoch.stored,
            from: self.next.deployed.as_ref().map(|deployed| deployed.image_tag.clone()),
            to: desired.intent.image_tag.to_string(),
            target_hash: target.to_owned(),
            bundle_revision: desired.bundle_revision.clone(),
            files_hash: Some(desired.files_hash.clone()),
            purpose: Purpose::Upgrade,
            began_on: self.lifecycle.host(),
            attempt,
            failing_since: self.failing_since(target),
            started_at: now.clone(),
            phases: vec![planning(now)],
        };
        let message = format!("{}: checking the host.", progress::what(&operation));
        self.lifecycle = Lifecycle::InFlight(operation);
        self.block = None;
        let terms = self.terms(desired, epoch.raised, target.to_owned(), approach);
        let submission = Submission { id, terms, desired: desired.clone(), again: false };
        Ruling::says(PhaseReport::of(Phase::Planning, message)).with(Effect::Submit(Box::new(submission)))
    }

    fn terms(
        &self,
        desired: &Desired,
        epoch: u64,
        target_hash: String,
        approach: Approach,
    ) -> OperationTerms {
        let pinned = desired.pinned(self.next.resolved.as_ref()).to_vec();
        let checks_reach = !self.facts.subject.ignores_reach;
        OperationTerms { epoch, target_hash, approach, pinned, checks_reach, rollback: None }
    }

    /// The id of an operation under this epoch, and the epoch also as status keeps it.
    pub(super) fn named(&self, raised: u64) -> Result<(OperationId, Epoch), Refusal> {
        let name = format!("{}-{raised}", self.facts.subject.uid.split('-').next().unwrap_or("tenant"));
        if let (Ok(id), Ok(stored)) = (OperationId::parse(name), i64::try_from(raised)) {
            return Ok((id, Epoch { raised, stored }));
        }
        let message =
            "The host or status names an epoch that is too high to go on from; see the agent's records.";
        Err(Refusal::new(RefusalReason::RequestRefused, message))
    }

    /// One above everything that status or the host has seen.
    pub(super) fn next_epoch(&self, observation: &Observation) -> u64 {
        let known = self.lifecycle.operation().map_or(0, Operation::epoch);
        let seen = if tenantry_faults::Bug::EpochOfStatusAlone.is_seeded() { 0 } else { observation.epoch };
        known.max(seen).saturating_add(1)
    }

    /// What is said where the target failed before. After a failed rollback nothing at all is tried before a person asks.
    fn blocked(&self, desired: &Desired, observation: &Observation, target: &str) -> Option<PhaseReport> {
        let Block { target_hash, image_tag, cause, reason, category, policy_revision, .. } =
            self.block.as_ref()?;
        if tenantry_faults::Bug::RetryWhatFailed.is_seeded() {
            return None;
        }
        let meaning = Meaning::of(cause.outcome());
        let blocks = meaning.blocks_every_target() || (meaning.blocks_target() && target_hash == target);
        if !blocks {
            return None;
        }
        let tag = if meaning.blocks_every_target() {
            image_tag.as_str()
        } else {
            desired.intent.image_tag.as_str()
        };
        let running = if meaning.previous_runs() { self.running(observation) } else { String::new() };
        let what = match cause {
            Cause::GivenUp(Outcome::RolledBack) => format!("{tag} is not deployed{running}: "),
            // The reason names what was given up, and for what.
            Cause::GivenUp(Outcome::Held) => String::new(),
            Cause::GivenUp(Outcome::Succeeded | Outcome::Aborted | Outcome::RollbackFailed)
            | Cause::Failed(_)
            | Cause::Accepted => format!("{tag} {}{running}: ", meaning.blocked),
        };
        if policy_revision.is_some() {
            let message = format!("{what}{} {LOOKED_AT_AGAIN}", sentence(reason));
            return Some(PhaseReport::with_reason(
                meaning.phase,
                RefusalReason::PolicyRefused.as_str(),
                message,
            ));
        }
        let message = format!("{what}{} {}", sentence(reason), meaning.next_step);
        let kind = category.as_deref().unwrap_or(meaning.phase.as_str());
        Some(PhaseReport::with_reason(meaning.phase, kind, message))
    }

    /// What is deployed instead, as it is seen to be now.
    fn running(&self, observation: &Observation) -> String {
        let Some(deployed) = &self.next.deployed else { return String::new() };
        let problems = self.problems(observation);
        if problems.is_empty() {
            return format!(", {} stays deployed", deployed.image_tag);
        }
        format!(", {} was deployed before it, and is not well: {}", deployed.image_tag, listed(&problems, 3))
    }
}

/// An epoch as agents count it and as status keeps it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch {
    pub raised: u64,
    pub stored: i64,
}
