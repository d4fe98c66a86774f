//! First contact: whose the directory is, and whether what is there may be taken over.

use std::fmt::Write as _;
use std::time::Duration;

use tenantry_api::names::RelativePath;
use tenantry_api::tenant::Adopt;
use tenantry_api::tenant_status::{Handled, Phase};
use tenantry_protocol::{ClaimRequest, ClaimState, FileState, Observation, OtherProject, ServiceState};

use super::annotations::asked;
use super::approach::{blocked_files, not_read, project_is_usable};
use super::conditions::PhaseReport;
use super::decision::Ruling;
use super::policy::{asks_for_more, replaces_compose};
use super::unreached::BUSY_AGAIN;
use super::{Answer, Draft, Effect, SHOWN, refused};
use crate::target::{Desired, Refusal, RefusalReason};
use crate::text::listed;

impl Draft<'_> {
    /// Ends the pass where the host holds directory or project for another Tenant.
    pub(super) fn claimed_by_other(
        &mut self,
        desired: &Desired,
        observation: &Observation,
    ) -> Option<Ruling> {
        let ClaimState::Other { owner, uid, holds } = &observation.claim else { return None };
        let handled = self.handled().claim;
        if let Some(value) = asked(self.facts.subject.claim.as_deref(), handled.as_deref()) {
            return Some(self.take_over(value, owner, desired, observation));
        }
        let message = format!(
            "Host {} holds the {holds} for Tenant {owner} (UID {uid}). Delete that Tenant, or give this one another \
             place; if that Tenant is gone and never gave it back, `tenantry claim` for this one takes it over.",
            self.facts.subject.host
        );
        Some(Ruling::says(PhaseReport::refused(RefusalReason::ClaimedByOther, &message)))
    }

    /// Takes the place over, because a person asked for it. First contact follows.
    fn take_over(
        &mut self,
        value: String,
        owner: &str,
        desired: &Desired,
        observation: &Observation,
    ) -> Ruling {
        let message =
            format!("Takes the place over from Tenant {owner} on host {}.", self.facts.subject.host);
        self.next.handled.get_or_insert_with(Handled::default).claim = Some(value);
        Ruling::says(PhaseReport::of(Phase::Planning, message))
            .with(self.claim(desired, observation, true))
            .within(Duration::ZERO)
    }

    fn claim(&self, desired: &Desired, observation: &Observation, take_over: bool) -> Effect {
        Effect::Claim(Box::new(ClaimRequest {
            tenant: desired.intent.tenant.clone(),
            place: desired.intent.place.clone(),
            manifest: desired.manifest.clone(),
            epoch: self.next_epoch(observation),
            take_over,
        }))
    }

    /// Ends the pass where the host carries out an operation of this Tenant that status does not know.
    pub(super) fn strange_operation(&self, observation: &Observation) -> Option<Ruling> {
        let operation = observation.operation.as_ref().filter(|operation| operation.outcome.is_none())?;
        let message = format!(
            "Host {} still carries out operation {} of this Tenant, which this status does not know; its end is waited for.",
            self.facts.subject.host, operation.id
        );
        Some(Ruling::says(PhaseReport::of(Phase::Planning, message)).within(BUSY_AGAIN))
    }

    /// Nothing of this Tenant was ever seen to run, and no operation of ours changed the host.
    pub(super) fn is_first_contact(&self, observation: &Observation) -> bool {
        let free = observation.claim == ClaimState::Free;
        // A host that a person has accepted is known.
        let accepted = !free && self.handled().accept_host.is_some();
        self.next.deployed.is_none() && (free || self.lifecycle.is_untouched()) && !accepted
    }

    /// Takes over what is as it should be, installs where nothing is, and stops where something differs.
    pub(super) fn meet(&mut self, desired: &Desired, observation: &Observation, target: &str) -> Ruling {
        if !observation.foreign_containers.is_empty() {
            return foreign(observation);
        }
        if let Some(ruling) = another_project(desired, observation.other_projects.first()) {
            return ruling;
        }
        if !is_there(observation) {
            return self.upgrade(desired, observation, target);
        }
        if let Some(refusal) = incurable(desired, observation) {
            return refused(&refusal);
        }
        if let Some(ruling) = self.not_granted(desired, observation) {
            return ruling;
        }
        let differences = differences(observation);
        if !differences.is_empty() && desired.intent.adopt == Adopt::IfIdentical {
            return self.adoption_needed(desired, observation, &differences);
        }
        let runs = observation.services.iter().any(|service| service.running.is_some());
        if !differences.is_empty() || !runs {
            return self.upgrade(desired, observation, target);
        }
        // What was taken over is ours already, but the agent has not looked at what is there. What never reached the
        // agent may still arrive: a claim under a higher epoch keeps it out.
        let may_arrive = matches!(self.facts.answer, Answer::Unknown(_));
        let claims = observation.claim == ClaimState::Free || self.handled().claim.is_some() || may_arrive;
        let effect = claims.then(|| self.claim(desired, observation, false));
        self.block = None;
        self.deploy_seen(desired, observation, target);
        Ruling { effect, ..self.stay(observation) }
    }

    fn adoption_needed(
        &self,
        desired: &Desired,
        observation: &Observation,
        differences: &[String],
    ) -> Ruling {
        let mut message = format!(
            "{} on host {} is there already and differs from {}: {}. Nothing was written. Make the Tenant fit what is \
             there, or set spec.adopt to Overwrite.",
            desired.intent.place.directory,
            desired.intent.host,
            desired.intent.image_tag,
            listed(differences, SHOWN)
        );
        // Whoever overwrites would hear of it next.
        if let Some(lacking) = self.next.lacking.as_ref().filter(|_| !replaces_compose(observation)) {
            let _ = write!(message, " {}.", asks_for_more(desired, lacking));
        }
        Ruling::says(PhaseReport::of(Phase::AdoptionNeeded, message))
    }
}

