//! What must hold while the agent is dead, and what must hold once it has recovered.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail, ensure};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use tenantry_api::names::OperationId;
use tenantry_tests::docker::{Project, fingerprint};

use crate::data::{Data, Fate, Progress};
use crate::sandbox::Sandbox;
use crate::trip::{Trip, Way};
use crate::workload::Release;

/// A file as it is: content, mode, user and group.
type Facts = (Vec<u8>, u32, u32, u32);
/// Every file that a release could have, by its path; absent ones are not in it.
type Files = BTreeMap<String, Facts>;

/// Everything that is compared with later.
pub struct Before {
    files: Files,
    protected: BTreeMap<PathBuf, String>,
    data: Data,
    foreign: String,
    running: BTreeMap<String, String>,
}

impl Before {
    /// Looks at everything.
    pub fn of(sandbox: &Sandbox) -> Result<Self> {
        Ok(Self {
            files: files(sandbox)?,
            protected: fingerprint(&sandbox.project.directory.join("mkdocs"))?,
            data: Data::of(&sandbox.parts())?,
            foreign: running(&sandbox.foreign)?.into_values().collect(),
            running: running(&sandbox.project)?,
        })
    }

    /// While the agent is dead in the middle of an operation.
    pub fn check_while_dead(&self, sandbox: &Sandbox, trip: &Trip) -> Result<()> {
        self.check_untouched(sandbox)?;
        check_private(&sandbox.state())?;
        let now = files(sandbox)?;
        let new = expected(sandbox, &trip.wanted, &self.files);
        for path in now.keys().chain(self.files.keys()).chain(new.keys()) {
            let (now, old, new) = (now.get(path), self.files.get(path), new.get(path));
            ensure!(
                now == old || now == new,
                "P6: {path} is neither as it was nor as it is to be: {}",
                told(now)
            );
        }
        let journal = Journal::of(sandbox, &trip.id);
        let transactions = sandbox.project.directory.join(".tenantry/tx");
        let mark = |name: &str| transactions.join(name).exists();
        let committed = ["COMMIT", "DONE"].iter().any(|record| mark(&format!("{}.new/{record}", trip.id)));
        ensure!(
            now == self.files || committed || journal.is_done("Write"),
            "P6: files changed before the commit record"
        );
        let local = if trip.way == Way::Back { "Preflight" } else { "Pull" };
        if !journal.is_done(local) {
            ensure!(
                running(&sandbox.project)? == self.running,
                "P8: something that ran was touched before every image was local"
            );
        }
        Data::of(&sandbox.parts())?.check_while_dead(&self.data, &trip.fate, journal.progress())
    }

    /// The data as it was.
    pub fn into_data(self) -> Data {
        self.data
    }

    /// When the operation has ended as `wanted` says, or wholly as before.
    pub fn check_ended(&self, sandbox: &Sandbox, wanted: Option<&Release>, fate: &Fate) -> Result<()> {
        self.check_untouched(sandbox)?;
        Data::of(&sandbox.parts())?.check_ended(&self.data, fate)?;
        check_private(&sandbox.state())?;
        sandbox.assert_canary_unseen()?;
        let now = files(sandbox)?;
        let want =
            wanted.map_or_else(|| self.files.clone(), |release| expected(sandbox, release, &self.files));
        for path in now.keys().chain(want.keys()) {
            ensure!(
                now.get(path) == want.get(path),
                "P6: {path} is {}, not {}",
                told(now.get(path)),
                told(want.get(path))
            );
        }
        for left in ["stage", "tx", "data"] {
            let left = names(&sandbox.project.directory.join(".tenantry").join(left))?;
            ensure!(left.is_empty(), "left over in .tenantry: {left:?}");
        }
        let beside = sandbox.left_beside_data()?;
        ensure!(beside.is_empty(), "left over beside data, or for it: {beside:?}");
        let requests = names(&sandbox.records().join("requests"))?;
        ensure!(requests.is_empty(), "requests of ended operations are kept: {requests:?}");
        let current;
        let release = if let Some(release) = wanted {
            release
        } else {
            current = sandbox.current();
            &current
        };
        check_containers(sandbox, release)
    }

