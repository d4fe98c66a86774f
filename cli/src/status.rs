//! `tenantry status`: how tenants stand, in a table that fits a terminal.

mod table;

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tenantry_api::{Tenant, conditions};

use crate::access::{Access, Cluster};
use crate::{last_words, output};
use table::Row;

/// Show how tenants stand
#[derive(Debug, Args)]
pub struct Status {
    /// Only this one
    tenant: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "tenant"])]
    all_namespaces: bool,
    /// How it is shown
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// End with status 1 if one of them is not Ready
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    access: Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Runs `tenantry status`.
pub async fn run(status: &Status) -> anyhow::Result<ExitCode> {
    let cluster = status.access.connect().await?;
    let tenants = match &status.tenant {
        Some(name) => vec![find(&cluster, name).await?],
        None => list(&cluster, status.all_namespaces).await?,
    };
    let rows: Vec<Row> = tenants.iter().map(Row::of).collect();
    match status.output {
        Output::Json => output::out(serde_json::to_string_pretty(&rows)?),
        Output::Table if rows.is_empty() => {
            let within = if status.all_namespaces { "any namespace" } else { &cluster.namespace };
            output::out(format!("There are no tenants in {within}."));
        }
        Output::Table => {
            output::out(table::shown(&rows, status.all_namespaces, Timestamp::now()));
            if let (Some(_), Some(words)) = (&status.tenant, tenants.first().and_then(last_words::of)) {
                output::out(format!("\n{words}"));
            }
            let known = tenants.first().and_then(|tenant| tenant.status.as_ref());
            let known = known.map(|status| &status.restore_points).filter(|points| !points.is_empty());
            if let (Some(known), Some(name)) = (known, &status.tenant) {
                output::out(format!("\nRestore points, for `tenantry rollback {name}`:\n{}", points(known)));
            }
        }
    }
    let all_ready = rows.iter().all(|row| row.ready == "True");
    Ok(if status.check && !all_ready { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn list(cluster: &Cluster, all_namespaces: bool) -> anyhow::Result<Vec<Tenant>> {
    let api: Api<Tenant> = if all_namespaces {
        Api::all(cluster.client.clone())
    } else {
        Api::namespaced(cluster.client.clone(), &cluster.namespace)
    };
    let list =
        api.list(&ListParams::default()).await.map_err(|error| cluster.explain("list tenants", &error))?;
    Ok(list.items)
}

/// The tenant of this name; if there is none, an error that names similar ones.
pub async fn find(cluster: &Cluster, name: &str) -> anyhow::Result<Tenant> {
    let api: Api<Tenant> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let found = api.get_opt(name).await.map_err(|error| cluster.explain("get tenants", &error))?;
    if let Some(tenant) = found {
        return Ok(tenant);
    }
    // Also tells a cluster without our resources from one without this tenant.
    let others = list(cluster, false).await?;
    let names: Vec<String> = others.iter().map(ResourceExt::name_any).collect();
    Err(anyhow::anyhow!("{}", no_such(name, &cluster.namespace, &names)))
}

/// Restore points as a table.
pub fn points(points: &[tenantry_api::tenant_status::RestorePoint]) -> String {
    table::points(points, Timestamp::now())
}

/// The names most like this one, at most three.
pub fn similar<'a>(name: &str, names: &'a [String]) -> Vec<&'a str> {
    let mut near: Vec<(f64, &str)> =
        names.iter().map(|other| (strsim::jaro_winkler(name, other), other.as_str())).collect();
    near.retain(|(likeness, _)| *likeness > 0.7);
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.into_iter().take(3).map(|(_, name)| name).collect()
}

fn no_such(name: &str, namespace: &str, names: &[String]) -> String {
    let near = similar(name, names);
    let hint = match (near.as_slice(), names.len()) {
        ([], 0) => "there are no tenants in this namespace; -n names another one".to_owned(),
        ([], count) => format!("there are {count} others; `tenantry status` lists them"),
        (near, _) => format!("did you mean {}?", near.join(" or ")),
    };
    format!("there is no tenant {name} in namespace {namespace}: {hint}")
}

/// What is said of a Tenant that nobody looks at.
const NOT_LOOKED_AT: &str = "No operator has looked at it yet: see that one runs (`tenantry up`, or tenantry-operator) \
                                 and that it watches this namespace.";
const CHANGE_NOT_LOOKED_AT: &str = "No operator has looked at its last change yet: if that stays so, see that one runs \
                                    (`tenantry up`, or tenantry-operator).";

/// The Ready condition's status, reason and message.
pub fn ready_of(tenant: &Tenant) -> (String, String, String) {
    let unknown = |message: &str| ("Unknown".to_owned(), String::new(), message.to_owned());
    let seen = tenant.status.as_ref().and_then(|status| status.observed_generation);
    if seen.is_some_and(|seen| seen >= 0) && seen < tenant.metadata.generation {
        return unknown(CHANGE_NOT_LOOKED_AT);
    }
    let conditions = tenant.status.as_ref().map_or(&[][..], |status| &status.conditions);
    match conditions::find(conditions, conditions::READY) {
        Some(ready) => (ready.status.clone(), ready.reason.clone(), ready.message.clone()),
        None => unknown(NOT_LOOKED_AT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_operator_has_looked_at_is_not_called_ready() {
        let tenant = |generation: i64, status: serde_json::Value| -> Tenant {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant",
                "metadata": {"name": "acme", "generation": generation},
                "spec": {"host": "n5", "project": "acme", "directory": "/srv/acme", "imageTag": "v2"},
                "status": status,
            }))
            .unwrap()
        };
        let ready = serde_json::json!({"observedGeneration": 1, "conditions": [{
            "type": "Ready", "status": "True", "reason": "Ready", "message": "v1 is deployed.",
            "lastTransitionTime": "2026-11-29T10:00:00Z",
        }]});
        assert_eq!(ready_of(&tenant(1, ready.clone())).0, "True");
        let (truth, _, message) = ready_of(&tenant(2, ready));
        assert!(truth == "Unknown" && message.contains("its last change"), "{truth}: {message}");
        let new = ready_of(&tenant(1, serde_json::json!({"observedGeneration": -1})));
        assert!(new.2.contains("see that one runs"), "{}", new.2);
    }

    #[test]
    fn a_name_that_is_not_there_is_answered_with_near_ones() {
        let names = ["acme".to_owned(), "acne".to_owned(), "zebra".to_owned()];
        assert_eq!(
            no_such("acmee", "fleet", &names),
            "there is no tenant acmee in namespace fleet: did you mean acme or acne?"
        );
        assert!(no_such("qqq", "fleet", &names).contains("3 others"));
        assert!(no_such("qqq", "fleet", &[]).contains("-n names another"));
    }
}
