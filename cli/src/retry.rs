//! `tenantry retry` and `tenantry reconcile`: annotations with a value that was never asked with before.

use std::process::ExitCode;

use clap::Args;
use tenantry_api::Tenant;
use tenantry_api::annotations::{RECONCILE, RETRY};
use tenantry_api::tenant_status::Handled;

use crate::access::Access;
use crate::ask::{self, Waiting};
use crate::output;
use crate::status::find;

/// Try a target again that failed or was gone back from
///
/// The same as a new value of the annotation tenantry.dev/retry; the value is the time, so that each time counts.
#[derive(Debug, Args)]
pub struct Retry {
    #[command(flatten)]
    asking: Asking,
}

/// Look at a tenant's host now, and whether its tags have moved in the registry
///
/// The same as a new value of the annotation tenantry.dev/reconcile; the value is the time, so that each time counts.
#[derive(Debug, Args)]
pub struct Reconcile {
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Args)]
struct Asking {
    /// Which tenant
    tenant: String,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    access: Access,
}

/// Runs `tenantry retry`.
pub async fn run(retry: &Retry) -> anyhow::Result<ExitCode> {
    retry.asking.ask(RETRY, retried, |handled| handled.retry).await
}

/// Runs `tenantry reconcile`.
pub async fn reconcile(reconcile: &Reconcile) -> anyhow::Result<ExitCode> {
    reconcile.asking.ask(RECONCILE, looked_at, |handled| handled.reconcile).await
}

impl Asking {
    async fn ask(
        &self,
        annotation: &str,
        says: impl Fn(&Tenant) -> String,
        heard: impl Fn(Handled) -> Option<String>,
    ) -> anyhow::Result<ExitCode> {
        let cluster = self.access.connect().await?;
        let tenant = find(&cluster, &self.tenant).await?;
        let token = ask::token();
        ask::annotate(&cluster, &self.tenant, annotation, &token).await?;
        output::out(says(&tenant));
        ask::say_what_is_in_the_way(&tenant);
        let heard = |tenant: &Tenant| heard(ask::handled(tenant)).as_ref() == Some(&token);
        let end = |tenant: &Tenant| ask::at_rest(tenant, heard(tenant));
        ask::wait(&cluster, &tenant, &self.waiting, heard, end).await
    }
}

fn retried(tenant: &Tenant) -> String {
    let blocked = tenant.status.as_ref().and_then(|status| status.blocked_target.as_ref());
    blocked.map_or_else(
        || "No target is blocked: nothing is tried again, but it is looked at anew.".to_owned(),
        |blocked| format!("{} is tried again if it is what the spec asks for still.", blocked.image_tag),
    )
}

fn looked_at(tenant: &Tenant) -> String {
    format!("Host {} is looked at now, and the registry is asked whether tags have moved.", tenant.spec.host)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_tried_again_is_named() {
        let mut tenant = json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"},
            "spec": {"host": "n5", "project": "acme", "directory": "/srv/acme", "imageTag": "v2"},
        });
        let said = |tenant: &serde_json::Value| retried(&serde_json::from_value(tenant.clone()).unwrap());
        assert!(said(&tenant).starts_with("No target is blocked"));
        tenant["status"] = json!({"blockedTarget": {"targetHash": "x", "imageTag": "v2", "outcome": "Aborted",
            "reason": "why", "at": "2026-01-01T00:00:00Z"}});
        assert!(said(&tenant).starts_with("v2 is tried again"));
    }
}