    /// P1 and P11: what is the tenant's own, or another's.
    fn check_untouched(&self, sandbox: &Sandbox) -> Result<()> {
        let protected = fingerprint(&sandbox.project.directory.join("mkdocs"))?;
        ensure!(
            protected == self.protected,
            "P1: the protected tree changed: {protected:?}, before {:?}",
            self.protected
        );
        let foreign: String = running(&sandbox.foreign)?.into_values().collect();
        ensure!(
            foreign == self.foreign,
            "P11: another project's container was touched: {foreign}, before {}",
            self.foreign
        );
        Ok(())
    }
}

/// P10 and P16: each service has one container, which runs the image that the release's tag points to.
fn check_containers(sandbox: &Sandbox, release: &Release) -> Result<()> {
    let project = &sandbox.project;
    let found: Vec<String> = project.containers()?.into_keys().collect();
    let wanted = ["web", "worker"].map(|service| format!("{service}/{}-{service}-1", project.name));
    ensure!(found == wanted, "containers are {found:?}");
    let image = docker(&[
        "image",
        "inspect",
        "--format",
        "{{.Id}}",
        &format!("{}:{}", sandbox.repository, release.tag),
    ])?;
    for service in ["web", "worker"] {
        let seen =
            project.inspect(service, "{{.Image}} {{.State.Running}} {{range .Config.Env}}{{.}} {{end}}")?;
        ensure!(
            seen.starts_with(&format!("{image} true ")),
            "{service} is {seen}; {} is {image}",
            release.tag
        );
        ensure!(
            seen.split(' ').any(|word| word == format!("VERSION={}", release.tag)),
            "{service} runs another release: {seen}"
        );
    }
    if let Some(round) = release.network {
        check_network(project, round)?;
    }
    if sandbox.workload.shares() { check_sharer(project) } else { Ok(()) }
}

/// P19: the network is the release's, and each service is found on it by its name.
fn check_network(project: &Project, round: &str) -> Result<()> {
    let name = format!("{}_default", project.name);
    let network = docker(&["network", "inspect", "--format", "{{.Id}} {{.Labels.round}}", &name])?;
    let (id, is) = network.split_once(' ').unwrap_or_default();
    ensure!(is == round, "P19: the network is {is}, and is to be {round}");
    for service in ["web", "worker"] {
        let format = format!(
            "{{{{with index .NetworkSettings.Networks {name:?}}}}}{{{{.NetworkID}}}} {{{{.Aliases}}}}{{{{end}}}}"
        );
        let seen = project.inspect(service, &format)?;
        let aliases = seen.strip_prefix(id).unwrap_or_default().trim_matches([' ', '[', ']']);
        ensure!(
            aliases.split(' ').any(|alias| alias == service),
            "P19: {service} is not found by its name on network {id}, but has {seen:?}"
        );
    }
    Ok(())
}

/// P19: `worker` has joined the network that `web` has.
fn check_sharer(project: &Project) -> Result<()> {
    let started =
        |service| -> Result<Timestamp> { Ok(project.inspect(service, "{{.State.StartedAt}}")?.parse()?) };
    let (web, worker) = (started("web")?, started("worker")?);
    ensure!(worker > web, "worker was started at {worker}, and web, of which it has the network, at {web}");
    let (id, mode) =
        (project.inspect("web", "{{.Id}}")?, project.inspect("worker", "{{.HostConfig.NetworkMode}}")?);
    ensure!(mode == format!("container:{id}"), "worker has the network {mode}, and not that of web, {id}");
    Ok(())
}

/// Files that hold or may hold secrets are for their owner only.
fn check_private(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        ensure!(
            (meta.mode() & 0o777) | 0o700 == 0o700,
            "P12: {} has mode {:o}",
            entry.path().display(),
            meta.mode()
        );
        if meta.is_dir() {
            check_private(&entry.path())?;
        }
    }
    Ok(())
}

/// Every file that either release could have, and `.env`.
fn files(sandbox: &Sandbox) -> Result<Files> {
    let paths = [".env", "docker-compose.yml", "config/web.conf", "conf.d/a.conf", "conf.d/deep/er/new.conf"];
    let mut all = Files::new();
    for path in paths {
        let at = sandbox.project.directory.join(path);
        let Ok(meta) = at.symlink_metadata() else { continue };
        ensure!(meta.is_file(), "{path} is not a file any more");
        all.insert(path.to_owned(), (std::fs::read(&at)?, meta.mode() & 0o7777, meta.uid(), meta.gid()));
    }
    Ok(all)
}

