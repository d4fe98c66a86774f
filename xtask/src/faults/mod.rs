//! `cargo xtask faults`: the whole crash matrix, or with `--mutants` every seeded bug against the test that must see it.

mod mutants;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use test_images::Registry;

use crate::setup::{self, Consent, Parts};
use crate::shell;

/// Workloads that are tried at the same time, each on two hosts.
const AT_ONCE: &str = "3";
/// What is to be reached: points of each workload, and double crashes in all.
const POINTS: usize = 60;
const DOUBLES: usize = 60;

#[derive(clap::Args)]
pub struct Options {
    /// Shows instead that each seeded bug is seen by the test that is named for it
    #[arg(long)]
    mutants: bool,
    /// So many points of each workload, evenly spread, instead of all
    #[arg(long)]
    points: Option<usize>,
    /// Only workloads, or seeded bugs, whose name contains this
    filter: Option<String>,
}

/// Runs what was asked for and prints its table.
pub fn run(options: &Options) -> Result<()> {
    let parts = setup::everything(Consent::new(false), setup::Profile::Dev)?;
    let registry = Registry::start(&shell::target().join("faults-registry"), None)?;
    let filter = options.filter.as_deref().unwrap_or_default();
    if options.mutants { mutants::run(&parts, &registry, filter) } else { matrix(&parts, &registry, options) }
}

/// `cargo test` with what the tests need of the real parts.
fn test(parts: &Parts, registry: &Registry, arguments: &[&str]) -> std::process::Command {
    let mut command = shell::command("cargo", &["test", "--locked", "--quiet"]);
    command
        .args(arguments)
        .env("TENANTRY_BIN_DIR", &parts.bin_dir)
        .env("TENANTRY_STANDALONE", &parts.standalone)
        .env("TENANTRY_STANDIN", &parts.standin)
        .env("TENANTRY_TEST_REGISTRY", registry.address())
        .env("RUST_BACKTRACE", "0");
    command
}

fn matrix(parts: &Parts, registry: &Registry, options: &Options) -> Result<()> {
    let folder = shell::target().join("faults");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    let filter = options.filter.as_deref().unwrap_or_default().replace('-', "_");
    let count = options.points.map_or_else(|| "all".to_owned(), |count| count.to_string());
    let wanted = if filter.is_empty() { "crashes" } else { filter.as_str() };
    let arguments = ["-p", "tenantry-tests", "--test", "faults", "--", "--nocapture", wanted];
    let ended = shell::step("Crashes at every point", || {
        let mut command = test(parts, registry, &arguments);
        command.env("TENANTRY_FAULTS", &count).env("RUST_TEST_THREADS", AT_ONCE);
        shell::run(&mut command)
    });
    let rows = rows(&folder)?;
    let table = Table::of(&rows);
    print!("{}", table.shown());
    let report = shell::target().join("faults.json");
    std::fs::write(
        &report,
        serde_json::to_vec_pretty(&json!({"summary": table.summary(), "crashes": rows}))?,
    )?;
    println!("every crash is in {}", report.display());
    ended?;
    if filter.is_empty() { table.check() } else { Ok(()) }
}

/// What the tests wrote down, a row for each crash.
fn rows(folder: &PathBuf) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let rows: Vec<Value> = serde_json::from_slice(&std::fs::read(entry?.path())?)?;
        all.extend(rows);
    }
    Ok(all)
}

#[derive(Default)]
struct Workload {
    points: BTreeSet<String>,
    singles: usize,
    doubles: usize,
    broken: usize,
    recoveries: Vec<u64>,
}

struct Table(BTreeMap<String, Workload>);

impl Table {
    fn of(rows: &[Value]) -> Self {
        let mut table: BTreeMap<String, Workload> = BTreeMap::new();
        for row in rows {
            let workload = table.entry(row["workload"].as_str().unwrap_or_default().to_owned()).or_default();
            let points: Vec<&str> =
                row["points"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            if points.len() > 1 {
                workload.doubles += 1;
            } else {
                workload.singles += 1;
            }
            workload
                .points
                .extend(points.iter().map(|point| point.split('#').next().unwrap_or(point).to_owned()));
            if row["broken"].is_null() {
                workload.recoveries.push(row["recovery_ms"].as_u64().unwrap_or_default());
            } else {
                workload.broken += 1;
            }
        }
        for workload in table.values_mut() {
            workload.recoveries.sort_unstable();
        }
        Self(table)
    }

    fn shown(&self) -> String {
        use std::fmt::Write as _;
        let mut text =
            "workload      points  crashes  double  not recovered  recovery median / longest\n".to_owned();
        for (name, row) in &self.0 {
            let (median, longest) = times(&row.recoveries);
            let _ = writeln!(
                text,
                "{name:<13} {:>6} {:>8} {:>7} {:>14}  {median:.1} s / {longest:.1} s",
                row.points.len(),
                row.singles,
                row.doubles,
                row.broken
            );
        }
        text
    }

    fn summary(&self) -> Value {
        let row = |row: &Workload| {
            let (median, longest) = times(&row.recoveries);
            json!({
                "points": row.points.len(), "crashes": row.singles, "doubleCrashes": row.doubles,
                "notRecovered": row.broken, "recoverySeconds": {"median": median, "longest": longest},
            })
        };
        self.0.iter().map(|(name, workload)| (name.clone(), row(workload))).collect()
    }

    fn check(&self) -> Result<()> {
        for (name, row) in &self.0 {
            ensure!(row.broken == 0, "{name}: {} crashes were not recovered", row.broken);
            ensure!(
                row.points.len() >= POINTS,
                "{name}: only {} points were hit, not {POINTS}",
                row.points.len()
            );
        }
        ensure!(self.0.len() == 5, "only {} workloads were tried, not 5", self.0.len());
        let doubles: usize = self.0.values().map(|row| row.doubles).sum();
        ensure!(doubles >= DOUBLES, "only {doubles} double crashes, not {DOUBLES}");
        Ok(())
    }
}

fn times(sorted: &[u64]) -> (f64, f64) {
    let seconds =
        |at: usize| sorted.get(at).map_or(0.0, |ms| std::time::Duration::from_millis(*ms).as_secs_f64());
    (seconds(sorted.len() / 2), seconds(sorted.len().saturating_sub(1)))
}
