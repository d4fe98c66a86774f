//! Two projects of the same files side by side: one is a Tenant, the other is kept by hand.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use test_images::Image;

use super::{Bench, PREFIX};
use crate::{host, shell};

/// How long anything may take here.
pub const PATIENCE: Duration = Duration::from_mins(4);

/// A Tenant and its twin.
pub struct Pair {
    /// The Tenant's name.
    pub tenant: String,
    /// The service's repository whose image changes, below the registry.
    pub repository: &'static str,
    /// The variable in `.env` that holds its tag.
    pub variable: &'static str,
    /// Kept by hand: its directory.
    pub by_hand: PathBuf,
    /// The port at which the Tenant's application answers.
    pub port: u16,
    /// The port at which its twin answers.
    pub port_by_hand: u16,
}

impl Pair {
    /// The Tenant's path at the API server.
    pub fn path(&self) -> String {
        tenant_path(&self.tenant)
    }

    /// Publishes an image that is on no host yet, with an application that takes 2 s to start.
    pub fn publish(&self, bench: &Bench, tag: &str) -> Result<()> {
        let reference = format!("{}/{}:{tag}", bench.host.registry.address(), self.repository);
        let image = Image::version(tag).with("START_DELAY", "2s").unique(1 << 20);
        image.publish(bench.host.standin(), &reference)
    }
}

fn tenant_path(name: &str) -> String {
    format!("/apis/tenantry.dev/v1alpha1/namespaces/default/tenants/{name}")
}

/// Deletes a Tenant, then removes its project, of the same name.
pub fn remove_tenant(bench: &Bench, name: &str) -> Result<()> {
    shell::quietly(&mut bench.host.kubectl(&["delete", "tenant", name, "--timeout=60s"]))?;
    host::remove_project(name)
}

/// Removes the projects of an earlier run that was killed, also where only a network or a volume is left.
pub fn remove_leftovers() -> Result<()> {
    let format = "{{.Label \"com.docker.compose.project\"}}";
    let mut listed = String::new();
    for what in [&["ps", "-a"][..], &["network", "ls"], &["volume", "ls"]] {
        listed += &shell::quietly(shell::command("docker", what).args(["--format", format]))?;
    }
    let mut projects: Vec<&str> = listed.lines().filter(|project| project.starts_with(PREFIX)).collect();
    projects.sort_unstable();
    projects.dedup();
    projects.into_iter().try_for_each(host::remove_project)
}

/// Removes the images that came from a registry of ours, by each of their names, those that keep them included.
pub fn remove_images(registry: &str) -> Result<()> {
    let images = shell::quietly(&mut shell::command(
        "docker",
        &["images", "--digests", "--format", "{{.Repository}} {{.ID}}"],
    ))?;
    let of_ours =
        |line: &str| line.starts_with(registry).then(|| line.split(' ').nth(1).map(str::to_owned)).flatten();
    let mut ids: Vec<String> = images.lines().filter_map(of_ours).collect();
    ids.sort();
    ids.dedup();
    for id in ids {
        let format = "{{range .RepoTags}}{{println .}}{{end}}{{range .RepoDigests}}{{println .}}{{end}}";
        let names =
            shell::quietly(&mut shell::command("docker", &["image", "inspect", "--format", format, &id]))?;
        for name in names.lines().filter(|name| !name.is_empty()) {
            // The last tag takes the digests with it: what is gone already is as it should be.
            let _ = shell::quietly(&mut shell::command("docker", &["rmi", name]));
        }
    }
    Ok(())
}

/// Installs `hello` as a Tenant at v1 and waits until it is ready. The Tenant, its project and directory have one name.
pub fn install_hello(bench: &Bench, name: &str) -> Result<(PathBuf, u16)> {
    let registry = bench.host.registry.address();
    let port = host::free_port()?;
    let env = format!("IMAGE_TAG=v0\nHTTP_PORT={port}\n");
    let directory = directory(bench, name, &env)?;
    let values = json!({"registry": registry});
    install(bench, &manifest(name, &directory, "hello", "IMAGE_TAG", "v1", &values))?;
    Ok((directory, port))
}

/// `hello`, twice, at v1.
pub fn hello(bench: &Bench) -> Result<Pair> {
    publish_first(bench, "tenantry/hello", "v1")?;
    let name = format!("{PREFIX}-hello");
    let (ours, port) = shell::step("Installing hello", || install_hello(bench, &name))?;
    let pair = Pair {
        by_hand: twin(&ours)?,
        tenant: name,
        repository: "tenantry/hello",
        variable: "IMAGE_TAG",
        port,
        port_by_hand: host::free_port()?,
    };
    set(&pair.by_hand, "HTTP_PORT", &pair.port_by_hand.to_string())?;
    host::compose_by_hand(&pair.by_hand, "up -d --quiet-pull")?;
    Ok(pair)
}

