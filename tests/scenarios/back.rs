//! What a person asks for by the command line or by annotation: going back, accepting a host, taking a claim over.

use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tenantry_api::Tenant;
use tenantry_api::tenant_status::{Outcome, Phase, TenantStatus};
use tenantry_tests::world::{SOON, World, condition, phase_of};

use crate::sample::{self, Installed};

/// Runs `tenantry …` as a person would.
pub fn tenantry(world: &World, arguments: &[&str]) -> Result<Output> {
    let output = Command::new(tenantry_tests::program("tenantry")?)
        .args(arguments)
        .args(["--namespace", &world.namespace])
        .env("KUBECONFIG", &world.plane.kubeconfig)
        .stdin(std::process::Stdio::null())
        .output()?;
    Ok(output)
}

/// Everything that it said.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub async fn annotate(world: &World, tenant: &str, name: &str, value: Value) -> Result<()> {
    let annotation = format!("tenantry.dev/{name}");
    world.patch(tenant, json!({"metadata": {"annotations": {annotation: value}}})).await
}

pub fn status(tenant: &Tenant) -> TenantStatus {
    tenant.status.clone().unwrap_or_default()
}

/// The sample, taken over at `v1` and upgraded to `v2`.
async fn at_v2(world: &World, name: &str, upgrade: &Value) -> Result<(Installed, Tenant)> {
    let installed = sample::install(world, name)?;
    sample::publish(&installed.repository, "v2", &[])?;
    let mut manifest = world.tenant(&installed.project, "v1");
    for (key, value) in upgrade.as_object().context("an object")? {
        manifest["spec"]["upgrade"][key] = value.clone();
    }
    world.apply(&manifest).await?;
    world.until_ready_at("acme", "v1").await?;
    world.patch("acme", json!({"spec": {"imageTag": "v2"}})).await?;
    world.until_ready_at("acme", "v2").await?;
    let listed = |tenant: &Tenant| !status(tenant).restore_points.is_empty();
    let tenant = world.until("acme", "a restore point", SOON, listed).await?;
    Ok((installed, tenant))
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_p16_a_person_goes_back_without_a_registry_and_forward_again() -> Result<()> {
    let world = World::start("goback").await?;
    let (installed, tenant) = at_v2(&world, "goback", &json!({})).await?;
    let point = status(&tenant).restore_points[0].clone();
    assert_eq!((point.image_tag.as_str(), point.data.len()), ("v1", 0));
    // What the registry has under that tag now is something else.
    sample::publish(&installed.repository, "v1", &[("GREETING", "another v1")])?;

    let shown = tenantry(&world, &["status", "acme"])?;
    ensure!(said(&shown).contains(&point.id), "{}", said(&shown));
    let unknown = tenantry(&world, &["rollback", "acme", "--to", "nowhere"])?;
    ensure!(!unknown.status.success() && said(&unknown).contains(&point.id), "{}", said(&unknown));
    let no_data = tenantry(&world, &["rollback", "acme", "--data", "--yes"])?;
    ensure!(!no_data.status.success() && said(&no_data).contains("no data"), "{}", said(&no_data));

    let back = tenantry(&world, &["rollback", "acme", "--wait", "--timeout", "90s"])?;
    ensure!(back.status.success(), "{}", said(&back));
    ensure!(said(&back).contains("goes back to v1"), "{}", said(&back));
    let tenant = world.until_phase("acme", Phase::RolledBack).await?;
    let now = status(&tenant);
    assert_eq!(now.deployed.context("deployed")?.image_tag, "v1");
    let blocked = now.blocked_target.context("v2 is blocked")?;
    assert_eq!((blocked.image_tag.as_str(), blocked.outcome), ("v2", Outcome::RolledBack));
    ensure!(blocked.reason.contains("by a person"), "{}", blocked.reason);
    let upgrade = now.upgrade.context("an operation")?;
    assert_eq!((upgrade.outcome, upgrade.rollback_to), (Some(Outcome::Succeeded), Some(point.id)));
    ensure!(upgrade.phases.iter().all(|phase| phase.name != Phase::Pulling), "{:?}", upgrade.phases);
    assert_eq!(tenant.spec.release(), "v2", "the spec is never touched");
    assert_eq!(installed.project.answer("/version").await?, "v1");
    assert_eq!(installed.project.read(".env")?, sample::env_file("v1", installed.project.port));
    installed.project.assert_hand_run_changes_nothing()?;

    annotate(&world, "acme", "retry", json!("1")).await?;
    world.until_ready_at("acme", "v2").await?;
    assert_eq!(installed.project.answer("/version").await?, "v2");
    world.assert_canary_unseen().await
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_data_goes_back_only_with_the_word_for_it_and_what_is_lost_is_said() -> Result<()> {
    let world = World::start("godata").await?;
    let installed = sample::install(&world, "godata")?;
    installed.project.write("uploads/a.txt", "one\n")?;
    drop(installed);
    let upgrade = json!({"snapshot": {"paths": ["uploads"]}});
    let (installed, tenant) = at_v2(&world, "godata", &upgrade).await?;
    let upgraded = status(&tenant).upgrade.context("an upgrade")?;
    ensure!(upgraded.phases.iter().any(|phase| phase.name == Phase::Snapshotting), "{:?}", upgraded.phases);
    let point = status(&tenant).restore_points[0].clone();
    assert_eq!(point.data, ["path uploads"]);
    installed.project.write("uploads/a.txt", "two\n")?;
    installed.project.write("uploads/new.txt", "new\n")?;

    let unasked = tenantry(&world, &["rollback", "acme", "--data"])?;
    ensure!(!unasked.status.success() && said(&unasked).contains("--yes"), "{}", said(&unasked));
    annotate(&world, "acme", "rollback-to", json!(",data,monday")).await?;
    let tenant = world.until_phase("acme", Phase::RolledBack).await?;
    assert_eq!(installed.project.read("uploads/a.txt")?, "one\n");
    ensure!(!installed.project.directory.join("uploads/new.txt").exists());
    let now = status(&tenant);
    ensure!(now.upgrade.context("an operation")?.data_restored, "status says so");
    ensure!(condition(&tenant, "Ready").2.contains("is lost"), "{}", condition(&tenant, "Ready").2);
    ensure!(now.history[0].message.contains("is lost"), "{}", now.history[0].message);

    // The same value is not handled twice, and a point that is not there is refused with those that are.
    installed.project.write("uploads/a.txt", "three\n")?;
    annotate(&world, "acme", "rollback-to", json!("nowhere-1")).await?;
    let tenant = world.until_phase("acme", Phase::Refused).await?;
    assert_eq!(condition(&tenant, "Ready").1, "RestorePointMissing");
    ensure!(condition(&tenant, "Ready").2.contains(&point.id), "{}", condition(&tenant, "Ready").2);
    annotate(&world, "acme", "rollback-to", Value::Null).await?;
    world.until_phase("acme", Phase::RolledBack).await?;
    assert_eq!(installed.project.read("uploads/a.txt")?, "three\n");
    world.assert_canary_unseen().await
}

/// The tenant's own records on the host.
fn records(world: &World, tenant: &Tenant) -> Result<std::path::PathBuf> {
    let uid = tenant.metadata.uid.clone().context("a UID")?;
    Ok(world.path("agent-state/tenants").join(uid))
}

#[tokio::test(flavor = "multi_thread")]
async fn p16_a_damaged_journal_stalls_until_a_person_accepts_the_host() -> Result<()> {
    let mut world = World::start("accept").await?;
    let (installed, tenant) = at_v2(&world, "accept", &json!({})).await?;
    sample::publish(&installed.repository, "v3", &[])?;
    world.agent.as_mut().context("an agent")?.kill()?;
    let operation = status(&tenant).upgrade.context("an upgrade")?.id;
    let journal = records(&world, &tenant)?.join("journal").join(&operation);
    let mut bytes = std::fs::read(&journal)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&journal, &bytes)?;
    world.start_agent()?;
    let before = installed.project.containers()?;
    world.patch("acme", json!({"spec": {"imageTag": "v3"}})).await?;
    let damaged = |tenant: &Tenant| condition(tenant, "Ready").1 == "RecordsDamaged";
    let tenant = world.until("acme", "records are damaged", SOON, damaged).await?;
    let (stalled, _, message) = condition(&tenant, "Stalled");
    assert_eq!(stalled, "True");
    for named in [operation.as_str(), "tenantry accept-host acme"] {
        ensure!(message.contains(named), "{named}: {message}");
    }
    let before_points = status(&tenant).restore_points;
    // Another tenant of the same host is not concerned.
    let another = sample::install(&world, "acceptother")?;
    let mut other = world.tenant(&another.project, "v1");
    other["metadata"]["name"] = json!("other");
    world.apply(&other).await?;
    world.until_ready_at("other", "v1").await?;

    let accepted = tenantry(&world, &["accept-host", "acme", "--wait", "--timeout", "60s"])?;
    ensure!(accepted.status.code() == Some(1), "it differs from v3: {}", said(&accepted));
    let tenant = world.until_phase("acme", Phase::Aborted).await?;
    let message = condition(&tenant, "Stalled").2;
    ensure!(message.contains("IMAGE_TAG") && message.contains("tenantry.dev/retry"), "{message}");
    assert_eq!(installed.project.containers()?, before, "nothing was changed");
    ensure!(!journal.exists(), "the damaged journal was put aside");
    let aside = records(&world, &tenant)?.join("aside").join(format!("journal-{operation}-1"));
    assert_eq!(std::fs::read(&aside)?, bytes, "and nothing of it was deleted");
    assert_eq!(status(&tenant).restore_points, before_points);
    annotate(&world, "acme", "retry", json!("1")).await?;
    world.until_ready_at("acme", "v3").await?;

    // Where nothing differs, accepting makes it Ready.
    world.agent.as_mut().context("an agent")?.kill()?;
    std::fs::write(records(&world, &tenant)?.join("baseline"), "not a record\n")?;
    world.start_agent()?;
    annotate(&world, "acme", "reconcile", json!("1")).await?;
    world.until("acme", "records are damaged", SOON, damaged).await?;
    let accepted = tenantry(&world, &["accept-host", "acme", "--wait", "--timeout", "60s"])?;
    ensure!(accepted.status.success(), "{}", said(&accepted));
    world.until_ready_at("acme", "v3").await?;
    installed.project.assert_hand_run_changes_nothing()?;
    world.assert_canary_unseen().await
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_a_claim_that_was_never_given_back_is_taken_over_by_a_person() -> Result<()> {
    let mut world = World::start("claimed").await?;
    let (installed, _) = at_v2(&world, "claimed", &json!({})).await?;
    // The host is away, the Tenant goes, and the one who would have told the host is gone, too.
    world.agent.as_mut().context("an agent")?.kill()?;
    annotate(&world, "acme", "orphan", json!("")).await?;
    world.delete("acme").await?;
    tenantry_tests::docker::eventually("the Tenant is gone", SOON, || async {
        ensure!(world.tenants().get_opt("acme").await?.is_none(), "it is still there");
        Ok(())
    })
    .await?;
    world.hosts().delete("n5", &kube::api::DeleteParams::default()).await?;
    world.start_agent()?;
    world
        .apply(&json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "ComposeHost", "metadata": {"name": "n5"},
            "spec": {"identity": "n5", "connection": {"dial": {"address": world.agent_address}}},
        }))
        .await?;
    let containers = installed.project.containers()?;
    world.apply(&world.tenant(&installed.project, "v2")).await?;
    let refused = |tenant: &Tenant| condition(tenant, "Ready").1 == "ClaimedByOther";
    let tenant = world.until("acme", "it is another's", SOON, refused).await?;
    ensure!(condition(&tenant, "Ready").2.contains("tenantry claim"), "{}", condition(&tenant, "Ready").2);
    let claimed = tenantry(&world, &["claim", "acme", "--wait", "--timeout", "60s"])?;
    ensure!(claimed.status.success(), "{}", said(&claimed));
    let tenant = world.until_ready_at("acme", "v2").await?;
    ensure!(phase_of(&tenant) == Some(Phase::Ready) && status(&tenant).upgrade.is_none(), "it was adopted");
    assert_eq!(installed.project.containers()?, containers, "nothing was touched");
    // It is the owner now in every way.
    world.patch("acme", json!({"spec": {"imageTag": "v1"}})).await?;
    world.until_ready_at("acme", "v1").await?;
    installed.project.assert_hand_run_changes_nothing()?;
    world.assert_canary_unseen().await
}
