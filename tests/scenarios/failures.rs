//! Releases that do not come up: each ends in a truthful outcome, and the previous release runs.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::events::v1::Event;
use serde_json::{Value, json};
use tenantry_api::Tenant;
use tenantry_api::tenant_status::{Outcome, Phase};
use tenantry_tests::docker::{Project, eventually};
use tenantry_tests::program;
use tenantry_tests::world::{SOON, World, condition};

use crate::sample::{self, Installed};

/// Takes the sample over at `v1`, then asks for a release that fails, and waits for the phase that it must end in.
async fn fail(
    world: &World,
    installed: &Installed,
    manifest: &Value,
    tag: &str,
    phase: Phase,
) -> Result<Tenant> {
    let mut manifest = manifest.clone();
    world.apply(&manifest).await?;
    world.until_ready_at("acme", "v1").await?;
    manifest["spec"]["imageTag"] = json!(tag);
    world.apply(&manifest).await?;
    let tenant = world.until_phase("acme", phase).await?;
    assert_eq!(tenant.spec.release(), tag, "the spec is never touched");
    let status = tenant.status.clone().unwrap_or_default();
    let blocked = status.blocked_target.context("the target is blocked")?;
    assert_eq!(blocked.image_tag, tag);
    assert_eq!(status.deployed.context("what is deployed")?.image_tag, "v1");
    assert_eq!(condition(&tenant, "Stalled").0, "True");
    assert_eq!(condition(&tenant, "Reconciling").0, "False");
    if phase != Phase::Held {
        assert_eq!(installed.project.answer("/version").await?, "v1");
        assert_eq!(installed.project.read(".env")?, sample::env_file("v1", installed.project.port));
        installed.project.assert_hand_run_changes_nothing()?;
    }
    Ok(tenant)
}

fn outcome(tenant: &Tenant) -> Option<Outcome> {
    tenant.status.as_ref().and_then(|status| status.upgrade.as_ref()).and_then(|upgrade| upgrade.outcome)
}

#[tokio::test]
async fn p4_p9_p16_a_release_that_never_gets_healthy_is_rolled_back_and_not_tried_again() -> Result<()> {
    let world = World::start("unhealthy").await?;
    let installed = sample::install(&world, "unhealthy")?;
    sample::publish(&installed.repository, "v2", &[("HEALTHY_AFTER", "1h")])?;
    sample::publish(&installed.repository, "v3", &[])?;
    let mut manifest = world.tenant(&installed.project, "v1");
    manifest["spec"]["upgrade"]["verify"]["timeout"] = json!("6s");
    let tenant = fail(&world, &installed, &manifest, "v2", Phase::RolledBack).await?;
    assert_eq!(outcome(&tenant), Some(Outcome::RolledBack));
    let (ready, _, message) = condition(&tenant, "Ready");
    ensure!(ready == "False" && message.contains("web"), "the message names the service: {message}");
    let first = tenant.status.clone().unwrap_or_default().upgrade.context("an upgrade")?;
    let web = first.failures.iter().find(|one| one.service == "web").context("web's own words")?;
    ensure!(web.healthcheck.as_ref().is_some_and(|text| text.contains("503")), "{web:?}");

    // Nothing but a retry or another target makes it try again.
    world.patch("acme", json!({"metadata": {"annotations": {"tenantry.dev/reconcile": "again"}}})).await?;
    let handled = |tenant: &Tenant| {
        let handled = tenant.status.as_ref().and_then(|status| status.handled.as_ref());
        handled.and_then(|handled| handled.reconcile.as_deref()) == Some("again")
    };
    let tenant =
        world.until("acme", "the annotation is handled", tenantry_tests::world::SOON, handled).await?;
    assert_eq!(tenant.status.unwrap_or_default().upgrade.map(|upgrade| upgrade.id), Some(first.id.clone()));

    world.patch("acme", json!({"metadata": {"annotations": {"tenantry.dev/retry": "1"}}})).await?;
    let tried_again = |tenant: &Tenant| {
        let upgrade = tenant.status.as_ref().and_then(|status| status.upgrade.as_ref());
        upgrade.is_some_and(|upgrade| upgrade.id != first.id && upgrade.outcome == Some(Outcome::RolledBack))
    };
    let tenant = world.until("acme", "a retry fails again", tenantry_tests::world::SOON, tried_again).await?;
    assert_eq!(tenant.status.unwrap_or_default().upgrade.context("an upgrade")?.attempt, 2);

    world.patch("acme", json!({"spec": {"imageTag": "v3"}})).await?;
    let tenant = world.until_ready_at("acme", "v3").await?;
    ensure!(tenant.status.unwrap_or_default().blocked_target.is_none(), "another target is not blocked");
    world.assert_canary_unseen().await
}

