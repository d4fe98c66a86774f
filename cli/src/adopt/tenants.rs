//! The cluster that a Tenant is made in: which ComposeHost is meant, whether the place is taken, and the making.

use anyhow::{Context as _, anyhow, bail};
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use tenantry_api::{ComposeHost, Tenant};
use tenantry_protocol::Place;

use super::grants::HostPolicy;
use super::manifest::For;
use crate::access::{Access, Cluster};

/// Where Tenants are made.
pub struct Tenants {
    /// The cluster, and the namespace of it.
    pub cluster: Cluster,
    host: String,
}

impl Tenants {
    /// Finds the cluster, and this machine's ComposeHost in it.
    pub async fn connect(
        access: &Access,
        host: Option<&str>,
        policy: Option<&HostPolicy>,
    ) -> anyhow::Result<Self> {
        let cluster = access.connect().await?;
        let api: Api<ComposeHost> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        let listed = api.list(&ListParams::default()).await;
        let hosts = listed.map_err(|error| cluster.explain("list composehosts", &error))?.items;
        let identity = policy.map(|policy| policy.config.identity.as_str());
        let host = chosen(&hosts, host, identity)
            .with_context(|| format!("which ComposeHost of namespace {} is meant", cluster.namespace))?;
        Ok(Self { cluster, host })
    }

    /// What a manifest is for.
    pub fn for_(&self) -> For<'_> {
        For { host: &self.host, namespace: Some(&self.cluster.namespace) }
    }

    /// The ComposeHost's name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Where a Tenant is made, for people.
    pub fn shown(&self) -> String {
        format!("in namespace {}, for the ComposeHost {}", self.cluster.namespace, self.host)
    }

    /// The Tenant that is for a place already, if any.
    pub async fn at(&self, place: &Place) -> anyhow::Result<Option<Tenant>> {
        let listed = self.api().list(&ListParams::default()).await;
        let tenants = listed.map_err(|error| self.cluster.explain("list tenants", &error))?.items;
        let taken = |tenant: &Tenant| {
            let spec = &tenant.spec;
            spec.host == self.host
                && (spec.project == place.project.as_str() || spec.directory == place.directory.as_str())
        };
        Ok(tenants.into_iter().find(taken))
    }

    /// Makes the Tenant of a manifest.
    pub async fn apply(&self, name: &str, manifest: &str) -> anyhow::Result<()> {
        let tenant: Tenant = serde_saphyr::from_str(manifest).context("the manifest above")?;
        match self.api().create(&PostParams::default(), &tenant).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                bail!(
                    "there is another Tenant {name} in namespace {}: print the manifest with -o yaml, and apply it under \
                     another name",
                    self.cluster.namespace
                )
            }
            Err(error) => Err(self.cluster.explain("create tenants", &error)),
        }
    }

    fn api(&self) -> Api<Tenant> {
        Api::namespaced(self.cluster.client.clone(), &self.cluster.namespace)
    }
}

/// The host that is named; or the one whose agent has this machine's policy; or the only one.
fn chosen(hosts: &[ComposeHost], named: Option<&str>, identity: Option<&str>) -> anyhow::Result<String> {
    let known: Vec<String> = hosts.iter().map(ComposeHost::name_any).collect();
    if let Some(name) = named {
        if known.iter().any(|one| one == name) {
            return Ok(name.to_owned());
        }
        return Err(anyhow!("there is no ComposeHost {name}: {}", these(&known)));
    }
    let own: Vec<&ComposeHost> =
        hosts.iter().filter(|host| Some(host.spec.identity.as_str()) == identity).collect();
    match (&own[..], &known[..]) {
        ([one], _) => Ok(one.name_any()),
        (_, [one]) => Ok(one.clone()),
        _ => Err(anyhow!("name it with --host: {}", these(&known))),
    }
}

fn these(names: &[String]) -> String {
    match names {
        [] => "there is none yet; make one that says how this host's agent is reached".to_owned(),
        names => format!("there are {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn host(name: &str, identity: &str) -> ComposeHost {
        serde_json::from_value(json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "ComposeHost", "metadata": {"name": name},
            "spec": {"identity": identity, "connection": {"dial": {"address": "10.0.0.5:7443"}}},
        }))
        .unwrap()
    }

    #[test]
    fn the_host_is_the_named_one_or_this_machine_s_or_the_only_one() {
        let hosts = [host("a", "n4"), host("b", "n5")];
        assert_eq!(chosen(&hosts, Some("a"), Some("n5")).unwrap(), "a");
        assert_eq!(chosen(&hosts, None, Some("n5")).unwrap(), "b");
        assert_eq!(chosen(&hosts[..1], None, None).unwrap(), "a");
        for (named, identity, says) in
            [(None, None, "--host: there are a, b"), (Some("c"), None, "no ComposeHost c")]
        {
            let error = chosen(&hosts, named, identity).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(chosen(&[], None, None).unwrap_err().to_string().contains("none yet"));
    }
}
