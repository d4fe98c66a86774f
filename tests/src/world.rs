//! One scenario's world: a namespace, a host with an agent, an operator, and a secret that must be seen nowhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tenantry_api::conditions;
use tenantry_api::{ComposeHost, Phase, TemplateBundle, Tenant};

use crate::control_plane::ControlPlane;
use crate::docker::{Project, eventually};
use crate::process::Process;
use crate::secrets;

/// A value that is planted in every `.env` and looked for in every sink (P12).
pub const CANARY: &str = "canary-7f3a9c51e0";

/// How long a phase may take to be reached.
pub const SOON: Duration = Duration::from_secs(90);

/// One scenario's world. Everything that it started ends with it.
pub struct World {
    /// The control plane that all scenarios share.
    pub plane: &'static ControlPlane,
    /// A client of this scenario's runtime.
    pub client: kube::Client,
    /// This scenario's namespace.
    pub namespace: String,
    /// The operator, watching this namespace only.
    pub operator: Option<Process>,
    /// The host's agent.
    pub agent: Option<Process>,
    /// Certificates, the agent's state and configuration, logs.
    pub files: tempfile::TempDir,
    /// Where tenants may live on the host.
    pub srv: PathBuf,
    /// The address that the agent listens on.
    pub agent_address: String,
}

impl World {
    /// Starts an agent and an operator, and applies a ComposeHost `n5`.
    pub async fn start(name: &str) -> Result<Self> {
        let plane = ControlPlane::shared().await?;
        let client = plane.client().await?;
        let namespace = plane.namespace(&client, name).await?;
        let files = tempfile::Builder::new().prefix("tenantry-world-").tempdir()?;
        let srv = files.path().join("srv");
        std::fs::create_dir_all(&srv)?;
        let port = crate::docker::free_port()?;
        let mut world = Self {
            plane,
            client,
            namespace,
            operator: None,
            agent: None,
            srv,
            agent_address: format!("127.0.0.1:{port}"),
            files,
        };
        world.issue_certificates()?;
        world.start_agent()?;
        world.start_operator()?;
        world
            .apply(&json!({
                "apiVersion": "tenantry.dev/v1alpha1", "kind": "ComposeHost", "metadata": {"name": "n5"},
                "spec": {"identity": "n5", "connection": {"dial": {"address": world.agent_address}}},
            }))
            .await?;
        Ok(world)
    }

