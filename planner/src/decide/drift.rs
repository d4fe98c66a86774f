//! At the target: whether the host still is as it was deployed, and whether it is well.

use std::fmt::Write as _;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tenantry_api::conditions::{DRIFTED, READY, Truth, bounded, find, whole_seconds};
use tenantry_api::tenant_status::{Deployed, DeployedImage, Phase};
use tenantry_protocol::{
    FileObservation, FileState, LineCounts, MountFreshness, Observation, ServiceObservation, ServiceState,
};

use super::adoption::pending_images;
use super::conditions::PhaseReport;
use super::decision::Ruling;
use super::ended::{one_per_service, plain_digest};
use super::{Draft, SHOWN, progress};
use crate::target::Desired;
use crate::text::{clause, listed};

/// How soon a Tenant that is not well is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

impl Draft<'_> {
    /// Says how the host stands to what was deployed. Nothing is repaired.
    pub(super) fn stay(&mut self, observation: &Observation) -> Ruling {
        self.drift(observation);
        let problems = self.problems(observation);
        let tag = self.next.deployed.as_ref().map(|deployed| deployed.image_tag.clone()).unwrap_or_default();
        if !problems.is_empty() {
            let since = self.unready_since();
            self.next.healthy_since = None;
            let shown = listed(&problems, SHOWN);
            let message = format!(
                "{tag} is deployed, but not well since {since}: {shown}. Nothing is changed by itself.{}",
                self.by_hand(observation)
            );
            let report = PhaseReport::of(Phase::Degraded, message).because(problems.first().cloned());
            return Ruling::says(report).within(LOOK_AGAIN);
        }
        if let Some(left) = self.not_stable_yet(observation) {
            let message =
                format!("{tag} is deployed; every service is healthy again and is watched for a while.");
            return Ruling::says(PhaseReport::of(Phase::Degraded, message)).within(left);
        }
        let mut message = ready_message(&tag, observation);
        if self.next.lacking.is_some() {
            message += " It asks for more than the host's policy grants now, so that its next release will be refused: see \
                        status.lacking, or `tenantry explain`.";
        }
        Ruling::says(PhaseReport::of(Phase::Ready, message))
    }

    /// What a person types on the host to see why a service is not well, and to start what does not run.
    fn by_hand(&self, observation: &Observation) -> String {
        let typed = observation.compose.as_ref().map(|compose| compose.command.as_str());
        match (self.facts.desired, typed.and_then(|command| command.strip_suffix(" up -d"))) {
            (Ok(desired), Some(compose)) => format!(
                " On host {}, in {}: `{compose} logs` says why, `{compose} up -d` starts what does not run.",
                desired.intent.host, desired.intent.place.directory
            ),
            _ => String::new(),
        }
    }

    fn unready_since(&self) -> jiff::Timestamp {
        let degraded = self.facts.status.phase == Some(Phase::Degraded);
        let since =
            find(&self.next.conditions, READY).filter(|_| degraded).map(|one| one.last_transition_time.0);
        whole_seconds(since.unwrap_or(self.facts.now))
    }

    /// After `Degraded`: how long every service must still stay healthy.
    fn not_stable_yet(&mut self, observation: &Observation) -> Option<Duration> {
        if self.facts.status.phase != Some(Phase::Degraded) {
            return None;
        }
        let stable = match self.facts.desired {
            Ok(desired) => Duration::from_millis(desired.intent.verify.stable_for_ms),
            Err(_) => Duration::from_secs(15),
        };
        let now = whole_seconds(self.facts.now);
        let known = self.next.healthy_since.as_ref().map_or(now, |since| since.0);
        let started = observation
            .services
            .iter()
            .filter(|one| !one.one_shot && !matches!(one.state, ServiceState::Exited { .. }))
            .filter_map(|one| one.started_at);
        let since = started.filter(|at| *at <= now).fold(known, |latest, at| latest.max(whole_seconds(at)));
        self.next.healthy_since = Some(Time(since));
        let healthy = Duration::from_secs(u64::try_from(now.as_second() - since.as_second()).unwrap_or(0));
        stable
            .checked_sub(healthy)
            .filter(|left| !left.is_zero())
            .map(|left| left.max(Duration::from_secs(1)))
    }

    /// What keeps the services from being well, a clause each.
    pub(super) fn problems(&self, observation: &Observation) -> Vec<String> {
        let mut problems: Vec<String> =
            observation.health.problems.iter().map(|text| clause(text.as_str())).collect();
        if let Some(problem) = &observation.compose_problem {
            problems.push(format!("the compose files can't be read: {}", clause(problem)));
        }
        let stable = self.facts.desired.map_or(15_000, |desired| desired.intent.verify.stable_for_ms);
        let stable = i64::try_from(stable / 1_000).unwrap_or(15);
        for service in &observation.services {
            let age = service.started_at.map(|at| self.facts.now.as_second() - at.as_second());
            let runs = !matches!(service.state, ServiceState::Exited { .. });
            if runs && service.restart_count > 0 && age.is_some_and(|age| (0..stable).contains(&age)) {
                problems.push(format!("{} was restarted by the engine a moment ago", service.name));
            }
        }
        problems
    }

    pub(super) fn drift(&mut self, observation: &Observation) {
        let differences = self.differences(observation);
        if differences.is_empty() {
            let message = "The host is as it was deployed.";
            return self.condition(DRIFTED, Truth::False, "AsDeployed", message);
        }
        let shown = listed(&differences, SHOWN);
        let message =
            format!("The host differs from what was deployed: {shown}. Nothing is repaired by itself.");
        self.condition(DRIFTED, Truth::True, "Differs", &message);
    }

    fn differences(&self, observation: &Observation) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for file in &observation.files {
            let how = match &file.state {
                FileState::Same => continue,
                FileState::Attributes => "has another mode or owner".to_owned(),
                FileState::Differs => match edit_size(file) {
                    Some(size) => format!("was edited by hand ({size})"),
                    None => "has other content".to_owned(),
                },
                FileState::Missing => "is gone".to_owned(),
                FileState::Blocked { found } => format!("is {found} now"),
            };
            all.push(format!("{} {how}", file.path));
        }
        let keys = observation.env.keys.iter().filter(|key| !key.is_right());
        all.extend(keys.map(|key| format!("{} in .env has another value or is gone", key.name)));
        all.extend(pending_images(observation, "deployed was"));
        all.extend(observation.services.iter().filter_map(|service| self.service_differs(service)));
        all.extend(observation.resource_differences.iter().cloned());
        for container in &observation.foreign_containers {
            all.push(format!("container {} was made from {}", container.name, container.directory));
        }
        all
    }

    fn service_differs(&self, service: &ServiceObservation) -> Option<String> {
        let name = &service.name;
        match &service.mounts {
            MountFreshness::Current => {}
            MountFreshness::Stale { files } => {
                let files: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
                return Some(format!("{name} has not read {} as it is now", listed(&files, 3)));
            }
            MountFreshness::Unknown { files } => {
                let files: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
                return Some(format!("{name} may not have read {} as it is now", listed(&files, 3)));
            }
        }
        if !service.outdated.is_empty() {
            return Some(format!(
                "{name} still has {} as it was when its container was made (`docker compose up -d --force-recreate {name}`)",
                listed(&service.outdated, 3)
            ));
        }
        let running = service.running.as_ref()?;
        let deployed = self.next.deployed.as_ref()?;
        let planned = deployed.images.iter().find(|image| image.service == name.as_str());
        match planned {
            None => Some(format!("{name} was not part of the deployed release")),
            Some(image) if image.image_id != running.image_id => Some(format!("{name} runs another image")),
            Some(_) if !running.current => Some(format!("{} points to another image now", service.image_ref)),
            Some(_) => None,
        }
    }

    /// Records what is there already as deployed: it was seen to be the target.
    pub(super) fn deploy_seen(&mut self, desired: &Desired, observation: &Observation, target: &str) {
        self.next.deployed = Some(Deployed {
            image_tag: desired.intent.image_tag.to_string(),
            bundle_revision: desired.bundle_revision.clone(),
            target_hash: target.to_owned(),
            files_hash: desired.files_hash.clone(),
            images: one_per_service(observation.services.iter().filter_map(seen_image).collect()),
            at: Time(whole_seconds(self.facts.now)),
        });
    }

    pub(super) fn record_compose(&mut self, observation: &Observation) {
        if let Some(compose) = &observation.compose {
            self.next.compose = Some(progress::in_use(compose));
        }
    }
}

