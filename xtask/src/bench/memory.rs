//! Resident memory.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::api::Api;
use super::report::Row;
use super::{Bench, PREFIX, project};
use crate::setup::Parts;
use crate::shell;

/// How many tenants there are.
const TENANTS: usize = 10;
/// Long enough for each tenant to be looked at once more.
const REST: Duration = Duration::from_secs(75);
/// How many status writes the control plane is given.
const WRITES: usize = 4_000;

/// Agent and operator with ten tenants that run.
pub fn programs(bench: &Bench) -> Result<Vec<Row>> {
    let names: Vec<String> = (0..TENANTS).map(|number| format!("{PREFIX}-t{number}")).collect();
    project::publish_first(bench, "tenantry/hello", "v1")?;
    shell::step("Installing ten tenants", || {
        names
            .iter()
            .try_for_each(|name| bench.go_on().and_then(|()| project::install_hello(bench, name).map(drop)))
    })?;
    shell::step("Letting them rest", || rest(bench))?;
    let rows = vec![
        Row::most(
            "agent's resident memory, idle, 10 tenants",
            "MB",
            vec![resident(bench.pid("agent")?)?],
            20.0,
        ),
        Row::most(
            "operator's resident memory, 10 tenants",
            "MB",
            vec![resident(bench.pid("operator")?)?],
            40.0,
        ),
    ];
    names.iter().try_for_each(|name| project::remove_tenant(bench, name))?;
    Ok(rows)
}

/// A rest is what is measured here, so it is a time and not a condition.
fn rest(bench: &Bench) -> Result<()> {
    let end = Instant::now() + REST;
    while Instant::now() < end {
        bench.go_on()?;
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// A control plane of its own, with ten Tenants that nobody looks after.
pub fn control_plane(parts: &Parts) -> Result<Vec<Row>> {
    let folder = shell::target().join("bench-control-plane");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let plane = Plane::start(parts, &folder)?;
    let kubectl = |arguments: &[&str]| {
        let mut command = shell::command("kubectl", arguments);
        command.env("KUBECONFIG", folder.join("data").join("kubeconfig"));
        command
    };
    shell::quietly(&mut kubectl(&["apply", "--server-side", "-f", "crds/"]))?;
    shell::quietly(&mut kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "-f", "crds/"]))?;
    let manifest = folder.join("tenants.json");
    std::fs::write(&manifest, tenants().to_string())?;
    shell::quietly(kubectl(&["apply", "-f"]).arg(&manifest))?;
    let api = Api::proxy(kubectl(&["proxy", "--port=0"]))?;
    shell::step("Letting the control plane rest", || {
        std::thread::sleep(Duration::from_secs(30));
        Ok(())
    })?;
    let at_rest = resident(plane.0.id())?;
    shell::step("4,000 status writes", || write_statuses(&api))?;
    let after = resident(plane.0.id())?;
    Ok(vec![
        Row::most("control plane's resident memory, at rest", "MB", vec![at_rest], 180.0),
        Row::most("control plane's resident memory, after 4,000 status writes", "MB", vec![after], 350.0),
    ])
}

fn tenants() -> serde_json::Value {
    let tenant = |number: usize| {
        let name = format!("t{number}");
        json!({"apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}, "spec": {
            "host": "n5", "project": name, "directory": format!("/srv/{name}"), "bundle": "hello", "imageTag": "v1",
        }})
    };
    json!({"apiVersion": "v1", "kind": "List", "items": (0..TENANTS).map(tenant).collect::<Vec<_>>()})
}

fn write_statuses(api: &Api) -> Result<()> {
    for number in 0..WRITES {
        let name = format!("t{}", number % TENANTS);
        let path = format!("/apis/tenantry.dev/v1alpha1/namespaces/default/tenants/{name}/status");
        let condition = json!({
            "type": "Ready", "status": "False", "reason": "Pulling", "message": format!("write {number}"),
            "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let status = json!({"observedGeneration": 1, "phase": "Pulling", "conditions": [condition]});
        api.patch(&path, &json!({"status": status}))?;
    }
    Ok(())
}

/// A control plane that ends with this value.
struct Plane(Child);

impl Plane {
    fn start(parts: &Parts, folder: &std::path::Path) -> Result<Self> {
        let log = std::fs::File::create(folder.join("log"))?;
        let mut command = Command::new(&parts.standalone);
        command.arg("--data-dir").arg(folder.join("data"));
        command.args(["--listen", "127.0.0.1:0", "--exit-on-stdin-close"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let child = command.spawn().context("the control plane could not be started")?;
        let mut plane = Self(child);
        let stdout = plane.0.stdout.take().context("no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        anyhow::ensure!(
            line.contains("\"ready\":true"),
            "the control plane did not get ready: see {}",
            folder.join("log").display()
        );
        Ok(plane)
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(10);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process's resident memory in MB (of a million bytes).
fn resident(pid: u32) -> Result<f64> {
    let file = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&file).with_context(|| format!("process {pid} has ended"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib =
        line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse::<f64>().ok());
    Ok(kib.with_context(|| format!("{file} has no VmRSS"))? * 1024.0 / 1e6)
}