/// The files as a release has them: what it does not manage is as it was.
fn expected(sandbox: &Sandbox, release: &Release, before: &Files) -> Files {
    let mut all = before.clone();
    if sandbox.workload != crate::workload::Workload::ImageOnly {
        all.retain(|path, _| path == ".env");
    }
    let ours = (own_uid(), own_gid());
    for file in &release.files {
        let (uid, gid) = match (file.owner, before.get(file.path)) {
            (Some(owner), _) => (owner, owner),
            (None, Some((_, _, uid, gid))) => (*uid, *gid),
            (None, None) => ours,
        };
        all.insert(file.path.to_owned(), (file.content.clone().into_bytes(), file.mode, uid, gid));
    }
    if let Some((_, mode, uid, gid)) = before.get(".env").cloned() {
        // Also where it is managed: that one is in both releases with the same mode and owner.
        all.insert(".env".to_owned(), (release.env.clone().into_bytes(), mode, uid, gid));
    }
    if let (Some(compose), Some(now)) = (&release.compose, all.get_mut("docker-compose.yml")) {
        now.0 = compose.clone().into_bytes();
    }
    all
}

/// Containers by name: id, and since when they run.
fn running(project: &Project) -> Result<BTreeMap<String, String>> {
    let ids: Vec<String> = project.containers()?.into_values().collect();
    let mut arguments =
        vec!["inspect", "--format", "{{.Name}} {{.Id}} {{.State.StartedAt}} {{.RestartCount}}"];
    arguments.extend(ids.iter().map(String::as_str));
    let text = docker(&arguments)?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, facts)| (name.to_owned(), facts.to_owned()))
        .collect())
}

/// What the journal of a dead agent says.
#[derive(Default)]
struct Journal {
    begun: Vec<String>,
    done: Vec<String>,
    failed: Vec<String>,
}

impl Journal {
    fn of(sandbox: &Sandbox, id: &OperationId) -> Self {
        let path = sandbox.records().join("journal").join(id.as_str());
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let whole = text.lines().filter_map(|line| line.splitn(3, ' ').nth(2));
        let mut journal = Self::default();
        for record in whole.filter_map(|json| serde_json::from_str::<Value>(json).ok()) {
            let step = |name: &str| record[name].as_str().map(str::to_owned);
            match record["record"].as_str() {
                Some("begun") => journal.begun.extend(step("step")),
                Some("done") => journal.done.extend(step("step")),
                Some("failed") => journal.failed.extend(step("step")),
                _ => {}
            }
            journal.begun.extend(step("then"));
        }
        journal
    }

    fn is_done(&self, step: &str) -> bool {
        self.done.iter().any(|name| name == step)
    }

    fn progress(&self) -> Progress {
        let begun = |step: &str| self.begun.iter().any(|name| name == step);
        Progress {
            failed: !self.failed.is_empty(),
            stopped: self.is_done("StopForData"),
            restoring: begun("RestoreData") || begun("RestoreChosen"),
        }
    }
}

/// The names in a folder; none where there is no such folder.
pub fn names(folder: &Path) -> Result<Vec<String>> {
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
    }
}

fn told(facts: Option<&Facts>) -> String {
    let Some((content, mode, uid, gid)) = facts else { return "missing".to_owned() };
    let content = String::from_utf8_lossy(&content[..content.len().min(300)]).into_owned();
    format!("{mode:o} {uid}:{gid} {content:?}")
}

/// Runs docker and gives what it prints.
pub fn docker(arguments: &[&str]) -> Result<String> {
    let output = Command::new("docker").args(arguments).output()?;
    if !output.status.success() {
        bail!("docker {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn own_uid() -> u32 {
    std::fs::metadata("/proc/self").map_or(0, |meta| meta.uid())
}

fn own_gid() -> u32 {
    std::fs::metadata("/proc/self").map_or(0, |meta| meta.gid())
}
