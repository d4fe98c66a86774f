//! What containers have is what is meant (P19): networks, addresses, names and ports after a release that fails half way;
//! volumes that compose would leave as they are.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tenantry_api::Tenant;
use tenantry_api::tenant_status::{Outcome, Phase};
use tenantry_tests::docker::Project;
use tenantry_tests::world::{SOON, World, condition, phase_of};

use crate::sample;

/// A network of somebody else, for as long as this value lives.
struct Theirs(String);

impl Theirs {
    fn make(name: &str, subnet: &str) -> Result<Self> {
        docker(&["network", "create", "--subnet", subnet, name])?;
        Ok(Self(name.to_owned()))
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        let _ = docker(&["network", "rm", &self.0]);
    }
}

fn docker(arguments: &[&str]) -> Result<()> {
    let output = Command::new("docker").args(arguments).output()?;
    ensure!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn with_values(world: &World, project: &Project, values: Value) -> Value {
    let mut manifest = world.tenant(project, "v1");
    manifest["spec"]["bundle"] = json!("sample");
    manifest["spec"]["values"] = values;
    manifest
}

/// Two services on a network of which the bundle's values say the addresses.
fn two_services(repository: &str) -> Vec<(&'static str, String)> {
    let compose = format!(
        "services:\n  web:\n    image: {repository}:${{IMAGE_TAG:?}}\n    ports: ['127.0.0.1:${{HTTP_PORT}}:8080']\n    \
         stop_grace_period: 2s\n  db: {{image: '{repository}:v1', stop_grace_period: 2s}}\n\
         networks: {{default: {{ipam: {{config: [{{subnet: '{{{{ values.subnet }}}}'}}]}}}}}}\n"
    );
    vec![
        ("bundle.yaml", "files:\n- source: docker-compose.yml.tera\n".to_owned()),
        ("docker-compose.yml.tera", compose),
    ]
}

fn ended(tenant: &Tenant, outcome: Outcome) -> bool {
    let upgrade = tenant.status.as_ref().and_then(|status| status.upgrade.as_ref());
    upgrade.is_some_and(|upgrade| upgrade.outcome == Some(outcome))
}

#[tokio::test]
async fn p19_services_are_on_their_network_whatever_becomes_of_a_release_that_changes_it() -> Result<()> {
    let world = World::start("networks").await?;
    let repository = sample::repository("networks")?;
    sample::publish(&repository, "v1", &[])?;
    let project = Project::new(&world.srv, "networks")?;
    project.write(".env", &sample::env_file("v1", project.port))?;
    let number = project.port % 80;
    let subnet = |which: u16| format!("10.251.{}.0/24", number + 80 * which);
    sample::put_bundle(&world, &two_services(&repository)).await?;
    world.apply(&with_values(&world, &project, json!({"subnet": subnet(0)}))).await?;
    world.until_ready_at("acme", "v1").await?;

    // The old network is gone by the time that compose finds that the new one can't be made.
    let theirs = Theirs::make(&format!("theirs-{}", project.port), &subnet(1))?;
    world.patch("acme", json!({"spec": {"values": {"subnet": subnet(1)}}})).await?;
    world.until_phase("acme", Phase::RolledBack).await?;
    assert_eq!(project.answer("/version").await?, "v1");
    project.assert_hand_run_changes_nothing()?;
    drop(theirs);

    // Compose makes the network anew and connects what is there to it, but others would not find it by its name.
    world.patch("acme", json!({"spec": {"values": {"subnet": subnet(2)}}})).await?;
    let tenant = world
        .until("acme", "the network is another", SOON, |tenant| {
            phase_of(tenant) == Some(Phase::Ready) && ended(tenant, Outcome::Succeeded)
        })
        .await?;
    let plan = tenant.status.unwrap_or_default().plan.context("a plan")?;
    let cause = plan.recreates.iter().find(|one| one.service == "db").map(|one| one.cause.as_str());
    assert_eq!(cause, Some("network networks_default changed"));
    let names = project.inspect("db", "{{range .NetworkSettings.Networks}}{{.Aliases}}{{end}}")?;
    ensure!(names.contains(" db "), "db is not found by its name: {names}");
    assert_eq!(project.answer("/version").await?, "v1");
    project.assert_hand_run_changes_nothing()?;

    docker(&["network", "disconnect", "networks_default", &project.inspect("web", "{{.Id}}")?])?;
    world.patch("acme", json!({"metadata": {"annotations": {"tenantry.dev/reconcile": "1"}}})).await?;
    let off = "web is not on network networks_default";
    let told = |tenant: &Tenant| {
        phase_of(tenant) == Some(Phase::Degraded)
            && condition(tenant, "Ready").2.contains(off)
            && condition(tenant, "Drifted").2.contains(off)
    };
    world.until("acme", "the missing network is told", SOON, told).await?;
    Ok(())
}

#[tokio::test]
async fn p19_a_release_that_compose_would_leave_on_the_old_volume_is_refused_before_anything_is_changed()
-> Result<()> {
    let world = World::start("volumes").await?;
    let repository = sample::repository("volumes")?;
    sample::publish(&repository, "v1", &[])?;
    let project = Project::new(&world.srv, "volumes")?;
    project.write(".env", &sample::env_file("v1", project.port))?;
    project.write("a/here", "")?;
    project.write("b/here", "")?;
    let compose = format!(
        "services:\n  web: {{image: '{repository}:${{IMAGE_TAG:?}}', stop_grace_period: 2s, volumes: ['media:/media']}}\n\
         volumes: {{media: {{driver_opts: {{type: none, o: bind, device: '{{{{ values.from }}}}'}}}}}}\n"
    );
    let bundle = [
        ("bundle.yaml", "files:\n- source: docker-compose.yml.tera\n".to_owned()),
        ("docker-compose.yml.tera", compose),
    ];
    sample::put_bundle(&world, &bundle).await?;
    let at = |name: &str| project.directory.join(name).display().to_string();
    world.apply(&with_values(&world, &project, json!({"from": at("a")}))).await?;
    world.until_ready_at("acme", "v1").await?;
    let before = (project.containers()?, project.read("docker-compose.yml")?);

    world.patch("acme", json!({"spec": {"values": {"from": at("b")}}})).await?;
    let tenant = world.until_phase("acme", Phase::Aborted).await?;
    let message = condition(&tenant, "Ready").2;
    for told in [
        format!("has device {}", at("a")),
        format!("say device {}", at("b")),
        "docker volume rm volumes_media".to_owned(),
    ] {
        ensure!(message.contains(told.as_str()), "{told}: {message}");
    }
    assert_eq!((project.containers()?, project.read("docker-compose.yml")?), before, "nothing was changed");

    // What the message says to type.
    project.compose(&["rm", "--stop", "--force", "web"])?;
    docker(&["volume", "rm", "volumes_media"])?;
    world.patch("acme", json!({"metadata": {"annotations": {"tenantry.dev/retry": "1"}}})).await?;
    world
        .until("acme", "the new volume is used", SOON, |tenant| {
            phase_of(tenant) == Some(Phase::Ready) && ended(tenant, Outcome::Succeeded)
        })
        .await?;
    project.assert_hand_run_changes_nothing()
}
