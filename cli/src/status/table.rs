//! Tenants as rows.

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;
use tenantry_api::Tenant;
use tenantry_api::conditions::{DRIFTED, Truth, find};
use tenantry_api::tenant_status::RestorePoint;

use super::ready_of;

/// What a table or JSON says of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub namespace: String,
    pub name: String,
    pub host: String,
    pub image_tag: String,
    pub deployed: Option<String>,
    pub phase: String,
    /// `True`, `False` or `Unknown`.
    pub ready: String,
    pub reason: String,
    pub message: String,
    /// What is otherwise on the host than it was deployed.
    pub drift: Option<String>,
    pub created: Option<Timestamp>,
    /// What can be gone back to, newest first.
    pub restore_points: Vec<RestorePoint>,
}

impl Row {
    /// What is to be said of `tenant`.
    pub fn of(tenant: &Tenant) -> Self {
        let (ready, reason, message) = ready_of(tenant);
        let status = tenant.status.as_ref();
        let phase = status.and_then(|status| status.phase).map_or("Pending", tenantry_api::Phase::as_str);
        Self {
            namespace: tenant.namespace().unwrap_or_default(),
            name: tenant.name_any(),
            host: tenant.spec.host.clone(),
            image_tag: tenant.spec.release(),
            deployed: status
                .and_then(|status| status.deployed.as_ref())
                .map(|deployed| deployed.image_tag.clone()),
            phase: phase.to_owned(),
            ready,
            reason,
            message,
            drift: drift_of(tenant),
            restore_points: status.map(|status| status.restore_points.clone()).unwrap_or_default(),
            created: tenant.metadata.creation_timestamp.as_ref().map(|time| time.0),
        }
    }
}

fn drift_of(tenant: &Tenant) -> Option<String> {
    let drifted = find(&tenant.status.as_ref()?.conditions, DRIFTED)?;
    (drifted.status == Truth::True.as_str()).then(|| drifted.message.clone())
}

/// A table, and below it a line for each tenant that is not Ready, and for each whose host is otherwise than deployed.
pub fn shown(rows: &[Row], with_namespace: bool, now: Timestamp) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let mut header = vec!["NAME", "HOST", "TAG", "DEPLOYED", "PHASE", "READY", "AGE"];
    if with_namespace {
        header.insert(0, "NAMESPACE");
    }
    table.set_header(header);
    for row in rows {
        let deployed = row.deployed.as_deref().unwrap_or("-");
        let age = row.created.map_or_else(|| "-".to_owned(), |created| age(created, now));
        let mut cells = vec![&row.name, &row.host, &row.image_tag, deployed, &row.phase, &row.ready, &age];
        if with_namespace {
            cells.insert(0, &row.namespace);
        }
        table.add_row(cells.into_iter().map(ToOwned::to_owned));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    let mut told = Vec::new();
    for row in rows {
        let name = if with_namespace { format!("{}/{}", row.namespace, row.name) } else { row.name.clone() };
        let why = Some(&row.message).filter(|message| row.ready != "True" && !message.is_empty());
        told.extend(why.into_iter().chain(&row.drift).map(|text| format!("{name}: {text}")));
    }
    if !told.is_empty() {
        lines.push(String::new());
    }
    lines.extend(told);
    lines.join("\n")
}

/// What can be gone back to, a line each.
pub fn points(points: &[RestorePoint], now: Timestamp) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["ID", "TAG", "AGE", "SIZE", "DATA"]);
    for point in points {
        let data = if point.data.is_empty() { "-".to_owned() } else { point.data.join(", ") };
        table.add_row([&point.id, &point.image_tag, &age(point.at.0, now), &size(point.bytes), &data]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn size(bytes: i64) -> String {
    match bytes {
        b if b < 1_000 => format!("{b} B"),
        b if b < 1_000_000 => format!("{} kB", b / 1_000),
        b if b < 1_000_000_000 => format!("{} MB", b / 1_000_000),
        b => format!("{}.{} GB", b / 1_000_000_000, b % 1_000_000_000 / 100_000_000),
    }
}

/// As kubectl shows it: one or two units.
fn age(created: Timestamp, now: Timestamp) -> String {
    let seconds = (now.as_second() - created.as_second()).max(0);
    let (minute, hour, day) = (60, 3_600, 86_400);
    match seconds {
        s if s < 2 * minute => format!("{s}s"),
        s if s < 2 * hour => format!("{}m", s / minute),
        s if s < 2 * day => format!("{}h", s / hour),
        s => format!("{}d", s / day),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, phase: &str, ready: &str, message: &str) -> Row {
        Row {
            namespace: "fleet".into(),
            name: name.into(),
            host: "n5".into(),
            image_tag: "v2.10.3".into(),
            deployed: Some("v2.10.2".into()),
            phase: phase.into(),
            ready: ready.into(),
            reason: phase.into(),
            message: message.into(),
            drift: None,
            created: Some(Timestamp::from_second(1_000).unwrap()),
            restore_points: Vec::new(),
        }
    }

    #[test]
    fn restore_points_are_a_line_each() {
        let now = Timestamp::from_second(7_200).unwrap();
        let point = |id: &str, bytes, data: &[&str]| {
            let data = data.iter().map(|part| (*part).to_owned()).collect();
            let at = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::from_second(0).unwrap());
            RestorePoint { id: id.to_owned(), at, image_tag: "v1".to_owned(), data, bytes }
        };
        let text = points(
            &[point("a-2", 2_345_678_901, &["path uploads", "volume db"]), point("a-1", 999, &[])],
            now,
        );
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>()[..5], ["a-2", "v1", "2h", "2.3", "GB"]);
        assert!(lines[1].ends_with("path uploads, volume db"), "{text}");
        assert!(lines[2].ends_with("999 B   -"), "{text}");
    }

    #[test]
    fn a_row_each_and_a_line_for_what_is_not_ready() {
        let now = Timestamp::from_second(1_000 + 7_200).unwrap();
        let rows =
            [row("acme", "Ready", "True", "fine"), row("zebra", "AdoptionNeeded", "False", "It differs.")];
        let text = shown(&rows, false, now);
        let lines: Vec<&str> = text.lines().collect();
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(words, ["acme", "n5", "v2.10.3", "v2.10.2", "Ready", "True", "2h"]);
        assert_eq!(*lines.last().unwrap(), "zebra: It differs.");
        assert!(!text.contains("fine"));
        let drifted = Row { drift: Some("It differs since.".into()), ..row("acme", "Ready", "True", "fine") };
        assert!(shown(&[drifted], false, now).ends_with("\n\nacme: It differs since."));
        assert!(lines.iter().all(|line| line.len() <= 80), "{text}");
        assert_eq!(lines[0].find("TAG"), lines[1].find("v2.10.3"), "columns are aligned:\n{text}");
        assert!(shown(&rows, true, now).contains("fleet/zebra: It differs."));
    }
}
