//! The host's own policy as a conversation: what a project asks for is told whole, and looked at again once it is granted.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::symlink;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tenantry_api::Tenant;
use tenantry_api::tenant_status::Phase;
use tenantry_tests::world::{SOON, World, condition, phase_of};

use crate::sample;

/// What a service asks for beyond an ordinary container.
const ASKS: &str = "    cap_add: [NET_ADMIN]\n    volumes: [\"/etc/hostname:/h:ro\"]\n";

/// The line that a message gives to be pasted.
fn line_in(tenant: &Tenant) -> Result<String> {
    let message = condition(tenant, "Ready").2;
    let begins = message.find("--- {").with_context(|| message.clone())?;
    let ends = message[begins..].find("}}").with_context(|| message.clone())?;
    Ok(message[begins..begins + ends + 2].to_owned())
}

/// Appends a line to the agent's policy file, as a person does; the agent goes on running.
fn paste(world: &World, line: &str) -> Result<()> {
    let mut file = OpenOptions::new().append(true).open(world.path("agent.yaml"))?;
    Ok(file.write_all(format!("\n{line}\n").as_bytes())?)
}

fn refused_by_policy(tenant: &Tenant, phase: Phase) -> bool {
    phase_of(tenant) == Some(phase) && condition(tenant, "Stalled").1 == "PolicyRefused"
}

