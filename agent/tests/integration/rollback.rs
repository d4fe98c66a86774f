//! Going back: by itself when a release fails, and to a restore point because a person asks.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::support::{Sandbox, assert_outcome, docker, failure, required};
use serde_json::json;
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::{FailureCategory, OperateRequest, OperationPhase, OperationStatus};

/// A tenant that runs v1, with files that the bundle renders.
async fn running(name: &str) -> Sandbox {
    running_from(name, required("TENANTRY_TEST_REGISTRY")).await
}

async fn running_from(name: &str, registry: String) -> Sandbox {
    let mut tenant = Sandbox::with_registry(name, registry).await;
    tenant.write(".env", "# mine\nIMAGE_TAG=none\nSECRET=s3cret\n");
    tenant.publish("v1", &[]);
    release(&mut tenant, "v1");
    let status = tenant.run("one", "Release").await;
    assert_outcome(&status, Outcome::Succeeded);
    tenant
}

/// A way to the registry that is shut when its task is aborted, with every connection through it.
async fn door() -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let pass = async move {
        let mut open = tokio::task::JoinSet::new();
        loop {
            let (mut inside, _) = listener.accept().await.unwrap();
            open.spawn(async move {
                let mut outside =
                    tokio::net::TcpStream::connect(required("TENANTRY_TEST_REGISTRY")).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
            });
        }
    };
    (address, tokio::spawn(pass))
}

/// The files of a release; each has one of its own, too.
fn release(tenant: &mut Sandbox, tag: &str) {
    tenant.manage("docker-compose.yml", &tenant.compose());
    tenant.manage("config/web.conf", &format!("GREETING={tag}\n"));
    tenant.manage("conf.d/a.conf", &format!("{tag}\n"));
    for other in ["v1", "v2", "v3"] {
        tenant.unmanage(&format!("only/{other}.conf"));
    }
    tenant.manage(&format!("only/{tag}.conf"), &format!("{tag}\n"));
    tenant.tag(tag);
    tenant.extra["release"] = json!({"imageTag": tag, "filesHash": format!("files-{tag}")});
}

async fn upgrade(tenant: &mut Sandbox, id: &str, tag: &str) {
    tenant.publish(tag, &[]);
    release(tenant, tag);
    assert_outcome(&tenant.run(id, "Release").await, Outcome::Succeeded);
}

/// A person goes back.
async fn go_back(tenant: &Sandbox, id: &str, to: &str) -> OperationStatus {
    tenant.submit(id, going_back(tenant, to)).await.unwrap();
    tenant.ended(id).await
}

fn going_back(tenant: &Sandbox, to: &str) -> OperateRequest {
    let mut body = tenant.request("Release");
    body.manifest.files.clear();
    body.contents.clear();
    body.manifest.env = serde_json::from_value(json!({"ownership": "adopted", "patch": []})).unwrap();
    body.action = serde_json::from_value(json!({"kind": "rollback", "to": to, "data": false})).unwrap();
    body
}

type Files = BTreeMap<String, (Vec<u8>, u32, u32)>;

/// Every file of the tenant's directory but our own.
fn files(tenant: &Sandbox) -> Files {
    fn walk(root: &Path, folder: &Path, all: &mut Files) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let at = entry.unwrap().path();
            let name = at.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let found = at.symlink_metadata().unwrap();
            if found.is_dir() && name != ".tenantry" {
                walk(root, &at, all);
            } else if found.is_file() {
                all.insert(name, (std::fs::read(&at).unwrap(), found.mode() & 0o7777, found.uid()));
            }
        }
    }
    let mut all = Files::new();
    walk(&tenant.directory(), &tenant.directory(), &mut all);
    all
}

