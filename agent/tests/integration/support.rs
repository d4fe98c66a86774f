//! A tenant's directory on this machine, an agent's core in this process, a real engine and a real registry.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tenantry_agent::calls::Agent;
use tenantry_agent::config::Config;
use tenantry_agent::files::{DiskIo, sha256};
use tenantry_agent::host::Machine;
use tenantry_agent::limits::Limits;
use tenantry_api::names::{Identity, OperationId};
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::{
    ApiError, Bytes, ClaimResponse, FileContent, Observation, ObserveRequest, ObserveResponse,
    OperateRequest, OperationState, OperationStatus,
};
use test_images::Image;

/// How long an operation may take in a test.
const PATIENCE: Duration = Duration::from_mins(2);

/// A variable that `cargo xtask test` sets.
pub fn required(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: run the tests through `cargo xtask test`"))
}

/// One tenant in a folder of its own, and everything that a request about it says.
pub struct Sandbox {
    pub folder: tempfile::TempDir,
    pub core: Option<Arc<Agent>>,
    pub project: String,
    pub repository: String,
    pub manifest: Value,
    pub contents: Vec<FileContent>,
    pub verify: Value,
    pub extra: Value,
    pub docker_host: Option<String>,
    /// `allow.verify` of an agent that is started from now on.
    pub allow_verify: &'static [&'static str],
    /// How long others may take.
    pub limits: Limits,
    /// Below every change to a disk of an agent that is started from now on.
    pub disk_io: DiskIo,
    registry: String,
    uid: String,
    /// UIDs of Tenants that had the place before.
    former: Vec<String>,
    epoch: AtomicU64,
}

/// A project's containers: service and id.
pub type Containers = Vec<(String, String)>;

pub const COMPOSE: &str = r#"services:
  migrate:
    image: REPOSITORY:${IMAGE_TAG:?}
    environment: {MODE: job, EXIT_AFTER: 50ms}
  web:
    image: REPOSITORY:${IMAGE_TAG:?}
    restart: unless-stopped
    stop_grace_period: 1s
    depends_on: {migrate: {condition: service_completed_successfully}}
    environment: {STANDIN_CONFIG: /etc/web.conf}
    volumes: ["./config/web.conf:/etc/web.conf:ro", "./conf.d:/conf.d:ro"]
    healthcheck: {test: [CMD, /standin, health, --watch], interval: 200ms, timeout: 1m, retries: 3}
  worker:
    image: REPOSITORY:${IMAGE_TAG:?}
    restart: unless-stopped
    stop_grace_period: 1s
"#;

/// How many projects this process has made.
static PROJECTS: AtomicU64 = AtomicU64::new(0);

impl Sandbox {
    /// A project that is named after the test and the process, with a number that no other test's has.
    pub async fn new(name: &str) -> Self {
        Self::with_registry(name, required("TENANTRY_TEST_REGISTRY")).await
    }

