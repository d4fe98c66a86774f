//! What was tried, a line of JSON for each crash as soon as it is known: a run that is ended early has its results.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};

use crate::matrix::Row;
use crate::workload::Workload;

/// The rows of one workload: `target/faults/WORKLOAD.jsonl`, and the names of its points in `WORKLOAD.points`.
pub struct Rows {
    workload: Workload,
    file: Mutex<std::fs::File>,
    broken: Mutex<Vec<String>>,
}

impl Rows {
    /// None yet.
    pub fn new<'a>(workload: Workload, points: impl Iterator<Item = &'a str>) -> Result<Self> {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("faults");
        std::fs::create_dir_all(&folder)?;
        let names: String = points.map(|name| format!("{name}\n")).collect();
        std::fs::write(folder.join(format!("{}.points", workload.name())), names)?;
        let file = std::fs::File::create(folder.join(format!("{}.jsonl", workload.name())))?;
        Ok(Self { workload, file: Mutex::new(file), broken: Mutex::default() })
    }

    /// Adds a row, and tells of it.
    pub fn put(&self, row: Row) -> Result<()> {
        let line = serde_json::to_string(&row)?;
        writeln!(self.file.lock().unwrap_or_else(PoisonError::into_inner), "{line}")?;
        let at = row.points.join(" then ");
        let what = format!("{:>12} {:?} {at}", row.workload, row.way);
        for missed in &row.missed {
            println!("{what}: {missed} was not come by");
        }
        if let Some(why) = row.broken {
            println!("{what} BROKEN: {why}\nagain: {}", self.again(&format!("{:?} {at}", row.way)));
            let all = &mut self.broken.lock().unwrap_or_else(PoisonError::into_inner);
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
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(broken.is_empty(), "{} crashes broke a promise:\n{}", broken.len(), broken.join("\n"));
        Ok(())
    }
}
