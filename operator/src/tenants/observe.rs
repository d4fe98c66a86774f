//! Observing: the desired state, and what the agent says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::ResourceExt;
use tenantry_api::Tenant;
use tenantry_api::annotations::{RECONCILE, RETRY, ROLLBACK_TO};
use tenantry_api::names::OperationId;
use tenantry_planner::bundle::Bundle;
use tenantry_planner::decide::{Answer, Unreached};
use tenantry_planner::render::{TIME_LIMIT, render};
use tenantry_planner::target::{Desired, Intent, Refusal, RefusalReason};
use tenantry_process::runtime::{BrokeOff, Runtime, blocking, timeout};
use tenantry_protocol::{
    ApiError, Capability, ErrorCode, FileContent, Observation, ObserveRequest, ObserveResponse,
    OperationState, OperationStatus,
};

use super::Tenants;
use super::cache::{News, Prepared, PreparedOf, Seen};
use super::reconcile::Attempt;
use crate::agents::{Agent, AgentError};
use crate::hosts::Route;
use crate::key::Key;

/// The desired state, and the agent that can bring it about.
pub(super) struct DesiredState {
    pub desired: Result<Arc<Desired>, Refusal>,
    /// What a person goes back with who asks for that while the spec can be read but not rendered.
    pub back: Option<Arc<Desired>>,
    pub contents: Option<Arc<Vec<FileContent>>>,
    pub route: Option<Route>,
}

impl DesiredState {
    /// What the agent is asked with.
    pub fn asking(&self) -> Option<&Arc<Desired>> {
        self.desired.as_ref().ok().or(self.back.as_ref())
    }
}

/// What the agent said.
// The planner's `Answer` with its contents owned; named alike.
#[allow(clippy::enum_variant_names)]
pub(super) enum AgentAnswer {
    NotAsked,
    Unreached(Unreached, String),
    Refused(ApiError),
    NotBegun(ApiError),
    Seen(Arc<Observation>),
    Unknown(Arc<Observation>),
    Followed(Arc<OperationStatus>, Option<Arc<Observation>>),
}

impl AgentAnswer {
    pub fn as_answer(&self) -> Answer<'_> {
        match self {
            Self::NotAsked => Answer::NotAsked,
            Self::Unreached(why, text) => Answer::Unreached(*why, text),
            Self::Refused(error) => Answer::Refused(error),
            Self::NotBegun(error) => Answer::NotBegun(error),
            Self::Seen(observation) => Answer::Seen(observation),
            Self::Unknown(observation) => Answer::Unknown(observation),
            Self::Followed(status, observation) => Answer::Followed(status, observation.as_deref()),
        }
    }
}

impl From<AgentError> for AgentAnswer {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Unreached { why, text } => Self::Unreached(why, text),
            AgentError::Refused(error) => Self::Refused(error),
        }
    }
}

impl Tenants {
    /// The desired state of this Tenant's host. Rendered once for each generation and bundle.
    pub(super) async fn desired_state(&self, tenant: &Tenant) -> DesiredState {
        let key = Key::of(tenant);
        let route = self.hosts.route(&key.beside(&tenant.spec.host));
        let prepared = self.prepare(&key, tenant).await;
        let back = prepared.back.filter(|_| goes_back(tenant));
        let (desired, back) = match &route {
            None => {
                let message = format!(
                    "spec.host: there is no ComposeHost {} in namespace {}: correct it (`kubectl get composehosts`), or apply that ComposeHost.",
                    tenant.spec.host, key.namespace
                );
                (Err(Refusal::new(RefusalReason::HostMissing, message)), None)
            }
            Some(route) => match self.duplicate(tenant, route) {
                Some(refusal) => (Err(refusal), None),
                None if self.sets_no_images(tenant) => (Err(no_images(&tenant.spec.host)), back),
                None => (prepared.desired, back),
            },
        };
        DesiredState { desired, back, contents: prepared.contents, route }
    }

    /// Whether the host's agent is known to be one that does not know what `spec.images` is.
    fn sets_no_images(&self, tenant: &Tenant) -> bool {
        !tenant.spec.images.is_empty() && self.lacks(tenant, Capability::Images)
    }

