//! Which approach a host permits, and what forbids an upgrade before it is begun.

use tenantry_api::names::RelativePath;
use tenantry_api::tenant::Approach;
use tenantry_api::tenant_status::{FileCounts, Lacking, PlanSummary};
use tenantry_protocol::{FileObservation, FileState, Observation, Probe};

use super::drift::edit_size;
use super::policy::{LOOKED_AT_AGAIN, asks_for_more};
use super::{Draft, SHOWN};
use crate::target::{Desired, ENV_FILE, Intent, Refusal, RefusalReason};
use crate::text::{listed, sentence};

impl Draft<'_> {
    /// Which approach the host permits, if any.
    pub(super) fn permitted(
        &self,
        desired: &Desired,
        observation: &Observation,
    ) -> Result<Approach, Refusal> {
        let intent = &desired.intent;
        only_from_here(desired, observation)?;
        if self.facts.subject.only_http_probes {
            only_by_http(intent)?;
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
}

/// Every container of the project was made from the Tenant's own directory.
fn only_from_here(desired: &Desired, observation: &Observation) -> Result<(), Refusal> {
    if observation.foreign_containers.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = observation.foreign_containers.iter().map(|one| one.name.as_str()).collect();
    let message = format!(
        "Containers of project {} were made from another directory since: {}. Remove them first.",
        desired.intent.place.project,
        listed(&names, SHOWN)
    );
    Err(Refusal::new(RefusalReason::PathRefused, message))
}

/// An older agent would not know what other probes are.
fn only_by_http(intent: &Intent) -> Result<(), Refusal> {
    if intent.verify.probes.iter().all(|probe| matches!(probe, Probe::Http(_))) {
        return Ok(());
    }
    let message = format!(
        "The agent of host {} makes no probes of spec.upgrade.verify but http: install a tenantry-agent of this \
         operator's version, or take tcp and exec out.",
        intent.host
    );
    Err(Refusal::new(RefusalReason::RequestRefused, message))
}

/// Without a bundle there must be something in which an image can be changed.
pub(super) fn project_is_usable(desired: &Desired, observation: &Observation) -> Result<(), Refusal> {
    let place = &desired.intent.place;
    if !observation.directory_exists {
        let message = format!(
            "{} does not exist on host {}, and without spec.bundle there is nothing to install there: correct spec.directory, or \
             set spec.bundle.",
            place.directory, desired.intent.host
        );
        return Err(Refusal::new(RefusalReason::ProjectMissing, message));
    }
    if let Some(lacking) = not_read(observation) {
        let message = format!("{}. {LOOKED_AT_AGAIN}", asks_for_more(desired, lacking));
        return Err(Refusal::new(RefusalReason::PolicyRefused, message));
    }
    if let Some(problem) = &observation.compose_problem {
        let message =
            format!("The compose files in {} can't be read: {}", place.directory, sentence(problem));
        return Err(Refusal::new(RefusalReason::ComposeInvalid, message));
    }
    if observation.compose.is_none() {
        let message = format!(
            "There is no compose file in {} on host {}: correct spec.directory, install the project there, or set spec.bundle.",
            place.directory, desired.intent.host
        );
        return Err(Refusal::new(RefusalReason::ProjectMissing, message));
    }
    Ok(())
}

/// What the policy does not grant of the files that compose would read: there is no model then.
pub(super) fn not_read(observation: &Observation) -> Option<&Lacking> {
    observation.lacking.as_ref().filter(|_| observation.compose_problem.is_some())
}

/// Every compose file that the bundle writes is one that compose reads.
pub(super) fn unread_files(desired: &Desired, observation: &Observation) -> Result<(), Refusal> {
    let Some(file) = observation.unread_files.first() else { return Ok(()) };
    let (place, bundle) = (&desired.intent.place, desired.intent.bundle.as_deref().unwrap_or_default());
    let read: Vec<&str> = file.read.iter().map(RelativePath::as_str).collect();
    let read = if read.is_empty() { "nothing there".to_owned() } else { listed(&read, SHOWN) };
    let because = file.named_by.as_ref().map_or_else(String::new, |by| format!(", as {by} says"));
    let message = format!(
        "TemplateBundle {bundle} writes {}, but in {} compose reads {read}{because}: nobody would read the bundle's file. \
         Give it the name that is read, move the other file away, or name both in spec.compose.files.",
        file.path, place.directory
    );
    Err(Refusal::new(RefusalReason::ComposeFileUnread, message))
}

pub(super) fn blocked_files(observation: &Observation) -> Result<(), Refusal> {
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
    let edited: Vec<&FileObservation> =
        observation.files.iter().filter(|file| file.hand_edited && file.state != FileState::Same).collect();
    let Some(first) = edited.first().map(|file| &file.path) else { return Ok(()) };
    let said = |file: &&FileObservation| match edit_size(file) {
        Some(size) => format!("{} ({size})", file.path),
        None => file.path.to_string(),
    };
    let said: Vec<String> = edited.iter().map(said).collect();
    let message = format!(
        "Managed files were edited by hand since they were last written: {}. Put the edits into the bundle; or move the files \
         away (`mv {first} {first}.mine`), and they are written anew.",
        listed(&said, SHOWN)
    );
    Err(Refusal::new(RefusalReason::HandEdited, message))
}

/// What is known of the plan before the agent has made it. Only the agent's plan has a hash.
pub(super) fn expected_plan(observation: &Observation, approach: Approach) -> PlanSummary {
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
    PlanSummary { hash: None, approach, files, recreates: Vec::new() }
}

/// Managed files that would change, `.env` aside.
fn changed_files(observation: &Observation) -> Vec<&str> {
    let changed = observation.files.iter().filter(|file| file.state != FileState::Same);
    let leftover = observation.leftover_files.iter().filter(|file| !file.hand_edited);
    changed.chain(leftover).map(|file| file.path.as_str()).filter(|path| *path != ENV_FILE).collect()
}
