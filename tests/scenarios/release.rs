//! Releases that bring files: first installation, changed mounts, managed `.env`, files that go.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tenantry_api::tenant::Approach;
use tenantry_api::tenant_status::{Outcome, Phase};
use tenantry_tests::docker::Project;
use tenantry_tests::world::{World, condition};

use crate::sample::{self, put_bundle};

fn with_bundle(mut manifest: Value) -> Value {
    manifest["spec"]["bundle"] = json!("sample");
    manifest
}

#[tokio::test]
async fn p1_p7_p11_a_release_is_installed_and_upgraded_with_its_files() -> Result<()> {
    let world = World::start("release").await?;
    let repository = sample::repository("release")?;
    sample::publish(&repository, "v1", &[])?;
    sample::publish(&repository, "v2", &[])?;
    let project = Project::new(&world.srv, "release")?;
    project.write(".env", &sample::env_file("none", project.port))?;
    project.write("content/index.md", "the tenant's own words\n")?;
    put_bundle(&world, &sample::bundle_files(&repository, "hello")).await?;
    let manifest = with_bundle(world.tenant(&project, "v1"));
    world.apply(&manifest).await?;
    let tenant = world.until_ready_at("acme", "v1").await?;
    assert_eq!(project.answer("/version").await?, "v1");
    ensure!(project.answer("/config").await?.contains("hello v1"));
    let files = tenant.status.unwrap_or_default().plan.context("a plan")?.files;
    assert_eq!((files.created, files.modified, files.deleted, files.unchanged), (2, 0, 0, 0));
    project.assert_hand_run_changes_nothing()?;

    world.patch("acme", json!({"spec": {"imageTag": "v2"}})).await?;
    let tenant = world.until_ready_at("acme", "v2").await?;
    assert_eq!(project.answer("/version").await?, "v2");
    ensure!(project.answer("/config").await?.contains("hello v2"), "the mounted file was read as it is now");
    let plan = tenant.status.unwrap_or_default().plan.context("a plan")?;
    assert_eq!(plan.approach, Approach::Release, "Auto chose Release, for a file changes");
    assert_eq!((plan.files.created, plan.files.modified, plan.files.unchanged), (0, 1, 1));
    project.assert_hand_run_changes_nothing()?;

    // Only the mounted file changes: compose itself would do nothing, and the old file would be served for ever.
    put_bundle(&world, &sample::bundle_files(&repository, "good evening")).await?;
    world
        .until("acme", "the new greeting is deployed", tenantry_tests::world::SOON, |tenant| {
            let upgrade = tenant.status.as_ref().and_then(|status| status.upgrade.as_ref());
            let ready = tenantry_tests::world::phase_of(tenant) == Some(Phase::Ready);
            ready && upgrade.is_some_and(|upgrade| upgrade.from.as_deref() == Some("v2"))
        })
        .await?;
    ensure!(
        project.answer("/config").await?.contains("good evening v2"),
        "{}",
        project.answer("/config").await?
    );
    project.assert_hand_run_changes_nothing()?;
    world.assert_canary_unseen().await
}

#[tokio::test]
async fn p7_a_managed_env_is_rendered_whole_and_its_readers_are_named() -> Result<()> {
    let world = World::start("managed").await?;
    let repository = sample::repository("managed")?;
    sample::publish(&repository, "v1", &[])?;
    sample::publish(&repository, "v2", &[])?;
    let project = Project::new(&world.srv, "managed")?;
    project.write("content/index.md", "own\n")?;
    let mut files = sample::bundle_files(&repository, "hello");
    files[0].1.push_str("- source: .env.tera\n");
    let env = format!(
        "IMAGE_TAG={{{{ imageTag }}}}\nHTTP_PORT={}\nTOKEN={}\n",
        project.port,
        tenantry_tests::world::CANARY
    );
    files.push((".env.tera", env));
    files[1].1.push_str("    env_file: .env\n");
    put_bundle(&world, &files).await?;
    let mut manifest = with_bundle(world.tenant(&project, "v1"));
    manifest["spec"]["env"] = json!({"ownership": "Managed"});
    world.apply(&manifest).await?;
    world.until_ready_at("acme", "v1").await?;
    world.patch("acme", json!({"spec": {"imageTag": "v2"}})).await?;
    let tenant = world.until_ready_at("acme", "v2").await?;
    let recreates = tenant.status.unwrap_or_default().plan.context("a plan")?.recreates;
    let worker =
        recreates.iter().find(|recreate| recreate.service == "worker").context("worker is recreated")?;
    ensure!(worker.cause.contains(".env") || worker.cause.contains("image"), "{}", worker.cause);
    project.assert_hand_run_changes_nothing()?;
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(project.directory.join(".env"))?.permissions(),
    );
    assert_eq!(mode & 0o077, 0, ".env is for its owner alone, it was {mode:o}");
    world.assert_canary_unseen().await
}

