//! A machine in miniature for quickstart and benchmarks: a registry, `tenantry up`, and what a person would type.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use test_images::Registry;

use crate::setup::Parts;
use crate::shell;

/// The control plane's address in quickstart: not the default, so that it does not meet a real `tenantry up`.
const LISTEN: &str = "127.0.0.1:7491";

/// A registry and a running `tenantry up`, in a folder of their own.
pub struct Host {
    /// Everything that is written goes below this.
    pub folder: PathBuf,
    /// The local registry.
    pub registry: Registry,
    parts: Parts,
    kubeconfig: PathBuf,
    home: Option<PathBuf>,
    up: Option<(Child, ChildStdin)>,
}

impl Host {
    /// Prepares an empty folder and a registry.
    pub fn prepare(name: &str, parts: &Parts) -> Result<Self> {
        let folder = shell::target().join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)
                .with_context(|| format!("{} can't be emptied", folder.display()))?;
        }
        std::fs::create_dir_all(folder.join("srv"))?;
        let registry = Registry::start(&folder.join("registry"), None)?;
        let (parts, kubeconfig) = (parts.clone(), PathBuf::new());
        Ok(Self { folder, registry, parts, kubeconfig, home: None, up: None })
    }

    /// The same, where whoever logs in has no profile.
    pub fn without_profile(mut self) -> Result<Self> {
        self.home = Some(shell::home_without_profile()?);
        Ok(self)
    }

    /// Where tenants live on this host.
    pub fn srv(&self) -> PathBuf {
        self.folder.join("srv")
    }

    /// The kubeconfig of the control plane, once it is up.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// One of our own programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.parts.bin_dir.join(name)
    }

    /// The stand-in application's binary.
    pub fn standin(&self) -> &Path {
        &self.parts.standin
    }

    /// Starts `tenantry up` and waits until it is ready; what it answers is its ready file.
    pub fn up(&mut self) -> Result<Value> {
        let ready = self.folder.join("ready.json");
        let _ = std::fs::remove_file(&ready);
        let log = self.folder.join("up.log");
        let output = std::fs::File::create(&log)?;
        let mut command = Command::new(self.program("tenantry"));
        command.arg("up").args(["--listen", LISTEN, "--exit-on-stdin-close"]);
        command.args(["--allow-registry", self.registry.address()]);
        command.arg("--allow-directory").arg(self.srv());
        command.arg("--bundle-dir").arg(shell::root().join("templates"));
        command.arg("--state-dir").arg(self.folder.join("state")).arg("--ready-file").arg(&ready);
        command.env("TENANTRY_STANDALONE", &self.parts.standalone);
        command.envs(self.home.as_ref().map(|home| ("HOME", home)));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("tenantry up could not be started")?;
        let stdin = child.stdin.take().context("no standard input")?;
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            if let Some(value) = read_json(&ready) {
                self.kubeconfig = PathBuf::from(value["kubeconfig"].as_str().context("no kubeconfig")?);
                self.up = Some((child, stdin));
                return Ok(value);
            }
            let ended = child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let _ = child.kill();
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("tenantry up did not get ready; it said:\n{said}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends `tenantry up` as Ctrl-C does; tenants run on.
    pub fn down(&mut self) -> Result<()> {
        let Some((mut child, stdin)) = self.up.take() else {
            return Ok(());
        };
        drop(stdin);
        let deadline = Instant::now() + Duration::from_secs(20);
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("tenantry up did not end within 20 s");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Whether `tenantry up` still runs.
    pub fn is_up(&mut self) -> bool {
        self.up.as_mut().is_some_and(|(child, _)| matches!(child.try_wait(), Ok(None)))
    }

    /// A `kubectl` command for the control plane.
    pub fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = shell::command("kubectl", arguments);
        command.env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// Applies a manifest with `kubectl apply`.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        let file = self.folder.join("manifest.yaml");
        std::fs::write(&file, manifest)?;
        let file = file.to_str().context("a path that is text")?;
        shell::quietly(&mut self.kubectl(&["apply", "-f", file])).map(drop)
    }

    /// A Tenant as the API server has it.
    pub fn tenant(&self, name: &str) -> Result<Value> {
        let text = shell::quietly(&mut self.kubectl(&["get", "tenant", name, "-o", "json"]))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Waits until a Tenant is as a check wants it; an error says how it was instead.
    pub fn until(&self, name: &str, within: Duration, check: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + within;
        loop {
            let tenant = self.tenant(name)?;
            let current = tenant["status"]["observedGeneration"] == tenant["metadata"]["generation"];
            if current && check(&tenant) {
                return Ok(tenant);
            }
            if Instant::now() > deadline {
                bail!(
                    "not within {} s; status is\n{}\nlogs are in {}",
                    within.as_secs(),
                    serde_json::to_string_pretty(&tenant["status"])?,
                    self.folder.join("state").join("logs").display()
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.down();
    }
}

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Runs `docker compose …` in a directory as a person in a login shell would.
pub fn compose_by_hand(directory: &Path, arguments: &str) -> Result<()> {
    let line = format!("exec docker compose {arguments}");
    let mut command = Command::new("sh");
    shell::quietly(command.args(["-lc", &line]).current_dir(directory)).map(drop)
}

/// Ids of a project's containers, sorted.
pub fn containers(project: &str) -> Result<Vec<String>> {
    let filter = format!("label=com.docker.compose.project={project}");
    let listed =
        shell::quietly(&mut shell::command("docker", &["ps", "-aq", "--no-trunc", "--filter", &filter]))?;
    let mut ids: Vec<String> = listed.lines().map(str::to_owned).collect();
    ids.sort();
    Ok(ids)
}

/// Removes what a project of ours left: containers, networks and volumes, by name.
pub fn remove_project(project: &str) -> Result<()> {
    for id in containers(project)? {
        shell::quietly(&mut shell::command("docker", &["rm", "--force", "--volumes", &id]))?;
    }
    let filter = format!("label=com.docker.compose.project={project}");
    for kind in ["network", "volume"] {
        let listed = shell::quietly(&mut shell::command("docker", &[kind, "ls", "-q", "--filter", &filter]))?;
        for name in listed.lines() {
            shell::quietly(&mut shell::command("docker", &[kind, "rm", name]))?;
        }
    }
    Ok(())
}

/// What answers a GET on loopback, as text.
pub fn get(port: u16, path: &str) -> Result<String> {
    use std::io::Write as _;
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(1 << 20).read_to_string(&mut answer)?;
    ensure!(answer.split(' ').nth(1) == Some("200"), "answered {:?}", answer.lines().next());
    Ok(answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim().to_owned())
}

/// A port that is free on loopback at this moment.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