#[tokio::test]
async fn p13_all_that_a_project_asks_for_is_told_at_first_contact_and_counts_once_it_is_pasted() -> Result<()>
{
    let world = World::start("asks").await?;
    let installed = sample::install(&world, "asks")?;
    let project = &installed.project;
    project.write("docker-compose.yml", &(sample::compose_file(&installed.repository) + ASKS))?;
    project.compose(&["up", "-d"])?;
    let before = project.containers()?;
    let policy = std::fs::read_to_string(world.path("agent.yaml"))?;
    let mut manifest = world.tenant(project, "v1");
    world.apply(&manifest).await?;
    let told = |tenant: &Tenant| refused_by_policy(tenant, Phase::Refused);
    let tenant = world.until("acme", "told at first contact", SOON, told).await?;
    let line = line_in(&tenant)?;
    assert_eq!(line, r#"--- {allow: {compose: [Capabilities], mounts: ["/etc/hostname:ro"]}}"#);
    let lacking = tenant.status.and_then(|status| status.lacking).context("status says what is lacking")?;
    assert_eq!(lacking.file, world.path("agent.yaml").display().to_string());
    let asked: Vec<&str> = lacking.grants.iter().map(|grant| grant.at.as_str()).collect();
    assert_eq!(asked, ["services.worker.cap_add[0]", "services.worker.volumes[0].source"]);
    assert_eq!(project.containers()?, before);

    // Granted: no restart, no retry.
    paste(&world, &line)?;
    let tenant = world.until_ready_at("acme", "v1").await?;
    ensure!(tenant.status.is_some_and(|status| status.lacking.is_none()), "nothing is lacking any more");
    assert_eq!(project.containers()?, before, "it was taken over as it was");

    // Narrowed again: what runs goes on, and says what the next release will meet.
    std::fs::write(world.path("agent.yaml"), &policy)?;
    let warned = |tenant: &Tenant| {
        phase_of(tenant) == Some(Phase::Ready)
            && condition(tenant, "Ready").2.contains("more than the host's policy")
    };
    world.until("acme", "it runs on and says so", SOON, warned).await?;
    sample::publish(&installed.repository, "v2", &[])?;
    manifest["spec"]["imageTag"] = json!("v2");
    world.apply(&manifest).await?;
    let told = |tenant: &Tenant| refused_by_policy(tenant, Phase::Aborted);
    let tenant = world.until("acme", "the upgrade is refused", SOON, told).await?;
    assert_eq!(line_in(&tenant)?, line);
    assert_eq!(project.containers()?, before);
    assert_eq!(project.answer("/version").await?, "v1");

    paste(&world, &line)?;
    world.until_ready_at("acme", "v2").await?;
    assert_eq!(project.answer("/version").await?, "v2");
    project.assert_hand_run_changes_nothing()
}

#[tokio::test]
async fn p4_a_first_installation_that_the_policy_refused_goes_on_by_itself_once_it_is_granted() -> Result<()>
{
    let world = World::start("granted").await?;
    let repository = sample::repository("granted")?;
    sample::publish(&repository, "v1", &[])?;
    let project = tenantry_tests::docker::Project::new(&world.srv, "granted")?;
    project.write(".env", &sample::env_file("v1", project.port))?;
    project.write("content/index.md", "own\n")?;
    let mut files = sample::bundle_files(&repository, "hello");
    files[1].1.push_str(ASKS);
    sample::put_bundle(&world, &files).await?;
    let mut manifest = world.tenant(&project, "v1");
    manifest["spec"]["bundle"] = json!("sample");
    world.apply(&manifest).await?;
    let told = |tenant: &Tenant| refused_by_policy(tenant, Phase::Aborted);
    let tenant = world.until("acme", "the installation is refused", SOON, told).await?;
    let message = condition(&tenant, "Ready").2;
    ensure!(message.contains("by itself") && !message.contains("tenantry.dev/retry"), "{message}");
    ensure!(project.containers()?.is_empty() && !project.directory.join("docker-compose.yml").exists());
    paste(&world, &line_in(&tenant)?)?;
    world.until_ready_at("acme", "v1").await?;
    assert_eq!(project.answer("/version").await?, "v1");
    project.assert_hand_run_changes_nothing()
}

#[tokio::test]
async fn links_that_stay_in_the_directory_are_followed_and_paths_upwards_lead_from_the_real_one() -> Result<()>
{
    let world = World::start("links").await?;
    let repository = sample::repository("links")?;
    sample::publish(&repository, "v1", &[])?;
    sample::publish(&repository, "v2", &[])?;
    let project = tenantry_tests::docker::Project::new(&world.srv, "links")?;
    std::fs::create_dir_all(world.srv.join("shared"))?;
    let compose = sample::compose_file(&repository) + "    volumes: [\"../shared:/shared:ro\"]\n";
    project.write("stack/docker-compose.yml", &compose)?;
    project.write("config/web.conf", "GREETING=hello\n")?;
    project.write("content/index.md", "own\n")?;
    project.write("app.conf", &sample::env_file("v1", project.port))?;
    symlink("stack/docker-compose.yml", project.directory.join("docker-compose.yml"))?;
    symlink("app.conf", project.directory.join(".env"))?;
    project.compose(&["up", "-d"])?;

    let mut manifest = world.tenant(&project, "v1");
    world.apply(&manifest).await?;
    let told = |tenant: &Tenant| refused_by_policy(tenant, Phase::Refused);
    let tenant = world.until("acme", "the folder above is lacking", SOON, told).await?;
    let line = line_in(&tenant)?;
    let shared = format!("{}:ro", world.srv.join("shared").display());
    ensure!(line.contains(&shared), "{line}");
    paste(&world, &line)?;
    world.until_ready_at("acme", "v1").await?;

    manifest["spec"]["imageTag"] = json!("v2");
    world.apply(&manifest).await?;
    world.until_ready_at("acme", "v2").await?;
    assert_eq!(project.answer("/version").await?, "v2");
    for (link, target) in [(".env", "app.conf"), ("docker-compose.yml", "stack/docker-compose.yml")] {
        assert_eq!(std::fs::read_link(project.directory.join(link))?.to_str(), Some(target), "{link}");
    }
    assert_eq!(
        project.read("app.conf")?,
        sample::env_file("v2", project.port),
        "what is behind the link was written"
    );
    project.assert_hand_run_changes_nothing()
}
