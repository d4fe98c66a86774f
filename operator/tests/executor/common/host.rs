//! A host that is made up: it keeps what an agent keeps, and does what it is told to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use tenantry_api::names::{EnvKey, Identity, OperationId, ServiceName, TenantUid};
use tenantry_api::tenant_status::{Outcome, PhaseState};
use tenantry_operator::agents::{Agent, AgentError, Agents, Call};
use tenantry_planner::decide::Unreached;
use tenantry_protocol::{
    AcceptRequest, Action, ApiError, Changes, ClaimRequest, ClaimResponse, ClaimState, ComposeUse,
    EnvKeyState, EnvManifest, EnvObservation, ErrorCode, Failure, FailureCategory, FileObservation,
    FileState, Health, HostInfo, ImageRun, MountFreshness, Observation, ObserveRequest, ObserveResponse,
    OperateRequest, OperationPhase, OperationState, OperationStatus, PhaseRecord, ReleaseLabel,
    ReleaseRequest, ResolveRequest, ResolveResponse, RestorePointBrief, RunImage, ServiceHealth,
    ServiceObservation, ServiceState,
};
use tokio::sync::Notify;

/// What the host is like and what happened on it.
#[derive(Default)]
pub struct State {
    /// Values of `.env`.
    pub env: HashMap<EnvKey, String>,
    /// Who holds the place.
    pub claim: Option<TenantUid>,
    /// The highest epoch.
    pub epoch: u64,
    /// Hashes of managed files.
    pub files: HashMap<String, String>,
    /// Operations by id.
    pub operations: HashMap<String, OperationStatus>,
    /// Every request to operate, in order.
    pub requests: Vec<(OperationId, OperateRequest)>,
    /// How many calls came, by name.
    pub calls: HashMap<&'static str, usize>,
    /// How the next operations end.
    pub outcome: Option<Outcome>,
    /// While set, operations stay in Verify.
    pub hold: bool,
    /// While set, nothing answers.
    pub gone: bool,
    /// Drop the answer to this many requests to operate, after having taken them over.
    pub lose_answers: usize,
    /// Drop this many requests to operate before they arrive.
    pub lose_requests: usize,
    /// Which release runs, as the last operation said.
    pub release: ReleaseLabel,
    /// What can be gone back to, newest first.
    pub points: Vec<RestorePointBrief>,
    /// What is wrong with the agent's own records.
    pub damage: Option<String>,
    /// What the agent can do.
    pub capabilities: Vec<String>,
    /// What is wrong with the services.
    pub problems: Vec<String>,
}

/// A made-up host.
#[derive(Clone, Default)]
pub struct Host {
    state: Arc<Mutex<State>>,
    news: Arc<Notify>,
}

impl Host {
    /// A host with a project that runs at a tag.
    pub fn with_tag(tag: &str) -> Self {
        let host = Self::default();
        host.change(|state| {
            state.env.insert(EnvKey::parse("IMAGE_TAG").unwrap(), tag.to_owned());
        });
        host
    }

    /// Looks at or changes the state.
    pub fn change<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        let result = with(&mut self.state.lock().unwrap());
        self.news.notify_waiters();
        result
    }

    fn call<T>(
        &self,
        name: &'static str,
        with: impl FnOnce(&mut State) -> Result<T, AgentError>,
    ) -> Result<T, AgentError> {
        self.change(|state| {
            *state.calls.entry(name).or_default() += 1;
            if state.gone {
                return Err(lost());
            }
            with(state)
        })
    }
}

fn lost() -> AgentError {
    AgentError::Unreached {
        why: Unreached::NoAnswer,
        text: "agent n5 does not answer: connection refused".to_owned(),
    }
}

fn refuse(code: ErrorCode, message: &str) -> AgentError {
    AgentError::Refused(ApiError { code, field: None, message: message.to_owned() })
}

impl Agents for Host {
    fn at(&self, _: &Identity, _: &str) -> Result<Arc<dyn Agent>, AgentError> {
        Ok(Arc::new(self.clone()))
    }
}

