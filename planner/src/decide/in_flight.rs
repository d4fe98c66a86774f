//! An operation in flight: what status says of it, and what its end means.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tenantry_api::conditions::{bounded, whole_seconds};
use tenantry_api::names::OperationId;
use tenantry_api::tenant::Approach;
use tenantry_api::tenant_status::{
    BlockedTarget, ComposeInUse, Deployed, DeployedImage, FileCounts, HISTORY_LIMIT, HistoryEntry, Outcome,
    Phase, PhaseState, PhaseStatus, PlanSummary, Recreate, UpgradeStatus,
};
use tenantry_protocol::{
    ApiError, ComposeUse, ErrorCode, Failure, Observation, OperationPhase, OperationState, OperationStatus,
    PlanReport, Progress, RunImage, StepState,
};

use super::conditions::Verdict;
use super::upgrade::full_stop;
use super::{Answer, Effect, Pass, Unreached, sentence};
use crate::target::Desired;

/// The most services that status lists.
const IMAGE_LIMIT: usize = 256;
/// The most recreated services that status lists.
const RECREATE_LIMIT: usize = 64;

impl Pass<'_> {
    /// An operation is in flight as far as status knows.
    pub(super) fn fly(&mut self) {
        match self.facts.answer {
            Answer::Followed(operation, _) => self.follow(operation),
            Answer::Unknown(observation) => self.never_begun(observation),
            Answer::NotBegun(error) => self.not_begun(error),
            Answer::Unreached(why, text) => self.unreached(why, text),
            // Whoever has accepted the host will have it told again.
            Answer::Refused(error) if error.code == ErrorCode::RecordsDamaged => self.agent_refused(error),
            Answer::Refused(error) => self.unreached(Unreached::HostFault, &sentence(&error.to_string())),
            Answer::NotAsked | Answer::Seen(_) => self.ask_again(0),
        }
    }

    /// The agent does not know it, or can't read what it knows.
    fn never_begun(&mut self, observation: &Observation) {
        if self.facts.desired.is_ok_and(|desired| self.damaged(desired, observation)) {
            return;
        }
        let by_person = self.in_flight().is_some_and(|upgrade| upgrade.rollback_to.is_some());
        let (named, asked) = (self.next.upgrade.clone(), self.handled().rollback_to);
        let can_go_back = self.facts.desired.is_ok() || self.facts.back.is_some();
        match self.facts.desired {
            _ if can_go_back && !self.facts.subject.suspend && by_person => {
                self.resubmit_rollback(observation);
            }
            Ok(desired) if !self.facts.subject.suspend => self.resubmit(desired, observation),
            Ok(_) | Err(_) => {
                self.ask_again_to_go_back("Never reached the agent.");
                self.rest();
            }
        }
        if !self.is_fenced() {
            self.next.upgrade = named;
            if let Some(handled) = self.next.handled.as_mut().filter(|_| by_person) {
                handled.rollback_to = asked;
            }
        }
    }

    /// Whether this pass keeps out what may still be on its way to the agent. Only a higher epoch does; until there is
    /// one, the operation stays named, so that it is followed should it arrive after all.
    fn is_fenced(&self) -> bool {
        match self.effect {
            Some(
                Effect::Submit(_) | Effect::Claim { .. } | Effect::TakeOver { .. } | Effect::Accept { .. },
            ) => true,
            Some(Effect::Release | Effect::Resolve { .. } | Effect::Follow { .. }) | None => false,
        }
    }

    /// Asks for news of the operation in flight.
    fn ask_again(&mut self, after: u64) {
        let id = self.in_flight().map(|upgrade| OperationId::parse(&upgrade.id));
        match id {
            Some(Ok(id)) => self.effect = Some(Effect::Follow { id, after }),
            // An id that is none was not written by us: no agent can know it.
            Some(Err(_)) => self.forget_unbegun("The operation's id is not one."),
            None => {}
        }
    }

    fn not_begun(&mut self, error: &ApiError) {
        match error.code {
            ErrorCode::OperationMismatch => self.ask_again(0),
            ErrorCode::StaleEpoch => {
                self.ask_again_to_go_back("The host has seen a higher epoch.");
                self.requeue = Duration::ZERO;
            }
            ErrorCode::Busy | ErrorCode::Overloaded => {
                let message =
                    format!("Waits for host {}: {}", self.facts.subject.host, full_stop(&error.to_string()));
                self.settle(Verdict::of(Phase::Planning, message));
                self.requeue = Duration::from_secs(5);
            }
            ErrorCode::HostFault => self.unreached(Unreached::HostFault, &error.to_string()),
            ErrorCode::Invalid
            | ErrorCode::PolicyRefused
            | ErrorCode::NotFound
            | ErrorCode::RecordsDamaged
            | ErrorCode::ClaimedByOther => {
                let reason = format!("The agent refuses it: {}", full_stop(&error.to_string()));
                self.forget_unbegun(&reason);
                self.end(Outcome::Aborted, &reason, "RequestRefused");
            }
        }
    }

    /// Takes over how the operation stands.
    pub(super) fn follow(&mut self, operation: &OperationStatus) {
        self.record_progress(operation);
        match &operation.state {
            OperationState::Running => {
                self.under_way(operation);
                self.ask_again(operation.seq);
            }
            OperationState::Ended { outcome, failure, at } => {
                self.ended(operation, *outcome, failure.as_ref(), *at);
            }
        }
    }

    fn record_progress(&mut self, operation: &OperationStatus) {
        if let Some(compose) = &operation.compose {
            self.next.compose = Some(in_use(compose));
        }
        let back = self.next.upgrade.as_ref().is_some_and(|upgrade| upgrade.rollback_to.is_some());
        let changes_files =
            self.next.plan.as_ref().map(|plan| plan.approach).or(back.then_some(Approach::Release));
        if let Some(report) = &operation.plan {
            self.next.plan = Some(summary(report, changes_files));
        }
        let Some(upgrade) = &mut self.next.upgrade else { return };
        let mut phases: Vec<PhaseStatus> = Vec::new();
        for phase in operation.phases.iter().filter_map(phase_status) {
            // The list is a map by name to the API server: a phase that comes again takes its former place.
            match phases.iter_mut().find(|known| known.name == phase.name) {
                Some(known) => *known = phase,
                None => phases.push(phase),
            }
        }
        if !phases.is_empty() {
            upgrade.phases = phases;
        }
    }

    fn under_way(&mut self, operation: &OperationStatus) {
        let phase = current_phase(operation);
        let Some(upgrade) = &self.next.upgrade else { return };
        let what = match &upgrade.from {
            _ if upgrade.rollback_to.is_some() => super::rollback::what(upgrade),
            Some(from) if *from != upgrade.to => format!("Upgrading from {from} to {}", upgrade.to),
            Some(_) => format!("Applying {} anew", upgrade.to),
            None => format!("Installing {}", upgrade.to),
        };
        let first = upgrade.from.is_none();
        let doing = match &operation.waits_for {
            Some(problem) => {
                format!("the agent waits and tries again: {}", problem.trim_end_matches('.'))
            }
            None => doing(phase, operation.progress.as_ref(), failure_so_far(operation), first),
        };
        let waits = self.waiting(upgrade).map(|waits| format!(" {waits}")).unwrap_or_default();
        let message = format!("{what}: {doing}.{waits}");
        self.settle(Verdict::of(phase, message));
    }

    /// What takes effect only when the operation in flight has ended.
    fn waiting(&self, upgrade: &UpgradeStatus) -> Option<String> {
        let subject = self.facts.subject;
        if subject.deleted_at.is_some() {
            return Some("The Tenant is deleted when this has ended.".to_owned());
        }
        if subject.suspend {
            return Some("spec.suspend takes effect when this has ended.".to_owned());
        }
        let newer = match self.facts.desired {
            Ok(desired) => {
                let meant =
                    upgrade.gives_up.as_ref().map_or(&upgrade.target_hash, |given| &given.target_hash);
                desired.target_hash(self.next.resolved.as_ref()) != *meant
            }
            Err(_) => true,
        };
        newer.then(|| format!("The newer spec ({}) waits until this has ended.", subject.image_tag))
    }

    fn ended(
        &mut self,
        operation: &OperationStatus,
        outcome: Outcome,
        failure: Option<&Failure>,
        at: jiff::Timestamp,
    ) {
        let reason = failure.map_or_else(
            || "The agent gives no cause.".to_owned(),
            |failure| format!("{} failed: {}", phase_word(failure.during), full_stop(&failure.message)),
        );
        let word = failure.map_or(outcome.as_str(), |failure| failure.category.as_str());
        if let Some(upgrade) = &mut self.next.upgrade {
            upgrade.outcome = Some(outcome);
            upgrade.finished_at = Some(Time(whole_seconds(at)));
        }
        if outcome == Outcome::Succeeded {
            self.record_deployed(operation, at);
        }
        let lost = self.note_lost_data(operation);
        let reason = format!("{lost}{}", if outcome == Outcome::Succeeded { "" } else { &reason });
        let left = if outcome == Outcome::Succeeded { left_behind(operation) } else { String::new() };
        let by_person = self.next.upgrade.as_ref().and_then(|upgrade| upgrade.rollback_to.as_ref());
        let by_person = by_person.map(|to| format!("A person went back to restore point {to}. "));
        self.record_history(format!("{}{reason}{left}", by_person.unwrap_or_default()).trim_end());
        self.end(outcome, reason.trim_end(), word);
        self.go_on();
    }

    /// Says what was lost where data was restored; first in every text, so that no bound can cut it off.
    fn note_lost_data(&mut self, operation: &OperationStatus) -> String {
        let Some(upgrade) = self.next.upgrade.as_mut().filter(|_| operation.data_restored) else {
            return String::new();
        };
        upgrade.data_restored = true;
        let upgrade = upgrade.clone();
        let seen = match self.facts.answer {
            Answer::Followed(_, seen) => seen,
            _ => None,
        };
        format!("{} ", self.lost(&upgrade, seen))
    }

    /// The end of an operation as phase and conditions.
    fn end(&mut self, outcome: Outcome, reason: &str, word: &str) {
        let Some(upgrade) = self.next.upgrade.clone() else { return };
        if upgrade.rollback_to.is_some() {
            return self.went_back(&upgrade, outcome, reason, word);
        }
        if outcome != Outcome::Succeeded {
            self.next.blocked_target = Some(BlockedTarget {
                target_hash: upgrade.target_hash.clone(),
                image_tag: upgrade.to.clone(),
                outcome,
                reason: bounded(reason, 2_048),
                accepted: false,
                at: Time(whole_seconds(self.facts.now)),
            });
        }
        let (phase, message) = match outcome {
            Outcome::Succeeded => {
                self.next.blocked_target = None;
                (Phase::Ready, format!("{} is deployed: every service runs as planned.", upgrade.to))
            }
            Outcome::Aborted => (Phase::Aborted, format!("{} was not begun: {reason}", upgrade.to)),
            Outcome::RolledBack => (Phase::RolledBack, format!("{} was rolled back: {reason}", upgrade.to)),
            Outcome::Held => (Phase::Held, format!("{} failed and was left running: {reason}", upgrade.to)),
            Outcome::RollbackFailed => {
                (Phase::RollbackFailed, format!("{} failed, and so did its rollback: {reason}", upgrade.to))
            }
        };
        let word = if outcome == Outcome::Succeeded { phase.as_str() } else { word };
        self.settle(Verdict::with_reason(phase, word, message));
    }

    /// Looks at what the host is like now, so that the same write can say it, and at a newer spec.
    fn go_on(&mut self) {
        if self.facts.subject.deleted_at.is_some() {
            return;
        }
        if self.facts.subject.suspend {
            return self.suspended();
        }
        match (self.facts.answer, self.facts.desired) {
            (Answer::Followed(_, Some(observation)), Ok(desired)) => self.look(desired, observation),
            (Answer::Followed(_, Some(_)), Err(refusal)) => self.refuse(refusal),
            (_, Ok(desired)) => {
                self.newer_is_next(desired);
                self.requeue = Duration::ZERO;
            }
            _ => self.requeue = Duration::ZERO,
        }
    }

    /// What has ended is not what is wanted now: that goes on by itself, so nothing has stalled.
    fn newer_is_next(&mut self, desired: &Desired) {
        let target = desired.target_hash(self.next.resolved.as_ref());
        let ended = self.next.upgrade.as_ref().filter(|upgrade| upgrade.target_hash != target);
        let Some(outcome) = ended.and_then(|upgrade| upgrade.outcome) else { return };
        // After a failed rollback nothing is begun by itself.
        if outcome != Outcome::RollbackFailed {
            let message = format!(
                "{} has ended ({}); the newer spec ({}) is looked at next.",
                ended.map(|upgrade| upgrade.to.as_str()).unwrap_or_default(),
                outcome.as_str(),
                self.facts.subject.image_tag
            );
            self.settle(Verdict::of(Phase::Planning, message));
        }
    }

    fn record_deployed(&mut self, operation: &OperationStatus, at: jiff::Timestamp) {
        let Some(upgrade) = &self.next.upgrade else { return };
        self.next.deployed = Some(Deployed {
            image_tag: upgrade.to.clone(),
            bundle_revision: upgrade.bundle_revision.clone(),
            target_hash: upgrade.target_hash.clone(),
            files_hash: upgrade.files_hash.clone().unwrap_or_default(),
            images: one_per_service(operation.images.iter().map(deployed_image).collect()),
            at: Time(whole_seconds(at)),
        });
    }

    pub(super) fn record_history(&mut self, message: &str) {
        let Some(upgrade) = &self.next.upgrade else { return };
        let Some(outcome) = upgrade.outcome else { return };
        let entry = HistoryEntry {
            id: upgrade.id.clone(),
            from: upgrade.from.clone(),
            to: upgrade.to.clone(),
            outcome,
            started_at: upgrade.started_at.clone(),
            finished_at: upgrade.finished_at.clone().unwrap_or(Time(whole_seconds(self.facts.now))),
            message: bounded(message, 512),
        };
        self.next.history.retain(|earlier| earlier.id != entry.id);
        self.next.history.insert(0, entry);
        self.next.history.truncate(HISTORY_LIMIT);
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
        repo_digest: image.repo_digest.as_deref().map(plain),
    }
}

