//! A ComposeHost's status: written on transitions, and else at most every 5 minutes.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tenantry_api::conditions::{READY, RECONCILING, STALLED, Truth, bounded, find, set, whole_seconds};
use tenantry_api::host::{ComposeHostStatus, Disk};
use tenantry_api::{ComposeHost, FIELD_MANAGER};
use tenantry_protocol::HostInfo;
use tokio_util::sync::CancellationToken;

use super::changes::HostChanges;
use super::{Hosts, pending_releases};
use crate::agents::AgentError;
use crate::cluster::Cluster;
use crate::key::Key;
use crate::metrics::Metrics;
use crate::queue::Queue;
use tenantry_process::runtime::{Runtime, jittered};

/// How often a host is asked.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// How often figures that change all the time are written.
const WRITE_EVERY: i64 = 300;

/// Asks hosts how they are and writes it down.
pub struct HostStatus {
    /// The API server.
    pub client: Client,
    /// Where pending releases are written.
    pub cluster: Arc<dyn Cluster>,
    /// Time.
    pub runtime: Arc<dyn Runtime>,
    /// The hosts.
    pub hosts: Arc<Hosts>,
    /// Which are to be asked.
    pub queue: Arc<Queue<Key>>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// What follows a host that answers.
    pub changes: Arc<HostChanges>,
}