    async fn prepare(&self, key: &Key, tenant: &Tenant) -> Prepared {
        let bundle = self.bundle(key, tenant).await;
        let digest = match &bundle {
            Some(Ok(bundle)) => Some(bundle.identity.digest.clone()),
            Some(Err(refusal)) => Some(refusal.to_string()),
            None => None,
        };
        let of = PreparedOf {
            uid: tenant.uid().unwrap_or_default(),
            generation: tenant.metadata.generation.unwrap_or(0),
            bundle: digest,
            asked: [RETRY, RECONCILE].map(|name| tenant.annotations().get(name).cloned()),
        };
        let now = self.runtime.instant();
        let known = self.with_cache(key, |cache| cache.prepared.clone());
        if let Some(known) = known.filter(|known| known.is_still(&of, now)) {
            return known;
        }
        let (desired, back, contents) = match build(self.runtime.as_ref(), tenant, bundle).await {
            Ok((desired, contents)) => (Ok(Arc::new(desired)), None, Some(Arc::new(contents))),
            Err(refusal) => {
                let back = intent(tenant).ok().map(|intent| Arc::new(Desired::to_go_back(intent)));
                (Err(refusal), back, None)
            }
        };
        let prepared = Prepared { of, at: self.runtime.instant(), desired, back, contents };
        self.with_cache(key, |cache| cache.prepared = Some(prepared.clone()));
        prepared
    }

    async fn bundle(&self, key: &Key, tenant: &Tenant) -> Option<Result<Arc<Bundle>, Refusal>> {
        let name = tenant.spec.bundle.as_ref()?;
        Some(self.cluster.bundle(&key.beside(name)).await)
    }

    /// The contents of the wanted files, rendered again where they were dropped.
    pub(super) async fn contents(&self, attempt: &Attempt) -> Result<Arc<Vec<FileContent>>, Refusal> {
        if let Some(contents) = &attempt.wanted.contents {
            return Ok(contents.clone());
        }
        let bundle = self.bundle(&attempt.key, &attempt.tenant).await;
        let (_, contents) = build(self.runtime.as_ref(), &attempt.tenant, bundle).await?;
        Ok(Arc::new(contents))
    }

    /// Another Tenant with the same place on the same host; the older of the two wins.
    fn duplicate(&self, tenant: &Tenant, route: &Route) -> Option<Refusal> {
        if tenant.status.as_ref().is_some_and(|status| status.deployed.is_some()) {
            return None;
        }
        let age = |one: &Tenant| (one.metadata.creation_timestamp.clone().map(|time| time.0), Key::of(one));
        let (own, own_uid) = (age(tenant), tenant.uid());
        let rivals = self.watched.state().into_iter().filter(|other| {
            let same_place =
                other.spec.project == tenant.spec.project || other.spec.directory == tenant.spec.directory;
            same_place
                && other.uid() != own_uid
                && age(other) < own
                && self
                    .hosts
                    .route(&Key::of(other.as_ref()).beside(&other.spec.host))
                    .is_some_and(|theirs| theirs.identity == route.identity)
        });
        // The oldest has the place: the others may be refused themselves.
        let rival = rivals.min_by_key(|other| age(other))?;
        let what = if rival.spec.project == tenant.spec.project {
            format!("spec.project {}", tenant.spec.project)
        } else {
            format!("spec.directory {}", tenant.spec.directory)
        };
        let message = format!(
            "{what} on host {} belongs to the older Tenant {}; give this one another place, or delete one of them.",
            tenant.spec.host,
            Key::of(rival.as_ref())
        );
        Some(Refusal::new(RefusalReason::Duplicate, message))
    }

    /// Asks the agent what this attempt has to know.
    pub(super) async fn ask_agent(&self, attempt: &Attempt) -> AgentAnswer {
        let in_flight = attempt
            .tenant
            .status
            .as_ref()
            .and_then(|status| status.upgrade.as_ref())
            .filter(|upgrade| upgrade.outcome.is_none())
            .map(|upgrade| upgrade.id.clone());
        let Some(route) = &attempt.wanted.route else {
            if in_flight.is_none() && attempt.subject.deleted_at.is_none() {
                return AgentAnswer::NotAsked;
            }
            let text = format!("there is no ComposeHost {} any more", attempt.subject.host);
            return AgentAnswer::Unreached(Unreached::HostMissing, text);
        };
        let agent = match &route.agent {
            Ok(agent) => agent.clone(),
            Err(error) => return error.clone().into(),
        };
        match in_flight {
            Some(id) => self.ask_about_operation(attempt, &agent, &id).await,
            None if attempt.subject.deleted_at.is_some() => AgentAnswer::NotAsked,
            None => match attempt.wanted.asking() {
                Some(desired) => match self.observe(attempt, &agent, desired).await {
                    Ok(observation) => AgentAnswer::Seen(observation),
                    Err(error) => error.into(),
                },
                None => AgentAnswer::NotAsked,
            },
        }
    }

