//! The end of an operation: what it means for the Tenant, and what comes after it.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tenantry_api::conditions::{bounded, whole_seconds};
use tenantry_api::tenant_status::{
    Deployed, DeployedImage, FAILURE_LIMIT, HISTORY_LIMIT, HistoryEntry, Outcome, Phase, ServiceFailure,
};
use tenantry_protocol::{FailedServices, Failure, OperationStatus, RunImage};

use super::conditions::PhaseReport;
use super::decision::Ruling;
use super::lifecycle::{Block, End, Lifecycle, Operation, Purpose};
use super::outcomes::Meaning;
use super::{Draft, SHOWN, refused, summary};
use super::{passing, progress};
use crate::target::Desired;
use crate::text::{listed, sentence};

/// The most services that status lists.
const IMAGE_LIMIT: usize = 256;

impl Draft<'_> {
    /// Takes over how the operation ended, says so, and goes on.
    pub(super) fn ended(
        &mut self,
        operation: &Operation,
        seen: &OperationStatus,
        outcome: Outcome,
        failure: Option<&Failure>,
        at: jiff::Timestamp,
    ) -> Ruling {
        let succeeded = outcome == Outcome::Succeeded;
        let cause = failure.map_or_else(
            || "The agent gives no cause.".to_owned(),
            |failure| {
                format!("{} failed: {}", progress::phase_word(failure.during), sentence(&failure.message))
            },
        );
        let word = failure.map_or(outcome.as_str(), |failure| failure.category.as_str());
        let again = failure.and_then(|failure| passing::again(operation, outcome, failure.category, at));
        let end = End {
            category: failure.map(|failure| failure.category.as_str().to_owned()),
            failures: failure.map(|failure| failed_services(&failure.services)).unwrap_or_default(),
            retry_at: again.as_ref().map(|again| again.at.clone()),
            data_restored: seen.data_restored,
            ..End::of(outcome, Time(whole_seconds(at)))
        };
        let mut operation = operation.clone();
        if let Some(again) = again {
            operation.failing_since = Some(again.since);
        }
        let operation = &operation;
        self.lifecycle = Lifecycle::Ended(operation.clone(), end.clone());
        if succeeded {
            self.next.deployed = Some(deployed(operation, seen, at));
        }
        let lost = self.lost_data(operation, seen);
        let reason = format!("{lost}{}", if succeeded { "" } else { &cause });
        let left = if succeeded { left_behind(seen) } else { String::new() };
        let by_person =
            operation.rollback_to().map(|to| format!("A person went back to restore point {to}. "));
        let told = format!("{}{reason}{left}", by_person.unwrap_or_default());
        // What changed nothing and is tried again is no entry of its own.
        if end.retry_at.is_none() || outcome != Outcome::Aborted {
            self.record_history(operation, &end, told.trim_end());
        }
        // What follows may leave the end to be what people see, and reads the conditions that it makes.
        let short = failure.map(|failure| {
            let deployed = self.next.deployed.iter().flat_map(|deployed| &deployed.images);
            let services = seen.images.iter().map(|image| image.service.as_str());
            let services = services.chain(deployed.map(|image| image.service.as_str()));
            let first = failure.services.first.first().map(|first| first.service.as_str());
            summary::cause(failure.category.as_str(), &failure.message, services, first)
        });
        let ended = Ruling::says(self.end_report(operation, &end, reason.trim_end(), word).because(short));
        self.report(&ended);
        if let Some(refusal) = failure.and_then(|failure| failure.policy.as_deref()) {
            self.refused_by_policy(operation, refusal.clone());
        }
        self.go_on(operation, &end)
    }

    /// Says what was lost where data was restored; first in every text, so that no bound can cut it off.
    fn lost_data(&self, operation: &Operation, seen: &OperationStatus) -> String {
        if !seen.data_restored {
            return String::new();
        }
        let observation = self.facts.answer.seen_at_end();
        format!("{} ", self.lost(operation, observation))
    }

    /// The end of an operation as people see it; what is not to be tried again by itself is blocked.
    pub(super) fn end_report(
        &mut self,
        operation: &Operation,
        end: &End,
        reason: &str,
        word: &str,
    ) -> PhaseReport {
        match &operation.purpose {
            Purpose::Upgrade => match passing::waits(operation, end, self.next.deployed.as_ref()) {
                Some(waits) => {
                    self.block = None;
                    waits
                }
                None => self.upgraded(operation, end.outcome, reason, word),
            },
            Purpose::Rollback { gives_up, .. } => {
                self.went_back(operation, gives_up.as_ref(), end.outcome, reason, word)
            }
        }
    }

    fn upgraded(&mut self, operation: &Operation, outcome: Outcome, reason: &str, word: &str) -> PhaseReport {
        let (meaning, tag) = (Meaning::of(outcome), &operation.to);
        if !meaning.blocks_target() {
            self.block = None;
            let message = format!("{tag} {}: every service runs as planned.", meaning.upgrade);
            return PhaseReport::of(meaning.phase, message);
        }
        self.block = Some(self.blocks(&operation.target_hash, tag, outcome, reason));
        PhaseReport::with_reason(meaning.phase, word, format!("{tag} {}: {reason}", meaning.upgrade))
    }

    /// A block on a target, because of how the latest operation ended.
    pub(super) fn blocks(&self, target_hash: &str, image_tag: &str, outcome: Outcome, reason: &str) -> Block {
        Block {
            target_hash: target_hash.to_owned(),
            image_tag: image_tag.to_owned(),
            cause: self.lifecycle.cause(outcome, target_hash),
            reason: bounded(reason, 2_048),
            category: self.lifecycle.category(),
            policy_revision: None,
            at: Time(whole_seconds(self.facts.now)),
        }
    }

    /// Looks at what the host is like now, so that the same write can say it, and at a newer spec.
    fn go_on(&mut self, operation: &Operation, end: &End) -> Ruling {
        if self.facts.subject.deleted_at.is_some() {
            return Ruling::unchanged();
        }
        if self.facts.subject.suspend {
            return self.suspended();
        }
        let observation = self.facts.answer.seen_at_end();
        match (observation, self.facts.desired) {
            (Some(observation), Ok(desired)) => self.compare(desired, observation),
            (Some(_), Err(refusal)) => refused(refusal),
            (None, Ok(desired)) => {
                let report = self.newer_is_next(desired, operation, end);
                Ruling { report, effect: None, requeue: Duration::ZERO }
            }
            (None, Err(_)) => Ruling::unchanged().within(Duration::ZERO),
        }
    }

    /// What has ended is not what is wanted now: that goes on by itself, so nothing has stalled.
    fn newer_is_next(&self, desired: &Desired, operation: &Operation, end: &End) -> Option<PhaseReport> {
        let target = desired.target_hash(self.next.resolved.as_ref());
        let goes_on = operation.target_hash != target && !Meaning::of(end.outcome).blocks_every_target();
        goes_on.then(|| {
            let message = format!(
                "{} has ended ({}); the newer spec ({}) is looked at next.",
                operation.to,
                end.outcome.as_str(),
                self.facts.subject.image_tag
            );
            PhaseReport::of(Phase::Planning, message)
        })
    }

    pub(super) fn record_history(&mut self, operation: &Operation, end: &End, message: &str) {
        let entry = HistoryEntry {
            id: operation.id.clone(),
            from: operation.from.clone(),
            to: operation.to.clone(),
            rollback_to: operation.rollback_to().map(|to| bounded(to, 64)),
            outcome: end.outcome,
            started_at: operation.started_at.clone(),
            finished_at: end.at.clone().unwrap_or(Time(whole_seconds(self.facts.now))),
            message: bounded(message, 512),
        };
        self.next.history.retain(|earlier| earlier.id != entry.id);
        self.next.history.insert(0, entry);
        self.next.history.truncate(HISTORY_LIMIT);
    }
}

