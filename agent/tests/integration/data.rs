//! Declared data: kept with the restore point, brought back where that is asked for, and never else.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::support::{Sandbox, assert_outcome, docker, failure};
use serde_json::json;
use tenantry_agent::files::{DiskIo, Effect, Hook};
use tenantry_api::names::OperationId;
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::{FailureCategory, OperationPhase, OperationStatus};

/// A tenant with a folder and a volume that `worker` mounts, both declared.
async fn running(name: &str, consistency: &str) -> Sandbox {
    let mut tenant = Sandbox::new(name).await;
    tenant.write(".env", "IMAGE_TAG=none\n");
    tenant.write("uploads/deep/photo", "old photo\n");
    tenant.publish("v1", &[]);
    let mounts = "  worker:\n    volumes: [\"./uploads:/uploads\", \"db-data:/data\"]\n";
    let compose = tenant.compose().replace("  worker:\n", mounts) + "volumes: {db-data: {}}\n";
    tenant.manage("docker-compose.yml", &compose);
    tenant.manage("config/web.conf", "GREETING=hello\n");
    tenant.manage("conf.d/a.conf", "one\n");
    tenant.tag("v1");
    tenant.extra["snapshot"] =
        json!({"paths": ["uploads"], "volumes": ["db-data"], "consistency": consistency, "retain": 5});
    assert_outcome(&tenant.run("one", "Release").await, Outcome::Succeeded);
    std::fs::write(volume(&tenant).join("rows"), "old rows\n").unwrap();
    tenant
}

fn volume(tenant: &Sandbox) -> PathBuf {
    let name = format!("{}_db-data", tenant.project);
    docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", &name]).into()
}

/// What is in the folder and in the volume.
fn data(tenant: &Sandbox) -> (String, String) {
    (tenant.read("uploads/deep/photo"), std::fs::read_to_string(volume(tenant).join("rows")).unwrap())
}

fn write_data(tenant: &Sandbox, what: &str) {
    tenant.write("uploads/deep/photo", &format!("{what} photo\n"));
    std::fs::write(volume(tenant).join("rows"), format!("{what} rows\n")).unwrap();
}

fn told(what: &str) -> (String, String) {
    (format!("{what} photo\n"), format!("{what} rows\n"))
}

fn cleared(tenant: &Sandbox) {
    for (_, id) in tenant.containers() {
        docker(&["rm", "-f", &id]);
    }
    docker(&["volume", "rm", &format!("{}_db-data", tenant.project)]);
}

/// Submits v2 as it is declared, and writes to the data once that release runs.
async fn fail_after_writing(tenant: &mut Sandbox, id: &str) -> OperationStatus {
    tenant.publish("v2", &[("HEALTHY_AFTER", "1h")]);
    tenant.tag("v2");
    tenant.verify["timeoutMs"] = 4_000.into();
    tenant.submit(id, tenant.request("ImageOnly")).await.unwrap();
    reaches(tenant, id, OperationPhase::Verify).await;
    write_data(tenant, "new");
    tenant.ended(id).await
}

