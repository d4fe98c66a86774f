//! A small world to decide in: one Tenant, one host, a clock.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use tenantry_api::conditions::{READY, RECONCILING, STALLED, find};
use tenantry_api::names::{EnvKey, OperationId, RelativePath, ServiceName, Sha256};
use tenantry_api::tenant_status::{Deployed, DeployedImage, Outcome, Phase, PhaseState, TenantStatus};
use tenantry_protocol::{
    ClaimState, ComposeUse, EnvKeyState, EnvObservation, Failure, FailureCategory, FileManifest,
    FileObservation, FileState, Health, ImageRun, ImageState, MountFreshness, Observation, OperationPhase,
    OperationState, OperationStatus, Pending, PhaseRecord, ResolveResponse, RunImage, ServiceHealth,
    ServiceObservation, ServiceState,
};

use crate::decide::{Answer, Decision, Effect, Facts, Subject, Submission, decide};
use crate::target::{Desired, Intent, Refusal};

pub const START: i64 = 1_800_000_000;

pub struct World {
    pub subject: Subject,
    pub desired: Result<Desired, Refusal>,
    pub back: Option<Desired>,
    pub status: TenantStatus,
    pub now: i64,
    pub resolved: Option<ResolveResponse>,
}

pub fn spec(tag: &str) -> serde_json::Value {
    json!({
        "host": "n5", "project": "acme", "directory": "/srv/acme", "imageTag": tag,
        "env": {"patch": [{"name": "IMAGE_TAG", "value": "$(imageTag)"}]},
    })
}

pub fn desired(spec: serde_json::Value) -> Desired {
    let spec = serde_json::from_value(spec).unwrap();
    let intent = Intent::parse("0a1b2c3d-0000-4000-8000-000000000001", "fleet", "acme", &spec).unwrap();
    Desired::without_bundle(intent)
}

impl World {
    pub fn new(tag: &str) -> Self {
        Self::with_spec(spec(tag))
    }

    pub fn with_spec(spec: serde_json::Value) -> Self {
        let subject = Subject {
            uid: "0a1b2c3d-0000-4000-8000-000000000001".to_owned(),
            generation: 1,
            finalizer: true,
            suspend: spec["suspend"].as_bool().unwrap_or(false),
            host: "n5".to_owned(),
            image_tag: spec["imageTag"].as_str().unwrap().to_owned(),
            ..Subject::default()
        };
        let desired = Ok(desired(spec));
        Self { subject, desired, back: None, status: TenantStatus::default(), now: START, resolved: None }
    }

    /// One that runs `tag` and is at it.
    pub fn deployed(tag: &str) -> Self {
        let mut world = Self::new(tag);
        world.status.deployed = Some(Deployed {
            image_tag: tag.to_owned(),
            bundle_revision: None,
            target_hash: world.target().base_hash.clone(),
            files_hash: "sha256:0".to_owned(),
            images: vec![DeployedImage {
                service: "web".to_owned(),
                reference: "app:v1".to_owned(),
                image_id: "sha256:old".to_owned(),
                repo_digest: Some("sha256:d1".to_owned()),
            }],
            at: Time(Timestamp::from_second(START).unwrap()),
        });
        world.status.phase = Some(Phase::Ready);
        world
    }

    /// The spec changes to another tag.
    pub fn want(&mut self, tag: &str) {
        let fresh = Self::new(tag);
        self.desired = fresh.desired;
        self.subject.image_tag = tag.to_owned();
        self.subject.generation += 1;
    }

    /// The same, with another spec.
    pub fn want_now(mut self, tag: &str) -> Self {
        self.want(tag);
        self
    }

    pub fn target_mut(&mut self) -> &mut Desired {
        self.desired.as_mut().unwrap()
    }

    pub fn target(&self) -> &Desired {
        self.desired.as_ref().unwrap()
    }

    pub fn try_decide(&self, answer: Answer<'_>) -> Decision {
        decide(&Facts {
            subject: &self.subject,
            desired: self.desired.as_ref(),
            back: self.back.as_ref(),
            answer,
            resolved: self.resolved.as_ref(),
            status: &self.status,
            now: Timestamp::from_second(self.now).unwrap(),
        })
    }

    /// Decides and takes the status over, as the operator does.
    pub fn decide(&mut self, answer: Answer<'_>) -> Decision {
        let decision = self.try_decide(answer);
        self.status = decision.status.clone();
        decision
    }

    pub fn phase(&self) -> Phase {
        self.status.phase.unwrap()
    }

    pub fn message(&self) -> &str {
        &find(&self.status.conditions, READY).unwrap().message
    }

    pub fn reason(&self) -> &str {
        &find(&self.status.conditions, READY).unwrap().reason
    }

    /// Ready, Reconciling, Stalled.
    pub fn truths(&self) -> [&str; 3] {
        [READY, RECONCILING, STALLED].map(|kind| find(&self.status.conditions, kind).unwrap().status.as_str())
    }
}

pub fn service(name: &str) -> ServiceObservation {
    ServiceObservation {
        name: ServiceName::parse(name).unwrap(),
        image_ref: "app:v1".to_owned(),
        one_shot: false,
        local_image: false,
        running: Some(ImageRun {
            image_id: "sha256:old".to_owned(),
            repo_digest: Some("app@sha256:d1".to_owned()),
            current: true,
        }),
        state: ServiceState::Running,
        health: ServiceHealth::Healthy,
        restart_count: 0,
        started_at: None,
        mounts: MountFreshness::Current,
        outdated: vec![],
    }
}

