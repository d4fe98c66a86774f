//! Claims that are to be released when a host is next reached: their Tenants are gone.
//!
//! They are kept in an annotation of the ComposeHost, so that a restarted operator still knows of them.

use std::sync::Arc;

use kube::ResourceExt as _;
use tenantry_api::ComposeHost;
use tenantry_api::names::TenantUid;
use tenantry_protocol::{ReleaseRequest, TenantRef};

use crate::agents::{Agent, AgentError};
use crate::cluster::{Cluster, ClusterError};
use crate::key::Key;
use crate::metrics::Metrics;

/// Where a ComposeHost keeps them: `<uid>=<namespace>/<name>`, separated by commas.
pub const ANNOTATION: &str = "tenantry.dev/owed-releases";
/// The most that one host keeps. What is beyond is logged, and can be taken over by hand.
const LIMIT: usize = 256;

/// Adds a claim to what is pending.
pub async fn add(
    cluster: &dyn Cluster,
    metrics: &Metrics,
    host: &Key,
    tenant: &TenantRef,
) -> Result<(), ClusterError> {
    let Some(object) = cluster.get_host(host).await? else {
        tracing::warn!(%host, tenant = tenant.name, "there is no ComposeHost: the claim on its machine stays");
        return Ok(());
    };
    let mut pending = read(&object);
    if pending.contains(tenant) {
        return Ok(());
    }
    if pending.len() >= LIMIT {
        tracing::warn!(%host, tenant = tenant.name, "has too many releases pending already: this claim stays on its machine");
        return Ok(());
    }
    pending.push(tenant.clone());
    tracing::warn!(%host, tenant = tenant.name, "goes without its host: the claim is released at the next contact");
    write(cluster, metrics, &object, &pending).await
}

/// Releases what is pending at a host that answers.
pub async fn release_all(
    cluster: &dyn Cluster,
    metrics: &Metrics,
    object: &ComposeHost,
    agent: &Arc<dyn Agent>,
) {
    let pending = read(object);
    if pending.is_empty() {
        return;
    }
    let host = Key::of(object);
    let mut left = Vec::new();
    for tenant in pending {
        let name = format!("{}/{}", tenant.namespace, tenant.name);
        match agent.release(&ReleaseRequest { tenant: tenant.clone() }).await {
            Ok(()) => tracing::info!(%host, tenant = name, "released the claim of a Tenant that is gone"),
            Err(AgentError::Refused(error)) if error.code != tenantry_protocol::ErrorCode::Busy => {
                tracing::warn!(%host, tenant = name, "the claim of a Tenant that is gone is not released: {error}");
            }
            Err(_) => left.push(tenant),
        }
    }
    // A conflict: somebody owes more meanwhile. What was released is released again next time, which does nothing.
    if let Err(error) = write(cluster, metrics, object, &left).await {
        tracing::warn!(%host, "what is pending could not be written: {error}");
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
    cluster: &dyn Cluster,
    metrics: &Metrics,
    host: &ComposeHost,
    pending: &[TenantRef],
) -> Result<(), ClusterError> {
    let text: Vec<String> =
        pending.iter().map(|tenant| format!("{}={}/{}", tenant.uid, tenant.namespace, tenant.name)).collect();
    let text = Some(text.join(",")).filter(|text| !text.is_empty());
    cluster.annotate_host(host, ANNOTATION, text.as_deref()).await?;
    metrics.wrote("composehost_annotation");
    Ok(())
}