#[tokio::test]
async fn p16_an_image_that_dies_at_once_is_rolled_back_without_waiting_for_the_timeout() -> Result<()> {
    let world = World::start("dies").await?;
    let installed = sample::install(&world, "dies")?;
    let says = "boom: cannot open config, token $TOKEN";
    sample::publish(&installed.repository, "v2", &[("CRASH_AFTER", "200ms"), ("SAYS", says)])?;
    let mut manifest = world.tenant(&installed.project, "v1");
    manifest["spec"]["upgrade"]["verify"]["timeout"] = json!("1h");
    let tenant = fail(&world, &installed, &manifest, "v2", Phase::RolledBack).await?;
    assert_eq!(outcome(&tenant), Some(Outcome::RolledBack));
    let words = "boom: cannot open config, token ${TOKEN}";
    let upgrade = tenant.status.clone().unwrap_or_default().upgrade.context("an upgrade")?;
    let first = upgrade.failures.first().context("a service's own words")?;
    ensure!(first.log.iter().any(|line| line.starts_with("boom: cannot open config")), "{first:?}");
    let web = upgrade.failures.iter().find(|one| one.service == "web").context("web's own words")?;
    ensure!(web.log.iter().any(|line| line == words), "the canary is masked: {web:?}");
    let told = |event: &&Event| event.reason.as_deref() == Some("ServiceFailed");
    eventually("both services' words are in events", SOON, || async {
        let events = world.events().await?;
        let notes: Vec<_> = events.iter().filter(told).filter_map(|event| event.note.as_deref()).collect();
        let told = |service: &str, words: &str| {
            notes.iter().any(|note| note.contains(&format!(": {service} ")) && note.contains(words))
        };
        ensure!(told("worker", "boom: cannot open config") && told("web", words), "{notes:?}");
        Ok(())
    })
    .await?;
    assert_eq!(condition(&tenant, "Stalled").1, "Crashed");
    let (_, _, message) = condition(&tenant, "Ready");
    ensure!(message.contains("said last"), "{message}");
    let shown = Command::new(program("tenantry")?)
        .args(["status", "acme", "--namespace", &world.namespace])
        .env("KUBECONFIG", &world.plane.kubeconfig)
        .output()?;
    let shown = String::from_utf8(shown.stdout)?;
    ensure!(shown.contains("| boom: cannot open config"), "{shown}");
    let table = Command::new("kubectl")
        .args(["get", "tenants", "--namespace", &world.namespace])
        .env("KUBECONFIG", &world.plane.kubeconfig)
        .output()?;
    let table = String::from_utf8(table.stdout)?;
    ensure!(table.lines().count() == 2 && table.lines().all(|line| line.chars().count() <= 80), "{table}");
    ensure!(table.contains("RolledBack: "), "{table}");
    world.assert_canary_unseen().await
}

