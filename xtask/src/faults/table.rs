//! What the crashes showed, as a table and as JSON, and whether it is enough.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

/// What is to be reached: points of each workload, double crashes in all, and the longest recovery besides what
/// compose and the watching of services take.
const POINTS: usize = 60;
const DOUBLES: usize = 60;
const RECOVERY: Duration = Duration::from_secs(10);
/// The kinds of upgrade.
const WORKLOADS: usize = 5;

/// The crashes of every workload.
pub struct Table(BTreeMap<String, Workload>);

#[derive(Default)]
struct Workload {
    /// The names of the points that an undisturbed run came by.
    known: BTreeSet<String>,
    hit: BTreeSet<String>,
    singles: usize,
    doubles: usize,
    broken: Vec<String>,
    rows: Vec<Value>,
    times: BTreeMap<&'static str, Vec<u64>>,
}

/// The parts of a recovery, as the tests write them down.
const PARTS: [&str; 5] = ["all_ms", "first_ms", "compose_ms", "watching_ms", "own_ms"];

impl Table {
    /// Reads what the tests wrote down.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut table: BTreeMap<String, Workload> = BTreeMap::new();
        for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
            let workload = table.entry(name.to_owned()).or_default();
            let text = std::fs::read_to_string(&path)?;
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("points") => workload.known = text.lines().map(str::to_owned).collect(),
                Some("jsonl") => {
                    text.lines().try_for_each(|line| workload.add(serde_json::from_str(line)?))?;
                }
                _ => {}
            }
        }
        for times in table.values_mut().flat_map(|workload| workload.times.values_mut()) {
            times.sort_unstable();
        }
        Ok(Self(table))
    }

    /// For people.
    pub fn shown(&self) -> String {
        let mut text = "workload      points      crashes  double  not recovered  recovery: median / longest, of it the agent's own\n"
            .to_owned();
        for (name, row) in &self.0 {
            let ((median, longest), (own, own_longest)) = (row.seconds("all_ms"), row.seconds("own_ms"));
            let points = format!("{} of {}", row.hit.len(), row.known.union(&row.hit).count());
            let _ = writeln!(
                text,
                "{name:<13} {points:<11} {:>7} {:>7} {:>14}  {median:.1} s / {longest:.1} s, {own:.1} s / {own_longest:.1} s",
                row.singles,
                row.doubles,
                row.broken.len()
            );
        }
        text.push_str(
            "the agent's own: from its start to the operation's end, without the time in which a docker compose of its \
             ran, and without the step that watches services become healthy and stay so\n",
        );
        for (name, row) in &self.0 {
            for broken in &row.broken {
                let _ = writeln!(text, "not recovered; again: cargo xtask faults {name} --at '{broken}'");
            }
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let row = |row: &Workload| {
            let seconds = |part: &&'static str| {
                let (median, longest) = row.seconds(part);
                (part.trim_end_matches("_ms").to_owned(), json!({"median": median, "longest": longest}))
            };
            json!({
                "points": row.hit.len(), "pointsKnown": row.known.union(&row.hit).count(),
                "notTried": row.known.difference(&row.hit).collect::<Vec<_>>(), "crashes": row.singles,
                "doubleCrashes": row.doubles, "notRecovered": row.broken,
                "recoverySeconds": PARTS.iter().map(seconds).collect::<serde_json::Map<_, _>>(),
            })
        };
        let summary: serde_json::Map<_, _> =
            self.0.iter().map(|(name, one)| (name.clone(), row(one))).collect();
        json!({"summary": summary, "crashes": self.0.values().flat_map(|one| &one.rows).collect::<Vec<_>>()})
    }

    /// Whether it is enough.
    pub fn check(&self) -> Result<()> {
        for (name, row) in &self.0 {
            ensure!(row.broken.is_empty(), "{name}: {} crashes were not recovered", row.broken.len());
            ensure!(row.hit.len() >= POINTS, "{name}: only {} points were hit, not {POINTS}", row.hit.len());
            let (_, longest) = row.seconds("own_ms");
            ensure!(longest <= RECOVERY.as_secs_f64(), "{name}: the agent took {longest:.1} s to recover");
        }
        ensure!(self.0.len() == WORKLOADS, "{} workloads were tried, not {WORKLOADS}", self.0.len());
        let doubles: usize = self.0.values().map(|row| row.doubles).sum();
        ensure!(doubles >= DOUBLES, "only {doubles} double crashes, not {DOUBLES}");
        Ok(())
    }
}

impl Workload {
    fn add(&mut self, row: Value) -> Result<()> {
        let points = row["points"].as_array().context("a row has points")?;
        let points: Vec<&str> = points.iter().filter_map(Value::as_str).collect();
        if row["broken"].is_string() {
            self.broken.push(format!(
                "{} {}",
                row["way"].as_str().unwrap_or_default(),
                points.join(" then ")
            ));
        } else {
            match points.len() {
                0 => {}
                1 => self.singles += 1,
                _ => self.doubles += 1,
            }
            for part in PARTS {
                self.times.entry(part).or_default().extend(row["recovery"][part].as_u64());
            }
            let name = |point: &&str| point.split('#').next().unwrap_or_default().to_owned();
            self.hit.extend(points.iter().map(name));
        }
        self.rows.push(row);
        Ok(())
    }

    /// The median and the longest time of a part, in seconds.
    fn seconds(&self, part: &str) -> (f64, f64) {
        let times = self.times.get(part).map(Vec::as_slice).unwrap_or_default();
        let at = |at: usize| times.get(at).map_or(0.0, |ms| Duration::from_millis(*ms).as_secs_f64());
        (at(times.len() / 2), at(times.len().saturating_sub(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_broke_is_no_recovery_and_what_was_not_tried_is_told() {
        let folder = std::env::temp_dir().join(format!("xtask-faults-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("release.points"), "a.before\na.after\nb\n").unwrap();
        let rows = [
            json!({"way": "Up", "points": ["a.before#2"], "broken": null, "recovery": {"all_ms": 900, "own_ms": 300}}),
            json!({"way": "Up", "points": ["a.before#1", "c#1"], "broken": null, "recovery": {"all_ms": 1900, "own_ms": 500}}),
            json!({"way": "Down", "points": ["a.after#1"], "broken": "P6: torn", "recovery": null}),
        ];
        let lines: Vec<String> = rows.iter().map(ToString::to_string).collect();
        let text = lines.join("\n");
        std::fs::write(folder.join("release.jsonl"), text).unwrap();
        let table = Table::read(&folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let summary = &table.json()["summary"]["release"];
        assert_eq!(summary["crashes"], 1);
        assert_eq!(summary["doubleCrashes"], 1);
        assert_eq!(summary["notTried"], json!(["a.after", "b"]));
        assert_eq!(summary["pointsKnown"], 4, "one was found by recovering");
        assert_eq!(summary["recoverySeconds"]["own"]["longest"], 0.5);
        assert!(table.shown().contains("cargo xtask faults release --at 'Down a.after#1'"));
        assert!(table.check().unwrap_err().to_string().contains("not recovered"));
    }
}
