//! `cargo xtask bench`: what an upgrade costs beside the same thing done by hand, and what the programs cost at rest.
//!
//! Only proportions of one run are compared: both sides do the same work in turn, on the same machine, and the order
//! alternates from pair to pair.

mod api;
mod killed;
mod memory;
mod noop;
mod probe;
mod project;
mod report;
mod snapshot;
mod upgrade;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use crate::host::{self, Host};
use crate::setup::{self, Consent, Parts, Profile};
use crate::shell;
use api::Api;
use report::Row;

/// Every compose project of a benchmark is called so, and what comes after it.
const PREFIX: &str = "tenantry-bench";

/// What may be measured on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// An upgrade of `hello`: time, silence and writes to the API server; and a container of it that is killed
    Hello,
    /// An upgrade of one service of `changemaker`: time and silence
    Changemaker,
    /// A look at `changemaker` that finds nothing to do
    Noop,
    /// Resident memory of agent and operator with ten tenants
    Memory,
    /// Resident memory of the control plane, at rest and after 4,000 status writes
    ControlPlane,
    /// Keeping and bringing back 2 GB in 20,000 files: time and memory
    Snapshot,
}

/// Arguments of `cargo xtask bench`.
#[derive(Debug, Args)]
pub struct Options {
    /// Pairs of measurements
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=100))]
    pairs: u32,
    /// Measure only this; may be given several times
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Measure the programs in this folder rather than build them
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Do not ask before something is installed
    #[arg(long)]
    yes: bool,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// A running host, its API, and what every measurement needs.
struct Bench {
    host: Host,
    api: Api,
    ready: serde_json::Value,
    pairs: u32,
    interrupted: Arc<AtomicBool>,
}

impl Bench {
    /// Fails once the person at the terminal has had enough.
    fn go_on(&self) -> Result<()> {
        ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }

    /// A program's metrics page.
    fn metrics(&self, program: &str) -> Result<String> {
        let address = self.ready["metrics"][program].as_str().context("an address of metrics")?;
        let port = address.rsplit(':').next().and_then(|port| port.parse().ok()).context("a port")?;
        host::get(port, "/metrics")
    }

    /// A process id of the ready file.
    fn pid(&self, program: &str) -> Result<u32> {
        let pid = self.ready["pids"][program].as_u64().and_then(|pid| u32::try_from(pid).ok());
        pid.ok_or_else(|| anyhow::anyhow!("the ready file has no process id of {program}: {}", self.ready))
    }
}

/// What was measured so far, and what could not be: one part that fails takes no figures from the others.
#[derive(Default)]
struct Results {
    rows: Vec<Row>,
    failed: Vec<String>,
}

impl Results {
    fn add(&mut self, part: &str, rows: Result<Vec<Row>>) {
        match rows {
            Ok(rows) => self.rows.extend(rows),
            Err(error) => {
                eprintln!("{part}: {error:#}");
                self.failed.push(part.to_owned());
            }
        }
    }
}

/// Measures, prints and writes `target/bench.json`.
pub fn run(options: &Options) -> Result<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    let profile = match &options.bin_dir {
        Some(folder) => Profile::Built(folder.canonicalize().with_context(|| folder.display().to_string())?),
        None => Profile::Release,
    };
    let parts = setup::everything(Consent::new(options.yes), profile)?;
    project::remove_leftovers()?;
    let mut results = Results::default();
    if options.wants(Part::ControlPlane) {
        results.add("the control plane", memory::control_plane(&parts));
    }
    if options.wants(Part::Snapshot) {
        results.add("snapshots", snapshot::snapshot(&parts, options.pairs));
    }
    let on_a_host = [Part::Memory, Part::Hello, Part::Changemaker, Part::Noop];
    if on_a_host.into_iter().any(|part| options.wants(part)) {
        with_host(options, &parts, interrupted, &mut results)?;
    }
    tell(options, &results)
}

fn tell(options: &Options, results: &Results) -> Result<()> {
    let json = report::json(&results.rows, options.pairs)?;
    std::fs::write(shell::target().join("bench.json"), &json)?;
    if options.json {
        println!("{json}");
    } else {
        println!("\n{}", report::table(&results.rows));
    }
    let missed =
        results.rows.iter().filter(|row| !row.reached()).map(|row| format!("{} is not reached", row.name));
    let failed = results.failed.iter().map(|part| format!("{part} failed"));
    let complaints: Vec<String> = failed.chain(missed).collect();
    ensure!(complaints.is_empty(), "{}", complaints.join("; "));
    Ok(())
}

fn with_host(
    options: &Options,
    parts: &Parts,
    interrupted: Arc<AtomicBool>,
    results: &mut Results,
) -> Result<()> {
    let mut host = Host::prepare("bench", parts)?.without_profile()?;
    let ready = shell::step("Starting tenantry up", || host.up())?;
    let api = Api::start(&host)?;
    let mut bench = Bench { host, api, ready, pairs: options.pairs, interrupted };
    measure(options, &bench, results);
    let removed = shell::step("Removing what the benchmarks made", || {
        bench.host.down()?;
        project::remove_leftovers()?;
        project::remove_images(bench.host.registry.address())
    });
    results.add("the removal of what was made", removed.map(|()| Vec::new()));
    Ok(())
}

fn measure(options: &Options, bench: &Bench, results: &mut Results) {
    // Memory first, before the upgrades have exercised anything.
    if options.wants(Part::Memory) {
        results.add("agent and operator", memory::programs(bench));
    }
    if options.wants(Part::Hello) {
        results.add("hello", upgrade::hello(bench));
    }
    if options.wants(Part::Changemaker) || options.wants(Part::Noop) {
        match project::changemaker(bench) {
            Ok(pair) => {
                if options.wants(Part::Noop) {
                    results.add("nothing to do on changemaker", noop::changemaker(bench, &pair));
                }
                if options.wants(Part::Changemaker) {
                    results.add("changemaker", upgrade::changemaker(bench, &pair));
                }
            }
            Err(error) => results.add("changemaker", Err(error)),
        }
    }
}