/// `changemaker`, twice, at v1: some eighty containers.
pub fn changemaker(bench: &Bench) -> Result<Pair> {
    shell::step("Publishing the images of changemaker", || publish_changemaker(bench))?;
    let name = format!("{PREFIX}-changemaker");
    let bundle = shell::root().join("templates").join("changemaker");
    let registry = bench.host.registry.address();
    let env = std::fs::read_to_string(bundle.join("example.env"))?;
    let directory = directory(bench, &name, &env)?;
    copy(&bundle.join("own"), &directory)?;
    let port = host::free_port()?;
    set(&directory, "REGISTRY", registry)?;
    other_ports(&directory)?;
    set(&directory, "API_PORT", &port.to_string())?;
    let manifest = manifest(&name, &directory, "changemaker", "API_IMAGE_TAG", "v1", &json!({}));
    shell::step("Installing changemaker", || install(bench, &manifest))?;
    let pair = Pair {
        by_hand: twin(&directory)?,
        tenant: name,
        repository: "tenantry/changemaker-api",
        variable: "API_IMAGE_TAG",
        port,
        port_by_hand: host::free_port()?,
    };
    other_ports(&pair.by_hand)?;
    set(&pair.by_hand, "API_PORT", &pair.port_by_hand.to_string())?;
    shell::step("Starting its twin by hand", || host::compose_by_hand(&pair.by_hand, "up -d --quiet-pull"))?;
    Ok(pair)
}

/// Publishes an image that starts at once.
pub fn publish_first(bench: &Bench, repository: &str, tag: &str) -> Result<()> {
    let reference = format!("{}/{repository}:{tag}", bench.host.registry.address());
    Image::version(tag).publish(bench.host.standin(), &reference)
}

fn publish_changemaker(bench: &Bench) -> Result<()> {
    let list = shell::root().join("templates").join("changemaker").join("images.txt");
    let text = std::fs::read_to_string(&list)?;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (repository, tag) = line.split_once(' ').context("a repository and a tag")?;
        publish_first(bench, repository, if tag == "release" { "v1" } else { tag })?;
    }
    Ok(())
}

fn directory(bench: &Bench, name: &str, env: &str) -> Result<PathBuf> {
    let directory = bench.host.srv().join(name);
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join(".env"), env)?;
    Ok(directory)
}

fn install(bench: &Bench, manifest: &Value) -> Result<()> {
    bench.host.apply(&manifest.to_string())?;
    let name = manifest["items"][1]["metadata"]["name"].as_str().context("a Tenant has a name")?;
    let tag = &manifest["items"][1]["spec"]["imageTag"];
    bench.host.until(name, PATIENCE, |tenant| {
        tenant["status"]["phase"] == "Ready" && &tenant["status"]["deployed"]["imageTag"] == tag
    })?;
    Ok(())
}

fn manifest(name: &str, directory: &Path, bundle: &str, variable: &str, tag: &str, values: &Value) -> Value {
    let of = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "tenantry.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let tenant = json!({
        "host": "local", "project": name, "directory": directory, "bundle": bundle, "imageTag": tag,
        "values": values,
        "env": {"patch": [{"name": variable, "value": "$(imageTag)"}]},
        "upgrade": {"verify": {"timeout": "120s", "stableFor": "1s"}},
    });
    let bundle = of("TemplateBundle", bundle, json!({"source": {"directory": {"name": bundle}}}));
    json!({"apiVersion": "v1", "kind": "List", "items": [bundle, of("Tenant", name, tenant)]})
}

/// A copy of a tenant's directory beside it, less what is ours.
fn twin(ours: &Path) -> Result<PathBuf> {
    let mut name = ours.file_name().context("a directory has a name")?.to_owned();
    name.push("-hand");
    let twin = ours.with_file_name(name);
    std::fs::create_dir_all(&twin)?;
    copy(ours, &twin)?;
    std::fs::remove_dir_all(twin.join(".tenantry"))?;
    Ok(twin)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut command = shell::command("cp", &["-a"]);
    shell::quietly(command.arg(from.join(".")).arg(to)).map(drop)
}

/// Sets a variable that `.env` has.
fn set(directory: &Path, variable: &str, value: &str) -> Result<()> {
    let file = directory.join(".env");
    let text = std::fs::read_to_string(&file)?;
    let prefix = format!("{variable}=");
    anyhow::ensure!(
        text.lines().any(|line| line.starts_with(&prefix)),
        "{variable} is not in {}",
        file.display()
    );
    let line = |line: &str| {
        if line.starts_with(&prefix) { format!("{prefix}{value}\n") } else { format!("{line}\n") }
    };
    Ok(std::fs::write(&file, text.lines().map(line).collect::<String>())?)
}

/// Gives the published ports that nothing here asks free numbers.
fn other_ports(directory: &Path) -> Result<()> {
    for variable in ["HTTP_PORT", "WEB_PORT", "GRAFANA_PORT"] {
        set(directory, variable, &host::free_port()?.to_string())?;
    }
    Ok(())
}