#[tokio::test]
async fn p16_a_service_that_the_engine_cannot_start_is_named_with_what_the_engine_said() -> Result<()> {
    let world = World::start("unstartable").await?;
    let installed = sample::install(&world, "unstartable")?;
    let standin = std::path::PathBuf::from(tenantry_tests::required("TENANTRY_STANDIN")?);
    let image = test_images::Image::version("v2").entrypoint("/app/server");
    image.publish(&standin, &format!("{}:v2", installed.repository))?;
    let tenant =
        fail(&world, &installed, &world.tenant(&installed.project, "v1"), "v2", Phase::RolledBack).await?;
    assert_eq!(condition(&tenant, "Stalled").1, "StartFailed");
    let upgrade = tenant.status.clone().unwrap_or_default().upgrade.context("an upgrade")?;
    let first = upgrade.failures.first().context("a service is named")?;
    let said = format!("{} could not be started: exec: \"/app/server\"", first.service);
    ensure!(first.problem.starts_with(&said), "{:?}", upgrade.failures);
    let (_, _, message) = condition(&tenant, "Ready");
    ensure!(message.contains(&said), "{message}");
    let summary = tenant.status.unwrap_or_default().summary.unwrap_or_default();
    ensure!(summary.starts_with(&format!("RolledBack: {} start", first.service)), "{summary}");
    world.assert_canary_unseen().await
}

#[tokio::test]
async fn p8_p16_an_image_that_the_registry_does_not_have_aborts_before_anything_is_changed() -> Result<()> {
    let world = World::start("missing").await?;
    let installed = sample::install(&world, "missing")?;
    let before = installed.project.containers()?;
    let tenant =
        fail(&world, &installed, &world.tenant(&installed.project, "v1"), "v9", Phase::Aborted).await?;
    assert_eq!(outcome(&tenant), Some(Outcome::Aborted));
    assert_eq!(installed.project.containers()?, before, "nothing was touched");
    let (_, _, message) = condition(&tenant, "Ready");
    ensure!(
        message.contains(&format!("no image {}:v9", installed.repository)),
        "the image is named: {message}"
    );
    ensure!(message.contains("correct the tag"), "{message}");
    world.assert_canary_unseen().await
}

#[tokio::test]
async fn p13_a_registry_that_the_hosts_policy_does_not_allow_is_refused() -> Result<()> {
    let world = World::start("policy").await?;
    let installed = sample::install(&world, "policy")?;
    let manifest = world.tenant(&installed.project, "v1");
    world.apply(&manifest).await?;
    world.until_ready_at("acme", "v1").await?;
    let foreign = format!("registry.invalid/{}", installed.repository.split_once('/').context("a path")?.1);
    let compose = installed.project.read("docker-compose.yml")?;
    installed.project.write("docker-compose.yml", &compose.replacen(&installed.repository, &foreign, 1))?;
    world.patch("acme", json!({"spec": {"imageTag": "v2"}})).await?;
    let ended = |tenant: &Tenant| {
        matches!(tenantry_tests::world::phase_of(tenant), Some(Phase::Aborted | Phase::Refused))
    };
    let tenant = world.until("acme", "the upgrade is refused", tenantry_tests::world::SOON, ended).await?;
    let (_, _, message) = condition(&tenant, "Ready");
    ensure!(message.contains("registry.invalid"), "{message}");
    assert_eq!(installed.project.answer("/version").await?, "v1");
    ensure!(installed.project.read(".env")?.contains("IMAGE_TAG=\"v1\""));
    Ok(())
}

#[tokio::test]
async fn p16_hold_leaves_the_failed_release_running_on_purpose() -> Result<()> {
    let world = World::start("hold").await?;
    let installed = sample::install(&world, "hold")?;
    sample::publish(&installed.repository, "v2", &[("HEALTHY_AFTER", "1h")])?;
    let mut manifest = world.tenant(&installed.project, "v1");
    manifest["spec"]["upgrade"]["verify"]["timeout"] = json!("4s");
    manifest["spec"]["upgrade"]["onFailure"] = json!("Hold");
    let tenant = fail(&world, &installed, &manifest, "v2", Phase::Held).await?;
    assert_eq!(outcome(&tenant), Some(Outcome::Held));
    assert_eq!(installed.project.answer("/version").await?, "v2");
    Ok(())
}