/// What overwriting would not cure.
fn incurable(desired: &Desired, observation: &Observation) -> Option<Refusal> {
    let unreadable = || {
        let problem = observation.compose_problem.as_deref().filter(|_| not_read(observation).is_none())?;
        let stays = desired.intent.bundle.is_none() || names_own_file(problem, observation);
        stays.then(|| project_is_usable(desired, observation).err()).flatten()
    };
    blocked_files(observation).err().or_else(unreadable).or_else(|| protected_env(desired, observation))
}

/// Whether what is wrong with the compose files is told of a compose file that the bundle does not write.
fn names_own_file(problem: &str, observation: &Observation) -> bool {
    let file = problem.split([':', ',', ' ']).next().unwrap_or_default();
    let is_compose_file = [".yml", ".yaml"].iter().any(|end| file.ends_with(end));
    is_compose_file && observation.files.iter().all(|managed| managed.path.as_str() != file)
}

/// A protected `.env` that would have to be patched.
fn protected_env(desired: &Desired, observation: &Observation) -> Option<Refusal> {
    let key = observation.env.keys.iter().find(|key| !key.is_right())?;
    let file = RelativePath::env_file();
    let protected = desired.intent.protect.iter().find(|protected| protected.conflicts_with(&file))?;
    let message = format!(
        "{} in .env is not as spec.env.patch wants it, and .env is protected by '{protected}' in spec.protect, so that \
         nothing of ours is written there. Set it by hand, or take one of the two out.",
        key.name
    );
    Some(Refusal::new(RefusalReason::PathRefused, message))
}

