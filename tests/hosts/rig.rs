//! A host in miniature: a tenant's directory, an agent's certificates and configuration, and the operator's own client.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tenantry_api::names::{Identity, OperationId};
use tenantry_api::tenant_status::Outcome;
use tenantry_operator::agents::client::HttpsAgents;
use tenantry_operator::agents::trust::Trust;
use tenantry_operator::agents::{Agent as Client, AgentError, Agents as _};
use tenantry_protocol::{Failure, OperateRequest, OperationState, OperationStatus};
use tenantry_tests::docker::Project;

const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long an operation may take in these tests.
const PATIENCE: Duration = Duration::from_mins(3);

/// One tenant on one host.
pub struct Rig {
    pub project: Project,
    pub repository: String,
    /// Folded into the agent's configuration.
    pub config: Value,
    /// The name of an agent's container beside the project, where there is one.
    pub agent: String,
    uid: String,
    epoch: u64,
    folder: tempfile::TempDir,
}

impl Rig {
    /// A directory for a project, and certificates.
    pub fn new(name: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tenantry-hosts-").tempdir()?;
        let name = format!("hosts-{name}-{}", std::process::id());
        let rig = Self {
            project: Project::new(&folder.path().join("srv"), &name)?,
            repository: format!("{}/hosts/{name}", tenantry_tests::required("TENANTRY_TEST_REGISTRY")?),
            config: json!({}),
            agent: format!("{name}-agent"),
            uid: format!("{:08x}-0000-4000-8000-{:012x}", std::process::id(), fastrand::u64(..1 << 48)),
            epoch: 0,
            folder,
        };
        let pki = rig.etc().join("pki");
        for arguments in [vec!["init"], vec!["issue", "agent", "n5"], vec!["issue", "operator", "main"]] {
            let mut tenantry = Command::new(tenantry_tests::program("tenantry")?);
            let output = tenantry.arg("pki").args(&arguments).arg("--dir").arg(&pki).output()?;
            ensure!(output.status.success(), "pki: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(rig)
    }

    /// What the agent only reads.
    pub fn etc(&self) -> PathBuf {
        self.folder.path().join("etc")
    }

    /// The agent's records.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// A path of the rig's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The tenant's UID.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// The repository with the images that are kept for this tenant.
    pub fn kept(&self) -> String {
        format!("tenantry.local/keep/{}", self.uid)
    }

    /// Writes the agent's configuration.
    pub fn configure(&self, listen: &str) -> Result<PathBuf> {
        let pki = self.etc().join("pki");
        let mut config = json!({
            "identity": "n5", "listen": listen, "metricsListen": "127.0.0.1:0", "stateDir": self.state(),
            "tls": {"ca": pki.join("ca.crt"), "cert": pki.join("agent-n5.crt"), "key": pki.join("agent-n5.key")},
            "operators": ["main"],
            "allow": {
                "directories": [self.folder.path().join("srv")],
                "registries": [tenantry_tests::required("TENANTRY_TEST_REGISTRY")?],
            },
        });
        merge(&mut config, &self.config);
        let file = self.etc().join("agent.yaml");
        tenantry_tests::world::write_private(&file, &config.to_string())?;
        Ok(file)
    }

    /// The operator's client.
    pub fn client(&self, address: &str) -> Result<Arc<dyn Client>> {
        let pki = self.etc().join("pki");
        let (cert, key) = (pki.join("operator-main.crt"), pki.join("operator-main.key"));
        let trust = Trust::read(&pki.join("ca.crt"), &cert, &key)?;
        Ok(HttpsAgents::new(trust).at(&Identity::parse("n5")?, address)?)
    }

    /// An operation that sets variables in `.env`, under an id and an epoch of its own.
    pub fn request(&mut self, variables: &[(&str, &str)]) -> Result<(OperationId, OperateRequest)> {
        self.epoch += 1;
        let patch: Vec<Value> =
            variables.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let body = json!({
            "tenant": {"uid": self.uid, "namespace": "hosts", "name": "acme"},
            "place": {"project": self.project.name, "directory": self.project.directory},
            "epoch": self.epoch, "targetHash": format!("sha256:{}", self.epoch), "approach": "ImageOnly",
            "manifest": {"files": [], "env": {"ownership": "adopted", "patch": patch}, "protect": [], "jobs": [], "onChange": []},
            "contents": [], "pinned": [],
            "verify": {"timeoutMs": 20_000, "stableForMs": 500, "http": []},
            "onFailure": "Rollback", "overwrite": true,
        });
        Ok((OperationId::parse(format!("{}-{}", self.own(), self.epoch))?, serde_json::from_value(body)?))
    }

    /// What no other test's operations on this engine are called: finishers have that name, too.
    fn own(&self) -> &str {
        self.uid.rsplit('-').next().unwrap_or_default()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let docker = |arguments: &[&str]| {
            let output = Command::new("docker").args(arguments).output();
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
        };
        let label = format!("label=com.docker.compose.project={}", self.project.name);
        // The agent first, for it would begin with helpers anew.
        docker(&["rm", "--force", &self.agent]);
        let helpers = format!("label=tenantry.dev/helper={}", self.uid);
        let finishers = format!("name=tenantry-finisher-{}", self.own());
        for filter in [helpers, label, finishers] {
            for id in docker(&["ps", "-aq", "--filter", &filter]).lines() {
                docker(&["rm", "--force", "--volumes", id]);
            }
        }
        for repository in [self.repository.clone(), format!("{}-agent", self.repository), self.kept()] {
            for id in docker(&["images", "-q", &repository]).lines() {
                docker(&["rmi", "--force", id]);
            }
        }
    }
}

/// Folds one value into another.
pub fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// An agent as a process of this machine.
pub struct Process {
    pub child: Child,
    pub address: String,
    _stdin: Option<ChildStdin>,
}

impl Process {
    /// Starts an agent and waits until it listens.
    pub fn start(rig: &Rig) -> Result<Self> {
        let config = rig.configure("127.0.0.1:0")?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(rig.path("agent.log"))?;
        let mut child = Command::new(tenantry_tests::program("tenantry-agent")?)
            .arg("--config")
            .arg(config)
            .args(["--log-format", "text", "--exit-on-stdin-close"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().context("no standard output")?);
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let line = lines.recv_timeout(READY_WITHIN).with_context(|| rig_log(rig))?;
        let ready: Value = serde_json::from_str(&line)?;
        let address = ready["listen"].as_str().context("no address")?.to_owned();
        Ok(Self { child, address, _stdin: stdin })
    }

    /// Kills it as a power cut would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the agent of a rig has said.
pub fn rig_log(rig: &Rig) -> String {
    std::fs::read_to_string(rig.path("agent.log")).unwrap_or_default()
}

/// Follows an operation to its end, whatever becomes of the agents meanwhile.
pub async fn ended(client: &Arc<dyn Client>, id: &OperationId) -> Result<OperationStatus> {
    let deadline = Instant::now() + PATIENCE;
    let mut after = 0;
    loop {
        match client.operation(id, after, Duration::from_secs(5)).await {
            Ok(status) if status.state == OperationState::Running => {
                ensure!(status.seq >= after, "the number fell from {after} to {}", status.seq);
                after = status.seq;
            }
            Ok(status) => return Ok(status),
            Err(AgentError::Refused(refusal)) => bail!("the operation can't be followed: {refusal}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
        ensure!(Instant::now() < deadline, "the operation did not end within {} s", PATIENCE.as_secs());
    }
}

/// Waits until something is so.
pub async fn until(what: &str, limit: Duration, mut so: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !so() {
        ensure!(Instant::now() < deadline, "{what}: not within {} s", limit.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// How an operation ended.
pub fn outcome(status: &OperationStatus) -> Option<Outcome> {
    match &status.state {
        OperationState::Ended { outcome, .. } => Some(*outcome),
        OperationState::Running => None,
    }
}

/// Why an operation failed.
pub fn failure(status: &OperationStatus) -> Result<&Failure> {
    match &status.state {
        OperationState::Ended { failure: Some(failure), .. } => Ok(failure),
        other => bail!("no failure: {other:?}"),
    }
}

/// Runs a docker command that must succeed.
pub fn docker(arguments: &[&str]) -> Result<String> {
    let output = Command::new("docker").args(arguments).output()?;
    ensure!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Where the stand-in application is.
pub fn standin() -> Result<PathBuf> {
    Ok(Path::new(&tenantry_tests::required("TENANTRY_STANDIN")?).to_owned())
}
