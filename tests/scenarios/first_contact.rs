//! First contact with what is already there, and the end of a Tenant.

use anyhow::{Result, ensure};
use serde_json::json;
use tenantry_api::tenant_status::Phase;
use tenantry_tests::docker::{Project, eventually};
use tenantry_tests::world::{SOON, World, condition};

use crate::sample;

#[tokio::test]
async fn a_project_that_differs_is_listed_and_left_alone_until_overwriting_is_asked_for() -> Result<()> {
    let world = World::start("contact").await?;
    let installed = sample::install(&world, "contact")?;
    sample::publish(&installed.repository, "v2", &[])?;
    let before = installed.project.containers()?;
    let mut manifest = world.tenant(&installed.project, "v2");
    world.apply(&manifest).await?;
    let tenant = world.until_phase("acme", Phase::AdoptionNeeded).await?;
    let (_, reason, message) = condition(&tenant, "Stalled");
    assert_eq!(reason, "AdoptionNeeded");
    ensure!(message.contains("IMAGE_TAG"), "{message}");
    assert_eq!(installed.project.containers()?, before);
    assert_eq!(installed.project.read(".env")?, sample::env_file("v1", installed.project.port));

    manifest["spec"]["adopt"] = json!("Overwrite");
    world.apply(&manifest).await?;
    world.until_ready_at("acme", "v2").await?;
    assert_eq!(installed.project.answer("/version").await?, "v2");
    Ok(())
}

#[tokio::test]
async fn p11_containers_made_from_another_directory_are_never_taken_over() -> Result<()> {
    let world = World::start("foreign").await?;
    let installed = sample::install(&world, "foreign")?;
    let other = Project {
        name: "foreign".to_owned(),
        directory: world.srv.join("elsewhere"),
        port: installed.project.port,
    };
    std::fs::create_dir_all(&other.directory)?;
    let compose = sample::compose_file(&installed.repository);
    other.write("docker-compose.yml", &format!("name: foreign\n{compose}"))?;
    other.write("config/web.conf", "GREETING=hello\n")?;
    other.write("content/index.md", "own\n")?;
    other.write(".env", &sample::env_file("v1", other.port))?;
    let before = installed.project.containers()?;
    let mut manifest = world.tenant(&other, "v1");
    manifest["spec"]["adopt"] = json!("Overwrite");
    world.apply(&manifest).await?;
    let tenant = world.until_phase("acme", Phase::AdoptionNeeded).await?;
    let (_, _, message) = condition(&tenant, "Ready");
    ensure!(message.contains(&installed.project.directory.display().to_string()), "{message}");
    assert_eq!(installed.project.containers()?, before);
    Ok(())
}

#[tokio::test]
async fn the_younger_of_two_tenants_for_one_directory_is_refused() -> Result<()> {
    let world = World::start("duplicate").await?;
    let installed = sample::install(&world, "duplicate")?;
    let mut manifest = world.tenant(&installed.project, "v1");
    world.apply(&manifest).await?;
    world.until_ready_at("acme", "v1").await?;
    manifest["metadata"]["name"] = json!("second");
    world.apply(&manifest).await?;
    let tenant = world.until_phase("second", Phase::Refused).await?;
    let (_, reason, message) = condition(&tenant, "Ready");
    assert_eq!(reason, "Duplicate");
    ensure!(message.contains("acme"), "{message}");
    Ok(())
}

#[tokio::test]
async fn deleting_a_tenant_stops_nothing_and_frees_the_directory() -> Result<()> {
    let world = World::start("delete").await?;
    let installed = sample::install(&world, "delete")?;
    let manifest = world.tenant(&installed.project, "v1");
    world.apply(&manifest).await?;
    world.until_ready_at("acme", "v1").await?;
    let before = installed.project.containers()?;
    world.delete("acme").await?;
    eventually("the Tenant is gone", SOON, || async {
        ensure!(world.tenants().get_opt("acme").await?.is_none(), "it is still there");
        Ok(())
    })
    .await?;
    assert_eq!(installed.project.containers()?, before);
    assert_eq!(installed.project.answer("/version").await?, "v1");
    // Made again under the same name it is another Tenant, and may have the directory: the claim was released.
    world.apply(&manifest).await?;
    world.until_ready_at("acme", "v1").await?;
    Ok(())
}
