//! Beginning an upgrade: what forbids it, which approach it takes, and the name and epoch it gets.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tenantry_api::conditions::{bounded, whole_seconds};
use tenantry_api::names::OperationId;
use tenantry_api::tenant::Approach;
use tenantry_api::tenant_status::{
    FileCounts, Outcome, Phase, PhaseState, PhaseStatus, PlanSummary, UpgradeStatus,
};
use tenantry_protocol::{FileObservation, FileState, Observation};

use super::verdict::Verdict;
use super::{Effect, Pass, Submission, listed};
use crate::target::{Desired, ENV_FILE, Refusal, RefusalReason, hash_json};

const SHOWN: usize = 8;

impl Pass<'_> {
    /// Begins an upgrade, unless the target is blocked or the host forbids it.
    pub(super) fn upgrade(&mut self, desired: &Desired, observation: &Observation, target: &str) {
        if self.blocked(desired, target) {
            return;
        }
        let approach = match self.permitted(desired, observation) {
            Ok(approach) => approach,
            Err(refusal) => return self.refuse(&refusal),
        };
        let epoch = self.next_epoch(observation);
        self.submit(desired, target, approach, epoch);
        self.next.plan = Some(summary(observation, target, approach));
    }

    /// Submits the operation that status names and that the agent never got, under the same id where that still fits.
    pub(super) fn resubmit(&mut self, desired: &Desired, observation: &Observation) {
        let target = desired.target_hash(self.next.resolved.as_ref());
        let Some(upgrade) = self.in_flight() else { return };
        let (epoch, id) = (u64::try_from(upgrade.epoch).unwrap_or(0), OperationId::parse(&upgrade.id));
        let fits = upgrade.target_hash == target && observation.epoch <= epoch;
        let (true, Ok(id)) = (fits, id) else {
            self.forget_unbegun("Never reached the agent; what is wanted has changed since.");
            // It may still arrive: the target is applied under a higher epoch, also where it seems to be reached.
            let deployed = self.next.deployed.is_some();
            if let Some(upgrade) = &mut self.next.upgrade {
                upgrade.unsettled |= deployed;
            }
            return self.look(desired, observation);
        };
        match self.permitted(desired, observation) {
            Ok(approach) => {
                let pinned = desired.pinned(self.next.resolved.as_ref()).to_vec();
                let again = Submission {
                    id,
                    epoch,
                    target_hash: target,
                    approach,
                    pinned,
                    rollback: None,
                    again: true,
                };
                self.effect = Some(Effect::Submit(again));
            }
            Err(refusal) => {
                self.forget_unbegun(&refusal.message);
                self.refuse(&refusal);
            }
        }
    }

    fn submit(&mut self, desired: &Desired, target: &str, approach: Approach, epoch: u64) {
        let Some((id, stored_epoch)) = self.named(epoch) else { return };
        let attempt = match &self.next.upgrade {
            Some(last) if last.target_hash == target => last.attempt.saturating_add(1),
            _ => 1,
        };
        let from = self.next.deployed.as_ref().map(|deployed| deployed.image_tag.clone());
        let to = desired.intent.image_tag.to_string();
        let message = match &from {
            Some(from) if *from != to => format!("Upgrading from {from} to {to}: checking the host."),
            Some(_) => format!("Applying {to} anew: checking the host."),
            None => format!("Installing {to}: checking the host."),
        };
        let now = Time(whole_seconds(self.facts.now));
        let unsettled = self.left_otherwise();
        self.next.upgrade = Some(UpgradeStatus {
            id: id.to_string(),
            epoch: stored_epoch,
            from,
            to,
            target_hash: target.to_owned(),
            bundle_revision: desired.bundle_revision.clone(),
            files_hash: Some(desired.files_hash.clone()),
            rollback_to: None,
            gives_up: None,
            unsettled,
            accepted: false,
            data_restored: false,
            attempt,
            started_at: now.clone(),
            finished_at: None,
            outcome: None,
            phases: vec![planning(now)],
        });
        self.next.blocked_target = None;
        self.settle(Verdict::of(Phase::Planning, message));
        let pinned = desired.pinned(self.next.resolved.as_ref()).to_vec();
        let target_hash = target.to_owned();
        self.effect = Some(Effect::Submit(Submission {
            id,
            epoch,
            target_hash,
            approach,
            pinned,
            rollback: None,
            again: false,
        }));
    }

    /// The id of an operation under this epoch, and the epoch as status keeps it.
    pub(super) fn named(&mut self, epoch: u64) -> Option<(OperationId, i64)> {
        let name = format!("{}-{epoch}", self.facts.subject.uid.split('-').next().unwrap_or("tenant"));
        if let (Ok(id), Ok(stored)) = (OperationId::parse(name), i64::try_from(epoch)) {
            return Some((id, stored));
        }
        let message =
            "The host or status names an epoch that is too high to go on from; see the agent's records.";
        self.refuse(&Refusal::new(RefusalReason::RequestRefused, message));
        None
    }

    /// One above everything that status or the host has seen.
    pub(super) fn next_epoch(&self, observation: &Observation) -> u64 {
        let known =
            self.next.upgrade.as_ref().and_then(|upgrade| u64::try_from(upgrade.epoch).ok()).unwrap_or(0);
        let seen = if tenantry_faults::Bug::EpochOfStatusAlone.is_seeded() { 0 } else { observation.epoch };
        known.max(seen).saturating_add(1)
    }

    /// Whether the target failed before. After a failed rollback nothing at all is tried before a person asks.
    fn blocked(&mut self, desired: &Desired, target: &str) -> bool {
        let Some(blocked) = self.next.blocked_target.clone() else { return false };
        if tenantry_faults::Bug::RetryWhatFailed.is_seeded() {
            return false;
        }
        if blocked.target_hash != target && blocked.outcome != Outcome::RollbackFailed {
            return false;
        }
        let after = match blocked.outcome {
            Outcome::RollbackFailed => {
                "A person is needed: see the host. Then set the annotation tenantry.dev/retry to a new value to try it \
                 again, go back with `tenantry rollback`, or take what is there for the truth with `tenantry accept-host`."
            }
            _ => "Change the spec, or set the annotation tenantry.dev/retry to a new value to try it again.",
        };
        let running = self.next.deployed.as_ref().map_or_else(
            || "nothing is installed".to_owned(),
            |deployed| format!("{} stays deployed", deployed.image_tag),
        );
        let wanted = &desired.intent.image_tag;
        let (phase, message) = match blocked.outcome {
            // A success blocks nothing; it is never recorded as blocked.
            Outcome::Succeeded => return false,
            Outcome::Aborted => (
                Phase::Aborted,
                format!("{wanted} was not begun, {running}: {} {after}", full_stop(&blocked.reason)),
            ),
            Outcome::RolledBack if self.gave_up(&blocked) => (
                Phase::RolledBack,
                format!("{wanted} is not deployed, {running}: {} {after}", full_stop(&blocked.reason)),
            ),
            Outcome::RolledBack => (
                Phase::RolledBack,
                format!(
                    "{wanted} failed and was rolled back, {running}: {} {after}",
                    full_stop(&blocked.reason)
                ),
            ),
            Outcome::Held if self.gave_up(&blocked) => {
                (Phase::Held, format!("{} {after}", full_stop(&blocked.reason)))
            }
            Outcome::Held => (
                Phase::Held,
                format!(
                    "{wanted} failed and was left running on purpose: {} {after}",
                    full_stop(&blocked.reason)
                ),
            ),
            Outcome::RollbackFailed => (
                Phase::RollbackFailed,
                format!(
                    "{} failed, and so did its rollback: {} {after}",
                    blocked.image_tag,
                    full_stop(&blocked.reason)
                ),
            ),
        };
        self.settle(Verdict::of(phase, message));
        true
    }

    /// Which approach the host permits.
    fn permitted(&self, desired: &Desired, observation: &Observation) -> Result<Approach, Refusal> {
        let intent = &desired.intent;
        if !observation.foreign_containers.is_empty() {
            let names: Vec<_> = observation.foreign_containers.iter().map(|one| one.name.as_str()).collect();
            let message = format!(
                "Containers of project {} were made from another directory since: {}. Remove them first.",
                intent.place.project,
                listed(&names, SHOWN)
            );
            return Err(Refusal::new(RefusalReason::PathRefused, message));
        }
        if intent.bundle.is_none() {
            project_is_usable(desired, observation)?;
        }
        blocked_files(observation)?;
        if self.next.deployed.is_some() {
            hand_edited(observation)?;
        }
        let changed = changed_files(observation);
        match (intent.approach, changed.is_empty()) {
            (Approach::Release, _) | (Approach::Auto, false) => Ok(Approach::Release),
            (Approach::Auto | Approach::ImageOnly, true) => Ok(Approach::ImageOnly),
            (Approach::ImageOnly, false) => {
                let message = format!(
                    "spec.upgrade.approach is ImageOnly, but {} would change managed files: {}. Use Auto or Release.",
                    intent.image_tag,
                    listed(&changed, SHOWN)
                );
                Err(Refusal::new(RefusalReason::ReleaseNeeded, message))
            }
        }
    }

    /// Marks an operation that the agent never got as ended without having begun.
    pub(super) fn forget_unbegun(&mut self, why: &str) {
        let now = whole_seconds(self.facts.now);
        if let Some(upgrade) = &mut self.next.upgrade {
            upgrade.outcome = Some(Outcome::Aborted);
            upgrade.finished_at = Some(Time(now));
            fail_last(&mut upgrade.phases, why, now);
        }
    }
}