/// The services that did not come up, as status keeps them, and how many more there are.
fn failed_services(services: &FailedServices) -> (Vec<ServiceFailure>, i32) {
    let kept = services.first.iter().take(FAILURE_LIMIT).map(|one| {
        ServiceFailure {
            service: one.service.clone(),
            during: progress::status_phase(one.during).unwrap_or(Phase::Verifying),
            problem: one.problem.clone(),
            log: one.log.clone(),
            healthcheck: one.healthcheck.clone(),
        }
        .bounded()
    });
    let left_out = services.first.len().saturating_sub(FAILURE_LIMIT);
    let more = usize::try_from(services.more).unwrap_or(usize::MAX).saturating_add(left_out);
    (kept.collect(), i32::try_from(more).unwrap_or(i32::MAX))
}

fn deployed(operation: &Operation, seen: &OperationStatus, at: jiff::Timestamp) -> Deployed {
    Deployed {
        image_tag: operation.to.clone(),
        bundle_revision: operation.bundle_revision.clone(),
        target_hash: operation.target_hash.clone(),
        files_hash: operation.files_hash.clone().unwrap_or_default(),
        images: one_per_service(seen.images.iter().map(deployed_image).collect()),
        at: Time(whole_seconds(at)),
    }
}

/// The list is a map by service to the API server.
pub(super) fn one_per_service(mut images: Vec<DeployedImage>) -> Vec<DeployedImage> {
    images.sort_by(|a, b| a.service.cmp(&b.service));
    images.dedup_by(|a, b| a.service == b.service);
    images.truncate(IMAGE_LIMIT);
    images
}

fn deployed_image(image: &RunImage) -> DeployedImage {
    DeployedImage {
        service: bounded(&image.service, 128),
        reference: bounded(&image.reference, 512),
        image_id: bounded(&image.image_id, 128),
        repo_digest: image.repo_digest.as_deref().map(plain_digest),
    }
}

/// The digest without its repository: `repository@sha256:…` and `sha256:…` are the same digest.
pub(super) fn plain_digest(digest: &str) -> String {
    bounded(digest.rsplit('@').next().unwrap_or(digest), 128)
}

fn left_behind(seen: &OperationStatus) -> String {
    let mut said = Vec::new();
    if !seen.left_running.is_empty() {
        said.push(format!("No longer in the release, left running: {}.", listed(&seen.left_running, SHOWN)));
    }
    if !seen.left_files.is_empty() {
        let files = listed(&seen.left_files, SHOWN);
        said.push(format!("No longer in the release, left because edited by hand: {files}."));
    }
    said.join(" ")
}