/// The digest without its repository.
pub(super) fn plain(digest: &str) -> String {
    bounded(digest.rsplit('@').next().unwrap_or(digest), 128)
}

/// The compose files in use, as status keeps them.
pub(super) fn in_use(compose: &ComposeUse) -> ComposeInUse {
    ComposeInUse {
        files: compose.files.iter().take(16).map(|file| bounded(file, 1_024)).collect(),
        profiles: compose.profiles.iter().take(16).map(|profile| bounded(profile, 64)).collect(),
        command: bounded(&compose.command, 4_096),
    }
}

fn summary(report: &PlanReport, approach: Option<Approach>) -> PlanSummary {
    let count = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let files = FileCounts {
        created: count(report.files.created),
        modified: count(report.files.modified),
        deleted: count(report.files.deleted),
        unchanged: count(report.files.unchanged),
    };
    let mut recreates: Vec<Recreate> = report
        .recreates
        .iter()
        .map(|one| Recreate { service: bounded(&one.service, 128), cause: bounded(&one.cause, 256) })
        .collect();
    recreates.sort_by(|a, b| a.service.cmp(&b.service));
    recreates.dedup_by(|a, b| a.service == b.service);
    recreates.truncate(RECREATE_LIMIT);
    let approach = approach.unwrap_or(Approach::Auto);
    PlanSummary { hash: bounded(&report.hash, 128), approach, files, recreates }
}

