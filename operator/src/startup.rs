//! The client of the API server.

use std::path::Path;

use anyhow::Context as _;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// A client of the API server that a kubeconfig names, or of the cluster that this runs in.
pub async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let read =
                Kubeconfig::read_from(path).with_context(|| format!("{} can't be used", path.display()))?;
            kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?
        }
        None => {
            kube::Config::infer().await.context("there is neither a kubeconfig nor a cluster around this")?
        }
    };
    // Watches are held open for almost 5 minutes; everything else is answered well within that.
    config.read_timeout = Some(std::time::Duration::from_secs(310));
    Client::try_from(config).context("no client of the API server can be made")
}