    /// How the operation in flight stands: from the one who follows it, else from the agent itself.
    async fn ask_about_operation(&self, attempt: &Attempt, agent: &Arc<dyn Agent>, id: &str) -> AgentAnswer {
        let known = self.known_news(attempt, id);
        let status = match known {
            Some(status) => status,
            None => match OperationId::parse(id) {
                Ok(id) => {
                    let answer = agent.operation(&id, 0, Duration::ZERO).await;
                    self.count("operation", &answer);
                    answer.map(Arc::new)
                }
                Err(_) => return AgentAnswer::NotAsked,
            },
        };
        match status {
            Ok(status) => {
                let ended = matches!(status.state, OperationState::Ended { .. });
                let observation =
                    match (&attempt.wanted.desired, ended && attempt.subject.deleted_at.is_none()) {
                        (Ok(desired), true) => self.observe(attempt, agent, desired).await.ok(),
                        _ => None,
                    };
                AgentAnswer::Followed(status, observation)
            }
            // Where it can't read its records, the observation says so, and whether a person may go on.
            Err(AgentError::Refused(error))
                if matches!(error.code, ErrorCode::NotFound | ErrorCode::RecordsDamaged) =>
            {
                match attempt.wanted.asking() {
                    Some(desired) => match self.observe(attempt, agent, desired).await {
                        Ok(observation) => AgentAnswer::Unknown(observation),
                        Err(error) => error.into(),
                    },
                    None if error.code == ErrorCode::RecordsDamaged => AgentAnswer::Refused(error),
                    None => AgentAnswer::NotBegun(error),
                }
            }
            Err(error) => error.into(),
        }
    }

    /// What the one who follows the operation has heard. That nothing is heard counts only while somebody listens
    /// at the address that the host has now.
    fn known_news(&self, attempt: &Attempt, id: &str) -> Option<Result<Arc<OperationStatus>, AgentError>> {
        let address = attempt.wanted.route.as_ref().map(|route| route.address.as_str());
        self.with_cache(&attempt.key, |cache| {
            let News { status, .. } = cache.news.clone().filter(|news| news.id == id)?;
            let listens = cache.follower.as_ref().is_some_and(|follower| {
                let (followed, at) = &follower.of;
                followed == id && Some(at.as_str()) == address && !follower.task.is_finished()
            });
            (status.is_ok() || listens).then_some(status)
        })
    }

    /// What is on the host; the agent says only that nothing changed where that is so.
    async fn observe(
        &self,
        attempt: &Attempt,
        agent: &Arc<dyn Agent>,
        desired: &Desired,
    ) -> Result<Arc<Observation>, AgentError> {
        let identity = attempt.wanted.route.as_ref().map_or("", |route| route.identity.as_str());
        let of = format!("{}@{identity}@{:?}", desired.base_hash, desired.intent.protect);
        let seen = self.with_cache(&attempt.key, |cache| cache.seen.clone()).filter(|seen| seen.of == of);
        let mut request = ObserveRequest {
            tenant: desired.intent.tenant.clone(),
            place: desired.intent.place.clone(),
            manifest: desired.manifest.clone(),
            known: seen.as_ref().map(|seen| seen.hash.clone()),
            contents: Vec::new(),
        };
        let mut answer = self.observed(agent, &request).await?;
        if matches!(answer, ObserveResponse::Same) && seen.is_none() {
            request.known = None;
            answer = self.observed(agent, &request).await?;
        }
        match (answer, seen) {
            (ObserveResponse::Same, Some(seen)) => Ok(seen.observation),
            (ObserveResponse::Same, None) => Err(AgentError::Unreached {
                why: Unreached::BadAnswer,
                text: format!("agent {identity} says that nothing changed, though it was not asked before"),
            }),
            (ObserveResponse::Seen { hash, observation }, _) => {
                let counted = self.edits_counted(attempt, agent, request, &observation).await;
                let observation = Arc::new(counted.unwrap_or(*observation));
                let seen = Seen { of, hash, observation: observation.clone() };
                self.with_cache(&attempt.key, |cache| cache.seen = Some(seen));
                Ok(observation)
            }
        }
    }