/// The phase of status for a phase of an operation; tidying up afterwards is none of its own.
fn status_phase(phase: OperationPhase) -> Option<Phase> {
    match phase {
        OperationPhase::Preflight => Some(Phase::Planning),
        OperationPhase::Pull => Some(Phase::Pulling),
        OperationPhase::Snapshot => Some(Phase::Snapshotting),
        OperationPhase::Write => Some(Phase::Writing),
        OperationPhase::Start => Some(Phase::Starting),
        OperationPhase::Verify => Some(Phase::Verifying),
        OperationPhase::Rollback => Some(Phase::RollingBack),
        OperationPhase::Finish => None,
    }
}

fn phase_word(phase: OperationPhase) -> &'static str {
    status_phase(phase).map_or("Finishing", Phase::as_str)
}

fn phase_status(record: &tenantry_protocol::PhaseRecord) -> Option<PhaseStatus> {
    let state = match record.state {
        StepState::Running => PhaseState::Running,
        StepState::Succeeded => PhaseState::Succeeded,
        StepState::Failed => PhaseState::Failed,
    };
    Some(PhaseStatus {
        name: status_phase(record.name)?,
        state,
        started_at: Time(whole_seconds(record.started_at)),
        finished_at: record.finished_at.map(|at| Time(whole_seconds(at))),
        message: record.message.as_deref().map(|message| bounded(message, 1_024)),
    })
}

