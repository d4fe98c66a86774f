//! Probes by TCP and by a command, on a real engine: they pass, they fail and lead back, and a policy refuses them.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::{Sandbox, assert_outcome, failure};
use serde_json::json;
use tenantry_agent::engine::{DockerEngine, Executed};
use tenantry_agent::limits::Limits;
use tenantry_api::names::Argv;
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::{FailureCategory, OperationPhase};

const COMPOSE: &str = r#"services:
  web:
    image: REPOSITORY:${IMAGE_TAG:?}
    stop_grace_period: 1s
    ports: ["127.0.0.1:OPEN:8080"]
  worker:
    image: REPOSITORY:${IMAGE_TAG:?}
    stop_grace_period: 1s
    environment: {START_DELAY: 3s}
    ports: ["127.0.0.1:SHUT:9"]
"#;

/// Ports that were free a moment ago.
fn free_ports() -> [u16; 2] {
    let held = [0, 0].map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

fn release(tenant: &mut Sandbox, tag: &str) {
    tenant.publish(tag, &[]);
    tenant.tag(tag);
}

async fn restart(tenant: &mut Sandbox, allow_verify: &'static [&'static str]) {
    tenant.stop_agent().await;
    tenant.allow_verify = allow_verify;
    tenant.start_agent().await;
}

fn compose_log(tenant: &Sandbox) -> PathBuf {
    let tenants = tenant.folder.path().join("state/tenants");
    let mut folders =
        std::fs::read_dir(tenants).unwrap().map(|entry| entry.unwrap().path().join("compose.log"));
    folders.find(|path| path.exists()).expect("compose's log")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_p13_ports_and_commands_decide_whether_a_release_runs_where_the_policy_lets_them() {
    let mut tenant = Sandbox::new("probes").await;
    let [open, shut] = free_ports();
    let compose = COMPOSE.replace("REPOSITORY", &tenant.repository);
    let compose = compose.replace("OPEN", &open.to_string()).replace("SHUT", &shut.to_string());
    tenant.write(".env", "IMAGE_TAG=none\n");
    tenant.manage("docker-compose.yml", &compose);
    let good = json!({
        "timeoutMs": 20_000, "stableForMs": 200, "http": [],
        "tcp": [{"address": format!("localhost:{open}")}],
        "exec": [{"service": "web", "command": ["/standin", "health"]}],
    });
    tenant.verify = good.clone();
    release(&mut tenant, "v1");

    let refused = tenant.run("refused", "Release").await;
    assert_outcome(&refused, Outcome::Aborted);
    let told = failure(&refused);
    assert_eq!((told.category, told.during), (FailureCategory::PolicyRefused, OperationPhase::Preflight));
    assert!(
        told.message.contains("verify.exec[0]") && told.message.contains("needs Exec in allow.verify"),
        "{told:?}"
    );
    assert_eq!(tenant.containers(), []);

    restart(&mut tenant, &["Exec"]).await;
    assert_outcome(&tenant.run("one", "Release").await, Outcome::Succeeded);

    tenant.verify["exec"] = json!([{"service": "webb", "command": ["/standin", "health"]}]);
    let unknown = tenant.run("unknown", "Release").await;
    assert_outcome(&unknown, Outcome::Aborted);
    let told = failure(&unknown);
    assert_eq!((told.category, told.during), (FailureCategory::ProbeFailed, OperationPhase::Preflight));
    assert!(told.message.contains("no service webb; it has web, worker"), "{told:?}");

    // The command finds the port of the service itself taken, says so, and ends with 2.
    release(&mut tenant, "v2");
    tenant.verify["timeoutMs"] = 2_000.into();
    tenant.verify["tcp"] = json!([{"address": format!("127.0.0.1:{shut}")}]);
    tenant.verify["exec"] = json!([{"service": "web", "command": ["/standin"]}]);
    let failed = tenant.run("two", "Release").await;
    assert_outcome(&failed, Outcome::RolledBack);
    let told = failure(&failed);
    assert_eq!((told.category, told.during), (FailureCategory::ProbeFailed, OperationPhase::Verify));
    assert!(told.message.contains("web: the command of verify.exec[0] ended with code 2"), "{told:?}");
    // The engine takes connections for a port that nobody listens at.
    assert!(
        told.message.contains(&format!("127.0.0.1:{shut}: the connection was ended at once")),
        "{told:?}"
    );
    assert_eq!(tenant.version_of("web"), "v1");
    let log = compose_log(&tenant);
    assert!(
        std::fs::read_to_string(&log).unwrap().contains("cannot be listened on"),
        "what it said is kept on the host"
    );
    assert_eq!(std::fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!format!("{failed:?}").contains("cannot be listened on"), "P12: and nowhere else");

    p15_a_command_that_does_not_end_is_not_waited_for(&tenant).await;

    // The previous release's own terms hold a command that the policy no longer allows.
    restart(&mut tenant, &[]).await;
    tenant.verify["exec"] = json!([]);
    let narrowed = tenant.run("three", "Release").await;
    assert_outcome(&narrowed, Outcome::RolledBack);
    let said: Vec<&str> = narrowed.phases.iter().filter_map(|phase| phase.message.as_deref()).collect();
    assert!(said.iter().any(|message| message.contains("verify.exec was left out")), "{said:?}");
}

async fn p15_a_command_that_does_not_end_is_not_waited_for(tenant: &Sandbox) {
    let engine = DockerEngine::new("unix:///var/run/docker.sock", Limits::default());
    let command = Argv::parse(vec!["/standin".to_owned()]).unwrap();
    let began = std::time::Instant::now();
    let limit = Duration::from_millis(300);
    let Executed::Running(id) = engine.execute(&tenant.container("worker"), &command, limit).await.unwrap()
    else {
        panic!("it waits for 3 s before it does anything");
    };
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(engine.exit_code(&id).await.unwrap(), None);
}