/// A project that runs, is ours, and is as wanted.
pub fn running() -> Observation {
    Observation {
        claim: ClaimState::Ours,
        epoch: 0,
        operation: None,
        directory_exists: true,
        files: Vec::new(),
        leftover_files: Vec::new(),
        env: EnvObservation {
            exists: true,
            keys: vec![EnvKeyState {
                name: EnvKey::parse("IMAGE_TAG").unwrap(),
                present: true,
                as_wanted: true,
                by_default: false,
                reaches: Some(vec![ServiceName::parse("web").unwrap()]),
            }],
        },
        images: Vec::new(),
        compose: Some(ComposeUse {
            files: vec!["docker-compose.yml".to_owned()],
            profiles: Vec::new(),
            command: "docker compose up -d".to_owned(),
        }),
        compose_problem: None,
        services: vec![service("web")],
        removed_services: Vec::new(),
        foreign_containers: Vec::new(),
        other_projects: Vec::new(),
        unread_files: Vec::new(),
        health: Health::default(),
        image_differences: Vec::new(),
        resource_differences: Vec::new(),
        restore_points: Vec::new(),
        damage: None,
        policy_revision: Some("policy-1".to_owned()),
        granted_verifications: Some(Vec::new()),
        policy_file: "/etc/tenantry/agent.yaml".to_owned(),
        lacking: None,
    }
}

/// How an entry of `spec.images` stands: which services have it, and what web's is to be where it is not as wanted.
pub fn image(services: &[&str], wanted: Option<&str>, problem: Option<&str>) -> ImageState {
    let name = |name: &str| ServiceName::parse(name).unwrap();
    let pending =
        |wanted: &str| Pending { service: name("web"), now: "app:v1".to_owned(), wanted: wanted.to_owned() };
    ImageState {
        services: services.iter().map(|service| name(service)).collect(),
        pending: wanted.map(pending).into_iter().collect(),
        problem: problem.map(str::to_owned),
    }
}

/// A host with nothing at the place.
pub fn nothing() -> Observation {
    Observation {
        claim: ClaimState::Free,
        directory_exists: false,
        compose: None,
        services: Vec::new(),
        env: EnvObservation::default(),
        ..running()
    }
}

pub fn file(path: &str, state: FileState) -> FileObservation {
    FileObservation {
        path: RelativePath::parse(path).unwrap(),
        state,
        sha256: None,
        hand_edited: false,
        unmanaged: false,
        lines: None,
    }
}

/// A Tenant with a bundle that renders one compose file.
pub fn bundled(tag: &str, approach: &str) -> World {
    let mut value = spec(tag);
    value["bundle"] = json!("hello");
    value["upgrade"] = json!({"approach": approach});
    let mut world = World::with_spec(value);
    let manifest = FileManifest {
        path: RelativePath::parse("docker-compose.yml").unwrap(),
        sha256: Sha256::parse("0".repeat(64)).unwrap(),
        size: 1,
        mode: 0o644,
        owner: None,
        sensitive: false,
    };
    let desired = world.desired.as_mut().unwrap();
    desired.manifest.files.push(manifest);
    desired.bundle_revision = Some("sha256:b".to_owned());
    world
}

pub fn operation(world: &World, seq: u64, phases: &[OperationPhase]) -> OperationStatus {
    let upgrade = world.status.upgrade.as_ref().unwrap();
    let at = Timestamp::from_second(world.now).unwrap();
    let last = phases.len().saturating_sub(1);
    let record = |(index, name): (usize, &OperationPhase)| PhaseRecord {
        name: *name,
        state: if index == last { PhaseState::Running } else { PhaseState::Succeeded },
        started_at: at,
        finished_at: (index != last).then_some(at),
        message: None,
    };
    OperationStatus {
        id: OperationId::parse(&upgrade.id).unwrap(),
        seq,
        epoch: 1,
        target_hash: upgrade.target_hash.clone(),
        state: OperationState::Running,
        phases: phases.iter().enumerate().map(record).collect(),
        plan: None,
        progress: None,
        left_running: Vec::new(),
        left_files: Vec::new(),
        images: vec![RunImage {
            service: "web".to_owned(),
            reference: "app:v1".to_owned(),
            image_id: "sha256:old".to_owned(),
            repo_digest: None,
        }],
        compose: None,
        release: tenantry_protocol::ReleaseLabel::default(),
        data_restored: false,
        waits_for: None,
    }
}

pub fn ended(world: &World, outcome: Outcome) -> OperationStatus {
    let mut status = operation(world, 9, &[OperationPhase::Preflight, OperationPhase::Verify]);
    let failure = (outcome != Outcome::Succeeded).then(|| Failure {
        during: OperationPhase::Verify,
        category: FailureCategory::Unhealthy,
        message: "web did not become healthy within 120 s.".to_owned(),
        policy: None,
        services: tenantry_protocol::FailedServices::default(),
    });
    let at = Timestamp::from_second(world.now).unwrap();
    status.state = OperationState::Ended { outcome, failure, at };
    status
}

/// The operation that is begun.
pub fn submitted(effect: Option<Effect>) -> Submission {
    match effect {
        Some(Effect::Submit(submission)) => *submission,
        other => panic!("no submission but {other:?}"),
    }
}

/// The epoch of a claim, and whether it takes the place over from another Tenant.
pub fn claimed(effect: Option<Effect>) -> (u64, bool) {
    match effect {
        Some(Effect::Claim(request)) => (request.epoch, request.take_over),
        other => panic!("no claim but {other:?}"),
    }
}
