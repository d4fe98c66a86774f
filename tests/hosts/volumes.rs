//! Declared volumes of a tenant whose agent runs in a container of its own, beside the project (P8, P9): what it does
//! not see, a helper container sees for it.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tenantry_api::names::OperationId;
use tenantry_api::tenant_status::Outcome;
use tenantry_operator::agents::Agent as Client;
use tenantry_protocol::{OperateRequest, OperationPhase, OperationStatus};
use test_images::Image;

use crate::image::AgentImage;
use crate::rig::{Rig, docker, ended, failure, outcome, standin, until};

const COMPOSE: &str = r#"services:
  db:
    image: REPOSITORY:${IMAGE_TAG:?}
    pull_policy: never
    restart: unless-stopped
    stop_grace_period: 1s
    healthcheck: {test: [CMD, /standin, health, --watch], interval: 200ms, timeout: 1m, retries: 60}
    volumes: ["db-data:/data"]
volumes: {db-data: {}}
"#;
/// The engine's own folder of volumes. A container that has nothing mounted there may have one of that name, too.
const VOLUMES: &str = "/var/lib/docker/volumes";

/// A project whose first release runs, and an agent in a container beside it.
struct Beside {
    rig: Rig,
    client: Arc<dyn Client>,
}

impl Beside {
    /// `more` is mounted into the agent, besides what it needs.
    fn start(name: &str, more: impl Fn(&Rig) -> Result<String>) -> Result<Self> {
        let mut rig = Rig::new(name)?;
        rig.repository = rig.project.name.clone();
        for tag in ["v1", "v2"] {
            Image::version(tag).build(&standin()?, &format!("{}:{tag}", rig.repository))?;
        }
        let late = Image::version("late").with("HEALTHY_AFTER", "1m");
        late.build(&standin()?, &format!("{}:late", rig.repository))?;
        AgentImage::new()?.build(&format!("{}-agent:v1", rig.repository), r#""/tenantry-agent""#)?;
        rig.project.write("docker-compose.yml", &COMPOSE.replace("REPOSITORY", &rig.repository))?;
        rig.project.write(".env", "IMAGE_TAG=v1\n")?;
        rig.project.compose(&["up", "-d"])?;
        std::fs::create_dir_all(rig.state())?;
        let config = rig.configure("0.0.0.0:7443")?;
        let same = |path: &Path, more: &str| format!("{0}:{0}{more}", path.display());
        let mounts = [
            same(&rig.project.directory, ""),
            same(&rig.state(), ""),
            same(&rig.etc(), ":ro"),
            "/var/run/docker.sock:/var/run/docker.sock".to_owned(),
            more(&rig)?,
        ];
        let mut arguments = vec!["run", "--detach", "--name", &rig.agent, "--publish"];
        let port = format!("127.0.0.1:{}:7443", rig.project.port);
        arguments.push(&port);
        for mount in mounts.iter().filter(|mount| !mount.is_empty()) {
            arguments.extend(["--volume", mount]);
        }
        let (image, config) = (format!("{}-agent:v1", rig.repository), config.display().to_string());
        arguments.extend([image.as_str(), "--config", &config, "--log-format", "text"]);
        docker(&arguments)?;
        let client = rig.client(&format!("127.0.0.1:{}", rig.project.port))?;
        let beside = Self { rig, client };
        fill(&beside.volume())?;
        Ok(beside)
    }

    fn name(&self) -> String {
        format!("{}_db-data", self.rig.project.name)
    }

    /// Where the volume's data really is.
    fn volume(&self) -> PathBuf {
        Path::new(VOLUMES).join(self.name()).join("_data")
    }

    /// An upgrade that keeps the volume, and brings it back should it fail.
    fn request(&mut self, tag: &str) -> Result<(OperationId, OperateRequest)> {
        let (id, mut request) = self.rig.request(&[("IMAGE_TAG", tag)])?;
        request.snapshot = serde_json::from_value(
            json!({"paths": [], "volumes": ["db-data"], "consistency": "Stop", "retain": 5}),
        )?;
        request.rollback_data = serde_json::from_value(json!("Always"))?;
        request.verify.timeout_ms = if tag == "late" { 4_000 } else { 20_000 };
        Ok((id, request))
    }

    async fn submit(&self, id: &OperationId, request: &OperateRequest) -> Result<()> {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            match self.client.operate(id, request).await {
                Ok(_) => return Ok(()),
                Err(error) if std::time::Instant::now() > deadline => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn run(&mut self, tag: &str) -> Result<(OperationId, OperationStatus)> {
        let (id, request) = self.request(tag)?;
        self.submit(&id, &request).await?;
        let status = ended(&self.client, &id).await?;
        Ok((id, status))
    }

    /// Submits a release that does not come up, and damages the data once it runs.
    async fn fail(&mut self) -> Result<OperationId> {
        let (id, request) = self.request("late")?;
        self.submit(&id, &request).await?;
        self.reaches(&id, OperationPhase::Verify).await?;
        spoil(&self.volume())?;
        Ok(id)
    }

    /// Waits for a phase, whatever becomes of the agent meanwhile.
    async fn reaches(&self, id: &OperationId, wanted: OperationPhase) -> Result<()> {
        let deadline = std::time::Instant::now() + Duration::from_mins(2);
        while std::time::Instant::now() < deadline {
            match self.client.operation(id, 0, Duration::from_millis(100)).await {
                Ok(status) if status.phases.iter().any(|phase| phase.name == wanted) => return Ok(()),
                Ok(status) if outcome(&status).is_some() => bail!("{status:#?}\n{}", self.story()),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        bail!("it does not reach {wanted:?}\n{}", self.story())
    }

    /// The tenant's helpers, by id.
    fn helpers(&self) -> Vec<String> {
        let filter = format!("label=tenantry.dev/helper={}", self.rig.uid());
        let listed = docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter]);
        listed.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Waits for a helper that does such a job and stops it where it is, so that it outlives whatever is done to the agent.
    async fn caught(&self, job: &str) -> Result<String> {
        let mut found = None;
        let command = |id: &str| docker(&["inspect", "--format", "{{.State.Running}} {{.Args}}", id]);
        let wanted = format!("true [helper {job} ");
        until(&format!("a helper that does {job}"), Duration::from_secs(90), || {
            let helpers = self.helpers();
            found = helpers.into_iter().find(|id| command(id).is_ok_and(|is| is.starts_with(&wanted)));
            found.as_ref().is_some_and(|id| docker(&["pause", id]).is_ok())
        })
        .await
        .with_context(|| self.story())?;
        found.context("a helper")
    }

    /// Kills the agent as a power cut would, and starts it again.
    fn kill_agent(&self) -> Result<()> {
        docker(&["kill", &self.rig.agent])?;
        docker(&["start", &self.rig.agent])?;
        Ok(())
    }

    fn story(&self) -> String {
        let logs =
            std::process::Command::new("docker").args(["logs", "--tail", "60", &self.rig.agent]).output();
        logs.map(|output| String::from_utf8_lossy(&output.stderr).into_owned()).unwrap_or_default()
    }

    /// Nothing of ours is left on the engine, but the one image that helpers are made of.
    fn assert_nothing_is_left(&self) -> Result<()> {
        ensure!(self.helpers().is_empty(), "{:?}", self.helpers());
        let look = format!("name=tenantry-look-{}", self.rig.uid());
        let volumes = docker(&["volume", "ls", "--quiet", "--filter", &look])?;
        ensure!(volumes.is_empty(), "{volumes}");
        let images = docker(&["images", "--quiet", "--no-trunc", "tenantry.local/helper"])?;
        ensure!(images.lines().count() <= 1, "{images}");
        let proofs = std::process::Command::new("find")
            .arg(self.rig.project.directory.join(".tenantry"))
            .args(["-name", "proof"])
            .output()?;
        ensure!(proofs.stdout.is_empty(), "{}", String::from_utf8_lossy(&proofs.stdout));
        Ok(())
    }

    fn assert_rolled_back(&self, status: &OperationStatus, before: &Picture) -> Result<()> {
        let story = || format!("{status:#?}\n{}", self.story());
        ensure!(outcome(status) == Some(Outcome::RolledBack), "{}", story());
        ensure!(status.data_restored, "{}", story());
        same(before, &picture(&self.volume())?)?;
        let runs = self.rig.project.inspect("db", "{{.Config.Image}} {{.State.Running}}")?;
        ensure!(runs.ends_with(":v1 true"), "{runs}\n{}", story());
        self.rig.project.assert_hand_run_changes_nothing()?;
        self.assert_nothing_is_left()
    }
}

/// Everything of a folder that a restore has to bring back, by path.
type Picture = BTreeMap<String, String>;

fn picture(folder: &Path) -> Result<Picture> {
    let mut all = Picture::new();
    let mut folders = vec![folder.to_owned()];
    all.insert(String::new(), seen(folder)?);
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(&at).with_context(|| at.display().to_string())? {
            let path = entry?.path();
            let name = path.strip_prefix(folder)?.display().to_string();
            all.insert(name, seen(&path)?);
            if path.symlink_metadata()?.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(all)
}

fn seen(path: &Path) -> Result<String> {
    let about = path.symlink_metadata()?;
    let content = if about.is_symlink() {
        std::fs::read_link(path)?.display().to_string()
    } else if about.is_file() {
        format!("{:x}", Sha256::digest(std::fs::read(path)?))
    } else {
        String::new()
    };
    let mut attributes = Vec::new();
    for name in ["user.note", "security.capability"] {
        let mut value = vec![0; 256];
        if let Ok(length) = rustix::fs::lgetxattr(path, name, value.as_mut_slice()) {
            attributes.push(format!("{name}={:?}", &value[..length]));
        }
    }
    // How many names a folder has is the file system's own business.
    let names = if about.is_dir() { 0 } else { about.nlink() };
    Ok(format!(
        "{:o} {}:{} {}.{:09} {names} {content} {attributes:?}",
        about.mode(),
        about.uid(),
        about.gid(),
        about.mtime(),
        about.mtime_nsec()
    ))
}

fn same(before: &Picture, after: &Picture) -> Result<()> {
    let differs = |(path, what): &(&String, &String)| after.get(*path) != Some(*what);
    let wrong: Vec<_> =
        before.iter().filter(differs).map(|(path, was)| (path, was, after.get(path))).collect();
    let more: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    ensure!(wrong.is_empty() && more.is_empty(), "different: {wrong:#?}\nnot there before: {more:?}");
    Ok(())
}

/// Modes, owners, links and attributes that a copy is quick to lose.
fn fill(volume: &Path) -> Result<()> {
    let at = |name: &str| volume.join(name);
    let mode = |name: &str, mode| std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode));
    let owned = |name: &str, uid, gid| std::os::unix::fs::lchown(at(name), Some(uid), Some(gid));
    std::fs::create_dir_all(at("deep/er/still"))?;
    for (name, content) in [("rows", "old rows\n"), ("deep/secret", "s3cret"), ("deep/er/still/empty", "")] {
        std::fs::write(at(name), content)?;
    }
    std::fs::write(at("tool"), "#!/bin/sh\n")?;
    std::fs::write(at("name with spaces and ümläuts"), "x")?;
    std::fs::hard_link(at("rows"), at("deep/the same rows"))?;
    symlink("/nowhere/at/all", at("dangling"))?;
    symlink("../rows", at("deep/to-rows"))?;
    rustix::fs::setxattr(at("rows"), "user.note", b"kept", rustix::fs::XattrFlags::empty())?;
    owned("deep/secret", 999, 998)?;
    owned("dangling", 12, 34)?;
    owned("deep", 70, 70)?;
    mode("deep/secret", 0o600)?;
    mode("deep", 0o2750)?;
    mode("deep/er", 0o1777)?;
    mode("deep/er/still", 0o000)?;
    owned("tool", 0, 5)?;
    mode("tool", 0o4711)?;
    // `cap_net_bind_service=ep`, as the kernel stores it.
    let right = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rustix::fs::setxattr(at("rows"), "security.capability", &right, rustix::fs::XattrFlags::empty())?;
    owned("", 70, 70)?;
    mode("", 0o700)?;
    Ok(())
}

/// What takes a helper long enough to be caught at.
fn fill_up(volume: &Path) -> Result<()> {
    let mut numbers = fastrand::Rng::with_seed(4);
    for n in 0..24 {
        let content: Vec<u8> = std::iter::repeat_with(|| numbers.u8(..)).take(8 << 20).collect();
        std::fs::write(volume.join(format!("much-{n}")), content)?;
    }
    Ok(())
}

fn spoil(volume: &Path) -> Result<()> {
    std::fs::write(volume.join("rows"), "new rows\n")?;
    std::fs::remove_dir_all(volume.join("deep"))?;
    std::fs::write(volume.join("deep"), "a file now")?;
    std::fs::write(volume.join("more"), "more")?;
    std::fs::set_permissions(volume, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// A folder where the engine's would be, with another volume of that name.
fn decoy(rig: &Rig) -> Result<String> {
    let data = rig.path("decoy").join(format!("{}_db-data/_data", rig.project.name));
    std::fs::create_dir_all(&data)?;
    std::fs::write(data.join("rows"), "not the volume's\n")?;
    Ok(format!("{}:{VOLUMES}", rig.path("decoy").display()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_p9_an_agent_in_a_container_keeps_a_volume_that_it_does_not_see_and_brings_it_back() -> Result<()>
{
    // What looks like the volume from where the agent is must not be taken for it.
    let mut beside = Beside::start("volume", decoy)?;
    let before = picture(&beside.volume())?;
    let false_one = beside.rig.path("decoy");
    let false_before = picture(&false_one)?;
    let id = beside.fail().await?;
    let status = ended(&beside.client, &id).await?;
    beside.assert_rolled_back(&status, &before)?;

    // A person goes back, with the data.
    let (second, status) = beside.run("v2").await?;
    ensure!(outcome(&status) == Some(Outcome::Succeeded), "{status:#?}\n{}", beside.story());
    same(&before, &picture(&beside.volume())?)?;
    spoil(&beside.volume())?;
    let (id, mut request) = beside.request("v1")?;
    request.manifest.env = serde_json::from_value(json!({"ownership": "adopted", "patch": []}))?;
    request.action = serde_json::from_value(json!({"kind": "rollback", "to": second, "data": true}))?;
    beside.submit(&id, &request).await?;
    let status = ended(&beside.client, &id).await?;
    ensure!(outcome(&status) == Some(Outcome::Succeeded), "{status:#?}\n{}", beside.story());
    ensure!(status.data_restored, "{status:#?}");
    same(&before, &picture(&beside.volume())?)?;

    // And one who has nothing but a shell on the host.
    spoil(&beside.volume())?;
    let readme = beside.rig.project.read(&format!(".tenantry/restore/{second}/README"))?;
    let commands = readme.lines().filter_map(|line| line.strip_prefix("    "));
    for command in commands.filter(|command| !command.starts_with("tenantry ")) {
        let output = std::process::Command::new("sh").args(["-ec", command]).output()?;
        ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    same(&before, &picture(&beside.volume())?)?;
    same(&false_before, &picture(&false_one)?)?;
    beside.assert_nothing_is_left()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_p9_an_agent_that_is_killed_while_a_volume_is_kept_or_brought_back_does_it_again() -> Result<()> {
    let mut beside = Beside::start("volkilled", |_| Ok(String::new()))?;
    fill_up(&beside.volume())?;
    let before = picture(&beside.volume())?;
    let (id, request) = beside.request("late")?;
    beside.submit(&id, &request).await?;

    let left = beside.caught("keep").await?;
    beside.kill_agent()?;
    until("the helper that was left is gone", Duration::from_mins(1), || !beside.helpers().contains(&left))
        .await?;
    same(&before, &picture(&beside.volume())?)?;

    beside.reaches(&id, OperationPhase::Verify).await?;
    spoil(&beside.volume())?;
    let left = beside.caught("restore").await?;
    beside.kill_agent()?;
    until("the helper that was left is gone", Duration::from_mins(1), || !beside.helpers().contains(&left))
        .await?;
    let status = ended(&beside.client, &id).await?;
    beside.assert_rolled_back(&status, &before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_what_is_started_and_writes_while_a_helper_brings_a_volume_back_is_stopped_and_its_writing_gone()
-> Result<()> {
    let mut beside = Beside::start("volmeddle", |_| Ok(String::new()))?;
    fill_up(&beside.volume())?;
    let before = picture(&beside.volume())?;
    let id = beside.fail().await?;
    let helper = beside.caught("restore").await?;
    let containers = beside.rig.project.containers()?;
    let db = containers.values().next().context("a container")?;
    docker(&["start", db])?;
    for name in ["rows", "intruder"] {
        std::fs::write(beside.volume().join(name), "an intruder's\n")?;
    }
    docker(&["unpause", &helper])?;
    let status = ended(&beside.client, &id).await?;
    beside.assert_rolled_back(&status, &before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_an_agent_in_a_container_that_sees_the_engines_data_needs_no_helper() -> Result<()> {
    let mut beside = Beside::start("volseen", |_| Ok(format!("{VOLUMES}:{VOLUMES}")))?;
    let before = picture(&beside.volume())?;
    let since = docker(&["info", "--format", "{{.SystemTime}}"])?;
    let id = beside.fail().await?;
    let status = ended(&beside.client, &id).await?;
    beside.assert_rolled_back(&status, &before)?;
    let label = format!("label=tenantry.dev/helper={}", beside.rig.uid());
    let until = docker(&["info", "--format", "{{.SystemTime}}"])?;
    let made = docker(&["events", "--since", &since, "--until", &until, "--filter", &label])?;
    ensure!(made.is_empty(), "{made}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_a_volume_that_somebody_else_mounts_is_refused_from_a_container_too() -> Result<()> {
    let mut beside = Beside::start("volforeign", |_| Ok(String::new()))?;
    let (mount, image) = (format!("{}:/data", beside.name()), format!("{}:v1", beside.rig.repository));
    let foreign = docker(&["create", "--volume", &mount, &image])?;
    let before = (picture(&beside.volume())?, beside.rig.project.containers()?);
    let ran = beside.run("v2").await;
    docker(&["rm", "--force", &foreign])?;
    let (_, status) = ran?;
    ensure!(outcome(&status) == Some(Outcome::Aborted), "{status:#?}");
    let failure = failure(&status)?;
    ensure!(failure.message.contains("somebody else's"), "{failure:?}");
    same(&before.0, &picture(&beside.volume())?)?;
    ensure!(before.1 == beside.rig.project.containers()?, "nothing is changed");
    beside.assert_nothing_is_left()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_what_a_helper_can_not_keep_changes_nothing_and_is_told() -> Result<()> {
    let mut beside = Beside::start("volfifo", |_| Ok(String::new()))?;
    let pipe = beside.volume().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )?;
    let before = beside.rig.project.containers()?;
    let (_, status) = beside.run("v2").await?;
    ensure!(outcome(&status) == Some(Outcome::Aborted), "{status:#?}");
    let failure = failure(&status)?;
    ensure!(failure.message.starts_with("volume db-data: /volume/pipe: a FIFO"), "{failure:?}");
    ensure!(before == beside.rig.project.containers()?, "nothing is changed");
    beside.assert_nothing_is_left()
}
