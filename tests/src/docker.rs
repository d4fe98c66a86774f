//! A compose project on this machine, as a person with a shell sees it.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// A project's directory and name. What was made of it is removed, by name, when this value goes.
pub struct Project {
    /// The compose project.
    pub name: String,
    /// Where it is installed.
    pub directory: PathBuf,
    /// The port that it publishes.
    pub port: u16,
}

impl Project {
    /// Makes an empty directory for a project under `parent`; the project's name is the directory's, as plain compose
    /// has it.
    pub fn new(parent: &Path, name: &str) -> Result<Self> {
        let directory = parent.join(name);
        std::fs::create_dir_all(&directory)?;
        Ok(Self { name: name.to_owned(), directory, port: free_port()? })
    }

    /// Writes a file beneath the directory.
    pub fn write(&self, path: &str, content: &str) -> Result<()> {
        let path = self.directory.join(path);
        std::fs::create_dir_all(path.parent().context("a file has a parent")?)?;
        Ok(std::fs::write(path, content)?)
    }

    /// Reads a file beneath the directory.
    pub fn read(&self, path: &str) -> Result<String> {
        let path = self.directory.join(path);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// Runs `docker compose …` in the directory as a person in a login shell would.
    pub fn compose(&self, arguments: &[&str]) -> Result<Output> {
        let line = format!("exec docker compose {}", arguments.join(" "));
        let output = Command::new("sh").args(["-lc", &line]).current_dir(&self.directory).output()?;
        ensure!(
            output.status.success(),
            "docker compose {arguments:?} in {}: {}",
            self.directory.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output)
    }

    /// Ids of the project's containers by service and state: what `docker compose up -d` by hand must not change.
    pub fn containers(&self) -> Result<BTreeMap<String, String>> {
        let filter = format!("label=com.docker.compose.project={}", self.name);
        let format = "{{.Label \"com.docker.compose.service\"}}/{{.Names}} {{.ID}}";
        let output = Command::new("docker")
            .args(["ps", "-a", "--no-trunc", "--filter", &filter, "--format", format])
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        Ok(text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, id)| (name.to_owned(), id.to_owned()))
            .collect())
    }

    /// A field of a service's container, by a `docker inspect` format.
    pub fn inspect(&self, service: &str, format: &str) -> Result<String> {
        let containers = self.containers()?;
        let prefix = format!("{service}/");
        let (_, id) = containers
            .iter()
            .find(|(name, _)| name.starts_with(&prefix))
            .with_context(|| format!("no container of {service} in {containers:?}"))?;
        let output = Command::new("docker").args(["inspect", "--format", format, id]).output()?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// The image id that each container runs, by service and name as in [`Self::containers`].
    pub fn images(&self) -> Result<BTreeMap<String, String>> {
        let containers = self.containers()?;
        let format = ["inspect", "--format", "{{.Image}}"];
        let output = Command::new("docker").args(format).args(containers.values()).output()?;
        let text = String::from_utf8(output.stdout)?;
        let images: Vec<&str> = text.lines().collect();
        ensure!(images.len() == containers.len(), "a container of {} went away", self.name);
        Ok(containers.into_keys().zip(images.into_iter().map(str::to_owned)).collect())
    }

    /// Runs `docker compose up -d` by hand and fails when it creates, recreates or removes a container.
    pub fn assert_hand_run_changes_nothing(&self) -> Result<()> {
        let before = self.containers()?;
        self.compose(&["up", "-d"])?;
        let after = self.containers()?;
        ensure!(
            before == after,
            "`docker compose up -d` changed containers:\nbefore {before:#?}\nafter {after:#?}"
        );
        Ok(())
    }

    /// What the application answers at `path`, or why it does not.
    pub async fn answer(&self, path: &str) -> Result<String> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).build()?;
        Ok(client.get(url).send().await?.error_for_status()?.text().await?.trim().to_owned())
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let Ok(containers) = self.containers() else { return };
        for id in containers.values() {
            let _ = Command::new("docker").args(["rm", "--force", "--volumes", id]).output();
        }
        for kind in ["network", "volume"] {
            let filter = format!("label=com.docker.compose.project={}", self.name);
            let listed = Command::new("docker").args([kind, "ls", "-q", "--filter", &filter]).output();
            let names =
                listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
            for name in names.lines() {
                let _ = Command::new("docker").args([kind, "rm", name]).output();
            }
        }
    }
}

/// A port that nothing listens on: below those that the kernel gives out by itself, and each one only once.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..10_000 {
        // Test programs that run beside each other have neighbouring ids: their ports are far apart.
        let first = std::process::id().wrapping_mul(7_919);
        let number = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(20_000 + number % 12_000)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port between 20000 and 32000 is free")
}

/// Content and metadata (access time aside) of everything at and below a path, for comparing before and after (P1).
pub fn fingerprint(path: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut seen = BTreeMap::new();
    let mut pending = vec![path.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = std::fs::symlink_metadata(&path).with_context(|| path.display().to_string())?;
        let content = if meta.is_file() { std::fs::read(&path)? } else { Vec::new() };
        let facts = format!(
            "inode {} mode {:o} owner {}:{} mtime {}.{} ctime {}.{} content {content:?}",
            meta.ino(),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec()
        );
        if meta.is_dir() {
            pending.extend(
                std::fs::read_dir(&path)?
                    .map(|entry| entry.map(|entry| entry.path()))
                    .collect::<Result<Vec<_>, _>>()?,
            );
        }
        seen.insert(path, facts);
    }
    Ok(seen)
}

/// Waits until a check passes; its last error says what was seen instead.
pub async fn eventually<F, T>(what: &str, within: Duration, mut check: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + within;
    loop {
        let error = match check().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if Instant::now() > deadline {
            bail!("{what}: not within {} s; last seen: {error:#}", within.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
