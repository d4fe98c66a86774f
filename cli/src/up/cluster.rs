//! What the tree puts into its cluster: definitions, the namespace, and the ComposeHost of this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions::is_crd_established};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::json;
use tenantry_api::{ComposeHost, GROUP, VERSION, conditions};
use tokio::time::{Instant, timeout};

use super::certificates::LOCAL;
use super::lead;
use crate::access::explain;

/// The name under which the tree writes.
const FIELD_MANAGER: &str = "tenantry-up";
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(30);
/// A new definition is served a moment after it is established.
const SERVED_WITHIN: Duration = Duration::from_secs(10);

/// The cluster that the tree uses.
pub struct Cluster {
    client: Client,
    url: String,
    namespace: String,
}

impl Cluster {
    /// Makes a client from a kubeconfig.
    pub async fn connect(kubeconfig: &Path, namespace: &str) -> anyhow::Result<Self> {
        let shown = || format!("the kubeconfig {} can't be used", kubeconfig.display());
        let file = Kubeconfig::read_from(kubeconfig).with_context(shown)?;
        let config =
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.with_context(shown)?;
        let url = config.cluster_url.to_string();
        let client = Client::try_from(config).with_context(shown)?;
        Ok(Self { client, url, namespace: namespace.to_owned() })
    }

    /// Applies the definitions and the namespace, and waits until the definitions are in force.
    pub async fn prepare(&self) -> anyhow::Result<()> {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let params = PatchParams::apply(FIELD_MANAGER).force();
        for definition in tenantry_api::crds() {
            let name = definition.name_any();
            let applied = definitions.patch(&name, &params, &Patch::Apply(&definition)).await;
            applied.map_err(|error| self.explain(&format!("apply the definition {name}"), error))?;
        }
        for definition in tenantry_api::crds() {
            let name = definition.name_any();
            let established = await_condition(definitions.clone(), &name, is_crd_established());
            let waited = timeout(ESTABLISHED_WITHIN, established).await;
            waited
                .map_err(|_| anyhow!("the API server did not take the definition {name} into use within {ESTABLISHED_WITHIN:?}"))?
                .with_context(|| format!("can't watch the definition {name}"))?;
        }
        self.make_namespace().await
    }

    async fn make_namespace(&self) -> anyhow::Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let explain = |error| self.explain(&format!("make the namespace {}", self.namespace), error);
        if namespaces.get_opt(&self.namespace).await.map_err(explain)?.is_some() {
            return Ok(());
        }
        let wanted = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}});
        let params = PatchParams::apply(FIELD_MANAGER);
        namespaces.patch(&self.namespace, &params, &Patch::Apply(&wanted)).await.map_err(explain)?;
        Ok(())
    }

    /// Waits until no other operator looks after the namespace.
    pub async fn wait_for_lead(&self, identity: &str) -> anyhow::Result<()> {
        lead::wait(&self.client, &self.namespace, identity)
            .await
            .map_err(|error| self.explain("list leases", error))
    }

    /// Applies the ComposeHost of this machine, whose agent listens on `agent`.
    pub async fn apply_host(&self, agent: SocketAddr) -> anyhow::Result<()> {
        let wanted = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "ComposeHost",
            "metadata": {"name": LOCAL, "namespace": self.namespace},
            "spec": {"identity": LOCAL, "connection": {"dial": {"address": reachable(agent).to_string()}}},
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let deadline = Instant::now() + SERVED_WITHIN;
        loop {
            match self.hosts().patch(LOCAL, &params, &Patch::Apply(&wanted)).await {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 404 && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return Err(self.explain(&format!("apply the ComposeHost {LOCAL}"), error)),
            }
        }
    }

    /// Waits until the operator has reached the agent. An error says what the ComposeHost says instead.
    pub async fn host_ready(&self, within: Duration) -> anyhow::Result<()> {
        let ready = |host: Option<&ComposeHost>| ready_condition(host).is_some_and(|(ready, _)| ready);
        if let Ok(waited) = timeout(within, await_condition(self.hosts(), LOCAL, ready)).await {
            return waited.map(drop).context("can't watch the ComposeHost");
        }
        let host =
            self.hosts().get_opt(LOCAL).await.map_err(|error| self.explain("get ComposeHosts", error))?;
        let said = ready_condition(host.as_ref()).map_or_else(|| "nothing yet".to_owned(), |(_, said)| said);
        Err(anyhow!(
            "the operator has not reached this machine's agent within {within:?}. The ComposeHost {LOCAL} says: {said}"
        ))
    }

    fn hosts(&self) -> Api<ComposeHost> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    #[allow(clippy::needless_pass_by_value)] // as `map_err` hands it over
    fn explain(&self, verb: &str, error: kube::Error) -> anyhow::Error {
        explain(&self.url, &self.namespace, verb, &error)
    }
}

fn ready_condition(host: Option<&ComposeHost>) -> Option<(bool, String)> {
    let status = host?.status.as_ref()?;
    let ready = conditions::find(&status.conditions, conditions::READY)?;
    Some((ready.status == "True", ready.message.clone()))
}

/// An agent that listens everywhere is reached over loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_listens_everywhere_is_dialled_on_loopback() {
        let shown = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(shown("0.0.0.0:7443"), "127.0.0.1:7443");
        assert_eq!(shown("[::]:7443"), "[::1]:7443");
        assert_eq!(shown("10.0.0.5:7443"), "10.0.0.5:7443");
    }
}
