//! Asking for something that is not desired state: an annotation with the user's own rights, and what comes of it.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tenantry_api::Tenant;
use tenantry_api::tenant_status::Handled;

use crate::access::Cluster;
use crate::output;
use crate::watch::{self, End};

/// Under which name the annotation is written.
const FIELD_MANAGER: &str = "tenantry-cli";

/// Whether, and for how long, the outcome is waited for.
#[derive(Clone, Debug, Args)]
pub struct Waiting {
    /// Follow it and end with status 0 if it went well, with 1 if not
    #[arg(long)]
    wait: bool,
    /// With --wait: how long at most; then ends with status 2. Example: 90s, 10m
    #[arg(long, value_parser = watch::duration, requires = "wait")]
    timeout: Option<Duration>,
}

/// A text that was never asked with before.
pub fn token() -> String {
    Timestamp::now().to_string()
}

/// Sets an annotation, and nothing else of the object.
pub async fn annotate(cluster: &Cluster, tenant: &str, name: &str, value: &str) -> anyhow::Result<()> {
    let api: Api<Tenant> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let body = json!({ "metadata": { "annotations": { name: value } } });
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let patched = api.patch(tenant, &parameters, &Patch::Merge(&body)).await;
    patched.map_err(|error| cluster.explain("annotate tenants", &error))?;
    Ok(())
}

/// Says what happens now that nobody could see otherwise.
pub fn say_what_is_in_the_way(tenant: &Tenant) {
    if tenant.spec.suspend {
        output::out("spec.suspend is set: it waits until that is false again.");
    }
    let upgrade = tenant.status.as_ref().and_then(|status| status.upgrade.as_ref());
    if let Some(upgrade) = upgrade.filter(|upgrade| upgrade.outcome.is_none()) {
        output::out(format!(
            "Operation {} to {} is in flight: it waits until that has ended.",
            upgrade.id, upgrade.to
        ));
    }
}

/// Follows a Tenant, which was so `before` it was asked, where that is asked for; else says how to.
pub async fn wait(
    cluster: &Cluster,
    before: &Tenant,
    waiting: &Waiting,
    heard: impl Fn(&Tenant) -> bool,
    end: impl FnMut(&Tenant) -> Option<End>,
) -> anyhow::Result<ExitCode> {
    let name = before.name_any();
    if waiting.wait {
        let news = |tenant: &Tenant| heard(tenant) || tenant.status != before.status;
        return watch::until(cluster, &name, waiting.timeout, news, end).await;
    }
    output::out(format!("`tenantry watch {name} -n {}` shows how it goes.", cluster.namespace));
    Ok(ExitCode::SUCCESS)
}

/// What the operator has handled.
pub fn handled(tenant: &Tenant) -> Handled {
    tenant.status.as_ref().and_then(|status| status.handled.clone()).unwrap_or_default()
}

/// Whether a handled request has come to rest, and how: well is only Ready.
pub fn at_rest(tenant: &Tenant, handled: bool) -> Option<End> {
    watch::end(tenant).filter(|_| handled)
}
