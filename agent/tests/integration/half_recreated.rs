//! A compose that was killed while it recreated a container leaves one under the name `<12 hex digits>_<name>`.

use crate::support::{Sandbox, assert_outcome, docker};
use serde_json::Value;
use tenantry_api::tenant_status::Outcome;

/// Makes a container with the labels of another one, as compose makes it before it stops the old one.
fn twin(of: &str, name: &str, image: &str) -> String {
    let labels = docker(&["inspect", "-f", "{{json .Config.Labels}}", of]);
    let labels: Value = serde_json::from_str(&labels).unwrap();
    let labels: Vec<String> = labels
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| format!("--label={key}={}", value.as_str().unwrap()))
        .collect();
    let mut arguments = vec!["create", "--name", name];
    arguments.extend(labels.iter().map(String::as_str));
    arguments.push(image);
    docker(&arguments).trim().to_owned()
}

fn names(tenant: &Sandbox) -> Vec<String> {
    let filter = format!("label=com.docker.compose.project={}", tenant.project);
    let all = docker(&["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"]);
    let mut names: Vec<String> = all.lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// A project at v1 and its containers' names.
async fn at_v1(name: &str) -> (Sandbox, Vec<String>, String, String) {
    let mut tenant = Sandbox::usual(name).await;
    tenant.publish("v1", &[]);
    tenant.publish("v2", &[]);
    tenant.tag("v1");
    assert_outcome(&tenant.run("1a2b3c4d-1", "ImageOnly").await, Outcome::Succeeded);
    let before = names(&tenant);
    let own = format!("{}-worker-1", tenant.project);
    let id = docker(&["inspect", "-f", "{{.Id}}", &own]);
    let half = format!("{}_{own}", &id.trim()[..12]);
    (tenant, before, own, half)
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_of_two_containers_of_a_killed_compose_one_is_left() {
    let (mut tenant, before, own, half) = at_v1("halftwo").await;
    tenant.tag("v2");
    let image = format!("{}:v1", tenant.repository);
    twin(&own, &half, &image);
    assert_eq!(names(&tenant).len(), before.len() + 1);
    assert_outcome(&tenant.run("1a2b3c4d-2", "ImageOnly").await, Outcome::Succeeded);
    assert_eq!(names(&tenant), before);
    assert_eq!(tenant.version_of("worker"), "v2");
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_a_half_recreated_container_gets_its_name_again() {
    let (tenant, before, own, half) = at_v1("halfname").await;
    // Killed between the old container's removal and the renaming, with the release in the new one: compose has no
    // reason to make another.
    docker(&["rename", &own, &half]);
    assert_ne!(names(&tenant), before);
    assert_outcome(&tenant.run("1a2b3c4d-2", "ImageOnly").await, Outcome::Succeeded);
    assert_eq!(names(&tenant), before);
}
