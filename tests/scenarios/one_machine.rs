//! `tenantry up`: control plane, operator and agent on one machine, as a person without a cluster has them.

use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tenantry_tests::docker::{Project, free_port};
use tenantry_tests::{program, required};

use crate::sample;

pub(crate) struct Up {
    child: Child,
    stdin: Option<ChildStdin>,
    pub(crate) ready: Value,
}

impl Up {
    pub(crate) fn start(folder: &Path, listen: &str) -> Result<Self> {
        let ready = folder.join("ready.json");
        let _ = std::fs::remove_file(&ready);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("up.log"))?;
        let mut child = Command::new(program("tenantry")?)
            .args(["up", "--exit-on-stdin-close", "--listen", listen])
            .args(["--allow-registry", &required("TENANTRY_TEST_REGISTRY")?])
            .arg("--allow-directory")
            .arg(folder.join("srv"))
            .arg("--state-dir")
            .arg(folder.join("state"))
            .arg("--ready-file")
            .arg(&ready)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let stdin = child.stdin.take();
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            if let Some(ready) =
                std::fs::read(&ready).ok().and_then(|text| serde_json::from_slice(&text).ok())
            {
                return Ok(Self { child, stdin, ready });
            }
            if child.try_wait()?.is_some() || Instant::now() > deadline {
                let _ = child.kill();
                bail!("not ready: {}", std::fs::read_to_string(folder.join("up.log"))?);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn end(mut self) -> Result<()> {
        drop(self.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(15);
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "tenantry up did not end within 15 s");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let kubeconfig = self.ready["kubeconfig"].as_str().context("a kubeconfig")?;
        let output = Command::new("kubectl").args(arguments).env("KUBECONFIG", kubeconfig).output()?;
        ensure!(
            output.status.success(),
            "kubectl {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    fn until_phase(&self, phase: &str) -> Result<()> {
        let path = format!("jsonpath={{.status.phase}}={phase}");
        self.kubectl(&["wait", "tenant/acme", "--for", &path, "--timeout=90s"]).map(drop)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn one_server_without_a_cluster_keeps_its_state_and_its_tenants_over_a_restart() -> Result<()> {
    let files = tempfile::Builder::new().prefix("tenantry-up-").tempdir()?;
    let folder = files.path();
    std::fs::create_dir_all(folder.join("srv"))?;
    let repository = sample::repository("onemachine")?;
    sample::publish(&repository, "v1", &[])?;
    sample::publish(&repository, "v2", &[])?;
    let project = Project::new(&folder.join("srv"), "onemachine")?;
    project.write("docker-compose.yml", &sample::compose_file(&repository))?;
    project.write("config/web.conf", "GREETING=hello\n")?;
    project.write("content/index.md", "own\n")?;
    project.write(".env", &sample::env_file("v1", project.port))?;
    project.compose(&["up", "-d"])?;

    let listen = format!("127.0.0.1:{}", free_port()?);
    let up = Up::start(folder, &listen)?;
    let manifest = json!({
        "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"},
        "spec": {
            "host": "local", "project": project.name, "directory": project.directory, "imageTag": "v1",
            "env": {"patch": [{"name": "IMAGE_TAG", "value": "$(imageTag)"}]},
            "upgrade": {"verify": {
                "timeout": "20s", "stableFor": "1s",
                "http": [{"url": format!("http://127.0.0.1:{}/version", project.port)}],
            }},
        },
    });
    let file = folder.join("tenant.json");
    std::fs::write(&file, manifest.to_string())?;
    up.kubectl(&["apply", "-f", &file.to_string_lossy()])?;
    up.until_phase("Ready")?;
    let again = up.kubectl(&["apply", "-f", &file.to_string_lossy()])?;
    ensure!(again.contains("unchanged"), "a client-side apply finds no difference: {again}");
    let table = up.kubectl(&["get", "tenants"])?;
    for column in ["HOST", "TAG", "STATUS", "AGE"] {
        ensure!(table.lines().next().is_some_and(|head| head.contains(column)), "{table}");
    }
    ensure!(table.contains("Ready") && table.lines().all(|line| line.chars().count() <= 80), "{table}");
    let wide = up.kubectl(&["get", "tenants", "-o", "wide"])?;
    ensure!(wide.contains("MESSAGE") && wide.contains("run as planned"), "{wide}");
    let all = up.kubectl(&["get", "tenantry"])?;
    ensure!(
        all.contains("tenant.tenantry.dev/acme") && all.contains("composehost.tenantry.dev/local"),
        "{all}"
    );
    let running = project.containers()?;
    up.end()?;
    assert_eq!(project.containers()?, running, "tenants run on");
    assert_eq!(project.answer("/version").await?, "v1");

    let up = Up::start(folder, &listen)?;
    up.kubectl(&["patch", "tenant", "acme", "--type", "merge", "-p", r#"{"spec":{"imageTag":"v2"}}"#])?;
    let deployed = "jsonpath={.status.deployed.imageTag}=v2";
    up.kubectl(&["wait", "tenant/acme", "--for", deployed, "--timeout=90s"])?;
    up.until_phase("Ready")?;
    assert_eq!(project.answer("/version").await?, "v2");
    let story = up.kubectl(&["describe", "tenant", "acme"])?;
    ensure!(story.contains("v2") && story.contains("Events:") && story.contains("succeeded"), "{story}");
    let second = Command::new(program("tenantry")?)
        .args(["up", "--listen", &listen, "--state-dir"])
        .arg(folder.join("state"))
        .stdin(Stdio::null())
        .output()?;
    ensure!(!second.status.success(), "a second `tenantry up` on the same state must be refused");
    up.end()
}
