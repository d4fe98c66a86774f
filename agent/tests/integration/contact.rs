//! First contact, claims, and a host whose engine does not answer.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{Sandbox, assert_outcome, failure};
use tenantry_agent::files::{DiskIo, Effect, Hook};
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::{ClaimState, ErrorCode, FailureCategory};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_never_ours_is_replaced_only_where_that_is_asked_for() {
    let mut tenant = Sandbox::usual("adopt").await;
    tenant.publish("v1", &[]);
    tenant.tag("v1");
    tenant.manage("conf.d/a.conf", "ours\n");
    let status = tenant.run("one", "Release").await;
    assert_outcome(&status, Outcome::Aborted);
    assert_eq!(failure(&status).category, FailureCategory::AdoptionNeeded);
    assert_eq!(tenant.read("conf.d/a.conf"), "a\n");

    tenant.extra = serde_json::json!({"overwrite": true});
    assert_outcome(&tenant.run("two", "Release").await, Outcome::Succeeded);
    assert_eq!(tenant.read("conf.d/a.conf"), "ours\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_containers_that_were_made_from_another_directory_are_never_touched() {
    let mut tenant = Sandbox::usual("foreign").await;
    tenant.publish("v1", &[]);
    tenant.tag("v1");
    let elsewhere = tempfile::tempdir().unwrap();
    let compose = format!("services:\n  other:\n    image: {}:v1\n", tenant.repository);
    std::fs::write(elsewhere.path().join("compose.yaml"), compose).unwrap();
    let started = std::process::Command::new("docker")
        .args(["compose", "-p", &tenant.project, "up", "-d"])
        .current_dir(elsewhere.path())
        .output()
        .unwrap();
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let before = tenant.containers();
    let observation = tenant.observe().await;
    assert_eq!(observation.foreign_containers.len(), 1);
    tenant.extra = serde_json::json!({"overwrite": true});
    let status = tenant.run("one", "ImageOnly").await;
    assert_outcome(&status, Outcome::Aborted);
    assert_eq!(failure(&status).category, FailureCategory::AdoptionNeeded);
    assert_eq!(tenant.containers(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_as_wanted_is_taken_over_without_touching_it() {
    let mut tenant = Sandbox::usual("claim").await;
    tenant.publish("v1", &[]);
    crate::support::docker(&["pull", "-q", &format!("{}:v1", tenant.repository)]);
    tenant.write(".env", "IMAGE_TAG=v1\n");
    tenant.tag("v1");
    tenant.manage("conf.d/a.conf", "a\n");
    let (before, after) = tenant.by_hand();
    assert_eq!((before.len(), after.len()), (0, 3));
    assert_eq!(tenant.observe().await.claim, ClaimState::Free);
    tenant.claim().await.unwrap();
    let observation = tenant.observe().await;
    assert_eq!((observation.claim, observation.epoch), (ClaimState::Ours, 1));
    assert_eq!(tenant.containers(), after);

    tenant.write("conf.d/a.conf", "edited\n");
    assert!(tenant.observe().await.files[0].hand_edited);
    assert_eq!(tenant.claim().await.unwrap_err().code, ErrorCode::Invalid);
}

/// Nothing is put in place any more after so many records.
struct Ends(AtomicUsize);

impl Hook for Ends {
    fn before(&self, _: &Path, effect: Effect<'_>) -> io::Result<()> {
        let left = || self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if matches!(effect, Effect::Rename(_)) && left().is_err() {
            return Err(io::Error::other("the agent ended here"));
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_an_agent_that_ends_in_the_middle_of_a_claim_has_not_claimed() {
    let mut tenant = Sandbox::usual("halfclaim").await;
    tenant.tag("v1");
    tenant.manage("conf.d/a.conf", "a\n");
    tenant.stop_agent().await;
    tenant.disk_io = DiskIo::with(Arc::new(Ends(AtomicUsize::new(1))));
    tenant.start_agent().await;
    tenant.claim().await.unwrap_err();
    tenant.stop_agent().await;
    tenant.disk_io = DiskIo::default();
    tenant.start_agent().await;
    // Were it ours already, nobody would claim again, and what is known of its files would be missing for ever.
    assert_eq!(tenant.observe().await.claim, ClaimState::Free);
    tenant.claim().await.unwrap();
    tenant.write("conf.d/a.conf", "edited\n");
    assert!(tenant.observe().await.files[0].hand_edited);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_without_an_engine_says_so_and_serves_on() {
    let mut tenant = Sandbox::usual("noengine").await;
    tenant.stop_agent().await;
    tenant.docker_host = Some("unix:///nowhere/docker.sock".to_owned());
    tenant.start_agent().await;
    let info = tenant.core().host().await;
    assert_eq!(info.docker_version, None);
    assert!(
        info.problems.iter().any(|problem| problem.contains("/nowhere/docker.sock")),
        "{:?}",
        info.problems
    );
    tenant.tag("v1");
    let status = tenant.run("one", "ImageOnly").await;
    assert_outcome(&status, Outcome::Aborted);
    assert_eq!(failure(&status).category, FailureCategory::EngineFault);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_images_that_were_kept_for_a_former_owner_go_once_the_new_one_has_its_own() {
    let mut tenant = Sandbox::usual("former").await;
    tenant.publish("v1", &[]);
    tenant.publish("v2", &[]);
    tenant.tag("v1");
    tenant.extra = serde_json::json!({"overwrite": true});
    assert_outcome(&tenant.run("one", "ImageOnly").await, Outcome::Succeeded);
    assert!(!tenant.kept().is_empty());

    let mut body = tenant.request("ImageOnly");
    body.tenant.uid = tenantry_api::names::TenantUid::parse(format!("{:x}-b", std::process::id())).unwrap();
    let claim = serde_json::json!({
        "tenant": body.tenant, "place": body.place, "manifest": body.manifest, "epoch": 1, "takeOver": true
    });
    let operator = tenantry_api::names::Identity::parse("main").unwrap();
    tenant.core().claim(&operator, serde_json::from_value(claim).unwrap()).await.unwrap();
    assert!(!tenant.kept().is_empty(), "nothing is let go before the new owner has its own");
    body.epoch = 2;
    body.manifest.env = serde_json::from_value(
        serde_json::json!({"ownership": "adopted", "patch": [{"name": "IMAGE_TAG", "value": "v2"}]}),
    )
    .unwrap();
    let new = format!("tenantry.local/keep/{}", body.tenant.uid);
    tenant.submit("two", body).await.unwrap();
    assert_outcome(&tenant.ended("two").await, Outcome::Succeeded);
    assert_eq!(tenant.kept(), Vec::<String>::new());
    let kept = crate::support::docker(&["images", "--format", "{{.Repository}}:{{.Tag}}", &new]);
    for name in kept.lines() {
        crate::support::docker(&["rmi", name]);
    }
    assert!(!kept.is_empty());
}