impl Agent for Host {
    fn host(&self) -> Call<'_, HostInfo> {
        let answer = self.call("host", |state| {
            Ok(HostInfo {
                identity: Identity::parse("n5").unwrap(),
                agent_version: "0.1.0".to_owned(),
                capabilities: state.capabilities.iter().cloned().map(Into::into).collect(),
                docker_version: Some("28".to_owned()),
                compose_version: Some("v5.0.2".to_owned()),
                disk_free_bytes: 1,
                disk_total_bytes: 2,
                max_operations: 4,
                policy_revision: None,
                problems: Vec::new(),
            })
        });
        async move { answer }.boxed()
    }

    fn changes<'a>(&'a self, _after: &'a str, _wait: Duration) -> Call<'a, Changes> {
        async move { Err(lost()) }.boxed()
    }

    fn observe<'a>(&'a self, request: &'a ObserveRequest) -> Call<'a, ObserveResponse> {
        let answer = self.call("observe", |state| {
            let observation = Box::new(observe(state, request));
            let hash = serde_json::to_string(&observation).unwrap();
            if request.known.as_ref() == Some(&hash) {
                return Ok(ObserveResponse::Same);
            }
            Ok(ObserveResponse::Seen { hash, observation })
        });
        async move { answer }.boxed()
    }

    fn resolve<'a>(&'a self, _: &'a ResolveRequest) -> Call<'a, ResolveResponse> {
        async move { self.call("resolve", |_| Ok(ResolveResponse { references: Vec::new() })) }.boxed()
    }

    fn claim<'a>(&'a self, request: &'a ClaimRequest) -> Call<'a, ClaimResponse> {
        let answer = self.call("claim", |state| {
            if request.take_over {
                *state.calls.entry("takeover").or_default() += 1;
            }
            if state.operations.values().any(|one| one.state == OperationState::Running) {
                return Err(refuse(ErrorCode::Busy, "operation z-1 of Tenant x/y is in flight"));
            }
            state.claim = Some(request.tenant.uid.clone());
            state.epoch = request.epoch;
            Ok(ClaimResponse { epoch: request.epoch })
        });
        async move { answer }.boxed()
    }

    fn accept<'a>(&'a self, request: &'a AcceptRequest) -> Call<'a, ClaimResponse> {
        let answer = self.call("accept", |state| {
            state.epoch = request.epoch;
            state.damage = None;
            Ok(ClaimResponse { epoch: request.epoch })
        });
        async move { answer }.boxed()
    }

    fn release<'a>(&'a self, request: &'a ReleaseRequest) -> Call<'a, ()> {
        let answer = self.call("release", |state| {
            if state.claim.as_ref() == Some(&request.tenant.uid) {
                state.claim = None;
            }
            Ok(())
        });
        async move { answer }.boxed()
    }

    fn operate<'a>(&'a self, id: &'a OperationId, request: &'a OperateRequest) -> Call<'a, OperationStatus> {
        let answer = self.call("operate", |state| operate(state, id, request));
        let begun = answer.is_ok();
        if begun {
            tokio::spawn(run(self.clone(), id.clone(), request.clone()));
        }
        let answer = self.change(|state| {
            if begun && state.lose_answers > 0 {
                state.lose_answers -= 1;
                return Err(lost());
            }
            answer
        });
        async move { answer }.boxed()
    }

    fn operation<'a>(&'a self, id: &'a OperationId, after: u64, wait: Duration) -> Call<'a, OperationStatus> {
        async move {
            let deadline = tokio::time::Instant::now() + wait.min(Duration::from_secs(5));
            loop {
                let news = self.news.notified();
                let mut news = std::pin::pin!(news);
                news.as_mut().enable();
                let found = self.state.lock().unwrap().operations.get(id.as_str()).cloned();
                if self.state.lock().unwrap().gone {
                    return self.call("operation", |_| Err(lost()));
                }
                match found {
                    None => {
                        return self
                            .call("operation", |_| Err(refuse(ErrorCode::NotFound, "no such operation")));
                    }
                    Some(status) if status.seq > after || tokio::time::Instant::now() >= deadline => {
                        return self.call("operation", |_| Ok(status));
                    }
                    Some(_) => {
                        let _ = tokio::time::timeout_at(deadline, news).await;
                    }
                }
            }
        }
        .boxed()
    }
}

fn operate(
    state: &mut State,
    id: &OperationId,
    request: &OperateRequest,
) -> Result<OperationStatus, AgentError> {
    if state.lose_requests > 0 {
        state.lose_requests -= 1;
        return Err(lost());
    }
    if let Some(known) = state.operations.get(id.as_str()) {
        return Ok(known.clone());
    }
    if request.epoch <= state.epoch {
        return Err(refuse(ErrorCode::StaleEpoch, "the host has seen a higher epoch"));
    }
    if state.operations.values().any(|one| one.state == OperationState::Running) {
        return Err(refuse(ErrorCode::Busy, "another operation is in flight"));
    }
    state.epoch = request.epoch;
    state.claim = Some(request.tenant.uid.clone());
    state.requests.push((id.clone(), request.clone()));
    let status = OperationStatus {
        id: id.clone(),
        seq: 1,
        epoch: request.epoch,
        target_hash: request.target_hash.clone(),
        state: OperationState::Running,
        phases: vec![phase(OperationPhase::Preflight)],
        plan: None,
        progress: None,
        left_running: Vec::new(),
        left_files: Vec::new(),
        images: vec![RunImage {
            service: "web".to_owned(),
            reference: "app:tag".to_owned(),
            image_id: "sha256:1".to_owned(),
            repo_digest: None,
        }],
        compose: None,
        release: request.release.clone(),
        data_restored: matches!(request.action, Action::Rollback { data: true, .. }),
        waits_for: None,
    };
    state.operations.insert(id.to_string(), status.clone());
    Ok(status)
}

fn phase(name: OperationPhase) -> PhaseRecord {
    PhaseRecord {
        name,
        state: PhaseState::Running,
        started_at: Timestamp::now(),
        finished_at: None,
        message: None,
    }
}

