//! What was tried, a line of JSON for each crash as soon as it is known: a run that is ended early has its results.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use parking_lot::Mutex;
use serde_json::Value;

use crate::matrix::Row;
use crate::workload::Workload;

/// The rows of one workload: `faults/WORKLOAD.jsonl` beside cargo's folder for tests, and the names of its points in `WORKLOAD.points`.
pub struct Rows {
    workload: Workload,
    path: PathBuf,
    broken: Mutex<Vec<String>>,
}

impl Rows {
    /// None yet, or those of the last run.
    pub fn new(workload: Workload, points: &[&str], more: bool) -> Result<Self> {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("faults");
        std::fs::create_dir_all(&folder)?;
        // Crashes that are named need no list.
        if !points.is_empty() {
            std::fs::write(folder.join(format!("{}.points", workload.name())), points.join("\n"))?;
        }
        let path = folder.join(format!("{}.jsonl", workload.name()));
        // What broke is tried again.
        let known = std::fs::read_to_string(&path).unwrap_or_default();
        let good = known.split_inclusive('\n').filter(|line| more && line.contains("\"broken\":null"));
        std::fs::write(&path, good.collect::<String>())?;
        Ok(Self { workload, path, broken: Mutex::default() })
    }

    /// Names of points that were recovered from.
    pub fn recovered(&self) -> BTreeSet<String> {
        let name = |point: Value| Some(point.as_str()?.split('#').next()?.to_owned());
        self.good().into_iter().flatten().filter_map(name).collect()
    }

    /// How many double crashes were recovered from.
    pub fn doubles(&self) -> usize {
        self.good().iter().filter(|points| points.len() > 1).count()
    }

    /// The points of every crash that was recovered from.
    fn good(&self) -> Vec<Vec<Value>> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let rows = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let good = rows.filter(|row| row["broken"].is_null());
        good.map(|row| row["points"].as_array().cloned().unwrap_or_default()).collect()
    }

    /// Adds a row, and tells of it.
    pub fn put(&self, row: Row) -> Result<()> {
        let line = serde_json::to_string(&row)?;
        let mut file = std::fs::File::options().create(true).append(true).open(&self.path)?;
        file.write_all(format!("{line}\n").as_bytes())?;
        let at = row.points.join(" then ");
        let what = format!("{:>12} {:?} {at}", row.workload, row.way);
        for missed in &row.missed {
            println!("{what}: {missed} was not come by");
        }
        if let Some(why) = row.broken {
            println!("{what} BROKEN: {why}\nagain: {}", self.again(&format!("{:?} {at}", row.way)));
            let all = &mut self.broken.lock();
            all.push(format!("{:?} {at}: {why}", row.way));
        } else if let Some(recovery) = row.recovery {
            println!(
                "{what} -> {} in {} ms, {} ms of it the agent's own",
                row.outcome, recovery.all_ms, recovery.own_ms
            );
        }
        Ok(())
    }

    /// The command that tries one crash alone.
    fn again(&self, at: &str) -> String {
        format!("cargo xtask faults {} --at '{at}'", self.workload.name())
    }

    /// Fails where something did not hold.
    pub fn check(&self) -> Result<()> {
        let broken = self.broken.lock();
        ensure!(broken.is_empty(), "{} crashes broke a promise:\n{}", broken.len(), broken.join("\n"));
        Ok(())
    }
}
