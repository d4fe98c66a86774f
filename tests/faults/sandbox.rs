//! A host in miniature: one agent's folder, one tenant's project, a foreign project beside it, and images to go to.

use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tenantry_api::names::OperationId;
use tenantry_api::tenant::Approach;
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::{Action, EnvManifest, OperateRequest, OperationState};
use tenantry_tests::docker::Project;
use test_images::Image;

use crate::agent::{Agent, Seen};
use crate::data::{self, Data, SPOILED};
use crate::promises::{docker, names};
use crate::workload::{CANARY, Release, Workload};

/// The tag of a release that dies as soon as it runs.
pub const BAD: &str = "bad";

/// One tenant on one host.
pub struct Sandbox {
    pub workload: Workload,
    pub project: Project,
    pub foreign: Project,
    pub repository: String,
    /// Whether the release with a file more is there.
    pub even: bool,
    /// The restore point from before that release, with the data that is in it.
    pub point: Option<(OperationId, Data)>,
    volume: Option<PathBuf>,
    uid: String,
    epoch: u64,
    folder: tempfile::TempDir,
}

impl Sandbox {
    /// Makes the host, with the first release installed by an agent.
    pub async fn new(workload: Workload, label: &str) -> Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let unique = format!("{}-{number}", std::process::id());
        let folder = tempfile::Builder::new().prefix("tenantry-faults-").tempdir()?;
        let name = format!("faults-{}-{label}-{unique}", workload.name());
        let repository = format!("{}/faults/{name}", tenantry_tests::required("TENANTRY_TEST_REGISTRY")?);
        let srv = folder.path().join("srv");
        let mut sandbox = Self {
            workload,
            project: Project::new(&srv, &name)?,
            foreign: Project::new(&srv, &format!("{name}-foreign"))?,
            repository,
            even: false,
            point: None,
            volume: None,
            uid: format!(
                "{:08x}-{number:04x}-4000-8000-{:012x}",
                std::process::id(),
                fastrand::u64(..1 << 48)
            ),
            epoch: 0,
            folder,
        };
        sandbox.publish()?;
        sandbox.furnish()?;
        sandbox.configure(&srv)?;
        sandbox.install().await?;
        sandbox.fill_volume()?;
        Ok(sandbox)
    }

    fn publish(&self) -> Result<()> {
        let standin = PathBuf::from(tenantry_tests::required("TENANTRY_STANDIN")?);
        for tag in ["v1", "v2"] {
            Image::version(tag).publish(&standin, &format!("{}:{tag}", self.repository))?;
        }
        let mut bad = Image::version(BAD).with("CRASH_AFTER", "50ms");
        if self.workload.has_data() {
            let all = SPOILED.map(|path| format!("/data/{path}:/uploads/{path}"));
            bad = bad.with("SPOILS", &all.join(":"));
        }
        bad.publish(&standin, &format!("{}:{BAD}", self.repository))?;
        Image::version("foreign").build(&standin, &format!("{}:foreign", self.repository))
    }

    /// What a person has there before we come: content of their own, and another project.
    fn furnish(&self) -> Result<()> {
        let project = &self.project;
        for (path, content) in [
            ("mkdocs/docs/index.md", "# theirs\n"),
            ("mkdocs/mkdocs.yml", "site: theirs\n"),
            ("uploads/a/one", "1"),
        ] {
            project.write(path, content)?;
        }
        if self.workload.has_data() {
            data::fill(&project.directory.join("uploads"), 1)?;
        }
        symlink("../mkdocs.yml", project.directory.join("mkdocs/docs/link"))?;
        chown(project.directory.join("mkdocs/docs/index.md"), Some(1000), Some(1000))?;
        let release = self.release("v1", false);
        // What we append later is not there yet.
        let before: String =
            release.env.split_inclusive('\n').filter(|line| !line.starts_with("ADDED_BY_US")).collect();
        project.write(".env", &before)?;
        if self.workload == Workload::ImageOnly {
            project.write("docker-compose.yml", &self.workload.compose(&self.repository, false, "v1"))?;
            project.write("config/web.conf", "GREETING=theirs\n")?;
            project.write("conf.d/a.conf", "theirs\n")?;
        }
        let text = format!(
            "services:\n  other:\n    image: {}:foreign\n    stop_grace_period: 1s\n",
            self.repository
        );
        self.foreign.write("docker-compose.yml", &text)?;
        self.foreign.compose(&["up", "-d", "--pull", "never"]).map(drop)
    }

    fn configure(&self, srv: &Path) -> Result<()> {
        let pki = self.folder().join("pki");
        let tenantry = tenantry_tests::program("tenantry")?;
        for arguments in [vec!["init"], vec!["issue", "agent", "n5"], vec!["issue", "operator", "main"]] {
            let output =
                Command::new(&tenantry).arg("pki").args(&arguments).arg("--dir").arg(&pki).output()?;
            ensure!(
                output.status.success(),
                "pki {arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let config = json!({
            "identity": "n5", "listen": "127.0.0.1:0", "metricsListen": "127.0.0.1:0", "stateDir": self.state(),
            "tls": {"ca": pki.join("ca.crt"), "cert": pki.join("agent-n5.crt"), "key": pki.join("agent-n5.key")},
            "operators": ["main"],
            "allow": {"directories": [srv], "registries": [tenantry_tests::required("TENANTRY_TEST_REGISTRY")?]},
        });
        tenantry_tests::world::write_private(&self.folder().join("agent.yaml"), &config.to_string())
    }

    async fn install(&mut self) -> Result<()> {
        let mut agent = Agent::start_well(self.folder(), &[])?;
        let (id, request) = self.request("v1", false, true)?;
        match agent.run(&id, &request).await? {
            Seen::Ended(status) => match status.state {
                OperationState::Ended { outcome: Outcome::Succeeded, .. } => Ok(()),
                other => bail!("the first installation ended so: {other:?}"),
            },
            Seen::Died(status) => bail!("the agent died during the first installation: {status}"),
        }
    }

    fn fill_volume(&mut self) -> Result<()> {
        if self.workload.has_data() {
            let name = format!("{}_data", self.project.name);
            let at = PathBuf::from(docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", &name])?);
            data::fill(&at, 2)?;
            self.volume = Some(at);
        }
        Ok(())
    }

    /// Where data is that belongs to the restore point, or would if it were declared.
    pub fn parts(&self) -> Vec<(&'static str, PathBuf)> {
        let uploads = ("uploads", self.project.directory.join("uploads"));
        std::iter::once(uploads).chain(self.volume.clone().map(|at| ("volume", at))).collect()
    }

    /// The folder of the volume, in which its data is.
    pub fn volume(&self) -> Option<&Path> {
        self.volume.as_deref().and_then(Path::parent)
    }

    /// What is beside the data of a volume, and what the agent has made in the engine to get at it.
    pub fn left_beside_data(&self) -> Result<Vec<String>> {
        let Some(folder) = self.volume() else { return Ok(Vec::new()) };
        let mut left = names(folder)?;
        left.retain(|name| name != "_data" && name != "opts.json");
        for (kind, name) in [("volume", "look"), ("container", "helper")] {
            let filter = format!("name=tenantry-{name}-{}", self.uid);
            let found = docker(&[kind, "ls", "--quiet", "--filter", &filter])?;
            left.extend(found.lines().map(|one| format!("{kind} {one}")));
        }
        Ok(left)
    }

    /// The folder that the agent's configuration, records and log are in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The agent's records.
    pub fn state(&self) -> PathBuf {
        self.folder().join("state")
    }

    /// The agent's records of this tenant.
    pub fn records(&self) -> PathBuf {
        self.state().join("tenants").join(&self.uid)
    }

    /// A release of this sandbox.
    pub fn release(&self, tag: &str, even: bool) -> Release {
        self.workload.release(tag, even, &self.repository, self.project.port)
    }

    /// The release that is there now.
    pub fn current(&self) -> Release {
        self.release(if self.even { "v2" } else { "v1" }, self.even)
    }

    /// An operation to a release, under an id and an epoch of its own.
    pub fn request(
        &mut self,
        tag: &str,
        even: bool,
        overwrite: bool,
    ) -> Result<(OperationId, OperateRequest)> {
        self.epoch += 1;
        let release = self.release(tag, even);
        let body = json!({
            "tenant": {"uid": self.uid, "namespace": "faults", "name": "acme"},
            "place": {"project": self.project.name, "directory": self.project.directory},
            "epoch": self.epoch,
            "targetHash": format!("sha256:{}", hex(format!("{tag} {}", self.epoch).as_bytes())),
            "approach": self.workload.approach(),
            "manifest": {
                "files": release.files.iter().map(manifest).collect::<Vec<_>>(),
                "env": self.env(&release),
                "images": self.images(tag),
                "protect": ["mkdocs/"], "jobs": [], "onChange": [],
            },
            "contents": release.files.iter().map(|file| json!({"path": file.path, "content": tenantry_protocol::Bytes(file.content.clone().into_bytes())})).collect::<Vec<_>>(),
            "pinned": [],
            "verify": {"timeoutMs": 30_000, "stableForMs": 300, "http": []},
            "onFailure": "Rollback", "overwrite": overwrite,
            "release": {"imageTag": tag},
            "snapshot": self.workload.snapshot(),
        });
        let id = OperationId::parse(format!("op-{}", self.epoch))?;
        Ok((id, serde_json::from_value(body).context("a request")?))
    }

    /// A person goes back to what ran before the release with a file more.
    pub fn back(&mut self) -> Result<(OperationId, OperateRequest)> {
        let (to, _) = self.point.as_ref().context("there is no restore point to go back to")?;
        let action = Action::Rollback { to: to.clone(), data: self.workload.has_data() };
        let (id, mut request) = self.request("v1", false, false)?;
        request.action = action;
        request.approach = Approach::Release;
        request.manifest.files.clear();
        request.manifest.images.clear();
        request.manifest.env = EnvManifest::Adopted { patch: Vec::new() };
        request.contents.clear();
        Ok((id, request))
    }

    /// Images that the tenant's own compose file writes out.
    fn images(&self, tag: &str) -> Value {
        match self.workload {
            Workload::ImageOnly => json!([{"name": self.repository, "newTag": tag, "services": ["worker"]}]),
            _ => json!([]),
        }
    }

    fn env(&self, release: &Release) -> Value {
        if self.workload == Workload::ManagedEnv {
            return json!({"ownership": "managed"});
        }
        let patch: Vec<Value> =
            release.patch.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        json!({"ownership": "adopted", "patch": patch})
    }

    /// P12: nothing of the agent's own tells a secret.
    pub fn assert_canary_unseen(&self) -> Result<()> {
        let log = std::fs::read_to_string(self.folder().join("agent.log"))?;
        ensure!(!log.contains(CANARY), "the agent's log holds a secret value");
        for entry in std::fs::read_dir(self.records().join("journal")).into_iter().flatten().flatten() {
            let journal = std::fs::read_to_string(entry.path())?;
            ensure!(!journal.contains(CANARY), "{} holds a secret value", entry.path().display());
        }
        Ok(())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Containers go first: projects are dropped after this.
        for project in [&self.project, &self.foreign] {
            for id in project.containers().unwrap_or_default().values() {
                let _ = Command::new("docker").args(["rm", "--force", id]).output();
            }
        }
        for repository in [self.repository.clone(), format!("tenantry.local/keep/{}", self.uid)] {
            let listed = Command::new("docker").args(["images", "-q", &repository]).output();
            let ids =
                listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
            for id in ids.lines() {
                let _ = Command::new("docker").args(["rmi", "--force", id]).output();
            }
        }
    }
}

fn manifest(file: &crate::workload::File) -> Value {
    let mut manifest = json!({
        "path": file.path, "sha256": hex(file.content.as_bytes()), "size": file.content.len(),
        "mode": file.mode, "sensitive": file.path == ".env",
    });
    if let Some(owner) = file.owner {
        manifest["owner"] = json!({"uid": owner, "gid": owner});
    }
    manifest
}

fn hex(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
