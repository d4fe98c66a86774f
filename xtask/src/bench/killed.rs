//! A container that somebody kills: how long until its Tenant says so.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Bench;
use super::project::{PATIENCE, Pair};
use super::report::Row;
use crate::shell;

/// Seconds.
const TOLD: f64 = 5.0;

/// Kills a container of a Tenant that is ready, time after time.
pub fn killed(bench: &Bench, pair: &Pair) -> Result<Row> {
    let mut took = Vec::new();
    println!("==> A container is killed by hand: {} times", bench.pairs);
    let container = format!("{}-web-1", pair.tenant);
    for number in 1..=bench.pairs {
        bench.go_on()?;
        shell::quietly(&mut shell::command("docker", &["kill", &container]))?;
        let begun = Instant::now();
        while is_ready(bench, pair)? {
            ensure!(
                begun.elapsed() < PATIENCE,
                "{container} was killed, and its Tenant is Ready all the same"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        took.push(begun.elapsed().as_secs_f64());
        println!("    {number}: told after {:.2} s", begun.elapsed().as_secs_f64());
        shell::quietly(&mut shell::command("docker", &["start", &container]))?;
        bench.host.until(&pair.tenant, PATIENCE, |tenant| tenant["status"]["phase"] == "Ready")?;
    }
    let name = "a container killed by hand, until the Tenant says so (the longest that was seen)";
    Ok(Row::most(name, "s", took, TOLD))
}

fn is_ready(bench: &Bench, pair: &Pair) -> Result<bool> {
    let tenant: Value = serde_json::from_str(&bench.api.get(&pair.path())?)?;
    let conditions = tenant["status"]["conditions"].as_array().context("a Tenant has conditions")?;
    Ok(conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}