    /// The same with the lines counted of what was edited by hand, where there is any and the agent can.
    async fn edits_counted(
        &self,
        attempt: &Attempt,
        agent: &Arc<dyn Agent>,
        request: ObserveRequest,
        seen: &Observation,
    ) -> Option<Observation> {
        let edited = |file: &&FileContent| seen.files.iter().any(|it| it.hand_edited && it.path == file.path);
        let contents: Vec<FileContent> =
            attempt.wanted.contents.iter().flat_map(|all| all.iter()).filter(edited).cloned().collect();
        if contents.is_empty() || self.lacks(&attempt.tenant, Capability::Edits) {
            return None;
        }
        match self.observed(agent, &ObserveRequest { known: None, contents, ..request }).await {
            Ok(ObserveResponse::Seen { observation, .. }) => Some(*observation),
            Ok(ObserveResponse::Same) | Err(_) => None,
        }
    }

    async fn observed(
        &self,
        agent: &Arc<dyn Agent>,
        request: &ObserveRequest,
    ) -> Result<ObserveResponse, AgentError> {
        let answer = agent.observe(request).await;
        self.count("observe", &answer);
        answer
    }

    pub(super) fn count<T>(&self, call: &'static str, answer: &Result<T, AgentError>) {
        self.metrics.called(call, answer.as_ref().map_or_else(AgentError::category, |_| "ok"));
    }
}

/// Whether a person asks to go back, or has asked for what the agent may not have heard of yet.
fn goes_back(tenant: &Tenant) -> bool {
    let status = tenant.status.as_ref();
    let handled = status.and_then(|status| status.handled.as_ref()?.rollback_to.as_ref());
    let asked = tenant.annotations().get(ROLLBACK_TO).filter(|value| !value.is_empty());
    let in_flight = status
        .and_then(|status| status.upgrade.as_ref())
        .is_some_and(|upgrade| upgrade.outcome.is_none() && upgrade.rollback_to.is_some());
    in_flight || asked.is_some() && asked != handled
}

fn no_images(host: &str) -> Refusal {
    let message = format!(
        "The agent of host {host} does not know spec.images: install a tenantry-agent of this operator's version, or take \
         it out."
    );
    Refusal::new(RefusalReason::RequestRefused, message)
}

fn intent(tenant: &Tenant) -> Result<Intent, Refusal> {
    let key = Key::of(tenant);
    Intent::parse(&tenant.uid().unwrap_or_default(), &key.namespace, &key.name, &tenant.spec)
}

/// Parses and renders. Rendering runs on a thread of its own, for templates take their time.
async fn build(
    runtime: &dyn Runtime,
    tenant: &Tenant,
    bundle: Option<Result<Arc<Bundle>, Refusal>>,
) -> Result<(Desired, Vec<FileContent>), Refusal> {
    let intent = intent(tenant)?;
    let Some(bundle) = bundle else {
        return Ok((Desired::without_bundle(intent), Vec::new()));
    };
    let bundle = bundle?;
    let values = tenant.spec.values.clone();
    let (to_render, seen_by) = (bundle.clone(), intent.clone());
    let rendering =
        blocking(runtime, move || render(&to_render, &seen_by, &values, Instant::now() + TIME_LIMIT));
    let failed = |problem: &str| {
        let message = format!("TemplateBundle {}: {problem}.", bundle.identity.name);
        Refusal::new(RefusalReason::RenderFailed, message)
    };
    let rendered = match timeout(runtime, TIME_LIMIT * 2, rendering).await {
        Some(Ok(rendered)) => rendered?,
        Some(Err(BrokeOff)) => return Err(failed("rendering broke off").of_time()),
        None => return Err(failed("rendering took longer than it may").of_time()),
    };
    let desired = Desired::with_bundle(intent, &bundle, &rendered)?;
    Ok((desired, rendered.contents))
}
