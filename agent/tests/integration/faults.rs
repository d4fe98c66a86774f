//! What a seeded bug must not get away with on a real engine.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::{Sandbox, assert_outcome, docker};
use tenantry_agent::compose::inputs;
use tenantry_agent::operation::up_arguments;
use tenantry_api::names::OperationId;
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::{OperationPhase, Place};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_a_first_installation_that_fails_leaves_the_volumes_that_it_made() {
    let mut tenant = Sandbox::new("volumes").await;
    tenant.write(".env", "IMAGE_TAG=none\n");
    tenant.publish("v1", &[("HEALTHY_AFTER", "1h")]);
    let compose =
        tenant.compose().replace("./conf.d:/conf.d:ro\"", "./conf.d:/conf.d:ro\", \"/made\", \"kept:/kept\"");
    tenant.manage("docker-compose.yml", &format!("{compose}volumes: {{kept: {{}}}}\n"));
    tenant.manage("config/web.conf", "GREETING=one\n");
    tenant.manage("conf.d/a.conf", "one\n");
    tenant.tag("v1");
    tenant.verify["timeoutMs"] = 3_000.into();
    tenant.submit("one", tenant.request("Release")).await.unwrap();
    let volumes = while_it_runs(&tenant).await;
    assert_eq!(volumes.len(), 2, "{volumes:?}");
    assert_outcome(&tenant.ended("one").await, Outcome::RolledBack);
    assert_eq!(tenant.containers(), []);
    for volume in &volumes {
        let found = docker(&["volume", "inspect", "--format", "{{.Name}}", volume]);
        assert_eq!(found, *volume, "the volume {volume} is gone");
    }
    for volume in volumes {
        docker(&["volume", "rm", &volume]);
    }
}

/// The volumes of `web`, once it was made.
async fn while_it_runs(tenant: &Sandbox) -> Vec<String> {
    let id = OperationId::parse("one").unwrap();
    let mut after = 0;
    loop {
        let status = tenant.core().operation(&id, after, Duration::from_secs(5)).await.unwrap();
        assert!(status.state == tenantry_protocol::OperationState::Running, "{status:#?}");
        after = status.seq;
        if status.phases.iter().any(|phase| phase.name == OperationPhase::Verify) {
            break;
        }
    }
    let format = "{{range .Mounts}}{{if eq .Type \"volume\"}}{{.Name}} {{end}}{{end}}";
    let names = docker(&["inspect", "--format", format, &tenant.container("web")]);
    names.split_ascii_whitespace().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_compose_is_told_to_touch_what_is_named_and_nothing_else() {
    let mut tenant = Sandbox::new("named").await;
    tenant.write(".env", "IMAGE_TAG=v1\n");
    tenant.publish("v1", &[]);
    let compose =
        tenant.compose().replace("depends_on: {", "depends_on: {worker: {condition: service_started}, ");
    tenant.manage("docker-compose.yml", &compose);
    tenant.manage("config/web.conf", "GREETING=one\n");
    tenant.manage("conf.d/a.conf", "one\n");
    tenant.tag("v1");
    assert_outcome(&tenant.run("one", "Release").await, Outcome::Succeeded);
    let (web, worker) = (tenant.container("web"), tenant.container("worker"));
    // Both change, and one is named.
    let both = compose.replace("    stop_grace_period: 1s\n", "    stop_grace_period: 2s\n");
    tenant.write("docker-compose.yml", &both);
    let place: Place = serde_json::from_value(
        serde_json::json!({"project": tenant.project, "directory": tenant.directory()}),
    )
    .unwrap();
    let directory = tenant.directory();
    let read =
        |path: &tenantry_api::names::RelativePath| Ok(std::fs::read(directory.join(path.as_str())).ok());
    let discovered =
        inputs(&place, &read, &|_: &str, _| Ok(tenantry_agent::compose::Seen::Text(None))).unwrap().unwrap();
    let run = Command::new("docker")
        .arg("compose")
        .args(up_arguments(&place, &discovered, &[], &["web"]))
        .current_dir(Path::new(&directory))
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert_ne!(tenant.container("web"), web, "what is named was not recreated");
    assert_eq!(tenant.container("worker"), worker, "what is not named was recreated");
}