impl HostStatus {
    /// Asks until the end; a host that hangs holds up no other.
    pub async fn run(self: Arc<Self>, end: CancellationToken) {
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (this, end) = (self.clone(), end.clone());
            workers.spawn(async move {
                loop {
                    let key = tokio::select! {
                        () = end.cancelled() => return,
                        key = this.queue.next() => key,
                    };
                    let known = this.reconcile(&key, &end).await;
                    this.queue.done(&key, known.then(|| jittered(this.runtime.as_ref(), ASK_EVERY)));
                }
            });
        }
        while workers.join_next().await.is_some() {}
        self.changes.tasks.close();
        self.changes.tasks.wait().await;
    }

    /// Asks one host. False: there is no such ComposeHost any more.
    async fn reconcile(&self, key: &Key, end: &CancellationToken) -> bool {
        let (Some(host), Some(route)) = (self.hosts.get(key), self.hosts.route(key)) else { return false };
        let answer = match &route.agent {
            Ok(agent) => agent.host().await,
            Err(error) => Err(error.clone()),
        };
        self.metrics.called("host", answer.as_ref().map_or_else(AgentError::category, |_| "ok"));
        if let (Ok(_), Ok(agent)) = (&answer, &route.agent) {
            self.changes.follow(key, end);
            pending_releases::release_all(self.cluster.as_ref(), &self.metrics, &host, agent).await;
        }
        let old = host.status.clone().unwrap_or_default();
        let new = next_status(&old, &answer, host.metadata.generation.unwrap_or(0), self.runtime.now());
        if is_worth_writing(&old, &new) {
            self.write(&host, &new).await;
        }
        // What a policy refused is looked at again under another one.
        let granted = new.policy_revision.is_some() && new.policy_revision != old.policy_revision;
        if granted || is_ready(&new) && !is_ready(&old) {
            (self.changes.changed)(key, None);
        }
        true
    }

    async fn write(&self, host: &ComposeHost, status: &ComposeHostStatus) {
        let api: Api<ComposeHost> =
            Api::namespaced(self.client.clone(), &host.namespace().unwrap_or_default());
        let body = json!({
            "apiVersion": ComposeHost::api_version(&()),
            "kind": ComposeHost::kind(&()),
            "metadata": { "name": host.name_any() },
            "status": status,
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        match api.patch_status(&host.name_any(), &parameters, &Patch::Apply(&body)).await {
            Ok(_) => self.metrics.wrote("composehost_status"),
            Err(error) => tracing::warn!(host = %Key::of(host), "its status could not be written: {error}"),
        }
    }
}

fn is_ready(status: &ComposeHostStatus) -> bool {
    find(&status.conditions, READY).is_some_and(|ready| ready.status == Truth::True.as_str())
}

/// What an answer, or its absence, makes of a status.
fn next_status(
    old: &ComposeHostStatus,
    answer: &Result<HostInfo, AgentError>,
    generation: i64,
    now: Timestamp,
) -> ComposeHostStatus {
    let mut new = old.clone();
    new.observed_generation = Some(generation);
    let (ready, reconciling, reason, message) = match answer {
        Ok(info) => {
            take_info(&mut new, info, now);
            match info.problems.as_slice() {
                [] => (
                    Truth::True,
                    false,
                    "Answered",
                    "The agent answers, and Docker and compose do, too.".to_owned(),
                ),
                problems => (Truth::False, true, "HostFault", problems.join(" ")),
            }
        }
        Err(error) => {
            let text = error.to_string();
            let message =
                format!("{}. It is asked again every {} s.", text.trim_end_matches('.'), ASK_EVERY.as_secs());
            (Truth::Unknown, true, error.category(), message)
        }
    };
    let mut put = |kind, truth, message: &str| {
        set(&mut new.conditions, kind, truth, reason, message, generation, now);
    };
    put(READY, ready, &message);
    put(RECONCILING, reconciling.into(), if reconciling { &message } else { "" });
    put(STALLED, Truth::False, "");
    new
}

fn take_info(status: &mut ComposeHostStatus, info: &HostInfo, now: Timestamp) {
    let bytes = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let mut capabilities: Vec<String> =
        info.capabilities.iter().take(64).map(|one| bounded(&String::from(one.clone()), 64)).collect();
    capabilities.sort();
    capabilities.dedup();
    status.capabilities = capabilities;
    status.agent_version = Some(bounded(&info.agent_version, 64));
    status.docker_version = info.docker_version.as_deref().map(|version| bounded(version, 64));
    status.compose_version = info.compose_version.as_deref().map(|version| bounded(version, 64));
    status.disk =
        Some(Disk { free_bytes: bytes(info.disk_free_bytes), total_bytes: bytes(info.disk_total_bytes) });
    status.policy_revision = info.policy_revision.as_deref().map(|revision| bounded(revision, 128));
    status.max_operations = Some(i32::try_from(info.max_operations).unwrap_or(64).clamp(1, 64));
    status.last_contact = Some(Time(whole_seconds(now)));
}

/// Transitions at once; free space and the last contact every 5 minutes.
fn is_worth_writing(old: &ComposeHostStatus, new: &ComposeHostStatus) -> bool {
    let lasting = |status: &ComposeHostStatus| {
        let mut status = status.clone();
        status.last_contact = None;
        status.disk = None;
        status
    };
    if lasting(old) != lasting(new) {
        return true;
    }
    match (&old.last_contact, &new.last_contact) {
        (Some(old), Some(new)) => new.0.as_second() - old.0.as_second() >= WRITE_EVERY,
        (old, new) => old != new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenantry_api::names::Identity;
    use tenantry_planner::decide::Unreached;

    fn info(free: u64) -> HostInfo {
        HostInfo {
            identity: Identity::parse("n5").unwrap(),
            agent_version: "0.1.0".to_owned(),
            capabilities: vec!["ImageOnly".to_owned().into()],
            docker_version: Some("28".to_owned()),
            compose_version: Some("v5.0.2".to_owned()),
            disk_free_bytes: free,
            disk_total_bytes: 100,
            max_operations: 4,
            policy_revision: None,
            problems: Vec::new(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn figures_that_always_change_are_written_at_most_every_five_minutes() {
        let first = next_status(&ComposeHostStatus::default(), &Ok(info(50)), 1, at(1_000));
        assert!(is_worth_writing(&ComposeHostStatus::default(), &first) && is_ready(&first));
        let soon = next_status(&first, &Ok(info(40)), 1, at(1_030));
        assert!(!is_worth_writing(&first, &soon));
        let later = next_status(&first, &Ok(info(40)), 1, at(1_300));
        assert!(is_worth_writing(&first, &later));
    }

    #[test]
    fn p14_a_host_that_does_not_answer_is_unknown_and_written_once() {
        let first = next_status(&ComposeHostStatus::default(), &Ok(info(50)), 1, at(1_000));
        let error = AgentError::Unreached { why: Unreached::NoAnswer, text: "connection refused".to_owned() };
        let lost = next_status(&first, &Err(error.clone()), 1, at(1_030));
        assert_eq!(find(&lost.conditions, READY).unwrap().status, "Unknown");
        assert!(is_worth_writing(&first, &lost));
        let still = next_status(&lost, &Err(error), 1, at(1_900));
        assert!(!is_worth_writing(&lost, &still), "an outage is no heartbeat");
        assert!(find(&still.conditions, RECONCILING).unwrap().message.contains("connection refused"));
    }

    #[test]
    fn another_policy_is_written_at_once() {
        let first = next_status(&ComposeHostStatus::default(), &Ok(info(50)), 1, at(1_000));
        let mut granted = info(50);
        granted.policy_revision = Some("sha256:2".to_owned());
        let next = next_status(&first, &Ok(granted), 1, at(1_030));
        assert_eq!(next.policy_revision.as_deref(), Some("sha256:2"));
        assert!(is_worth_writing(&first, &next));
    }

    #[test]
    fn a_problem_of_the_host_is_told_in_its_own_words() {
        let mut broken = info(50);
        broken.problems = vec!["Docker does not answer.".to_owned()];
        let status = next_status(&ComposeHostStatus::default(), &Ok(broken), 3, at(1_000));
        let ready = find(&status.conditions, READY).unwrap();
        assert_eq!((ready.status.as_str(), ready.message.as_str()), ("False", "Docker does not answer."));
        assert_eq!(ready.observed_generation, Some(3));
    }
}
