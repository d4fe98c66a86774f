//! The story: installed at v1, upgraded to v2, and rolled back from a release that never gets healthy.

use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use test_images::Image;

use crate::host::{self, Host};
use crate::shell;

/// How long an upgrade may take here, images and verification included.
const UPGRADE: Duration = Duration::from_mins(2);
/// The release that never gets healthy.
const BROKEN: &str = "v3-broken";

/// Tells the story; an error is the first claim that did not hold.
pub fn tell(host: &mut Host, project: &str, interrupted: &AtomicBool) -> Result<()> {
    let port = host::free_port()?;
    let directory = host.srv().join(project);
    shell::step("Publishing three releases of a stand-in application to a local registry", || publish(host))?;
    shell::step("Starting tenantry up: control plane, operator and an agent for this machine", || host.up())?;
    stop_if(interrupted)?;

    std::fs::create_dir_all(&directory)?;
    std::fs::write(
        directory.join(".env"),
        format!("# the tenant's own\nIMAGE_TAG=none\nHTTP_PORT={port}\nSECRET=untouched\n"),
    )?;
    let manifest = |tag: &str| manifest(host, project, &directory, tag);
    println!("==> kubectl apply: tenant hello at v1, where nothing runs yet");
    host.apply(&manifest("v1"))?;
    let claim = Claim::begin("hello runs at v1 and was seen healthy");
    host.until("hello", UPGRADE, |tenant| is_ready_at(tenant, "v1"))?;
    claim.holds();
    check("the application answers as v1", || answers(port, "v1"))?;
    stop_if(interrupted)?;

    println!("==> kubectl apply: the same manifest with imageTag v2; kubectl get tenants -w shows");
    let watch = Watch::begin(host)?;
    host.apply(&manifest("v2"))?;
    let claim = Claim::begin("hello runs at v2 and was seen healthy");
    let tenant = host.until("hello", UPGRADE, |tenant| is_ready_at(tenant, "v2"))?;
    watch.end()?;
    claim.holds();
    check("status records every phase", || has_phases(&tenant))?;
    check("the application answers as v2", || answers(port, "v2"))?;
    check("every other byte of .env is as it was", || env_is(&directory, port, "v2"))?;
    check("`docker compose up -d` by hand changes no container", || hand_run(project, &directory))?;
    stop_if(interrupted)?;

    println!("==> kubectl apply: a release that never gets healthy; kubectl get tenants -w shows");
    let watch = Watch::begin(host)?;
    host.apply(&manifest(BROKEN))?;
    let claim = Claim::begin("the release is rolled back, and status says so");
    let tenant = host.until("hello", UPGRADE, |tenant| tenant["status"]["phase"] == "RolledBack")?;
    watch.end()?;
    claim.holds();
    check("the target is blocked until something changes", || {
        ensure!(
            tenant["status"]["blockedTarget"]["imageTag"] == BROKEN,
            "{}",
            tenant["status"]["blockedTarget"]
        );
        Ok(())
    })?;
    check("spec is untouched", || {
        ensure!(tenant["spec"]["imageTag"] == BROKEN, "{}", tenant["spec"]["imageTag"]);
        Ok(())
    })?;
    check("the application answers as v2 again", || answers(port, "v2"))?;
    check(".env is as before the failed upgrade", || env_is(&directory, port, "v2"))?;
    check("`docker compose up -d` by hand changes no container", || hand_run(project, &directory))?;
    println!("==> What status says:\n    {}", ready_message(&tenant));
    Ok(())
}

fn publish(host: &Host) -> Result<()> {
    let reference = |tag: &str| format!("{}/tenantry/hello:{tag}", host.registry.address());
    Image::version("v1").publish(host.standin(), &reference("v1"))?;
    Image::version("v2").publish(host.standin(), &reference("v2"))?;
    Image::version("v3").with("HEALTHY_AFTER", "1h").publish(host.standin(), &reference(BROKEN))
}

fn manifest(host: &Host, project: &str, directory: &Path, tag: &str) -> String {
    format!(
        r#"apiVersion: tenantry.dev/v1alpha1
kind: TemplateBundle
metadata: {{name: hello}}
spec: {{source: {{directory: {{name: hello}}}}}}
---
apiVersion: tenantry.dev/v1alpha1
kind: Tenant
metadata: {{name: hello}}
spec:
  host: local
  project: {project}
  directory: {}
  bundle: hello
  imageTag: {tag}
  values: {{registry: "{}"}}
  env: {{patch: [{{name: IMAGE_TAG, value: $(imageTag)}}]}}
  upgrade: {{verify: {{timeout: 10s, stableFor: 3s}}}}
"#,
        directory.display(),
        host.registry.address()
    )
}

fn is_ready_at(tenant: &Value, tag: &str) -> bool {
    tenant["status"]["phase"] == "Ready" && tenant["status"]["deployed"]["imageTag"] == tag
}

fn has_phases(tenant: &Value) -> Result<()> {
    let phases = tenant["status"]["upgrade"]["phases"].as_array().context("no phases")?;
    for wanted in ["Planning", "Pulling", "Writing", "Starting", "Verifying"] {
        ensure!(phases.iter().any(|phase| phase["name"] == wanted), "{wanted} is missing in {phases:?}");
    }
    Ok(())
}

fn answers(port: u16, version: &str) -> Result<()> {
    let answer = host::get(port, "/version")?;
    ensure!(answer == version, "it answers {answer:?}");
    Ok(())
}

fn env_is(directory: &Path, port: u16, tag: &str) -> Result<()> {
    let text = std::fs::read_to_string(directory.join(".env"))?;
    let wanted = format!("# the tenant's own\nIMAGE_TAG={tag}\nHTTP_PORT={port}\nSECRET=untouched\n");
    ensure!(text == wanted, "it is not: compare {}", directory.join(".env").display());
    Ok(())
}

fn hand_run(project: &str, directory: &Path) -> Result<()> {
    let before = host::containers(project)?;
    host::compose_by_hand(directory, "up -d")?;
    let after = host::containers(project)?;
    ensure!(before == after, "before {before:?}, after {after:?}");
    Ok(())
}

fn ready_message(tenant: &Value) -> String {
    let conditions = tenant["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready").unwrap_or_default();
    ready["message"].as_str().unwrap_or_default().to_owned()
}

fn stop_if(interrupted: &AtomicBool) -> Result<()> {
    if interrupted.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

/// A claim that takes time to come true.
struct Claim {
    text: &'static str,
    begun: Instant,
}

impl Claim {
    fn begin(text: &'static str) -> Self {
        Self { text, begun: Instant::now() }
    }

    fn holds(self) {
        println!("  ✓ {} ({:.1} s)", self.text, self.begun.elapsed().as_secs_f64());
    }
}

fn check(claim: &'static str, holds: impl FnOnce() -> Result<()>) -> Result<()> {
    let begun = Claim::begin(claim);
    holds().with_context(|| format!("✗ {claim}"))?;
    begun.holds();
    Ok(())
}

/// `kubectl get tenants -w` on the terminal while something happens.
struct Watch(Child);

impl Watch {
    fn begin(host: &Host) -> Result<Self> {
        let mut command = host.kubectl(&["get", "tenants", "--watch"]);
        Ok(Self(command.stdin(Stdio::null()).spawn().context("kubectl could not be run")?))
    }

    fn end(mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