    /// The same, whose images come from a registry at this address.
    pub async fn with_registry(name: &str, registry: String) -> Self {
        // An uninstalled provider would panic at the first probe.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let number = PROJECTS.fetch_add(1, Ordering::Relaxed);
        let project = format!("agent-{name}-{}-{number}", std::process::id());
        std::fs::create_dir(folder.path().join(&project)).unwrap();
        let repository = format!("{registry}/agent/{project}");
        let mut sandbox = Self {
            project,
            repository,
            folder,
            core: None,
            docker_host: None,
            allow_verify: &[],
            limits: Limits::default(),
            disk_io: DiskIo::default(),
            registry,
            manifest: json!({"files": [], "env": {"ownership": "adopted", "patch": []}, "protect": [], "jobs": [], "onChange": []}),
            contents: Vec::new(),
            verify: json!({"timeoutMs": 20_000, "stableForMs": 500, "http": []}),
            extra: json!({}),
            uid: format!(
                "{:x}",
                u64::from(std::process::id()) << 32
                    | u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos())
            ),
            former: Vec::new(),
            epoch: AtomicU64::new(0),
        };
        sandbox.start_agent().await;
        sandbox
    }

    /// The usual project with `.env` and config files in place, as a person would have set it up.
    pub async fn usual(name: &str) -> Self {
        let sandbox = Self::new(name).await;
        sandbox.write("docker-compose.yml", &sandbox.compose());
        sandbox.write("config/web.conf", "GREETING=hello\n");
        sandbox.write("conf.d/a.conf", "a\n");
        sandbox.write(".env", "# mine\nIMAGE_TAG=none # the release\nOTHER='a b'\n");
        sandbox
    }

    pub fn compose(&self) -> String {
        COMPOSE.replace("REPOSITORY", &self.repository)
    }

    pub async fn start_agent(&mut self) {
        let state = self.folder.path().join("state");
        let text = json!({
            "identity": "test", "listen": "127.0.0.1:0", "stateDir": state,
            "tls": {"ca": "ca", "cert": "cert", "key": "key"}, "operators": ["main"],
            "allow": {"directories": [self.folder.path()], "registries": [self.registry],
                      "verify": self.allow_verify},
        });
        let mut text = text;
        if let Some(docker_host) = &self.docker_host {
            text["dockerHost"] = docker_host.clone().into();
        }
        let config = Config::parse(Path::new("/nowhere/agent.yaml"), &text.to_string()).unwrap();
        let config = Arc::new(config);
        // A blocking call of an agent that was ended may hold the records for a moment longer.
        for _ in 0..100 {
            match Agent::start_on(config.clone(), Machine::of(&config, self.disk_io.clone(), self.limits))
                .await
            {
                Err(error) if error.to_string().contains("in use by another agent") => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                started => {
                    self.core = Some(started.unwrap());
                    return;
                }
            }
        }
        panic!("the records are still in use");
    }

    /// Ends the agent's core as a kill would: nothing in flight is finished.
    pub async fn stop_agent(&mut self) {
        if let Some(core) = self.core.take() {
            core.shutdown().await;
        }
    }

    pub fn core(&self) -> &Arc<Agent> {
        self.core.as_ref().unwrap()
    }

    pub fn directory(&self) -> PathBuf {
        self.folder.path().join(&self.project)
    }

    pub fn write(&self, path: &str, content: &str) {
        let path = self.directory().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.directory().join(path)).unwrap()
    }

    /// Publishes a release of the stand-in.
    pub fn publish(&self, tag: &str, variables: &[(&str, &str)]) {
        let image =
            variables.iter().fold(Image::version(tag), |image, (name, value)| image.with(name, value));
        image
            .publish(Path::new(&required("TENANTRY_STANDIN")), &format!("{}:{tag}", self.repository))
            .unwrap();
    }

    /// Publishes a version under another version's tag.
    pub fn publish_as(&self, version: &str, tag: &str) {
        let reference = format!("{}:{tag}", self.repository);
        Image::version(version).publish(Path::new(&required("TENANTRY_STANDIN")), &reference).unwrap();
    }

    /// Makes a file managed, with this content.
    pub fn manage(&mut self, path: &str, content: &str) {
        let hash = sha256(content.as_bytes());
        let file =
            json!({"path": path, "sha256": hash, "size": content.len(), "mode": 0o644, "sensitive": false});
        let files = self.manifest["files"].as_array_mut().unwrap();
        files.retain(|file| file["path"] != path);
        files.push(file);
        self.contents.retain(|content| content.path.as_str() != path);
        let path = serde_json::from_value(json!(path)).unwrap();
        self.contents.push(FileContent { path, content: Bytes(content.as_bytes().to_vec()) });
    }

    pub fn unmanage(&mut self, path: &str) {
        self.manifest["files"].as_array_mut().unwrap().retain(|file| file["path"] != path);
        self.contents.retain(|content| content.path.as_str() != path);
    }

    /// The release's tag in `.env`.
    pub fn tag(&mut self, tag: &str) {
        self.manifest["env"]["patch"] = json!([{"name": "IMAGE_TAG", "value": tag}]);
    }

    fn place(&self) -> Value {
        json!({"project": self.project, "directory": self.directory()})
    }

    fn tenant(&self) -> Value {
        json!({"uid": self.uid, "namespace": "default", "name": self.project})
    }

    pub fn request(&self, approach: &str) -> OperateRequest {
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        let mut body = json!({
            "tenant": self.tenant(), "place": self.place(), "epoch": epoch,
            "targetHash": format!("sha256:{epoch}"), "approach": approach, "manifest": self.manifest,
            "contents": self.contents, "pinned": [], "verify": self.verify, "onFailure": "Rollback",
            "overwrite": false,
        });
        for (name, value) in self.extra.as_object().unwrap() {
            body[name] = value.clone();
        }
        serde_json::from_value(body).unwrap()
    }

    pub async fn submit(&self, id: &str, body: OperateRequest) -> Result<OperationStatus, ApiError> {
        let operator = Identity::parse("main").unwrap();
        self.core().operate(&operator, OperationId::parse(id).unwrap(), body).await
    }

    /// Takes over what is there.
    pub async fn claim(&self) -> Result<ClaimResponse, ApiError> {
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        let request = json!({"tenant": self.tenant(), "place": self.place(), "manifest": self.manifest, "epoch": epoch});
        let operator = Identity::parse("main").unwrap();
        self.core().claim(&operator, serde_json::from_value(request).unwrap()).await
    }

    /// The Tenant is deleted, and another one made for the same place.
    pub async fn made_again(&mut self) {
        let request = serde_json::from_value(json!({"tenant": self.tenant()})).unwrap();
        self.core().release(&Identity::parse("main").unwrap(), request).await.unwrap();
        let new = format!("{}b", self.uid);
        self.former.push(std::mem::replace(&mut self.uid, new));
    }

    /// Waits for an operation's end by the long poll, as operators do.
    pub async fn ended(&self, id: &str) -> OperationStatus {
        let id = OperationId::parse(id).unwrap();
        let mut after = 0;
        let wait = async {
            loop {
                let status = self.core().operation(&id, after, Duration::from_secs(5)).await.unwrap();
                assert!(status.seq >= after, "the number never falls");
                after = status.seq;
                if status.state != OperationState::Running {
                    return status;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the operation ends")
    }

    /// Submits and waits for the end.
    pub async fn run(&self, id: &str, approach: &str) -> OperationStatus {
        self.submit(id, self.request(approach)).await.unwrap();
        self.ended(id).await
    }

    pub async fn look(&self, known: Option<String>) -> ObserveResponse {
        self.try_look(known).await.unwrap()
    }

    pub async fn try_look(&self, known: Option<String>) -> Result<ObserveResponse, ApiError> {
        let request = json!({"tenant": self.tenant(), "place": self.place(), "manifest": self.manifest, "known": known});
        let request: ObserveRequest = serde_json::from_value(request).unwrap();
        self.core().observe(request).await
    }

    pub async fn observe(&self) -> Observation {
        match self.look(None).await {
            ObserveResponse::Seen { observation, .. } => *observation,
            ObserveResponse::Same => panic!("nothing was known"),
        }
    }

    /// Ids of the project's containers by service.
    pub fn containers(&self) -> Containers {
        let filter = format!("label=com.docker.compose.project={}", self.project);
        let format = "{{.Label \"com.docker.compose.service\"}} {{.ID}}";
        let out = docker(&["ps", "-a", "--no-trunc", "--filter", &filter, "--format", format]);
        let mut all: Containers = out
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .collect();
        all.sort();
        all
    }

    pub fn container(&self, service: &str) -> String {
        self.containers()
            .into_iter()
            .find(|(name, _)| name == service)
            .unwrap_or_else(|| panic!("no container of {service}"))
            .1
    }

    /// What a service's application says of itself.
    pub fn version_of(&self, service: &str) -> String {
        let env = docker(&["inspect", "--format", "{{json .Config.Env}}", &self.container(service)]);
        let env: Vec<String> = serde_json::from_str(&env).unwrap();
        env.iter().find_map(|one| one.strip_prefix("VERSION=").map(str::to_owned)).unwrap()
    }

    pub fn started_at(&self, service: &str) -> String {
        docker(&["inspect", "--format", "{{.State.StartedAt}}", &self.container(service)])
    }

    /// Plain `docker compose up -d` by hand, from a login shell; gives the containers before and after.
    pub fn by_hand(&self) -> (Containers, Containers) {
        let before = self.containers();
        let output = Command::new("bash")
            .args(["-l", "-c", "docker compose up -d"])
            .current_dir(self.directory())
            .env_clear()
            .envs(["HOME", "PATH"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (before, self.containers())
    }

    /// Tags with which images are kept for this tenant.
    pub fn kept(&self) -> Vec<String> {
        Self::kept_for(&self.uid)
    }

    fn kept_for(uid: &str) -> Vec<String> {
        let repository = format!("tenantry.local/keep/{uid}");
        docker(&["images", "--format", "{{.Repository}}:{{.Tag}}", &repository])
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for (_, id) in self.containers() {
            docker(&["rm", "-f", "-v", &id]);
        }
        let _ = Command::new("docker").args(["network", "rm", &format!("{}_default", self.project)]).output();
        let mut names = self.kept();
        names.extend(self.former.iter().flat_map(|uid| Self::kept_for(uid)));
        // By id: an image that was pulled by digest has no tag.
        names.extend(docker(&["images", "-q", &self.repository]).lines().map(str::to_owned));
        for name in names {
            let _ = Command::new("docker").args(["rmi", "-f", &name]).output();
        }
    }
}

pub fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Asserts how an operation ended; shows its story when it ended otherwise.
pub fn assert_outcome(status: &OperationStatus, wanted: Outcome) {
    let OperationState::Ended { outcome, .. } = &status.state else { panic!("still runs: {status:#?}") };
    assert_eq!(*outcome, wanted, "{status:#?}");
}

pub fn failure(status: &OperationStatus) -> tenantry_protocol::Failure {
    match &status.state {
        OperationState::Ended { failure: Some(failure), .. } => failure.clone(),
        other => panic!("no failure: {other:?}"),
    }
}