/// The directory belongs to another compose project as well: a second stack would have the same data.
pub(super) fn another_project(desired: &Desired, other: Option<&OtherProject>) -> Option<Ruling> {
    let other = other?;
    let place = &desired.intent.place;
    let there = match &other.named_by {
        Some(by) => format!("is compose project {} by {by}", other.name),
        None => {
            format!("runs as compose project {} already ({})", other.name, listed(&other.containers, SHOWN))
        }
    };
    let message = format!(
        "{} on host {} {there}, and spec.project is {}: that would be a second stack on the same data, so nothing was \
         begun; adopt: Overwrite does not cover it. Make a new Tenant with project {}, or take that project down with \
         `docker compose -p {} down`{}.",
        place.directory,
        desired.intent.host,
        place.project,
        other.name,
        other.name,
        if other.named_by.is_some() { " and take its name out of there" } else { "" },
    );
    Some(Ruling::says(PhaseReport::of(Phase::AdoptionNeeded, message)))
}

/// Files of the tenant's own that a release would replace, though nobody has said that it may: its bundle, or the file in
/// it, is new here.
pub(super) fn replaces_own_files(desired: &Desired, observation: &Observation) -> Option<Ruling> {
    if desired.intent.adopt == Adopt::Overwrite {
        return None;
    }
    let own: Vec<&str> =
        observation.files.iter().filter(|file| file.unmanaged).map(|file| file.path.as_str()).collect();
    if own.is_empty() {
        return None;
    }
    let message = format!(
        "TemplateBundle {} would replace files in {} on host {} that are there already, with other content, and were \
         never written by it: {}. Nothing was written. Make the bundle's files the same, or set spec.adopt to Overwrite.",
        desired.intent.bundle.as_deref().unwrap_or_default(),
        desired.intent.place.directory,
        desired.intent.host,
        listed(&own, SHOWN)
    );
    Some(Ruling::says(PhaseReport::of(Phase::AdoptionNeeded, message)))
}

fn foreign(observation: &Observation) -> Ruling {
    let shown: Vec<String> = observation
        .foreign_containers
        .iter()
        .map(|container| format!("{} (made from {})", container.name, container.directory))
        .collect();
    let message = format!(
        "Containers of this project were made from another directory: {}. Remove them, or set spec.directory of \
         a new Tenant to where they were made from; adopt: Overwrite does not cover them.",
        listed(&shown, SHOWN)
    );
    Ruling::says(PhaseReport::of(Phase::AdoptionNeeded, message))
}

/// Whether a project is there already. An adopted `.env` alone is what a person prepares for a first installation.
fn is_there(observation: &Observation) -> bool {
    let has_files = observation.files.iter().any(|file| file.state != FileState::Missing);
    let has_containers = observation.services.iter().any(|service| service.state != ServiceState::Absent);
    has_files || has_containers || observation.compose.is_some() || observation.compose_problem.is_some()
}

/// Services whose image is not as `spec.images` says, a clause each.
pub(super) fn pending_images(observation: &Observation, says: &str) -> Vec<String> {
    let pending = observation.images.iter().flat_map(|image| &image.pending);
    pending.map(|one| format!("{} has {}, {says} {}", one.service, one.now, one.wanted)).collect()
}

/// What of an existing project differs: managed files, values of patched keys, image references.
pub(super) fn differences(observation: &Observation) -> Vec<String> {
    let file = |file: &tenantry_protocol::FileObservation| match &file.state {
        FileState::Same | FileState::Attributes => None,
        FileState::Differs => Some(format!("{} has other content", file.path)),
        FileState::Missing => Some(format!("{} is not there", file.path)),
        FileState::Blocked { found } => Some(format!("{} is {found}", file.path)),
    };
    let mut all: Vec<String> = observation.files.iter().filter_map(file).collect();
    for key in observation.env.keys.iter().filter(|key| !key.is_right()) {
        let how = if key.present { "has another value" } else { "is not set" };
        all.push(format!("{} in .env {how}", key.name));
    }
    all.extend(pending_images(observation, "spec.images says"));
    all.extend(observation.image_differences.iter().cloned());
    all.extend(observation.compose_problem.iter().cloned());
    all
}
