//! Claims that are to be released when a host is next reached: their Tenants are gone.
//!
//! They are kept in an annotation of the ComposeHost, so that a restarted operator still knows of them.

use std::sync::Arc;

use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tenantry_api::names::TenantUid;
use tenantry_api::{ComposeHost, FIELD_MANAGER};
use tenantry_protocol::{ReleaseRequest, TenantRef};

use crate::agents::{Agent, AgentError};
use crate::key::Key;
use crate::metrics::Metrics;

/// Where a ComposeHost keeps them: `<uid>=<namespace>/<name>`, separated by commas.
pub const ANNOTATION: &str = "tenantry.dev/owed-releases";
/// The most that one host keeps. What is beyond is logged, and can be taken over by hand.
const LIMIT: usize = 256;

/// Adds a claim to what is owed.
pub async fn owe(
    client: &Client,
    metrics: &Metrics,
    host: &Key,
    tenant: &TenantRef,
) -> Result<(), kube::Error> {
    let api: Api<ComposeHost> = Api::namespaced(client.clone(), &host.namespace);
    let Some(object) = api.get_opt(&host.name).await? else {
        tracing::warn!(%host, tenant = tenant.name, "there is no ComposeHost: the claim on its machine stays");
        return Ok(());
    };
    let mut owed = read(&object);
    if owed.contains(tenant) {
        return Ok(());
    }
    if owed.len() >= LIMIT {
        tracing::warn!(%host, tenant = tenant.name, "owes too many releases already: this claim stays on its machine");
        return Ok(());
    }
    owed.push(tenant.clone());
    tracing::warn!(%host, tenant = tenant.name, "goes without its host: the claim is released at the next contact");
    write(&api, metrics, &object, &owed).await
}

/// Releases what is owed to a host that answers.
pub async fn settle(client: &Client, metrics: &Metrics, object: &ComposeHost, agent: &Arc<dyn Agent>) {
    let owed = read(object);
    if owed.is_empty() {
        return;
    }
    let host = Key::of(object);
    let mut left = Vec::new();
    for tenant in owed {
        let name = format!("{}/{}", tenant.namespace, tenant.name);
        match agent.release(&ReleaseRequest { tenant: tenant.clone() }).await {
            Ok(()) => tracing::info!(%host, tenant = name, "released the claim of a Tenant that is gone"),
            Err(AgentError::Refused(error)) if error.code != tenantry_protocol::ErrorCode::Busy => {
                tracing::warn!(%host, tenant = name, "the claim of a Tenant that is gone is not released: {error}");
            }
            Err(_) => left.push(tenant),
        }
    }
    let api: Api<ComposeHost> = Api::namespaced(client.clone(), &host.namespace);
    // A conflict: somebody owes more meanwhile. What was released is released again next time, which does nothing.
    if let Err(error) = write(&api, metrics, object, &left).await {
        tracing::warn!(%host, "what is owed could not be written: {error}");
    }
}

fn read(host: &ComposeHost) -> Vec<TenantRef> {
    let parse = |entry: &str| {
        let (uid, name) = entry.split_once('=')?;
        let (namespace, name) = name.split_once('/')?;
        let uid = TenantUid::parse(uid).ok()?;
        Some(TenantRef { uid, namespace: namespace.to_owned(), name: name.to_owned() })
    };
    let text = host.annotations().get(ANNOTATION).map_or("", String::as_str);
    text.split(',').filter_map(parse).take(LIMIT).collect()
}

async fn write(
    api: &Api<ComposeHost>,
    metrics: &Metrics,
    host: &ComposeHost,
    owed: &[TenantRef],
) -> Result<(), kube::Error> {
    let text: Vec<String> =
        owed.iter().map(|tenant| format!("{}={}/{}", tenant.uid, tenant.namespace, tenant.name)).collect();
    let value = if text.is_empty() { Value::Null } else { Value::String(text.join(",")) };
    let body = json!({
        "metadata": { "resourceVersion": host.resource_version(), "annotations": { ANNOTATION: value } }
    });
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    api.patch(&host.name_any(), &parameters, &Patch::Merge(&body)).await?;
    metrics.wrote("composehost_annotation");
    Ok(())
}