pub(super) fn planning(now: Time) -> PhaseStatus {
    let (name, state) = (Phase::Planning, PhaseState::Running);
    PhaseStatus { name, state, started_at: now, finished_at: None, message: None }
}

pub(super) fn fail_last(phases: &mut [PhaseStatus], why: &str, now: Timestamp) {
    if let Some(last) = phases.last_mut().filter(|phase| phase.state == PhaseState::Running) {
        last.state = PhaseState::Failed;
        last.finished_at = Some(Time(now));
        last.message = Some(bounded(why, 1_024));
    }
}

pub(super) fn full_stop(text: &str) -> String {
    format!("{}.", super::sentence(text))
}

/// Without a bundle there must be something in which an image can be changed.
fn project_is_usable(desired: &Desired, observation: &Observation) -> Result<(), Refusal> {
    let place = &desired.intent.place;
    if !observation.directory_exists {
        let message = format!(
            "{} does not exist on host {}, and without spec.bundle there is nothing to install there.",
            place.directory, desired.intent.host
        );
        return Err(Refusal::new(RefusalReason::ProjectMissing, message));
    }
    if let Some(problem) = &observation.compose_problem {
        let message =
            format!("The compose files in {} can't be read: {}", place.directory, full_stop(problem));
        return Err(Refusal::new(RefusalReason::ComposeInvalid, message));
    }
    if observation.compose.is_none() {
        let message = format!(
            "There is no compose file in {} on host {}; install the project, or set spec.bundle.",
            place.directory, desired.intent.host
        );
        return Err(Refusal::new(RefusalReason::ProjectMissing, message));
    }
    Ok(())
}

