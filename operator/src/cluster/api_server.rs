//! The cluster behind a kube client.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tenantry_api::tenant_status::TenantStatus;
use tenantry_api::{ComposeHost, FIELD_MANAGER, Tenant};
use tenantry_planner::bundle::Bundle;
use tenantry_planner::decide::Event;
use tenantry_planner::target::Refusal;

use super::{Cluster, ClusterError, Reply};
use crate::bundles::Bundles;
use crate::events::Events;
use crate::key::Key;

impl From<kube::Error> for ClusterError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 409 => Self::Conflict,
            kube::Error::Api(status) if status.code == 403 => Self::Forbidden(status.message.clone()),
            kube::Error::Api(status) if status.code == 404 => Self::NotFound,
            _ => Self::Failed(Box::new(error)),
        }
    }
}

/// A real API server.
pub struct ApiServer {
    client: Client,
    bundles: Arc<Bundles>,
    events: Events,
}

impl ApiServer {
    /// The API server of a client.
    pub fn new(client: Client, bundles: Arc<Bundles>, events: Events) -> Self {
        Self { client, bundles, events }
    }

    fn tenants(&self, tenant: &Tenant) -> Api<Tenant> {
        Api::namespaced(self.client.clone(), &tenant.namespace().unwrap_or_default())
    }
}

fn merge() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// Nobody here reads who manages which field.
fn trimmed(mut tenant: Tenant) -> Arc<Tenant> {
    tenant.managed_fields_mut().clear();
    Arc::new(tenant)
}

impl Cluster for ApiServer {
    fn get_tenant<'a>(&'a self, key: &'a Key) -> Reply<'a, Option<Arc<Tenant>>> {
        async move {
            let tenants: Api<Tenant> = Api::namespaced(self.client.clone(), &key.namespace);
            Ok(tenants.get_opt(&key.name).await?.map(trimmed))
        }
        .boxed()
    }

    fn apply_status<'a>(&'a self, tenant: &'a Tenant, status: &'a TenantStatus) -> Reply<'a, Arc<Tenant>> {
        async move {
            let name = tenant.name_any();
            let body = json!({
                "apiVersion": Tenant::api_version(&()),
                "kind": Tenant::kind(&()),
                "metadata": {
                    "name": name,
                    "namespace": tenant.namespace(),
                    "resourceVersion": tenant.resource_version(),
                },
                "status": status,
            });
            let parameters = PatchParams::apply(FIELD_MANAGER).force();
            let written = self.tenants(tenant).patch_status(&name, &parameters, &Patch::Apply(&body)).await?;
            Ok(trimmed(written))
        }
        .boxed()
    }

    fn patch_finalizers<'a>(
        &'a self,
        tenant: &'a Tenant,
        finalizers: &'a [String],
    ) -> Reply<'a, Arc<Tenant>> {
        async move {
            let body = json!({
                "metadata": { "resourceVersion": tenant.resource_version(), "finalizers": finalizers }
            });
            let tenants = self.tenants(tenant);
            Ok(trimmed(tenants.patch(&tenant.name_any(), &merge(), &Patch::Merge(&body)).await?))
        }
        .boxed()
    }

    fn get_host<'a>(&'a self, key: &'a Key) -> Reply<'a, Option<Arc<ComposeHost>>> {
        async move {
            let hosts: Api<ComposeHost> = Api::namespaced(self.client.clone(), &key.namespace);
            Ok(hosts.get_opt(&key.name).await?.map(Arc::new))
        }
        .boxed()
    }

    fn annotate_host<'a>(
        &'a self,
        host: &'a ComposeHost,
        annotation: &'a str,
        value: Option<&'a str>,
    ) -> Reply<'a, ()> {
        async move {
            let hosts: Api<ComposeHost> =
                Api::namespaced(self.client.clone(), &host.namespace().unwrap_or_default());
            let body = json!({
                "metadata": { "resourceVersion": host.resource_version(), "annotations": { annotation: value } }
            });
            hosts.patch(&host.name_any(), &merge(), &Patch::Merge(&body)).await?;
            Ok(())
        }
        .boxed()
    }

    fn bundle<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Arc<Bundle>, Refusal>> {
        self.bundles.get(key).boxed()
    }

    fn publish<'a>(&'a self, about: &'a Tenant, events: &'a [Event]) -> BoxFuture<'a, ()> {
        self.events.publish(about, events).boxed()
    }
}
