//! The way to the API server, and its errors in sentences.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::{output, paths};

/// Which cluster, and which namespace of it.
#[derive(Clone, Debug, Default, Args)]
pub struct Access {
    /// The kubeconfig; default: $KUBECONFIG, ~/.kube/config, then the one of `tenantry up`
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context to use
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// The namespace; default: the context's
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
}

/// A client and the namespace that it is about.
pub struct Cluster {
    /// The client.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
    url: String,
}

impl Access {
    /// Finds the kubeconfig as kubectl does, and makes a client. Nothing is sent yet.
    pub async fn connect(&self) -> anyhow::Result<Cluster> {
        let config = match self.kubeconfig()? {
            Some(file) => {
                let options =
                    KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
                Config::from_custom_kubeconfig(file, &options)
                    .await
                    .context("the kubeconfig can't be used")?
            }
            None => Config::incluster().context("this pod's access to its cluster can't be used")?,
        };
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let url = config.cluster_url.to_string();
        let client = Client::try_from(config).context("the kubeconfig can't be used")?;
        Ok(Cluster { client, namespace, url })
    }

    /// What a person adds to kubectl for the same cluster: nothing where kubectl finds it by itself.
    pub fn for_kubectl(&self) -> String {
        let own = || paths::default_state_dir().join(paths::KUBECONFIG);
        let elsewhere = std::env::var_os("KUBECONFIG").is_some()
            || std::env::home_dir().is_some_and(|home| home.join(".kube/config").exists())
            || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        let path = self.kubeconfig.clone().or_else(|| (!elsewhere).then(own));
        let file = path.map(|path| format!(" --kubeconfig {}", path.display())).unwrap_or_default();
        let context =
            self.context.as_ref().map(|context| format!(" --context {context}")).unwrap_or_default();
        format!("{file}{context}")
    }

    /// The folder of the kubeconfig that is named: the state of a `tenantry up`, where it is one's.
    pub fn state_dir(&self) -> Option<PathBuf> {
        let named = self.kubeconfig.clone().or_else(|| std::env::var_os("KUBECONFIG").map(PathBuf::from))?;
        std::path::absolute(named).ok()?.parent().map(Path::to_owned)
    }

    /// `None`: this is a pod, and its own account is used.
    fn kubeconfig(&self) -> anyhow::Result<Option<Kubeconfig>> {
        if let Some(path) = &self.kubeconfig {
            return Kubeconfig::read_from(path).with_context(|| path.display().to_string()).map(Some);
        }
        if let Some(merged) = Kubeconfig::from_env().context("KUBECONFIG")? {
            return Ok(Some(merged));
        }
        if let Some(path) =
            std::env::home_dir().map(|home| home.join(".kube/config")).filter(|path| path.exists())
        {
            return Kubeconfig::read_from(&path).with_context(|| path.display().to_string()).map(Some);
        }
        if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
            return Ok(None);
        }
        let own = paths::default_state_dir().join(paths::KUBECONFIG);
        if !own.exists() {
            bail!(
                "there is no kubeconfig: set KUBECONFIG, give --kubeconfig, or start a control plane with `tenantry up`"
            );
        }
        output::err(format!("Using the control plane of `tenantry up` ({}).", own.display()));
        Kubeconfig::read_from(&own).with_context(|| own.display().to_string()).map(Some)
    }
}

impl Cluster {
    /// An error of the API in a sentence: what could not be done, why, and what helps. `verb` as in "list tenants".
    pub fn explain(&self, verb: &str, error: &kube::Error) -> anyhow::Error {
        explain(&self.url, &self.namespace, verb, error)
    }
}

/// As [`Cluster::explain`], for any server.
pub fn explain(url: &str, namespace: &str, verb: &str, error: &kube::Error) -> anyhow::Error {
    let kube::Error::Api(status) = error else {
        let cause = innermost(error);
        return match error {
            kube::Error::Service(_) | kube::Error::HyperError(_) => anyhow!(
                "the API server {url} does not answer ({cause}). Is it running, and is this the right kubeconfig? \
                 A local one is started by `tenantry up`"
            ),
            _ => anyhow!("can't {verb}: {cause}"),
        };
    };
    match status.code {
        401 => anyhow!("{url} does not know you: the kubeconfig's credentials are wrong or have expired"),
        403 => anyhow!(
            "you may not {verb} in namespace {namespace}: {}. Ask for a role that allows it",
            status.message
        ),
        404 if status.reason != "NotFound" || status.details.as_ref().is_none_or(|d| d.name.is_empty()) => {
            anyhow!(
                "the cluster {url} does not know Tenantry's resources: apply its CRDs first (`tenantry up` does, or \
             `kubectl apply -f crds/`)"
            )
        }
        _ => anyhow!("can't {verb}: {}", status.message),
    }
}

/// The cause that says most: the innermost one.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use kube::core::response::StatusDetails;

    use super::*;

    fn shown(error: &kube::Error) -> String {
        explain("https://127.0.0.1:1/", "fleet", "list tenants", error).to_string()
    }

    fn api(code: u16, reason: &str, name: &str) -> kube::Error {
        let details: Option<StatusDetails> = serde_json::from_value(serde_json::json!({"name": name})).ok();
        let mut status = Status::failure("because", reason).with_code(code);
        status.details = details;
        kube::Error::Api(status.boxed())
    }

    #[test]
    fn each_refusal_says_what_helps() {
        assert!(shown(&api(401, "Unauthorized", "")).contains("credentials"));
        let forbidden = shown(&api(403, "Forbidden", ""));
        assert!(forbidden.contains("may not list tenants in namespace fleet: because"), "{forbidden}");
        assert!(shown(&api(404, "NotFound", "")).contains("CRDs"));
        assert_eq!(shown(&api(404, "NotFound", "acme")), "can't list tenants: because");
    }

    #[tokio::test]
    async fn an_api_server_that_is_not_there_is_named() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        drop(socket);
        let client = Client::try_from(Config::new(url.parse().unwrap())).unwrap();
        let error = client.apiserver_version().await.unwrap_err();
        let message = explain(&url, "fleet", "list tenants", &error).to_string();
        assert!(message.contains(&url) && message.contains("does not answer"), "{message}");
        assert!(message.contains("refused"), "{message}");
    }
}
