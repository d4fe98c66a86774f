//! The image tag alone: a project that was there before, taken over and upgraded.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tenantry_api::Tenant;
use tenantry_api::tenant::Approach;
use tenantry_api::tenant_status::{Outcome, Phase};
use tenantry_tests::docker::{eventually, fingerprint};
use tenantry_tests::world::{World, condition, phase_of};

use crate::sample;

/// Within this, only a host's own word comes to the operator: by itself it looks once in a minute.
const TOLD: Duration = Duration::from_secs(20);

#[tokio::test]
async fn p7_p10_p12_an_image_only_upgrade_patches_one_value_and_is_verified() -> Result<()> {
    let world = World::start("imageonly").await?;
    let installed = sample::install(&world, "imageonly")?;
    let project = &installed.project;
    sample::publish(&installed.repository, "v2", &[])?;
    let containers = project.containers()?;
    let content = fingerprint(&project.directory.join("content"))?;

    let mut manifest = world.tenant(project, "v1");
    manifest["spec"]["protect"] = json!(["content/"]);
    world.apply(&manifest).await?;
    let tenant = world.until_ready_at("acme", "v1").await?;
    ensure!(project.containers()? == containers, "taking over an identical project changed its containers");
    ensure!(tenant.status.unwrap_or_default().upgrade.is_none(), "taking over needs no operation");

    manifest["spec"]["imageTag"] = json!("v2");
    world.apply(&manifest).await?;
    let tenant = world.until_ready_at("acme", "v2").await?;
    let status = tenant.status.clone().unwrap_or_default();
    assert_eq!(project.answer("/version").await?, "v2");
    assert_eq!(
        project.read(".env")?,
        sample::env_file("v2", project.port),
        "every other byte of .env is kept"
    );
    let plan = status.plan.context("a plan")?;
    assert_eq!(plan.approach, Approach::ImageOnly);
    let upgrade = status.upgrade.context("an upgrade")?;
    assert_eq!((upgrade.from.as_deref(), upgrade.to.as_str()), (Some("v1"), "v2"));
    assert_eq!(upgrade.outcome, Some(Outcome::Succeeded));
    let phases: Vec<Phase> = upgrade.phases.iter().map(|phase| phase.name).collect();
    for phase in [Phase::Planning, Phase::Pulling, Phase::Writing, Phase::Starting, Phase::Verifying] {
        ensure!(phases.contains(&phase), "{phase:?} is not among {phases:?}");
    }
    let deployed = status.deployed.context("what is deployed")?;
    for image in &deployed.images {
        let running = project.inspect(&image.service, "{{.Image}}")?;
        assert_eq!(image.image_id, running, "{} is said to run what it runs", image.service);
    }
    assert_eq!(condition(&tenant, "Ready").0, "True");
    assert_eq!(
        (condition(&tenant, "Reconciling").0.as_str(), condition(&tenant, "Stalled").0.as_str()),
        ("False", "False")
    );
    ensure!(condition(&tenant, "Ready").2.contains("worker"), "Ready names services without healthcheck");
    assert_eq!(
        fingerprint(&project.directory.join("content"))?,
        content,
        "P1: protected paths are as they were"
    );
    project.assert_hand_run_changes_nothing()?;
    world.assert_canary_unseen().await
}

#[tokio::test]
/// Nobody asks for a look: the host tells what happens to its containers.
async fn p10_a_service_that_stops_later_is_degraded_and_ready_again_when_it_is_back() -> Result<()> {
    let world = World::start("degraded").await?;
    let installed = sample::install(&world, "degraded")?;
    world.apply(&world.tenant(&installed.project, "v1")).await?;
    world.until_ready_at("acme", "v1").await?;
    installed.project.compose(&["stop", "web"])?;
    let degraded = |tenant: &Tenant| phase_of(tenant) == Some(Phase::Degraded);
    let tenant = world.until("acme", "Degraded", TOLD, degraded).await?;
    let (ready, _, message) = condition(&tenant, "Ready");
    ensure!(ready == "False" && message.contains("web"), "{message}");
    installed.project.compose(&["start", "web"])?;
    world.until("acme", "Ready", TOLD, |tenant| phase_of(tenant) == Some(Phase::Ready)).await?;
    Ok(())
}

#[tokio::test]
async fn suspend_holds_an_upgrade_back_and_then_lets_it_go() -> Result<()> {
    let world = World::start("suspend").await?;
    let installed = sample::install(&world, "suspend")?;
    sample::publish(&installed.repository, "v2", &[])?;
    let mut manifest = world.tenant(&installed.project, "v1");
    world.apply(&manifest).await?;
    world.until_ready_at("acme", "v1").await?;
    manifest["spec"]["suspend"] = json!(true);
    manifest["spec"]["imageTag"] = json!("v2");
    world.apply(&manifest).await?;
    let tenant = world.until_phase("acme", Phase::Suspended).await?;
    assert_eq!(condition(&tenant, "Ready").0, "False", "Ready is about the spec, which asks for v2");
    assert_eq!(installed.project.answer("/version").await?, "v1");
    world.patch("acme", json!({"spec": {"suspend": false}})).await?;
    world.until_ready_at("acme", "v2").await?;
    Ok(())
}

#[tokio::test]
async fn a_moved_tag_is_a_new_target_only_when_asked_for() -> Result<()> {
    let world = World::start("moved").await?;
    let installed = sample::install(&world, "moved")?;
    let project = &installed.project;
    world.apply(&world.tenant(project, "v1")).await?;
    world.until_ready_at("acme", "v1").await?;
    let before = project.inspect("web", "{{.Image}}")?;
    let standin = std::path::PathBuf::from(tenantry_tests::required("TENANTRY_STANDIN")?);
    let reference = format!("{}:v1", installed.repository);
    // Pushed over the tag from another name, so that this host's own tag stays where it was.
    let other = format!("{}-moved:v1", installed.repository);
    test_images::Image::version("v1-moved").build(&standin, &other)?;
    test_images::docker(&["tag", &reference, &format!("{other}-kept")])?;
    test_images::docker(&["tag", &other, &reference])?;
    test_images::docker(&["push", "--quiet", &reference])?;
    test_images::docker(&["tag", &format!("{other}-kept"), &reference])?;
    test_images::docker(&["rmi", &other, &format!("{other}-kept")])?;
    assert_eq!(project.inspect("web", "{{.Image}}")?, before);

    world.patch("acme", json!({"metadata": {"annotations": {"tenantry.dev/reconcile": "now"}}})).await?;
    eventually("the moved tag is deployed", Duration::from_mins(1), || async {
        let seen = project.answer("/version").await?;
        ensure!(seen == "v1-moved", "{seen}");
        Ok(())
    })
    .await?;
    let tenant = world.until_ready_at("acme", "v1").await?;
    let handled = tenant.status.unwrap_or_default().handled.unwrap_or_default();
    assert_eq!(handled.reconcile.as_deref(), Some("now"));
    project.assert_hand_run_changes_nothing()
}
