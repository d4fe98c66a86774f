//! What people and machines are told: the command line, events, metrics, health, and how few writes that takes.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use kube::api::{WatchEvent, WatchParams};
use serde_json::json;
use tenantry_tests::program;
use tenantry_tests::world::{SOON, World};

use crate::sample;

fn tenantry(world: &World, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(program("tenantry")?);
    command
        .args(arguments)
        .args(["--namespace", &world.namespace])
        .env("KUBECONFIG", &world.plane.kubeconfig);
    Ok(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_told_in_few_writes_and_by_every_teller() -> Result<()> {
    let world = World::start("telling").await?;
    let installed = sample::install(&world, "telling")?;
    sample::publish(&installed.repository, "v2", &[])?;
    world.apply(&world.tenant(&installed.project, "v1")).await?;
    let before = world.until_ready_at("acme", "v1").await?;

    let from = before.metadata.resource_version.context("a version")?;
    let parameters = WatchParams::default().fields("metadata.name=acme").timeout(120);
    let mut changes = world.tenants().watch(&parameters, &from).await?.boxed();
    world.patch("acme", json!({"spec": {"imageTag": "v2"}})).await?;
    let mut watch = tenantry(&world, &["watch", "acme", "--until-ended", "--timeout", "90s"])?;
    let watch = watch.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn()?;
    let mut writes = 0;
    loop {
        let change = tokio::time::timeout(Duration::from_secs(90), changes.next())
            .await?
            .context("the watch ended")??;
        let WatchEvent::Modified(tenant) = change else { continue };
        writes += 1;
        let deployed = tenant.status.and_then(|status| status.deployed);
        if deployed.is_some_and(|deployed| deployed.image_tag == "v2") {
            break;
        }
    }
    ensure!(writes <= 10, "{writes} writes for one upgrade, the person's own among them");
    let watched = watch.wait_with_output()?;
    let said = String::from_utf8(watched.stdout)?;
    ensure!(watched.status.success(), "{said}{}", String::from_utf8_lossy(&watched.stderr));
    for phase in ["Pulling", "Starting", "Verifying"] {
        ensure!(said.contains(phase), "{phase} is missing in\n{said}");
    }

    world.until_ready_at("acme", "v2").await?;
    let status = tenantry(&world, &["status"])?.output()?;
    let table = String::from_utf8(status.stdout)?;
    ensure!(
        status.status.success() && table.contains("acme") && table.contains("v2") && table.contains("Ready"),
        "{table}"
    );
    ensure!(table.lines().all(|line| line.chars().count() <= 80), "it fits 80 columns:\n{table}");
    let unknown = tenantry(&world, &["status", "acne"])?.output()?;
    let said = String::from_utf8(unknown.stderr)?;
    ensure!(
        !unknown.status.success() && said.contains("acne") && said.contains("acme"),
        "a near name is named: {said}"
    );

    let notes: Vec<String> = world.events().await?.into_iter().filter_map(|event| event.note).collect();
    ensure!(notes.iter().any(|note| note.contains("succeeded")), "{notes:?}");
    for process in [&world.operator, &world.agent] {
        let process = process.as_ref().context("a process")?;
        let page = World::metrics(process).await?;
        ensure!(page.contains("# TYPE tenantry_"), "{page}");
        let address = process.ready_text("metrics")?;
        for path in ["healthz", "readyz"] {
            let answer = reqwest::get(format!("http://{address}/{path}")).await?;
            ensure!(answer.status().is_success(), "{path}: {}", answer.status());
        }
    }
    world.assert_canary_unseen().await
}

#[tokio::test]
async fn a_host_says_its_versions_and_a_bundle_its_digest() -> Result<()> {
    let world = World::start("hosts").await?;
    let files = sample::bundle_files("registry.invalid/x", "hello");
    sample::put_bundle(&world, &files).await?;
    tenantry_tests::docker::eventually("the host is described", SOON, || async {
        let status = world.hosts().get("n5").await?.status.unwrap_or_default();
        let ready = tenantry_api::conditions::find(&status.conditions, "Ready").context("no Ready")?;
        ensure!(ready.status == "True", "{}", ready.message);
        ensure!(status.docker_version.is_some() && status.compose_version.is_some() && status.disk.is_some());
        Ok(())
    })
    .await?;
    tenantry_tests::docker::eventually("the bundle is resolved", SOON, || async {
        let status = world.bundles().get("sample").await?.status.unwrap_or_default();
        ensure!(status.files == Some(2), "{:?}", status.files);
        ensure!(status.digest.is_some_and(|digest| digest.starts_with("sha256:")));
        Ok(())
    })
    .await
}