#[tokio::test]
async fn p10_a_failed_http_probe_rolls_back() -> Result<()> {
    let world = World::start("probe").await?;
    let installed = sample::install(&world, "probe")?;
    sample::publish(&installed.repository, "v2", &[])?;
    let mut manifest = world.tenant(&installed.project, "v1");
    let url = format!("http://127.0.0.1:{}/version", installed.project.port);
    manifest["spec"]["upgrade"]["verify"]["timeout"] = json!("5s");
    manifest["spec"]["upgrade"]["verify"]["http"] = json!([{"url": url, "contains": "v1"}]);
    let tenant = fail(&world, &installed, &manifest, "v2", Phase::RolledBack).await?;
    let (_, _, message) = condition(&tenant, "Ready");
    ensure!(message.contains(&url), "{message}");
    Ok(())
}

#[tokio::test]
async fn p9_p11_a_first_installation_that_fails_takes_back_what_it_made() -> Result<()> {
    let world = World::start("first").await?;
    let repository = sample::repository("first")?;
    sample::publish(&repository, "v1", &[("HEALTHY_AFTER", "1h")])?;
    let project = Project::new(&world.srv, "first")?;
    project.write(".env", &sample::env_file("none", project.port))?;
    project.write("content/index.md", "own\n")?;
    let files = sample::bundle_files(&repository, "hello");
    sample::put_bundle(&world, &files).await?;
    let mut manifest = world.tenant(&project, "v1");
    manifest["spec"]["bundle"] = json!("sample");
    manifest["spec"]["upgrade"]["verify"]["timeout"] = json!("4s");
    world.apply(&manifest).await?;
    let tenant = world.until_phase("acme", Phase::RolledBack).await?;
    let status = tenant.status.unwrap_or_default();
    ensure!(status.deployed.is_none(), "nothing is deployed");
    ensure!(project.containers()?.is_empty(), "its containers are gone: {:?}", project.containers()?);
    ensure!(!project.directory.join("docker-compose.yml").exists());
    ensure!(!project.directory.join("config").exists(), "folders that were made are gone");
    assert_eq!(project.read(".env")?, sample::env_file("none", project.port));
    Ok(())
}

#[tokio::test]
async fn p9_files_are_restored_with_the_images() -> Result<()> {
    let world = World::start("files").await?;
    let repository = sample::repository("files")?;
    sample::publish(&repository, "v1", &[])?;
    sample::publish(&repository, "v2", &[("HEALTHY_AFTER", "1h")])?;
    let project = Project::new(&world.srv, "files")?;
    project.write(".env", &sample::env_file("none", project.port))?;
    project.write("content/index.md", "own\n")?;
    let files = sample::bundle_files(&repository, "hello");
    sample::put_bundle(&world, &files).await?;
    let mut manifest = world.tenant(&project, "v1");
    manifest["spec"]["bundle"] = json!("sample");
    manifest["spec"]["upgrade"]["verify"]["timeout"] = json!("6s");
    world.apply(&manifest).await?;
    world.until_ready_at("acme", "v1").await?;
    let env = project.read(".env")?;
    world.patch("acme", json!({"spec": {"imageTag": "v2"}})).await?;
    let tenant = world.until_phase("acme", Phase::RolledBack).await?;
    assert_eq!(project.answer("/version").await?, "v1");
    ensure!(
        project.answer("/config").await?.contains("hello v1"),
        "the running service reads the restored file"
    );
    assert_eq!(project.read(".env")?, env);
    assert_eq!(condition(&tenant, "Drifted").0, "False");
    project.assert_hand_run_changes_nothing()
}
