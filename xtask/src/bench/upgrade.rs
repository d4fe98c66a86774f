//! An upgrade through Tenantry and the same one by hand, in turn.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::Bench;
use super::api::sum;
use super::killed::killed;
use super::probe::{self, Seen};
use super::project::{self, PATIENCE, Pair};
use super::report::Row;
use crate::shell;

/// An upgrade may take this many times what it takes by hand.
const RATIO: f64 = 1.05;
/// Writes to the API server for one upgrade, Events aside.
const WRITES: f64 = 10.0;
/// The part of an upgrade that may be spent on changing files and making them durable.
const DISK: f64 = 0.03;

/// What a series of pairs gave: rows, writes to the API server, and time on the disk beside that of the whole upgrade.
type Series = (Vec<Row>, Vec<f64>, Vec<(f64, f64)>);

/// `hello`: all three services change.
pub fn hello(bench: &Bench) -> Result<Vec<Row>> {
    let pair = project::hello(bench)?;
    let (mut rows, writes, disk) = pairs(bench, &pair, "hello")?;
    rows.push(Row::ratio(
        "journal, records, staging and making them durable ÷ the upgrade",
        "ms",
        &disk,
        DISK,
    ));
    rows.push(Row::most("API writes for one upgrade (the most that was seen)", "", writes, WRITES));
    rows.push(killed(bench, &pair)?);
    Ok(rows)
}

/// `changemaker`: the image of one service changes.
pub fn changemaker(bench: &Bench, pair: &Pair) -> Result<Vec<Row>> {
    Ok(pairs(bench, pair, "changemaker, one image")?.0)
}

fn pairs(bench: &Bench, pair: &Pair, what: &str) -> Result<Series> {
    let (mut took, mut silent, mut writes, mut disk) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    println!("==> Upgrades of {what}: {} pairs", bench.pairs);
    for number in 1..=bench.pairs {
        bench.go_on()?;
        let (tag, tag_by_hand) = (format!("p{number}-ours"), format!("p{number}-hand"));
        pair.publish(bench, &tag)?;
        pair.publish(bench, &tag_by_hand)?;
        let (ours, by_hand);
        if number % 2 == 1 {
            ours = through_tenantry(bench, pair, &tag)?;
            by_hand = through_a_shell(pair, &tag_by_hand)?;
        } else {
            by_hand = through_a_shell(pair, &tag_by_hand)?;
            ours = through_tenantry(bench, pair, &tag)?;
        }
        let Upgrade { seen: ours, writes: written, disk: on_disk } = ours;
        println!("    {number}: {} by Tenantry, {} by hand, {written} writes", shown(ours), shown(by_hand));
        took.push((milliseconds(ours.took), milliseconds(by_hand.took)));
        silent.push((milliseconds(ours.silent), milliseconds(by_hand.silent)));
        writes.push(written);
        disk.push((milliseconds(on_disk), milliseconds(ours.took)));
    }
    let rows = vec![
        Row::ratio(&format!("upgrade of {what}, until the new version answers"), "ms", &took, RATIO),
        Row::ratio(&format!("upgrade of {what}, silence"), "ms", &silent, RATIO),
    ];
    Ok((rows, writes, disk))
}

/// An upgrade through Tenantry.
struct Upgrade {
    seen: Seen,
    /// Writes to the API server until the Tenant was ready.
    writes: f64,
    /// Time that the agent spent on changing files, all in all.
    disk: Duration,
}

/// The clock runs from before the request.
fn through_tenantry(bench: &Bench, pair: &Pair, tag: &str) -> Result<Upgrade> {
    let (writes, disk) = (bench.api.writes()?, on_disk(bench)?);
    let begun = Instant::now();
    bench.api.patch(&pair.path(), &json!({"spec": {"imageTag": tag}}))?;
    let seen = probe::until(pair.port, tag, begun, PATIENCE)?;
    bench.host.until(&pair.tenant, PATIENCE, |tenant| {
        tenant["status"]["phase"] == "Ready" && tenant["status"]["deployed"]["imageTag"] == tag
    })?;
    let request = 1.0;
    let disk = Duration::from_secs_f64((on_disk(bench)? - disk).max(0.0));
    Ok(Upgrade { seen, writes: bench.api.writes()? - writes - request, disk })
}

/// How many seconds the agent has spent on changing files so far.
fn on_disk(bench: &Bench) -> Result<f64> {
    let metrics = bench.metrics("agent")?;
    Ok(sum(&metrics, |line| line.starts_with("tenantry_agent_disk_changes_seconds_total")))
}

fn through_a_shell(pair: &Pair, tag: &str) -> Result<Seen> {
    let variable = pair.variable;
    let line = format!(
        "sed -i 's/^{variable}=.*/{variable}={tag}/' .env && docker compose pull && docker compose up -d"
    );
    let log = std::fs::File::create(pair.by_hand.with_extension("log"))?;
    let mut command = Command::new("sh");
    command.args(["-c", &line]).current_dir(&pair.by_hand);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let begun = Instant::now();
    let mut child = command.spawn().context("sh could not be run")?;
    let seen = probe::until(pair.port_by_hand, tag, begun, PATIENCE);
    let status = child.wait()?;
    ensure!(status.success(), "{line} failed: see {}", pair.by_hand.with_extension("log").display());
    settle(&pair.by_hand)?;
    seen
}

/// Waits until nothing that was started by hand is starting any more, so that it does not run into the next measurement.
fn settle(directory: &std::path::Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let format = ["compose", "ps", "--format", "{{.Service}} {{.Health}}"];
        let listed = shell::quietly(shell::command("docker", &format).current_dir(directory))?;
        if !listed.lines().any(|line| line.ends_with("starting")) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "still starting in {}: {listed}", directory.display());
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn shown(seen: Seen) -> String {
    format!("{:.0} ms ({:.0} silent)", milliseconds(seen.took), milliseconds(seen.silent))
}

/// A time in milliseconds.
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