fn blocked_files(observation: &Observation) -> Result<(), Refusal> {
    let blocked = |file: &FileObservation| match &file.state {
        FileState::Blocked { found } => Some(format!("{} ({found})", file.path)),
        FileState::Same | FileState::Attributes | FileState::Differs | FileState::Missing => None,
    };
    let shown: Vec<String> = observation.files.iter().filter_map(blocked).collect();
    if shown.is_empty() {
        return Ok(());
    }
    let message =
        format!("Where managed files go is something else: {}. Move it away first.", listed(&shown, SHOWN));
    Err(Refusal::new(RefusalReason::PathRefused, message))
}

fn hand_edited(observation: &Observation) -> Result<(), Refusal> {
    let edited: Vec<&str> = observation
        .files
        .iter()
        .filter(|file| file.hand_edited && file.state != FileState::Same)
        .map(|file| file.path.as_str())
        .collect();
    if edited.is_empty() {
        return Ok(());
    }
    let message = format!(
        "Managed files were edited by hand since they were last written: {}. Put the edits into the bundle, or undo them.",
        listed(&edited, SHOWN)
    );
    Err(Refusal::new(RefusalReason::HandEdited, message))
}

/// What is known of the plan before the agent has made its own.
fn summary(observation: &Observation, target: &str, approach: Approach) -> PlanSummary {
    let mut files = FileCounts::default();
    for file in &observation.files {
        match file.state {
            FileState::Same => files.unchanged += 1,
            FileState::Missing => files.created += 1,
            FileState::Attributes | FileState::Differs | FileState::Blocked { .. } => files.modified += 1,
        }
    }
    let gone = observation.leftover_files.iter().filter(|file| !file.hand_edited).count();
    files.deleted = i32::try_from(gone).unwrap_or(i32::MAX);
    let hash = hash_json(&(target, approach, changed_files(observation)));
    PlanSummary { hash, approach, files, recreates: Vec::new() }
}

/// Managed files that would change, `.env` aside.
fn changed_files(observation: &Observation) -> Vec<&str> {
    let changed = observation.files.iter().filter(|file| file.state != FileState::Same);
    let leftover = observation.leftover_files.iter().filter(|file| !file.hand_edited);
    changed.chain(leftover).map(|file| file.path.as_str()).filter(|path| *path != ENV_FILE).collect()
}