/// How much of a file somebody has edited, against what the bundle writes.
pub(super) fn edit_size(file: &FileObservation) -> Option<String> {
    let LineCounts { added, removed } = file.lines?;
    Some(format!("+{added} -{removed} lines against the bundle"))
}

fn seen_image(service: &ServiceObservation) -> Option<DeployedImage> {
    let running = service.running.as_ref()?;
    Some(DeployedImage {
        service: service.name.to_string(),
        reference: bounded(&service.image_ref, 512),
        image_id: bounded(&running.image_id, 128),
        repo_digest: running.repo_digest.as_deref().map(plain_digest),
    })
}

fn ready_message(tag: &str, observation: &Observation) -> String {
    let count = observation.services.len();
    let mut message = match count {
        0 => format!("{tag} is deployed."),
        1 => format!("{tag} is deployed: its one service runs as planned."),
        _ => format!("{tag} is deployed: all {count} services run as planned."),
    };
    let mut add = |intro: &str, names: &[String]| {
        if !names.is_empty() {
            let _ = write!(message, " {intro}: {}.", listed(names, SHOWN));
        }
    };
    add("Without a healthcheck, so known only to run", &observation.health.without_healthcheck);
    add("Ended with code 0 and done by that", &observation.health.ended);
    add("No longer in the release, left running", &observation.removed_services);
    let left: Vec<String> = observation
        .leftover_files
        .iter()
        .filter(|file| file.state != FileState::Missing)
        .map(|file| file.path.to_string())
        .collect();
    add("No longer in the release, left on the host", &left);
    message
}