    /// A path among the scenario's files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn issue_certificates(&self) -> Result<()> {
        let pki = self.path("pki");
        let pki = pki.to_string_lossy();
        for arguments in [vec!["init"], vec!["issue", "agent", "n5"], vec!["issue", "operator", "main"]] {
            let tenantry = crate::program("tenantry")?;
            let output = Command::new(tenantry).arg("pki").args(&arguments).args(["--dir", &pki]).output()?;
            ensure!(
                output.status.success(),
                "pki {arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// Starts the agent, for the first time or again.
    pub fn start_agent(&mut self) -> Result<()> {
        let config = self.path("agent.yaml");
        let pki = self.path("pki");
        if !config.exists() {
            let content = json!({
                "identity": "n5",
                "listen": self.agent_address,
                "metricsListen": "127.0.0.1:0",
                "stateDir": self.path("agent-state"),
                "tls": {
                    "ca": pki.join("ca.crt"),
                    "cert": pki.join("agent-n5.crt"),
                    "key": pki.join("agent-n5.key"),
                },
                "operators": ["main"],
                "allow": {"directories": [self.srv], "registries": [crate::required("TENANTRY_TEST_REGISTRY")?]},
            });
            write_private(&config, &serde_json::to_string_pretty(&content)?)?;
        }
        let arguments = ["--config", &config.to_string_lossy()];
        self.agent =
            Some(Process::start(&crate::program("tenantry-agent")?, &arguments, &self.path("agent.log"))?);
        Ok(())
    }

    /// Starts the operator, for the first time or again.
    pub fn start_operator(&mut self) -> Result<()> {
        let pki = self.path("pki");
        let kubeconfig = self.plane.kubeconfig.to_string_lossy().into_owned();
        let of_pki = |name: &str| pki.join(name).to_string_lossy().into_owned();
        let bundles = templates().to_string_lossy().into_owned();
        let (ca, cert, key) = (of_pki("ca.crt"), of_pki("operator-main.crt"), of_pki("operator-main.key"));
        let arguments = [
            "--kubeconfig",
            &kubeconfig,
            "--namespace",
            &self.namespace,
            "--tls-ca",
            &ca,
            "--tls-cert",
            &cert,
            "--tls-key",
            &key,
            "--metrics-listen",
            "127.0.0.1:0",
            "--leader-elect=false",
            "--bundle-dir",
            &bundles,
        ];
        let log = self.path("operator.log");
        self.operator = Some(Process::start(&crate::program("tenantry-operator")?, &arguments, &log)?);
        Ok(())
    }

    /// Applies a manifest as `kubectl apply --server-side` would.
    pub async fn apply(&self, manifest: &Value) -> Result<()> {
        let name = manifest["metadata"]["name"].as_str().context("a manifest has a name")?;
        let parameters = PatchParams::apply("person").force();
        let patch = Patch::Apply(manifest);
        match manifest["kind"].as_str() {
            Some("Tenant") => drop(self.tenants().patch(name, &parameters, &patch).await?),
            Some("ComposeHost") => drop(self.hosts().patch(name, &parameters, &patch).await?),
            Some("TemplateBundle") => drop(self.bundles().patch(name, &parameters, &patch).await?),
            other => bail!("the harness applies no {other:?}"),
        }
        Ok(())
    }

    /// The tenants of this scenario.
    pub fn tenants(&self) -> Api<Tenant> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The hosts of this scenario.
    pub fn hosts(&self) -> Api<ComposeHost> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The bundles of this scenario.
    pub fn bundles(&self) -> Api<TemplateBundle> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Puts files into a ConfigMap and makes a bundle of it.
    pub async fn bundle(&self, name: &str, files: &[(&str, &str)]) -> Result<()> {
        let data: BTreeMap<String, String> =
            files.iter().map(|(path, content)| (path.replace('/', "__"), (*content).to_owned())).collect();
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
        match maps.create(&PostParams::default(), &map).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                maps.replace(name, &PostParams::default(), &map).await?;
            }
            result => drop(result?),
        }
        self.apply(&json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "TemplateBundle", "metadata": {"name": name},
            "spec": {"source": {"configMap": {"name": name}}},
        }))
        .await
    }

    /// A Tenant's manifest for a project without bundle, with `IMAGE_TAG` patched and a short verification.
    pub fn tenant(&self, project: &Project, tag: &str) -> Value {
        json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"},
            "spec": {
                "host": "n5", "project": project.name, "directory": project.directory, "imageTag": tag,
                "env": {"patch": [{"name": "IMAGE_TAG", "value": "$(imageTag)"}]},
                "upgrade": {"verify": {"timeout": "20s", "stableFor": "1s"}},
            },
        })
    }

    /// Changes a Tenant by a merge patch, as `kubectl patch` would.
    pub async fn patch(&self, name: &str, change: Value) -> Result<()> {
        self.tenants().patch(name, &PatchParams::default(), &Patch::Merge(change)).await?;
        Ok(())
    }

    /// Deletes a Tenant.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.tenants().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits until a Tenant's status, for its present generation, is as a check wants it.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        within: Duration,
        check: impl Fn(&Tenant) -> bool,
    ) -> Result<Tenant> {
        let seen = eventually(what, within, || async {
            let tenant = self.tenants().get(name).await?;
            let status = tenant.status.clone().unwrap_or_default();
            let current = status.observed_generation == tenant.metadata.generation;
            ensure!(current && check(&tenant), "{}", serde_json::to_string_pretty(&status)?);
            Ok(tenant)
        });
        seen.await.with_context(|| self.logs())
    }

    /// Waits for a phase.
    pub async fn until_phase(&self, name: &str, phase: Phase) -> Result<Tenant> {
        self.until(name, phase.as_str(), SOON, |tenant| phase_of(tenant) == Some(phase)).await
    }

    /// Waits until a tag runs and is verified.
    pub async fn until_ready_at(&self, name: &str, tag: &str) -> Result<Tenant> {
        let at_tag = |tenant: &Tenant| {
            let status = tenant.status.as_ref();
            let deployed = status.and_then(|status| status.deployed.as_ref());
            phase_of(tenant) == Some(Phase::Ready)
                && deployed.is_some_and(|deployed| deployed.image_tag == tag)
        };
        self.until(name, &format!("Ready at {tag}"), SOON, at_tag).await
    }

    /// Notes of all events about this scenario's objects.
    pub async fn events(&self) -> Result<Vec<Event>> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        Ok(events.list(&ListParams::default()).await?.items)
    }

    /// What a program's metrics page says.
    pub async fn metrics(process: &Process) -> Result<String> {
        let url = format!("http://{}/metrics", process.ready_text("metrics")?);
        Ok(reqwest::get(url).await?.error_for_status()?.text().await?)
    }

    /// P12: the canary is in no status, event, log, metric or error, and on the host only where it has to be: in files
    /// that nobody but root can reach.
    pub async fn assert_canary_unseen(&self) -> Result<()> {
        let tenants = self.tenants().list(&ListParams::default()).await?;
        let mut sinks = vec![("tenants", serde_json::to_string(&tenants)?)];
        sinks.push(("hosts", serde_json::to_string(&self.hosts().list(&ListParams::default()).await?)?));
        sinks.push(("bundles", serde_json::to_string(&self.bundles().list(&ListParams::default()).await?)?));
        sinks.push(("events", serde_json::to_string(&self.events().await?)?));
        for (name, process) in [("operator", &self.operator), ("agent", &self.agent)] {
            let Some(process) = process else { continue };
            sinks.push((name, process.log_text()));
            sinks.push((name, Self::metrics(process).await?));
        }
        for (sink, text) in sinks {
            ensure!(!text.contains(CANARY), "a secret value was found in {sink}:\n{text}");
        }
        let told = secrets::check(&self.path("agent-state"), &self.srv, CANARY)?;
        ensure!(told > 0, "the host's own records were not looked at");
        Ok(())
    }

    /// The end of both programs' logs, for a failed test's message.
    fn logs(&self) -> String {
        let tail = |process: &Option<Process>| {
            let text = process.as_ref().map(Process::log_text).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(25).collect();
            lines.into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        format!("operator said:\n{}\nagent said:\n{}", tail(&self.operator), tail(&self.agent))
    }
}

/// The bundles that people start from.
pub fn templates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("templates")
}

/// A Tenant's phase.
pub fn phase_of(tenant: &Tenant) -> Option<Phase> {
    tenant.status.as_ref().and_then(|status| status.phase)
}

/// A condition's status, reason and message; where it is missing, a message that says so.
pub fn condition(tenant: &Tenant, kind: &str) -> (String, String, String) {
    let status = tenant.status.as_ref();
    let Some(condition) = status.and_then(|status| conditions::find(&status.conditions, kind)) else {
        return (String::new(), String::new(), format!("there is no condition {kind}"));
    };
    (condition.status.clone(), condition.reason.clone(), condition.message.clone())
}

/// Writes a file that only its owner can read.
pub fn write_private(path: &Path, content: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, content)?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?)
}