fn current_phase(operation: &OperationStatus) -> Phase {
    operation.phases.iter().rev().find_map(|record| status_phase(record.name)).unwrap_or(Phase::Planning)
}

/// Why a phase before the present one failed.
fn failure_so_far(operation: &OperationStatus) -> Option<&str> {
    let failed = operation.phases.iter().rev().find(|record| record.state == StepState::Failed)?;
    failed.message.as_deref()
}

fn doing(phase: Phase, progress: Option<&Progress>, failure: Option<&str>, first: bool) -> String {
    let restoring = if first { "taking the installation back" } else { "restoring the previous release" };
    match (phase, progress, failure) {
        (Phase::Pulling, Some(progress), _) => pulling(progress),
        (Phase::Pulling, None, _) => "pulling images".to_owned(),
        (Phase::Snapshotting, _, _) => "copying declared paths and volumes".to_owned(),
        (Phase::Writing, _, _) => "writing files and .env".to_owned(),
        (Phase::Starting, _, _) => "starting what changed".to_owned(),
        (Phase::Verifying, _, _) => "watching the services".to_owned(),
        (Phase::RollingBack, _, Some(failure)) => {
            format!("{restoring}, because this failed: {}", sentence(failure))
        }
        (Phase::RollingBack, _, None) => restoring.to_owned(),
        _ => "checking the host".to_owned(),
    }
}

fn pulling(progress: &Progress) -> String {
    let images = format!("pulling images, {} of {}", progress.images_done, progress.images_total);
    if progress.bytes_total == 0 {
        return images;
    }
    format!("{images} ({} of {})", megabytes(progress.bytes_done), megabytes(progress.bytes_total))
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

fn left_behind(operation: &OperationStatus) -> String {
    let mut said = Vec::new();
    if !operation.left_running.is_empty() {
        said.push(format!(
            "No longer in the release, left running: {}.",
            super::listed(&operation.left_running, 8)
        ));
    }
    if !operation.left_files.is_empty() {
        let files = super::listed(&operation.left_files, 8);
        said.push(format!("No longer in the release, left because edited by hand: {files}."));
    }
    said.join(" ")
}
