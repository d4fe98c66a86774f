//! Where the time of a run goes: each step, each test program, and the tests that took longest.

use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use super::runner::Ran;
use crate::shell;

/// How many tests are shown; the file has all.
const SHOWN: usize = 20;

/// A run that is measured.
pub struct Times(Instant);

impl Times {
    /// Begins to measure.
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    /// Prints the table and writes all of it to `target/test-times.json`.
    pub fn tell(&self, ran: &[Ran]) -> Result<()> {
        let whole = self.0.elapsed().as_secs_f64();
        let steps = shell::steps();
        let mut tests: Vec<(&str, &str, f64)> = ran
            .iter()
            .flat_map(|ran| ran.tests().map(|(test, time)| (ran.name.as_str(), test, time)))
            .collect();
        tests.sort_by(|one, other| other.2.total_cmp(&one.2));
        println!("\n{whole:9.1} s  the whole run, from the first check on; of which, some beside others:");
        for (step, seconds) in &steps {
            println!("{seconds:9.1} s  {step}");
        }
        for ran in ran {
            println!("{:9.1} s  {}", ran.seconds, ran.name);
        }
        for (program, test, seconds) in tests.iter().take(SHOWN) {
            println!("{seconds:9.1} s  {program} {test}");
        }
        let rows = |rows: Vec<(&str, f64)>| -> Vec<_> {
            rows.into_iter().map(|(what, seconds)| json!({"what": what, "seconds": seconds})).collect()
        };
        let tests = tests
            .iter()
            .map(|(program, test, seconds)| json!({"program": program, "test": test, "seconds": seconds}));
        let all = json!({
            "seconds": whole,
            "steps": rows(steps.iter().map(|(step, seconds)| (step.as_str(), *seconds)).collect()),
            "programs": rows(ran.iter().map(|ran| (ran.name.as_str(), ran.seconds)).collect()),
            "tests": tests.collect::<Vec<_>>(),
        });
        Ok(std::fs::write(shell::target().join("test-times.json"), serde_json::to_vec_pretty(&all)?)?)
    }
}
