//! The simulation, built for speed and run over seeds.

use std::process::Command;

use anyhow::{Result, bail};

/// What to run.
#[derive(clap::Args)]
pub struct Options {
    /// How many seeds
    #[arg(long, default_value_t = 100_000)]
    seeds: u64,
    /// The first seed; with --trace, the only one
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many at once; default: as many as there are processors
    #[arg(long)]
    jobs: Option<usize>,
    /// Prints what happens in the one seed
    #[arg(long)]
    trace: bool,
    /// Goes on after a broken promise, and counts them
    #[arg(long)]
    go_on: bool,
}

/// Runs it; an error where a promise was broken.
pub fn run(options: &Options) -> Result<()> {
    let mut command = Command::new(env!("CARGO"));
    command.args([
        "run",
        "--quiet",
        "--profile",
        "simulation",
        "-p",
        "tenantry-simulation",
        "--bin",
        "simulate",
        "--",
    ]);
    command.args(["--seeds", &options.seeds.to_string(), "--seed", &options.seed.to_string()]);
    if let Some(jobs) = options.jobs {
        command.args(["--jobs", &jobs.to_string()]);
    }
    for (flag, set) in [("--trace", options.trace), ("--go-on", options.go_on)] {
        if set {
            command.arg(flag);
        }
    }
    if !command.status()?.success() {
        bail!("a promise was broken, or the simulation did not build; the lines above say which");
    }
    Ok(())
}