fn points(tenant: &Sandbox) -> Vec<String> {
    let folder = tenant.directory().join(".tenantry/restore");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_person_goes_back_to_the_newest_and_to_an_older_restore_point_without_a_registry() {
    let (registry, open) = door().await;
    let mut tenant = running_from("back", registry).await;
    let first = files(&tenant);
    upgrade(&mut tenant, "two", "v2").await;
    let second = files(&tenant);
    upgrade(&mut tenant, "three", "v3").await;
    let third = files(&tenant);
    let listed = tenant.observe().await.restore_points;
    let told: Vec<(&str, &str)> =
        listed.iter().map(|point| (point.id.as_str(), point.release.image_tag.as_str())).collect();
    assert_eq!(told, [("three", "v2"), ("two", "v1")], "newest first; the first installation leads nowhere");
    open.abort();
    assert!(open.await.is_err_and(|error| error.is_cancelled()), "the registry is gone");

    let status = go_back(&tenant, "four", "three").await;
    assert_outcome(&status, Outcome::Succeeded);
    assert!(!status.phases.iter().any(|phase| phase.name == OperationPhase::Pull), "{status:#?}");
    assert_eq!((tenant.version_of("web"), files(&tenant)), ("v2".to_owned(), second));
    let (before, after) = tenant.by_hand();
    assert_eq!(before, after, "compose by hand finds nothing to do");

    // Where it had come from is a restore point, too.
    assert_outcome(&go_back(&tenant, "five", "four").await, Outcome::Succeeded);
    assert_eq!((tenant.version_of("web"), files(&tenant)), ("v3".to_owned(), third));

    assert_outcome(&go_back(&tenant, "six", "two").await, Outcome::Succeeded);
    assert_eq!((tenant.version_of("web"), files(&tenant)), ("v1".to_owned(), first));
    assert!(tenant.read(".env").contains("SECRET=s3cret"));
    let newest = &tenant.observe().await.restore_points[0];
    assert_eq!((newest.id.as_str(), newest.release.image_tag.as_str()), ("six", "v3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_who_goes_back_and_fails_is_brought_back_to_where_they_were() {
    let mut tenant = running("backfail").await;
    upgrade(&mut tenant, "two", "v2").await;
    tenant.write("only/v2.conf", "edited by hand\n");
    let before = files(&tenant);
    // The release of then was judged by a probe that nothing answers any more.
    let point = tenant.directory().join(".tenantry/restore/two/point");
    let text = std::fs::read_to_string(&point).unwrap();
    let (_, json) = text.trim_end().split_once(' ').unwrap();
    let probe = r#""http":[{"url":"http://127.0.0.1:9/","status":200}]"#;
    let json =
        json.replacen(r#""http":[]"#, probe, 1).replacen(r#""timeoutMs":20000"#, r#""timeoutMs":2000"#, 1);
    let sum = tenantry_agent::files::sha256(json.as_bytes());
    std::fs::write(&point, format!("{sum} {json}\n")).unwrap();

    let status = go_back(&tenant, "three", "two").await;
    assert_outcome(&status, Outcome::RolledBack);
    let failure = failure(&status);
    assert_eq!(failure.category, FailureCategory::ProbeFailed, "by its own probes: {failure:?}");
    assert_eq!((tenant.version_of("web"), files(&tenant)), ("v2".to_owned(), before), "hand edits included");
    assert_eq!(points(&tenant), ["one", "two"], "and its restore point is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_restore_point_that_is_damaged_strange_or_without_its_images_changes_nothing() {
    let (registry, open) = door().await;
    let mut tenant = running_from("unusable", registry).await;
    upgrade(&mut tenant, "two", "v2").await;
    let before = (files(&tenant), tenant.containers());
    let folder = tenant.directory().join(".tenantry/restore/two");
    let refused = |status: &OperationStatus, says: &str| {
        assert_outcome(status, Outcome::Aborted);
        let failure = failure(status);
        assert_eq!(failure.category, FailureCategory::RestorePointUnusable, "{failure:?}");
        assert!(failure.message.contains(says), "{failure:?}");
    };
    refused(&go_back(&tenant, "a", "nowhere").await, "there is none");
    refused(&go_back(&tenant, "b", "one").await, "leads back to nothing");

    let kept = folder.join("files/conf.d/a.conf");
    let content = std::fs::read(&kept).unwrap();
    std::fs::write(&kept, b"v9\n").unwrap();
    refused(&go_back(&tenant, "c", "two").await, "not what was kept");
    std::fs::write(&kept, &content).unwrap();

    let point = folder.join("point");
    let text = std::fs::read(&point).unwrap();
    std::fs::write(&point, &text[..text.len() - 9]).unwrap();
    refused(&go_back(&tenant, "d", "two").await, "damaged");
    std::fs::write(&point, &text).unwrap();

    open.abort();
    assert!(open.await.is_err_and(|error| error.is_cancelled()), "the registry is gone");
    take_image_away(&tenant, "v1");
    refused(&go_back(&tenant, "e", "two").await, "no longer on this host");
    assert_eq!((files(&tenant), tenant.containers()), before);
}

/// As `docker image prune -a` does with what no container uses.
fn take_image_away(tenant: &Sandbox, tag: &str) {
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", &format!("{}:{tag}", tenant.repository)]);
    docker(&["rmi", "-f", &id]);
    assert_eq!(docker(&["image", "inspect", "--format", "{{.Id}}", &id]), "", "it is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_an_image_that_a_person_pruned_is_pulled_again_by_the_digest_that_ran() {
    let mut tenant = running("pruned").await;
    upgrade(&mut tenant, "two", "v2").await;
    take_image_away(&tenant, "v1");
    // The tag means something else by now.
    tenant.publish_as("other", "v1");
    assert_outcome(&go_back(&tenant, "three", "two").await, Outcome::Succeeded);
    assert_eq!(tenant.version_of("web"), "v1");

    // Also while a release fails.
    tenant.publish("v3", &[("HEALTHY_AFTER", "1h")]);
    release(&mut tenant, "v3");
    tenant.verify["timeoutMs"] = 6_000.into();
    let id = tenantry_api::names::OperationId::parse("four").unwrap();
    tenant.submit("four", tenant.request("Release")).await.unwrap();
    let mut after = 0;
    loop {
        let status = tenant.core().operation(&id, after, Duration::from_secs(5)).await.unwrap();
        after = status.seq;
        if status.phases.iter().any(|phase| phase.name == OperationPhase::Verify) {
            break;
        }
    }
    take_image_away(&tenant, "v1");
    assert_outcome(&tenant.ended("four").await, Outcome::RolledBack);
    assert_eq!(tenant.version_of("web"), "v1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_what_the_readme_says_restores_every_file_with_nothing_but_tar() {
    let mut tenant = running("readme").await;
    let web = tenant.directory().join("config/web.conf");
    std::fs::set_permissions(&web, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&web, Some(33), Some(33)).unwrap();
    tenant.manifest["files"][1]["mode"] = 0o640.into();
    let folders = |tenant: &Sandbox| {
        ["", "config", "conf.d", "only"].map(|name| tenant.directory().join(name).metadata().unwrap().mode())
    };
    let (before, modes) = (files(&tenant), folders(&tenant));
    upgrade(&mut tenant, "two", "v2").await;
    assert_ne!(files(&tenant), before);
    let readme = tenant.read(".tenantry/restore/two/README");
    let commands: Vec<&str> = readme.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    for wanted in ["tar ", "rm -f", "docker tag", "docker compose", "tenantry accept-host"] {
        assert!(commands.iter().any(|command| command.contains(wanted)), "{wanted}: {readme}");
    }
    assert!(!readme.contains("s3cret"));
    for command in commands.iter().filter(|one| !one.starts_with("tenantry ")) {
        let output = Command::new("sh").args(["-ec", command]).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!((files(&tenant), folders(&tenant)), (before, modes));
    assert_eq!(tenant.version_of("web"), "v1", "and its images and containers");
}

/// A server that answers every request with this status.
async fn answers(status: &'static AtomicU16) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut asked, _) = listener.accept().await.unwrap();
            let _ = asked.read(&mut [0; 4096]).await;
            let head = format!(
                "HTTP/1.1 {} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                status.load(Ordering::SeqCst)
            );
            let _ = asked.write_all(head.as_bytes()).await;
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_a_rollback_is_believed_only_by_the_previous_release_s_own_probes() {
    static STATUS: AtomicU16 = AtomicU16::new(200);
    let mut tenant = Sandbox::new("probes").await;
    tenant.write(".env", "IMAGE_TAG=none\n");
    tenant.publish("v1", &[]);
    release(&mut tenant, "v1");
    let url = answers(&STATUS).await;
    tenant.verify = json!({"timeoutMs": 4_000, "stableForMs": 500, "http": [{"url": url, "status": 200}]});
    assert_outcome(&tenant.run("one", "Release").await, Outcome::Succeeded);
    tenant.publish("v2", &[("HEALTHY_AFTER", "1h")]);
    release(&mut tenant, "v2");
    // The failing release has no probe of its own.
    tenant.verify["http"] = json!([]);
    assert_outcome(&tenant.run("two", "Release").await, Outcome::RolledBack);
    STATUS.store(500, Ordering::SeqCst);
    let status = tenant.run("three", "Release").await;
    assert_outcome(&status, Outcome::RollbackFailed);
    assert!(failure(&status).message.contains("answered 500 instead of 200"), "{status:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p15_the_oldest_restore_points_go_and_those_that_stay_can_be_gone_back_to() {
    let mut tenant = running("retain").await;
    tenant.extra["snapshot"] = json!({"paths": [], "volumes": [], "consistency": "Stop", "retain": 2});
    upgrade(&mut tenant, "two", "v2").await;
    assert_eq!(points(&tenant), ["one", "two"]);
    upgrade(&mut tenant, "three", "v3").await;
    assert_eq!(points(&tenant), ["three", "two"], "the oldest is gone");
    let kept: Vec<String> = tenant.kept();
    for (operation, stays) in [("one", false), ("two", true), ("three", true)] {
        assert_eq!(kept.iter().any(|tag| tag.contains(&format!(":{operation}-"))), stays, "{kept:?}");
    }
    // Tags of theirs are all that a person took away.
    for tag in ["v1", "v2"] {
        docker(&["rmi", &format!("{}:{tag}", tenant.repository)]);
    }
    assert_outcome(&go_back(&tenant, "four", "two").await, Outcome::Succeeded);
    assert_eq!(tenant.version_of("web"), "v1");
    assert_eq!(points(&tenant), ["four", "three"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_the_end_of_a_rollback_whose_restore_point_was_pruned_can_be_done_again() {
    let mut tenant = running("again").await;
    tenant.extra["snapshot"] = json!({"paths": [], "volumes": [], "consistency": "Stop", "retain": 1});
    upgrade(&mut tenant, "two", "v2").await;
    let body = going_back(&tenant, "two");
    tenant.submit("three", body.clone()).await.unwrap();
    assert_outcome(&tenant.ended("three").await, Outcome::Succeeded);
    assert_eq!(points(&tenant), ["three"]);
    // As an agent leaves it that is killed when it has pruned, before it could say so.
    tenant.stop_agent().await;
    let records = std::fs::read_dir(tenant.folder.path().join("state/tenants")).unwrap();
    let records = records.map(|entry| entry.unwrap().path()).find(|at| at.is_dir()).unwrap();
    let journal = records.join("journal/three");
    let text = std::fs::read_to_string(&journal).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let begun = lines.iter().position(|line| line.contains(r#""then":"Finish""#)).unwrap();
    std::fs::write(&journal, lines[..=begun].concat()).unwrap();
    std::fs::write(records.join("requests/three"), serde_json::to_vec(&body).unwrap()).unwrap();
    tenant.start_agent().await;
    assert_outcome(&tenant.ended("three").await, Outcome::Succeeded);
    assert_eq!(tenant.version_of("web"), "v1");
    release(&mut tenant, "v1");
    let seen = tenant.observe().await;
    assert!(seen.files.iter().all(|file| !file.hand_edited), "what is ours is still known: {:?}", seen.files);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_a_service_that_left_the_release_is_removed_by_name_and_comes_back_with_it() {
    let mut tenant = running("leaving").await;
    let worker = |tenant: &Sandbox| tenant.containers().iter().filter(|(name, _)| name == "worker").count();
    assert_eq!(worker(&tenant), 1);
    // A container of the project and directory that no release ever had is a person's affair.
    let labels = [
        format!("com.docker.compose.project={}", tenant.project),
        format!("com.docker.compose.project.working_dir={}", tenant.directory().display()),
        "com.docker.compose.service=strange".to_owned(),
    ];
    let name = format!("{}-strange", tenant.project);
    let image = format!("{}:v1", tenant.repository);
    let mut run = vec!["run", "-d", "--name", &name];
    run.extend(labels.iter().flat_map(|label| ["--label", label.as_str()]));
    run.push(&image);
    docker(&run);
    tenant.publish("v2", &[]);
    release(&mut tenant, "v2");
    let compose = tenant.compose();
    let (without, _) = compose.split_once("  worker:").unwrap();
    tenant.manage("docker-compose.yml", without);
    let status = tenant.run("two", "Release").await;
    assert_outcome(&status, Outcome::Succeeded);
    assert_eq!(worker(&tenant), 0);
    assert_eq!(status.left_running, ["strange"]);
    let said = format!("{:?}", status.phases);
    assert!(said.contains("removed: worker"), "it was in the plan: {said}");
    assert!(!docker(&["ps", "-q", "--filter", &format!("name={name}")]).is_empty());

    assert_outcome(&go_back(&tenant, "three", "two").await, Outcome::Succeeded);
    assert_eq!((worker(&tenant), tenant.version_of("worker")), (1, "v1".to_owned()));

    // A release that leaves it out and fails: it comes back, too.
    tenant.publish("v3", &[("HEALTHY_AFTER", "1h")]);
    release(&mut tenant, "v3");
    tenant.manage("docker-compose.yml", without);
    tenant.verify["timeoutMs"] = 3_000.into();
    assert_outcome(&tenant.run("four", "Release").await, Outcome::RolledBack);
    assert_eq!((worker(&tenant), tenant.version_of("worker")), (1, "v1".to_owned()));

    // A profile that is switched off leaves it alone.
    tenant.verify["timeoutMs"] = 20_000.into();
    release(&mut tenant, "v2");
    tenant.manage("docker-compose.yml", &compose.replace("  worker:\n", "  worker:\n    profiles: [more]\n"));
    let status = tenant.run("five", "Release").await;
    assert_outcome(&status, Outcome::Succeeded);
    assert_eq!((worker(&tenant), status.left_running), (1, vec!["strange".to_owned(), "worker".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_a_port_that_something_else_holds_stops_everything_before_anything_is_changed() {
    let mut tenant = running("port").await;
    let before = (files(&tenant), tenant.containers());
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    tenant.publish("v2", &[]);
    release(&mut tenant, "v2");
    let published = format!("  worker:\n    ports: [\"127.0.0.1:{port}:8080\"]\n");
    tenant.manage("docker-compose.yml", &tenant.compose().replace("  worker:\n", &published));
    let status = tenant.run("two", "Release").await;
    assert_outcome(&status, Outcome::Aborted);
    let failed = failure(&status);
    assert_eq!((failed.category, failed.during), (FailureCategory::PortInUse, OperationPhase::Preflight));
    assert_eq!((files(&tenant), tenant.containers()), before);
    drop(held);
    assert_outcome(&tenant.run("three", "Release").await, Outcome::Succeeded);
    // Held by our own container, it is given over.
    upgrade_with(&mut tenant, "four", &published).await;
}

async fn upgrade_with(tenant: &mut Sandbox, id: &str, published: &str) {
    tenant.publish("v3", &[]);
    release(tenant, "v3");
    tenant.manage("docker-compose.yml", &tenant.compose().replace("  worker:\n", published));
    assert_outcome(&tenant.run(id, "Release").await, Outcome::Succeeded);
}
