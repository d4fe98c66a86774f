//! A look that finds nothing to do, and `docker compose up -d` that finds nothing to do.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use super::Bench;
use super::api::sum;
use super::project::Pair;
use super::report::Row;
use super::upgrade::milliseconds;
use crate::{host, shell};

const RATIO: f64 = 0.05;

/// Measures both on `changemaker`. The second row is the stricter one: compose runs no one-shot again in it.
pub fn changemaker(bench: &Bench, pair: &Pair) -> Result<Vec<Row>> {
    let (mut plain, mut without_jobs) = (Vec::new(), Vec::new());
    let services = running(&pair.by_hand)?;
    let only_running = format!("up -d --no-deps {services}");
    // The first look after an installation reads everything anew: it is not one that finds nothing to do.
    reconcile(bench, pair, 0)?;
    println!("==> Nothing to do on changemaker: {} pairs", bench.pairs);
    for number in 1..=bench.pairs {
        bench.go_on()?;
        let mut ours = 0.0;
        if number % 2 == 1 {
            ours = reconcile(bench, pair, number)?;
        }
        let by_hand = timed(&pair.by_hand, "up -d")?;
        let strict = timed(&pair.by_hand, &only_running)?;
        if number % 2 == 0 {
            ours = reconcile(bench, pair, number)?;
        }
        println!(
            "    {number}: {ours:.2} ms by Tenantry, {by_hand:.0} ms by hand, {strict:.0} ms without one-shots"
        );
        plain.push((ours, by_hand));
        without_jobs.push((ours, strict));
    }
    Ok(vec![
        Row::ratio("nothing to do on changemaker ÷ `docker compose up -d`", "ms", &plain, RATIO),
        Row::ratio("the same ÷ `up -d` over the running services alone", "ms", &without_jobs, RATIO),
    ])
}

fn running(directory: &std::path::Path) -> Result<String> {
    let command = ["compose", "ps", "--services", "--status", "running"];
    let listed = shell::quietly(shell::command("docker", &command).current_dir(directory))?;
    Ok(listed.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn timed(directory: &std::path::Path, arguments: &str) -> Result<f64> {
    let begun = Instant::now();
    host::compose_by_hand(directory, arguments)?;
    Ok(milliseconds(begun.elapsed()))
}

/// Touches the Tenant and waits until it was looked at: the mean time of the looks since, by the operator's own clock.
fn reconcile(bench: &Bench, pair: &Pair, number: u32) -> Result<f64> {
    let (count, time) = looks(bench)?;
    let touch = json!({"metadata": {"annotations": {"example.com/touched": number.to_string()}}});
    bench.api.patch(&pair.path(), &touch)?;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (now, time_now) = looks(bench)?;
        if now > count {
            return Ok((time_now - time) / (now - count) * 1000.0);
        }
        ensure!(Instant::now() < deadline, "the operator did not look at a Tenant that was touched");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How many looks there were, and how long they took in all.
fn looks(bench: &Bench) -> Result<(f64, f64)> {
    let metrics = bench.metrics("operator")?;
    let of = |suffix: &str| {
        let name = format!("tenantry_operator_reconcile_duration_seconds_{suffix}");
        sum(&metrics, |line| line.starts_with(&name))
    };
    Ok((of("count"), of("sum")))
}
