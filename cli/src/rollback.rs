//! `tenantry rollback`: back to a restore point.

use std::process::ExitCode;

use anyhow::{anyhow, bail};
use clap::Args;
use tenantry_api::Tenant;
use tenantry_api::annotations::ROLLBACK_TO;
use tenantry_api::tenant_status::{Outcome, RestorePoint};
use tenantry_planner::decide::further_back;

use crate::access::Access;
use crate::ask::{self, Waiting};
use crate::confirm::says_yes;
use crate::output;
use crate::status::{find, points, similar};
use crate::watch::End;

/// Go back to a restore point: its files, .env and images
///
/// Nothing is pulled: all of it is on the host. The spec is not touched; what it asks for is not deployed again before
/// it changes or tenantry.dev/retry does.
#[derive(Debug, Args)]
pub struct Rollback {
    /// Which tenant
    tenant: String,
    /// The restore point's id; default: the newest, or, after a rollback, the one further back. `tenantry status TENANT`
    /// lists them
    #[arg(long, value_name = "ID")]
    to: Option<String>,
    /// Restore declared paths and volumes, too: what was written since is lost
    #[arg(long)]
    data: bool,
    /// Do not ask before data is given up, or before going further back after a rollback
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    access: Access,
}

/// Runs `tenantry rollback`.
pub async fn run(rollback: &Rollback) -> anyhow::Result<ExitCode> {
    let cluster = rollback.access.connect().await?;
    let tenant = find(&cluster, &rollback.tenant).await?;
    let point = chosen(&tenant, &rollback.tenant, rollback.to.as_deref())?;
    if rollback.data {
        data(point, rollback.yes)?;
    }
    if rollback.to.is_none() && !rollback.yes {
        further(&tenant, &rollback.tenant, point)?;
    }
    let value = value(&point.id, rollback.data, &ask::token());
    ask::annotate(&cluster, &rollback.tenant, ROLLBACK_TO, &value).await?;
    let (tag, at) = (&point.image_tag, point.at.0);
    output::out(format!(
        "{} goes back to {tag}, as it was at {at} (restore point {}), and is watched as after an upgrade.",
        rollback.tenant, point.id
    ));
    if tenant.spec.release() != *tag {
        output::out(format!(
            "The spec still asks for {}: that is not deployed again before the spec changes or tenantry.dev/retry does.",
            tenant.spec.release()
        ));
    }
    ask::say_what_is_in_the_way(&tenant);
    let mut seen = None;
    let heard = |tenant: &Tenant| ask::handled(tenant).rollback_to.as_ref() == Some(&value);
    let end = |tenant: &Tenant| ended(tenant, &value, &mut seen);
    ask::wait(&cluster, &tenant, &rollback.waiting, heard, end).await
}

fn value(id: &str, data: bool, token: &str) -> String {
    if data { format!("{id},data,{token}") } else { format!("{id},{token}") }
}

/// The point of this id, or the newest; if there is none, an error that lists what there is.
fn chosen<'a>(tenant: &'a Tenant, name: &str, to: Option<&str>) -> anyhow::Result<&'a RestorePoint> {
    let known = tenant.status.as_ref().map_or(&[][..], |status| &status.restore_points);
    let history = tenant.status.as_ref().map_or(&[][..], |status| &status.history);
    let found = match to {
        None => {
            further_back(known.iter().map(|point| point.id.as_str()), history).and_then(|at| known.get(at))
        }
        Some(id) => known.iter().find(|point| point.id == id),
    };
    found.ok_or_else(|| match (to, known) {
        (_, []) => anyhow!("{name} has no restore point yet: one is made with each upgrade"),
        (None, known) => anyhow!(
            "{name} was taken back already, and nothing is further back than what runs; add --to ID for another:\n{}",
            points(known)
        ),
        (to, known) => {
            let ids: Vec<String> = known.iter().map(|point| point.id.clone()).collect();
            let near = similar(to.unwrap_or_default(), &ids);
            let hint = if near.is_empty() {
                String::new()
            } else {
                format!("; did you mean {}?", near.join(" or "))
            };
            anyhow!("{name} has no restore point {}{hint}\n{}", to.unwrap_or_default(), points(known))
        }
    })
}

/// Asks before going further back than a person has just gone.
fn further(tenant: &Tenant, name: &str, point: &RestorePoint) -> anyhow::Result<()> {
    let status = tenant.status.as_ref();
    let newest = status.and_then(|status| status.restore_points.first());
    if newest.is_none_or(|newest| newest.id == point.id) {
        return Ok(());
    }
    let runs = status.and_then(|status| status.deployed.as_ref()).map_or("", |one| one.image_tag.as_str());
    let question = format!(
        "{name} was taken back to {runs} already. Going further back leads to {}, as it was at {}.",
        point.image_tag, point.at.0
    );
    match says_yes(&format!("{question} Go on?"))? {
        Some(true) => Ok(()),
        Some(false) => bail!("nothing was asked for"),
        None => bail!("{question} There is no terminal to ask on: add --yes if that is meant"),
    }
}

