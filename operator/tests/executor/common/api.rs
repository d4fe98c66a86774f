//! The embedded control plane, one for each test program.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, Config};
use tenantry_operator::startup;

/// A running control plane; it ends with this value.
pub struct ApiServer {
    child: Child,
    kubeconfig: PathBuf,
    _data: tempfile::TempDir,
}

impl ApiServer {
    /// Starts one with our resources.
    pub async fn start() -> Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let program = std::env::var_os("TENANTRY_STANDALONE").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/tenantry-standalone"),
            PathBuf::from,
        );
        if !program.is_file() {
            bail!(
                "{} is missing: `cargo xtask setup` builds it, or set TENANTRY_STANDALONE",
                program.display()
            );
        }
        let data = tempfile::tempdir()?;
        let directory = data.path().join("data");
        let mut child = Command::new(&program)
            .args([
                "--data-dir",
                &directory.to_string_lossy(),
                "--listen",
                "127.0.0.1:0",
                "--exit-on-stdin-close",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no standard output")?).read_line(&mut line)?;
        let ready: serde_json::Value =
            serde_json::from_str(&line).context("the control plane did not get ready")?;
        let kubeconfig =
            PathBuf::from(ready["kubeconfig"].as_str().context("no kubeconfig in the ready line")?);
        let server = Self { child, kubeconfig, _data: data };
        server.apply_resources().await?;
        Ok(server)
    }

    /// A client.
    pub async fn client(&self) -> Result<Client> {
        startup::client(Some(&self.kubeconfig)).await
    }

    /// A client with the rights of a service account, by a token as a pod has one.
    pub async fn client_of(&self, namespace: &str, account: &str) -> Result<Client> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, namespace);
        let review =
            accounts.create_token_request(account, &PostParams::default(), &TokenRequest::default()).await?;
        let token = review.status.context("no token")?.token;
        let admin = Kubeconfig::read_from(&self.kubeconfig)?;
        let mut config = Config::from_custom_kubeconfig(admin, &KubeConfigOptions::default()).await?;
        config.auth_info = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
        Ok(Client::try_from(config)?)
    }

    /// A namespace of its own.
    pub async fn namespace(&self) -> Result<String> {
        let namespaces: Api<Namespace> = Api::all(self.client().await?);
        let metadata = ObjectMeta { generate_name: Some("operator-".to_owned()), ..ObjectMeta::default() };
        let made = namespaces
            .create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() })
            .await?;
        made.metadata.name.context("the namespace has no name")
    }

    async fn apply_resources(&self) -> Result<()> {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client().await?);
        for definition in tenantry_api::crds() {
            let name = definition.metadata.name.clone().context("a definition has no name")?;
            definitions.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&definition)).await?;
        }
        for definition in tenantry_api::crds() {
            let name = definition.metadata.name.context("a definition has no name")?;
            let established = await_condition(definitions.clone(), &name, conditions::is_crd_established());
            tokio::time::timeout(Duration::from_secs(30), established).await??;
        }
        Ok(())
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
