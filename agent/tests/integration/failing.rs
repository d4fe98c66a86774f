//! Releases that do not come up, and agents that do not stay up.

use std::time::Duration;

use crate::support::{Sandbox, assert_outcome, failure};
use tenantry_api::names::OperationId;
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::{ErrorCode, FailureCategory, OperationPhase};

/// A tenant that runs v1, with files that the bundle renders.
async fn running(name: &str) -> Sandbox {
    let mut tenant = Sandbox::new(name).await;
    tenant.write(".env", "IMAGE_TAG=none\n");
    tenant.publish("v1", &[]);
    tenant.manage("docker-compose.yml", &tenant.compose());
    tenant.manage("config/web.conf", "GREETING=one\n");
    tenant.manage("conf.d/a.conf", "one\n");
    tenant.tag("v1");
    assert_outcome(&tenant.run("one", "Release").await, Outcome::Succeeded);
    tenant
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_release_that_is_never_healthy_is_rolled_back_whole() {
    let mut tenant = running("rollback").await;
    tenant.publish("v2", &[("HEALTHY_AFTER", "1h")]);
    let image = crate::support::docker(&["inspect", "--format", "{{.Image}}", &tenant.container("web")]);
    tenant.verify["timeoutMs"] = 4_000.into();
    tenant.manage("config/web.conf", "GREETING=two\n");
    tenant.manage("new.conf", "new\n");
    tenant.tag("v2");
    let status = tenant.run("two", "Release").await;
    assert_outcome(&status, Outcome::RolledBack);
    let failure = failure(&status);
    assert_eq!((failure.category, failure.during), (FailureCategory::Unhealthy, OperationPhase::Verify));
    assert_eq!(tenant.version_of("web"), "v1");
    assert_eq!(
        crate::support::docker(&["inspect", "--format", "{{.Image}}", &tenant.container("web")]),
        image
    );
    assert_eq!(
        (tenant.read("config/web.conf"), tenant.read(".env")),
        ("GREETING=one\n".into(), "IMAGE_TAG=v1\n".into())
    );
    assert!(!tenant.directory().join("new.conf").exists());
    let (before, after) = tenant.by_hand();
    assert_eq!(before, after, "by hand nothing changes after a rollback either");
    assert!(tenant.kept().iter().all(|tag| tag.contains(":one-")), "{:?}", tenant.kept());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_tag_that_was_moved_points_to_the_previous_image_again() {
    let mut tenant = running("moved").await;
    let image = crate::support::docker(&["inspect", "--format", "{{.Image}}", &tenant.container("web")]);
    // The same tag, another image; publishing takes the local tag away, as a person might.
    tenant.publish("v1", &[("HEALTHY_AFTER", "1h")]);
    let reference = format!("{}:v1", tenant.repository);
    let asked = tenantry_protocol::ResolveRequest { references: vec![reference.clone()] };
    let resolved = tenant.core().resolve(asked).await.unwrap().references;
    assert!(resolved[0].digest.is_some(), "{resolved:?}");
    tenant.extra = serde_json::json!({"pinned": resolved});
    tenant.verify["timeoutMs"] = 3_000.into();
    let status = tenant.run("two", "ImageOnly").await;
    assert_outcome(&status, Outcome::RolledBack);
    assert_eq!(
        crate::support::docker(&["inspect", "--format", "{{.Image}}", &tenant.container("web")]),
        image
    );
    assert_eq!(crate::support::docker(&["inspect", "--format", "{{.Id}}", &reference]), image);
    let (before, after) = tenant.by_hand();
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_whose_one_shot_fails_is_rolled_back_at_once() {
    let mut tenant = running("oneshot").await;
    tenant.publish("v2", &[("EXIT_CODE", "3")]);
    tenant.tag("v2");
    let status = tenant.run("two", "ImageOnly").await;
    assert_outcome(&status, Outcome::RolledBack);
    let failure = failure(&status);
    assert_eq!(
        (failure.category, failure.during),
        (FailureCategory::Crashed, OperationPhase::Start),
        "{failure:?}"
    );
    assert!(failure.message.contains("migrate ended with code 3"), "{failure:?}");
    assert_eq!(tenant.version_of("worker"), "v1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_dies_at_once_fails_before_the_timeout() {
    let mut tenant = running("crash").await;
    tenant.publish("v2", &[("CRASH_AFTER", "20ms")]);
    tenant.verify["timeoutMs"] = 600_000.into();
    tenant.tag("v2");
    let began = std::time::Instant::now();
    let status = tenant.run("two", "ImageOnly").await;
    assert_outcome(&status, Outcome::RolledBack);
    assert_eq!(failure(&status).category, FailureCategory::Crashed, "{:?}", failure(&status));
    assert!(began.elapsed() < Duration::from_mins(10), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_release_is_left_running_where_hold_is_asked_for() {
    let mut tenant = running("hold").await;
    tenant.publish("v2", &[("HEALTHY_AFTER", "1h")]);
    tenant.verify["timeoutMs"] = 3_000.into();
    tenant.extra = serde_json::json!({"onFailure": "Hold"});
    tenant.manage("config/web.conf", "GREETING=two\n");
    tenant.tag("v2");
    let status = tenant.run("two", "Release").await;
    assert_outcome(&status, Outcome::Held);
    assert_eq!(tenant.version_of("web"), "v2");
    assert!(
        tenant.kept().iter().any(|tag| tag.contains(":two-")),
        "its restore point is kept: {:?}",
        tenant.kept()
    );
    tenant.publish("v3", &[]);
    tenant.tag("v3");
    // What the failed release wrote is ours, not a person's edit.
    tenant.manage("config/web.conf", "GREETING=three\n");
    assert_outcome(&tenant.run("three", "Release").await, Outcome::Succeeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_installation_that_fails_leaves_no_container_and_no_file_of_ours() {
    let mut tenant = Sandbox::new("first").await;
    tenant.write(".env", "IMAGE_TAG=none\n");
    tenant.publish("v1", &[("HEALTHY_AFTER", "1h")]);
    tenant.manage("docker-compose.yml", &tenant.compose());
    tenant.manage("config/web.conf", "GREETING=one\n");
    tenant.manage("conf.d/a.conf", "one\n");
    tenant.tag("v1");
    tenant.verify["timeoutMs"] = 3_000.into();
    let status = tenant.run("one", "Release").await;
    assert_outcome(&status, Outcome::RolledBack);
    assert_eq!(tenant.containers(), []);
    assert_eq!(tenant.read(".env"), "IMAGE_TAG=none\n");
    assert!(
        !tenant.directory().join("docker-compose.yml").exists()
            && !tenant.directory().join("config").exists()
    );
    assert_eq!(tenant.kept(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_an_agent_that_is_ended_in_mid_operation_goes_on_when_it_is_started_again() {
    let mut tenant = running("resume").await;
    tenant.publish("v2", &[("HEALTHY_AFTER", "2s")]);
    tenant.tag("v2");
    tenant.manage("config/web.conf", "GREETING=two\n");
    let id = OperationId::parse("two").unwrap();
    for phase in [OperationPhase::Pull, OperationPhase::Start, OperationPhase::Verify] {
        if phase == OperationPhase::Pull {
            tenant.submit("two", tenant.request("Release")).await.unwrap();
        }
        let mut after = 0;
        loop {
            let status = tenant.core().operation(&id, after, Duration::from_secs(5)).await.unwrap();
            after = status.seq;
            if status.phases.iter().any(|known| known.name == phase) {
                break;
            }
        }
        tenant.stop_agent().await;
        tenant.start_agent().await;
        let status = tenant.core().operation(&id, 0, Duration::ZERO).await.unwrap();
        assert!(status.seq > after, "the number rises over restarts");
    }
    assert_outcome(&tenant.ended("two").await, Outcome::Succeeded);
    assert_eq!(
        (tenant.version_of("web"), tenant.read("config/web.conf")),
        ("v2".into(), "GREETING=two\n".into())
    );
    let (before, after) = tenant.by_hand();
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_the_same_operation_is_done_once_and_another_body_or_a_lower_epoch_is_refused() {
    let mut tenant = running("again").await;
    tenant.publish("v2", &[]);
    tenant.tag("v2");
    let body = tenant.request("ImageOnly");
    tenant.submit("two", body.clone()).await.unwrap();
    let busy = tenant.submit("three", tenant.request("ImageOnly")).await.unwrap_err();
    assert_eq!(busy.code, ErrorCode::Busy);
    let ended = tenant.ended("two").await;
    assert_outcome(&ended, Outcome::Succeeded);
    assert_eq!(tenant.submit("two", body.clone()).await.unwrap().state, ended.state);
    let mut other = body.clone();
    other.target_hash = "sha256:other".to_owned();
    assert_eq!(tenant.submit("two", other).await.unwrap_err().code, ErrorCode::OperationMismatch);
    assert_eq!(tenant.submit("late", body).await.unwrap_err().code, ErrorCode::StaleEpoch);
    tenant.stop_agent().await;
    tenant.start_agent().await;
    let id = OperationId::parse("two").unwrap();
    let recorded = tenant.core().operation(&id, 0, Duration::ZERO).await.unwrap();
    assert_eq!((recorded.state, recorded.images), (ended.state, ended.images));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_variable_of_the_login_shell_that_wins_over_env_is_named() {
    let mut tenant = running("handrun").await;
    tenant.publish("v2", &[]);
    // What every login sets by itself is the same by us; where programs are is the profile's word.
    let who = "STANDIN_CONFIG: /etc/web.conf, WHO: \"${USER:-nobody}\"";
    let compose = tenant.compose().replace("STANDIN_CONFIG: /etc/web.conf", who);
    tenant.manage("docker-compose.yml", &compose);
    tenant.tag("v2");
    assert_outcome(&tenant.run("login", "Release").await, Outcome::Succeeded);
    let named = compose.replace("${USER:-nobody}", "${PATH:-nowhere}");
    tenant.manage("docker-compose.yml", &named);
    tenant.tag("v2");
    let status = tenant.run("two", "Release").await;
    assert_outcome(&status, Outcome::Aborted);
    let failure = failure(&status);
    assert_eq!(
        (failure.category, failure.during),
        (FailureCategory::HandRunDiffers, OperationPhase::Preflight)
    );
    assert!(failure.message.contains("the shell sets PATH"), "{failure:?}");
}
