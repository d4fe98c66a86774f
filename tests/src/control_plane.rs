//! One embedded control plane for all scenarios of a run; each scenario has a namespace of its own.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};

use crate::process::Process;

/// A running control plane.
pub struct ControlPlane {
    /// The client certificate's kubeconfig.
    pub kubeconfig: PathBuf,
    // Both live as long as the test process: its end closes the pipe, which ends the child.
    _process: Mutex<Process>,
    _data: tempfile::TempDir,
}

impl ControlPlane {
    /// Starts a control plane of its own.
    pub fn start() -> Result<Self> {
        let data = tempfile::tempdir()?;
        let directory = data.path().join("data");
        let log = data.path().join("log");
        let program = PathBuf::from(crate::required("TENANTRY_STANDALONE")?);
        let arguments = ["--data-dir", &directory.to_string_lossy(), "--listen", "127.0.0.1:0"];
        let process = Process::start(&program, &arguments, &log)?;
        let kubeconfig = PathBuf::from(process.ready_text("kubeconfig")?);
        Ok(Self { kubeconfig, _process: Mutex::new(process), _data: data })
    }

    /// The one that all scenarios share, started by the first that asks, with our resources applied.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<ControlPlane> = OnceLock::new();
        static STARTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _guard = STARTING.lock().await;
        if let Some(shared) = SHARED.get() {
            return Ok(shared);
        }
        let started = Self::start()?;
        started.apply_resources().await?;
        Ok(SHARED.get_or_init(|| started))
    }

    /// A client, made anew for each scenario because each has a runtime of its own.
    pub async fn client(&self) -> Result<kube::Client> {
        crate::crypto();
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// Applies our custom resource definitions and waits until they are served.
    pub async fn apply_resources(&self) -> Result<()> {
        define(&self.client().await?, &tenantry_api::crds()).await
    }

    /// Makes a namespace for one scenario.
    pub async fn namespace(&self, client: &kube::Client, prefix: &str) -> Result<String> {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let wanted = Namespace {
            metadata: ObjectMeta { generate_name: Some(format!("{prefix}-")), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        let made = namespaces.create(&PostParams::default(), &wanted).await?;
        made.metadata.name.context("the namespace has a name")
    }
}

/// Applies custom resource definitions and waits until they are served: all at once, for the API server takes five seconds
/// before it serves a new one.
pub async fn define(client: &kube::Client, all: &[CustomResourceDefinition]) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let parameters = PatchParams::apply("tenantry-tests").force();
    let one = async |definition: &CustomResourceDefinition| -> Result<()> {
        let name = definition.metadata.name.as_deref().context("a definition has a name")?;
        definitions.patch(name, &parameters, &Patch::Apply(definition)).await?;
        await_condition(definitions.clone(), name, conditions::is_crd_established()).await?;
        Ok(())
    };
    futures::future::try_join_all(all.iter().map(one)).await?;
    Ok(())
}