/// Asks before data is given up.
fn data(point: &RestorePoint, yes: bool) -> anyhow::Result<()> {
    if point.data.is_empty() {
        bail!(
            "restore point {} holds no data: none was declared in spec.upgrade.snapshot when it was made",
            point.id
        );
    }
    let what = point.data.join(", ");
    let warning = format!("What was written to {what} since {} is lost.", point.at.0);
    if yes {
        output::out(warning);
        return Ok(());
    }
    match says_yes(&format!("{warning} Go on?"))? {
        Some(true) => Ok(()),
        Some(false) => bail!("nothing was asked for"),
        None => bail!("{warning} There is no terminal to ask on: add --yes if that is meant"),
    }
}

/// How this rollback ended; `seen` is its operation, once that has begun.
fn ended(tenant: &Tenant, value: &str, seen: &mut Option<String>) -> Option<End> {
    let status = tenant.status.as_ref()?;
    let mine = ask::handled(tenant).rollback_to.as_deref() == Some(value);
    let upgrade = status.upgrade.as_ref().filter(|upgrade| mine && upgrade.rollback_to.is_some());
    if let (None, Some(upgrade)) = (&seen, upgrade) {
        *seen = Some(upgrade.id.clone());
    }
    let id = seen.as_ref()?;
    let now = upgrade.filter(|upgrade| upgrade.id == *id).and_then(|upgrade| upgrade.outcome);
    let before = status.history.iter().find(|entry| entry.id == *id).map(|entry| entry.outcome);
    match now.or(before)? {
        Outcome::Succeeded => Some(End::Good),
        Outcome::Aborted | Outcome::RolledBack | Outcome::Held | Outcome::RollbackFailed => Some(End::Bad),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn tenant(status: &Value) -> Tenant {
        serde_json::from_value(json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme", "namespace": "fleet"},
            "spec": {"host": "n5", "project": "acme", "directory": "/srv/acme", "imageTag": "v2"},
            "status": status,
        }))
        .unwrap()
    }

    fn two_points() -> Tenant {
        let point = |id: &str, tag: &str, data: &[&str]| json!({"id": id, "at": "2026-11-21T10:00:00Z", "imageTag": tag, "data": data, "bytes": 1_234});
        tenant(&json!({"restorePoints": [point("3f2a-7", "v1", &["volume db"]), point("3f2a-3", "v0", &[])]}))
    }

    #[test]
    fn the_newest_is_the_default_and_an_unknown_one_is_answered_with_those_that_are() {
        let tenant = two_points();
        assert_eq!(chosen(&tenant, "acme", None).unwrap().id, "3f2a-7");
        assert_eq!(chosen(&tenant, "acme", Some("3f2a-3")).unwrap().image_tag, "v0");
        let error = chosen(&tenant, "acme", Some("3f2a-8")).unwrap_err().to_string();
        assert!(error.contains("no restore point 3f2a-8; did you mean 3f2a-7"), "{error}");
        assert!(error.contains("v0") && error.contains("volume db"), "{error}");
        let error = chosen(&super::tests::tenant(&json!({})), "acme", None).unwrap_err().to_string();
        assert!(error.contains("acme has no restore point yet"), "{error}");
    }

    #[test]
    fn p9_data_is_given_up_only_where_a_person_says_so() {
        let tenant = two_points();
        let points = &tenant.status.as_ref().unwrap().restore_points;
        // A test has no terminal.
        let error = data(&points[0], false).unwrap_err().to_string();
        assert!(error.contains("volume db") && error.contains("--yes"), "{error}");
        data(&points[0], true).unwrap();
        assert!(data(&points[1], true).unwrap_err().to_string().contains("holds no data"));
        assert_eq!(value("a-1", true, "t"), "a-1,data,t");
        assert_eq!(value("a-1", false, "t"), "a-1,t");
    }

    fn status(handled: &str, upgrade: &Value, history: &Value) -> Tenant {
        tenant(&json!({"handled": {"rollbackTo": handled}, "upgrade": upgrade, "history": history}))
    }

    fn upgrade(id: &str, back: Option<&str>, outcome: Option<&str>) -> Value {
        json!({"id": id, "epoch": 1, "to": "v1", "targetHash": "h", "attempt": 1, "rollbackTo": back,
               "startedAt": "2026-11-21T10:00:00Z", "outcome": outcome})
    }

    #[test]
    fn it_ends_with_its_own_operation_and_with_no_other() {
        let mut seen = None;
        let none = json!([]);
        let earlier = upgrade("a-1", Some("p"), Some("Succeeded"));
        assert_eq!(ended(&status("old", &earlier, &none), "mine", &mut seen), None);
        assert_eq!(ended(&status("mine", &upgrade("a-2", Some("p"), None), &none), "mine", &mut seen), None);
        let over = |outcome| status("mine", &upgrade("a-2", Some("p"), Some(outcome)), &none);
        assert_eq!(ended(&over("Succeeded"), "mine", &mut seen), Some(End::Good));
        assert_eq!(ended(&over("RollbackFailed"), "mine", &mut seen), Some(End::Bad));
        // A newer spec was begun in the same breath: the history tells.
        let history = json!([{"id": "a-2", "to": "v1", "outcome": "Succeeded",
            "startedAt": "2026-11-21T10:00:00Z", "finishedAt": "2026-11-21T10:00:00Z"}]);
        assert_eq!(
            ended(&status("mine", &upgrade("a-3", None, None), &history), "mine", &mut seen),
            Some(End::Good)
        );
    }
}
