//! Parts that are killed, gone, or not who they should be.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tenantry_api::tenant_status::{Outcome, Phase};
use tenantry_tests::process::Process;
use tenantry_tests::world::{SOON, World, condition, phase_of, write_private};

use crate::sample;

#[tokio::test]
async fn p3_an_operator_killed_in_mid_operation_finds_it_again_by_its_id() -> Result<()> {
    let mut world = World::start("opkill").await?;
    let installed = sample::install(&world, "opkill")?;
    sample::publish(&installed.repository, "v2", &[("START_DELAY", "3s")])?;
    world.apply(&world.tenant(&installed.project, "v1")).await?;
    world.until_ready_at("acme", "v1").await?;
    world.patch("acme", json!({"spec": {"imageTag": "v2"}})).await?;
    let flying =
        |tenant: &tenantry_api::Tenant| matches!(phase_of(tenant), Some(Phase::Starting | Phase::Verifying));
    let tenant = world.until("acme", "the upgrade is under way", SOON, flying).await?;
    let id = tenant.status.unwrap_or_default().upgrade.context("an upgrade")?.id;
    world.operator.as_mut().context("an operator")?.kill()?;
    world.start_operator()?;
    let tenant = world.until_ready_at("acme", "v2").await?;
    let upgrade = tenant.status.unwrap_or_default().upgrade.context("an upgrade")?;
    assert_eq!((upgrade.id, upgrade.outcome), (id, Some(Outcome::Succeeded)));
    Ok(())
}

#[tokio::test]
async fn p3_an_agent_killed_in_mid_operation_goes_on_by_itself() -> Result<()> {
    let mut world = World::start("agkill").await?;
    let installed = sample::install(&world, "agkill")?;
    sample::publish(&installed.repository, "v2", &[("START_DELAY", "3s")])?;
    world.apply(&world.tenant(&installed.project, "v1")).await?;
    world.until_ready_at("acme", "v1").await?;
    world.patch("acme", json!({"spec": {"imageTag": "v2"}})).await?;
    let flying = |tenant: &tenantry_api::Tenant| phase_of(tenant) == Some(Phase::Verifying);
    world.until("acme", "the upgrade is being verified", SOON, flying).await?;
    world.agent.as_mut().context("an agent")?.kill()?;
    world.start_agent()?;
    let tenant = world.until_ready_at("acme", "v2").await?;
    assert_eq!(
        tenant.status.unwrap_or_default().upgrade.and_then(|upgrade| upgrade.outcome),
        Some(Outcome::Succeeded)
    );
    assert_eq!(installed.project.answer("/version").await?, "v2");
    installed.project.assert_hand_run_changes_nothing()?;
    world.assert_canary_unseen().await
}

#[tokio::test]
async fn p14_an_unreachable_agent_makes_ready_unknown_and_comes_back() -> Result<()> {
    let mut world = World::start("gone").await?;
    let installed = sample::install(&world, "gone")?;
    world.apply(&world.tenant(&installed.project, "v1")).await?;
    world.until_ready_at("acme", "v1").await?;
    world.agent.as_mut().context("an agent")?.kill()?;
    world.patch("acme", json!({"metadata": {"annotations": {"tenantry.dev/reconcile": "1"}}})).await?;
    let tenant = world.until_phase("acme", Phase::HostUnreachable).await?;
    assert_eq!(condition(&tenant, "Ready").0, "Unknown");
    assert_eq!(condition(&tenant, "Reconciling").0, "True");
    let (reachable, _, message) = condition(&tenant, "HostReachable");
    ensure!(reachable == "False" && message.contains(&world.agent_address), "{message}");
    world.start_agent()?;
    world.until_phase("acme", Phase::Ready).await?;
    Ok(())
}

#[tokio::test]
async fn p13_another_hosts_agent_is_not_obeyed_and_named_as_such() -> Result<()> {
    let mut world = World::start("impostor").await?;
    let installed = sample::install(&world, "impostor")?;
    world.agent = None;
    let pki = world.path("pki");
    let pki_text = pki.to_string_lossy();
    let tenantry = tenantry_tests::program("tenantry")?;
    let issued = std::process::Command::new(&tenantry)
        .args(["pki", "issue", "agent", "n6", "--dir", &pki_text])
        .output()?;
    ensure!(issued.status.success(), "{}", String::from_utf8_lossy(&issued.stderr));
    let config = std::fs::read_to_string(world.path("agent.yaml"))?.replace("agent-n5", "agent-n6");
    write_private(&world.path("agent-n6.yaml"), &config.replace("\"n5\"", "\"n6\""))?;
    let path = world.path("agent-n6.yaml");
    let arguments = ["--config", &path.to_string_lossy()];
    let program = tenantry_tests::program("tenantry-agent")?;
    world.agent = Some(Process::start(&program, &arguments, &world.path("agent-n6.log"))?);
    world.apply(&world.tenant(&installed.project, "v1")).await?;
    let tenant = world.until_phase("acme", Phase::HostUnreachable).await?;
    let (_, _, message) = condition(&tenant, "HostReachable");
    ensure!(message.contains("n5"), "the identity that was expected is named: {message}");
    ensure!(message.contains("certificate") || message.contains("another host"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_missing_host_is_refused_until_it_is_there() -> Result<()> {
    let world = World::start("nohost").await?;
    let installed = sample::install(&world, "nohost")?;
    let mut manifest = world.tenant(&installed.project, "v1");
    manifest["spec"]["host"] = json!("n7");
    world.apply(&manifest).await?;
    let tenant = world.until_phase("acme", Phase::Refused).await?;
    ensure!(condition(&tenant, "Ready").2.contains("n7"), "{}", condition(&tenant, "Ready").2);
    world
        .apply(&json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "ComposeHost", "metadata": {"name": "n7"},
            "spec": {"identity": "n5", "connection": {"dial": {"address": world.agent_address}}},
        }))
        .await?;
    world
        .until("acme", "Ready", Duration::from_secs(30), |tenant| phase_of(tenant) == Some(Phase::Ready))
        .await?;
    Ok(())
}