/// Carries an operation out, a phase every few milliseconds, as an agent does by itself.
async fn run(host: Host, id: OperationId, request: OperateRequest) {
    for name in [OperationPhase::Pull, OperationPhase::Start, OperationPhase::Verify] {
        tokio::time::sleep(Duration::from_millis(20)).await;
        host.change(|state| {
            let Some(status) = state.operations.get_mut(id.as_str()) else { return };
            if let Some(last) = status.phases.last_mut() {
                (last.state, last.finished_at) = (PhaseState::Succeeded, Some(Timestamp::now()));
            }
            status.phases.push(phase(name));
            status.seq += 1;
        });
    }
    while host.change(|state| state.hold) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    host.change(|state| {
        let outcome = state.outcome.unwrap_or(Outcome::Succeeded);
        if outcome == Outcome::Succeeded {
            let release = std::mem::replace(&mut state.release, request.release.clone());
            let target_hash = format!("sha256:of-{}", release.image_tag);
            let (at, data, bytes) = (Timestamp::now(), vec!["volume db".to_owned()], 7);
            state
                .points
                .insert(0, RestorePointBrief { id: id.clone(), at, release, target_hash, data, bytes });
            if let Action::Rollback { .. } = &request.action {
                assert!(request.manifest.files.is_empty() && request.contents.is_empty());
                state.env.insert(EnvKey::parse("IMAGE_TAG").unwrap(), request.release.image_tag.clone());
            }
            if let EnvManifest::Adopted { patch } = &request.manifest.env {
                state.env.extend(patch.iter().map(|one| (one.name.clone(), one.value.clone())));
            }
            for file in &request.manifest.files {
                state.files.insert(file.path.to_string(), file.sha256.to_string());
            }
        }
        let Some(status) = state.operations.get_mut(id.as_str()) else { return };
        let failure = (outcome != Outcome::Succeeded).then(|| Failure {
            during: OperationPhase::Verify,
            category: FailureCategory::Unhealthy,
            message: "web did not become healthy".to_owned(),
            policy: None,
            services: tenantry_protocol::FailedServices::default(),
        });
        status.state = OperationState::Ended { outcome, failure, at: Timestamp::now() };
        status.seq += 1;
    });
}

fn observe(state: &State, request: &ObserveRequest) -> Observation {
    let keys = match &request.manifest.env {
        EnvManifest::Managed => Vec::new(),
        EnvManifest::Adopted { patch } => patch
            .iter()
            .map(|wanted| EnvKeyState {
                name: wanted.name.clone(),
                present: state.env.contains_key(&wanted.name),
                as_wanted: state.env.get(&wanted.name) == Some(&wanted.value),
                by_default: false,
                reaches: None,
            })
            .collect(),
    };
    let file = |wanted: &tenantry_protocol::FileManifest| FileObservation {
        path: wanted.path.clone(),
        state: match state.files.get(wanted.path.as_str()) {
            None => FileState::Missing,
            Some(hash) if hash == wanted.sha256.as_str() => FileState::Same,
            Some(_) => FileState::Differs,
        },
        sha256: None,
        hand_edited: false,
        unmanaged: false,
        lines: None,
    };
    let claim = match &state.claim {
        None => ClaimState::Free,
        Some(uid) if *uid == request.tenant.uid => ClaimState::Ours,
        Some(uid) => ClaimState::Other {
            owner: "x/y".to_owned(),
            uid: uid.clone(),
            holds: "directory and project".to_owned(),
        },
    };
    let installed = !state.env.is_empty() || !state.files.is_empty();
    Observation {
        images: Vec::new(),
        claim,
        epoch: state.epoch,
        operation: None,
        directory_exists: installed,
        files: request.manifest.files.iter().map(file).collect(),
        leftover_files: Vec::new(),
        env: EnvObservation { exists: true, keys },
        compose: installed.then(|| ComposeUse {
            files: vec!["docker-compose.yml".to_owned()],
            profiles: Vec::new(),
            command: "docker compose up -d".to_owned(),
        }),
        compose_problem: None,
        services: if installed { vec![service()] } else { Vec::new() },
        removed_services: Vec::new(),
        foreign_containers: Vec::new(),
        other_projects: Vec::new(),
        unread_files: Vec::new(),
        health: Health {
            problems: state.problems.clone(),
            without_healthcheck: Vec::new(),
            ended: Vec::new(),
        },
        image_differences: Vec::new(),
        resource_differences: Vec::new(),
        restore_points: state.points.clone(),
        damage: state.damage.clone(),
        policy_revision: None,
        granted_verifications: None,
        policy_file: String::new(),
        lacking: None,
    }
}

fn service() -> ServiceObservation {
    ServiceObservation {
        name: ServiceName::parse("web").unwrap(),
        image_ref: "app:tag".to_owned(),
        one_shot: false,
        local_image: false,
        running: Some(ImageRun { image_id: "sha256:1".to_owned(), repo_digest: None, current: true }),
        state: ServiceState::Running,
        health: ServiceHealth::Healthy,
        restart_count: 0,
        started_at: None,
        mounts: MountFreshness::Current,
        outdated: vec![],
    }
}