async fn reaches(tenant: &Sandbox, id: &str, wanted: OperationPhase) {
    let (id, mut after) = (OperationId::parse(id).unwrap(), 0);
    loop {
        let status = tenant.core().operation(&id, after, Duration::from_secs(5)).await.unwrap();
        after = status.seq;
        if status.phases.iter().any(|phase| phase.name == wanted) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_data_comes_back_with_a_release_that_failed_only_where_always_is_asked_for() {
    let mut tenant = running("data", "Stop").await;
    let status = fail_after_writing(&mut tenant, "two").await;
    assert_outcome(&status, Outcome::RolledBack);
    assert_eq!((data(&tenant), status.data_restored), (told("new"), false));

    write_data(&tenant, "newer");
    tenant.extra["rollbackData"] = "Always".into();
    let status = fail_after_writing(&mut tenant, "three").await;
    assert_outcome(&status, Outcome::RolledBack);
    assert_eq!((data(&tenant), status.data_restored), (told("newer"), true), "as it was before the release");
    assert_eq!(tenant.version_of("worker"), "v1");
    let (before, after) = tenant.by_hand();
    assert_eq!(before, after);
    cleared(&tenant);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_person_goes_back_with_the_data_and_forth_again() {
    let mut tenant = running("databack", "Live").await;
    tenant.publish("v2", &[]);
    tenant.tag("v2");
    assert_outcome(&tenant.run("two", "ImageOnly").await, Outcome::Succeeded);
    let listed = tenant.observe().await.restore_points;
    assert_eq!(listed[0].data, ["path uploads", "volume db-data"]);
    assert!(listed[0].bytes > 0);
    write_data(&tenant, "new");

    let status = go_back(&tenant, "three", "two", false).await;
    assert_outcome(&status, Outcome::Succeeded);
    assert_eq!(
        (tenant.version_of("worker"), data(&tenant), status.data_restored),
        ("v1".into(), told("new"), false)
    );

    let status = go_back(&tenant, "four", "two", true).await;
    assert_outcome(&status, Outcome::Succeeded);
    assert_eq!((data(&tenant), status.data_restored), (told("old"), true));

    // Nothing is ever lost: what was replaced is in the restore point that was made before.
    assert_outcome(&go_back(&tenant, "five", "four", true).await, Outcome::Succeeded);
    assert_eq!(data(&tenant), told("new"));

    // An archive with a flipped bit is noticed before anything is stopped.
    let archive = tenant.directory().join(".tenantry/restore/two/data/0.tar.zst");
    let mut bytes = std::fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&archive, bytes).unwrap();
    let before = (tenant.containers(), tenant.started_at("worker"));
    let status = go_back(&tenant, "six", "two", true).await;
    assert_outcome(&status, Outcome::Aborted);
    assert_eq!(failure(&status).category, FailureCategory::RestorePointUnusable);
    assert_eq!(
        (tenant.containers(), tenant.started_at("worker"), data(&tenant)),
        (before.0, before.1, told("new"))
    );
    cleared(&tenant);
}

async fn go_back(tenant: &Sandbox, id: &str, to: &str, data: bool) -> OperationStatus {
    let mut body = tenant.request("Release");
    body.manifest.files.clear();
    body.contents.clear();
    body.manifest.env = serde_json::from_value(json!({"ownership": "adopted", "patch": []})).unwrap();
    body.action = serde_json::from_value(json!({"kind": "rollback", "to": to, "data": data})).unwrap();
    tenant.submit(id, body).await.unwrap();
    tenant.ended(id).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_who_is_made_again_for_a_place_inherits_its_restore_points_and_deletes_none() {
    let mut tenant = running("inherit", "Live").await;
    tenant.publish("v2", &[]);
    tenant.tag("v2");
    assert_outcome(&tenant.run("two", "ImageOnly").await, Outcome::Succeeded);
    write_data(&tenant, "later");

    tenant.made_again().await;
    tenant.claim().await.unwrap();
    tenant.extra["snapshot"]["retain"] = json!(1);
    tenant.publish("v3", &[]);
    tenant.tag("v3");
    assert_outcome(&tenant.run("three", "ImageOnly").await, Outcome::Succeeded);
    let listed = tenant.observe().await.restore_points;
    let ids: Vec<&str> = listed.iter().map(|point| point.id.as_str()).collect();
    assert_eq!(ids, ["three", "two"]);
    // What it was made from is not in the registry's hands, either.
    docker(&["rmi", &format!("{}:v1", tenant.repository)]);

    assert_outcome(&go_back(&tenant, "four", "two", true).await, Outcome::Succeeded);
    assert_eq!((tenant.version_of("web"), data(&tenant)), ("v1".to_owned(), told("old")));
    cleared(&tenant);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_who_goes_back_with_data_and_fails_gets_their_own_data_back() {
    let mut tenant = running("databackfail", "Stop").await;
    // The older release does not come up any more: what it needs in the folder is gone by then.
    tenant.publish("v2", &[]);
    tenant.tag("v2");
    assert_outcome(&tenant.run("two", "ImageOnly").await, Outcome::Succeeded);
    write_data(&tenant, "new");
    let point = tenant.directory().join(".tenantry/restore/two/point");
    let text = std::fs::read_to_string(&point).unwrap();
    let (_, json) = text.trim_end().split_once(' ').unwrap();
    let probe = r#""http":[{"url":"http://127.0.0.1:9/","status":200}]"#;
    let json =
        json.replacen(r#""http":[]"#, probe, 1).replacen(r#""timeoutMs":20000"#, r#""timeoutMs":2000"#, 1);
    std::fs::write(&point, format!("{} {json}\n", tenantry_agent::files::sha256(json.as_bytes()))).unwrap();
    let status = go_back(&tenant, "three", "two", true).await;
    assert_outcome(&status, Outcome::RolledBack);
    assert_eq!(failure(&status).category, FailureCategory::ProbeFailed);
    assert_eq!((tenant.version_of("worker"), data(&tenant)), ("v2".into(), told("new")));
    cleared(&tenant);
}

/// What a person runs who reads the restore point's README; Tenantry itself is left out.
fn by_the_readme(tenant: &Sandbox, point: &str) {
    let readme = tenant.read(&format!(".tenantry/restore/{point}/README"));
    let commands: Vec<&str> = readme.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    for wanted in ["rm -rf --", "find \"$(docker volume inspect", "docker compose stop", "docker compose up"]
    {
        assert!(commands.iter().any(|command| command.contains(wanted)), "{wanted}: {readme}");
    }
    for command in commands.iter().filter(|one| !one.starts_with("tenantry ")) {
        let output = std::process::Command::new("sh").args(["-ec", command]).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Content, modes, owners, links and attributes of a folder, as `tar` sees them.
fn picture(folder: &Path) -> Vec<u8> {
    let output = std::process::Command::new("tar")
        .args(["--sort=name", "--numeric-owner", "--xattrs", "--format=posix"])
        .args(["--pax-option=delete=atime,delete=ctime,exthdr.name=x", "-cf", "-", "-C"])
        .args([folder, Path::new(".")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_what_the_readme_says_brings_declared_data_back_with_nothing_but_a_shell() {
    let mut tenant = running("datareadme", "Stop").await;
    let (uploads, volume) = (tenant.directory().join("uploads"), volume(&tenant));
    for folder in [&uploads, &volume] {
        let at = |name: &str| folder.join(name);
        std::fs::create_dir_all(at("o'brien & sons/$HOME")).unwrap();
        std::fs::write(at("o'brien & sons/-rf"), "x".repeat(70_000)).unwrap();
        std::fs::hard_link(at("o'brien & sons/-rf"), at(".hidden")).unwrap();
        std::os::unix::fs::symlink("/nowhere", at("dangling")).unwrap();
        std::os::unix::fs::chown(at("o'brien & sons"), Some(70), Some(71)).unwrap();
        std::fs::set_permissions(at("o'brien & sons"), std::fs::Permissions::from_mode(0o2750)).unwrap();
        std::fs::set_permissions(at(".hidden"), std::fs::Permissions::from_mode(0o4700)).unwrap();
        rustix::fs::setxattr(at(".hidden"), "user.note", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
    }
    let before = (picture(&uploads), picture(&volume));
    tenant.publish("v2", &[]);
    tenant.tag("v2");
    assert_outcome(&tenant.run("two", "ImageOnly").await, Outcome::Succeeded);
    assert!((picture(&uploads), picture(&volume)) == before, "an upgrade leaves the data alone");
    for folder in [&uploads, &volume] {
        std::fs::remove_dir_all(folder.join("o'brien & sons")).unwrap();
        std::fs::write(folder.join("o'brien & sons"), "a file now").unwrap();
        std::fs::write(folder.join(".more"), "more").unwrap();
    }
    by_the_readme(&tenant, "two");
    assert_eq!(data(&tenant), told("old"));
    assert!(picture(&uploads) == before.0, "the folder is as it was");
    assert!(picture(&volume) == before.1, "the volume is as it was");
    assert_eq!(tenant.version_of("worker"), "v1", "and its images and containers");
    cleared(&tenant);
}

/// A disk that is full as soon as declared data is written to it.
struct Full;

impl Hook for Full {
    fn before(&self, path: &Path, effect: Effect<'_>) -> std::io::Result<()> {
        let kept = path.to_str().is_some_and(|path| path.contains("/restore/two/data/"));
        match effect {
            Effect::Append(_) | Effect::WriteAt(..) if kept => Err(std::io::Error::from_raw_os_error(28)),
            _ => Ok(()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_services_that_were_stopped_for_a_snapshot_that_fails_are_the_same_and_run_again() {
    for consistency in ["Stop", "Pause"] {
        let mut tenant = running(&format!("revive{}", consistency.to_lowercase()), consistency).await;
        let before = (tenant.containers(), tenant.read("docker-compose.yml"), data(&tenant));
        let (worker, web) = (tenant.started_at("worker"), tenant.started_at("web"));
        tenant.publish("v2", &[]);
        tenant.tag("v2");
        tenant.stop_agent().await;
        tenant.disk_io = DiskIo::with(Arc::new(Full));
        tenant.start_agent().await;
        let status = tenant.run("two", "ImageOnly").await;
        assert_outcome(&status, Outcome::Aborted);
        let failure = failure(&status);
        assert_eq!(failure.during, OperationPhase::Snapshot, "{failure:?}");
        assert_eq!(failure.category, FailureCategory::DiskFull, "{failure:?}");
        assert_eq!((tenant.containers(), tenant.read("docker-compose.yml"), data(&tenant)), before);
        assert_eq!(tenant.started_at("web"), web, "what does not mount the data is not stopped");
        assert_eq!(tenant.started_at("worker") != worker, consistency == "Stop", "it did rest");
        let state = docker(&["inspect", "--format", "{{.State.Status}}", &tenant.container("worker")]);
        assert_eq!(state, "running");
        assert!(!tenant.directory().join(".tenantry/restore/two").exists(), "what was kept of it is gone");
        cleared(&tenant);
    }
}

/// Somebody who starts a container at the very moment when its volume is exchanged.
struct Meddler(std::sync::Mutex<Option<String>>);

impl Hook for Meddler {
    fn before(&self, path: &Path, effect: Effect<'_>) -> std::io::Result<()> {
        if matches!(effect, Effect::Exchange(with) if with.ends_with("_data"))
            && let Some(id) = self.0.lock().unwrap().take()
        {
            docker(&["start", &id]);
            assert!(path.to_str().unwrap().contains("/volumes/"));
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_who_is_started_while_data_is_brought_back_does_not_go_on_with_what_was_there() {
    let mut tenant = running("datameddle", "Stop").await;
    tenant.publish("v2", &[]);
    tenant.tag("v2");
    assert_outcome(&tenant.run("two", "ImageOnly").await, Outcome::Succeeded);
    write_data(&tenant, "new");
    tenant.stop_agent().await;
    let meddler = Arc::new(Meddler(std::sync::Mutex::new(Some(tenant.container("worker")))));
    tenant.disk_io = DiskIo::with(meddler.clone());
    tenant.start_agent().await;
    assert_outcome(&go_back(&tenant, "three", "two", true).await, Outcome::Succeeded);
    assert!(meddler.0.lock().unwrap().is_none(), "the container was started in between");
    assert_eq!((tenant.version_of("worker"), data(&tenant)), ("v1".into(), told("old")));
    let process = docker(&["inspect", "--format", "{{.State.Pid}}", &tenant.container("worker")]);
    let seen = std::fs::read_to_string(format!("/proc/{process}/root/data/rows")).unwrap();
    assert_eq!(seen, "old rows\n", "what runs has mounted what was brought back");
    cleared(&tenant);
}