#[tokio::test]
async fn a_file_that_the_release_no_longer_has_is_deleted_unless_it_was_edited() -> Result<()> {
    let world = World::start("leftover").await?;
    let repository = sample::repository("leftover")?;
    sample::publish(&repository, "v1", &[])?;
    let project = Project::new(&world.srv, "leftover")?;
    project.write(".env", &sample::env_file("none", project.port))?;
    project.write("content/index.md", "own\n")?;
    let mut files = sample::bundle_files(&repository, "hello");
    files[0].1.push_str("- source: extra/one.txt\n- source: extra/two.txt\n");
    files.push(("extra/one.txt", "one\n".to_owned()));
    files.push(("extra/two.txt", "two\n".to_owned()));
    put_bundle(&world, &files).await?;
    world.apply(&with_bundle(world.tenant(&project, "v1"))).await?;
    world.until_ready_at("acme", "v1").await?;
    project.write("extra/two.txt", "edited by hand\n")?;

    put_bundle(&world, &sample::bundle_files(&repository, "hello again")).await?;
    let tenant = world
        .until("acme", "the smaller release runs", tenantry_tests::world::SOON, |tenant| {
            let plan = tenant.status.as_ref().and_then(|status| status.plan.as_ref());
            tenantry_tests::world::phase_of(tenant) == Some(Phase::Ready)
                && plan.is_some_and(|plan| plan.files.deleted == 1)
        })
        .await?;
    ensure!(!project.directory.join("extra/one.txt").exists());
    assert_eq!(project.read("extra/two.txt")?, "edited by hand\n");
    let upgrade = tenant.status.clone().unwrap_or_default().upgrade.context("an upgrade")?;
    assert_eq!(upgrade.outcome, Some(Outcome::Succeeded));
    let told = serde_json::to_string(&upgrade)? + &condition(&tenant, "Ready").2;
    ensure!(told.contains("extra/two.txt"), "the file that was left is named: {told}");
    Ok(())
}

#[tokio::test]
async fn p11_a_service_that_the_release_no_longer_has_is_taken_away_by_name() -> Result<()> {
    let world = World::start("removed").await?;
    let repository = sample::repository("removed")?;
    sample::publish(&repository, "v1", &[])?;
    let project = Project::new(&world.srv, "removed")?;
    project.write(".env", &sample::env_file("none", project.port))?;
    project.write("content/index.md", "own\n")?;
    put_bundle(&world, &sample::bundle_files(&repository, "hello")).await?;
    world.apply(&with_bundle(world.tenant(&project, "v1"))).await?;
    world.until_ready_at("acme", "v1").await?;
    let worker = project.inspect("worker", "{{.Id}}")?;

    let mut files = sample::bundle_files(&repository, "hello");
    let end = files[1].1.find("  worker:").context("the worker's part")?;
    files[1].1.truncate(end);
    put_bundle(&world, &files).await?;
    let tenant = world
        .until("acme", "the release without worker runs", tenantry_tests::world::SOON, |tenant| {
            let status = tenant.status.as_ref();
            let deployed = status.and_then(|status| status.deployed.as_ref());
            tenantry_tests::world::phase_of(tenant) == Some(Phase::Ready)
                && deployed
                    .is_some_and(|deployed| deployed.images.iter().all(|image| image.service != "worker"))
        })
        .await?;
    ensure!(project.inspect("worker", "{{.Id}}").is_err(), "the worker's container {worker} is still there");
    let told = serde_json::to_string(&tenant.status.unwrap_or_default().upgrade)?;
    ensure!(told.contains("no longer in the release and removed: worker"), "the plan names it: {told}");
    Ok(())
}

#[tokio::test]
async fn an_upgrade_that_would_overwrite_a_hand_edited_file_is_refused() -> Result<()> {
    let world = World::start("edited").await?;
    let repository = sample::repository("edited")?;
    sample::publish(&repository, "v1", &[])?;
    sample::publish(&repository, "v2", &[])?;
    let project = Project::new(&world.srv, "edited")?;
    project.write(".env", &sample::env_file("none", project.port))?;
    project.write("content/index.md", "own\n")?;
    put_bundle(&world, &sample::bundle_files(&repository, "hello")).await?;
    world.apply(&with_bundle(world.tenant(&project, "v1"))).await?;
    world.until_ready_at("acme", "v1").await?;
    project.write("config/web.conf", "GREETING=edited by hand\n")?;
    world.patch("acme", json!({"metadata": {"annotations": {"tenantry.dev/reconcile": "1"}}})).await?;
    let drifted = |tenant: &tenantry_api::Tenant| condition(tenant, "Drifted").0 == "True";
    let tenant = world.until("acme", "drift is shown", tenantry_tests::world::SOON, drifted).await?;
    ensure!(condition(&tenant, "Drifted").2.contains("config/web.conf"));
    assert_eq!(project.read("config/web.conf")?, "GREETING=edited by hand\n", "drift is not repaired");

    world.patch("acme", json!({"spec": {"imageTag": "v2"}})).await?;
    let tenant = world.until_phase("acme", Phase::Refused).await?;
    let (_, reason, message) = condition(&tenant, "Ready");
    assert_eq!(reason, "HandEdited");
    ensure!(message.contains("config/web.conf (+1 -1 lines against the bundle)"), "{message}");
    assert_eq!(project.answer("/version").await?, "v1");
    assert_eq!(project.read("config/web.conf")?, "GREETING=edited by hand\n");
    ensure!(project.read(".env")?.contains("IMAGE_TAG=\"v1\""), "nothing was changed");
    Ok(())
}
