//! `cargo xtask faults`: the whole crash matrix, or with `--mutants` every seeded bug against the test that must see it.

mod mutants;
mod table;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use table::Table;
use test_images::Registry;

use crate::setup::{self, Consent, Parts};
use crate::shell;

/// Workloads that are tried at the same time: all, so that each has its share of the time that there is.
const AT_ONCE: &str = "5";

#[derive(clap::Args)]
pub struct Options {
    /// Shows instead that each seeded bug is seen by the test that is named for it
    #[arg(long)]
    mutants: bool,
    /// So many points of each workload, evenly spread, instead of all
    #[arg(long)]
    points: Option<usize>,
    /// No crash is begun after so many minutes; the table says what was not tried
    #[arg(long)]
    minutes: Option<u64>,
    /// Goes on where the last run ended: points that were recovered from then are not tried again
    #[arg(long)]
    more: bool,
    /// One crash of one workload, as a failing run names it; may be given several times
    #[arg(long, requires = "filter")]
    at: Vec<String>,
    /// Only workloads, or seeded bugs, whose name contains one of these
    filter: Vec<String>,
}

/// Runs what was asked for and prints its table.
pub fn run(options: &Options) -> Result<()> {
    let parts = setup::everything(Consent::new(false), setup::Profile::Dev)?;
    let registry = Registry::start(&shell::target().join("faults-registry"), None)?;
    if options.mutants {
        mutants::run(&parts, &registry, &options.filter)
    } else {
        matrix(&parts, &registry, options)
    }
}

/// `cargo test` with what the tests need of the real parts.
pub fn test(parts: &Parts, registry: &Registry, arguments: &[&str]) -> std::process::Command {
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
    let folder = shell::of_this_target()?.join("faults");
    let goes_on = options.more || !options.at.is_empty();
    if folder.exists() && !goes_on {
        std::fs::remove_dir_all(&folder)?;
    }
    let parts = own_copies(parts)?;
    let filter: Vec<String> = options.filter.iter().map(|name| name.replace('-', "_")).collect();
    let mut arguments = vec!["-p", "tenantry-tests", "--test", "faults", "--", "--nocapture"];
    arguments.extend(filter.iter().map(String::as_str));
    if filter.is_empty() {
        arguments.push("crashes");
    }
    let ended = shell::step("Crashes at every point", || {
        let mut command = test(&parts, registry, &arguments);
        command.env("RUST_TEST_THREADS", AT_ONCE);
        command.env("TENANTRY_FAULTS", options.points.map_or_else(|| "all".to_owned(), |n| n.to_string()));
        if let Some(minutes) = options.minutes {
            command.env("TENANTRY_FAULTS_MINUTES", minutes.to_string());
        }
        if goes_on {
            command.env("TENANTRY_FAULTS_MORE", "1");
        }
        if !options.at.is_empty() {
            command.env("TENANTRY_FAULTS_AT", options.at.join(";"));
        }
        shell::run(&mut command)
    });
    let table = Table::read(&folder)?;
    print!("{}", table.shown());
    let report = shell::target().join("faults.json");
    std::fs::write(&report, serde_json::to_vec_pretty(&table.json())?)?;
    println!("every crash is in {}", report.display());
    ended?;
    if filter.is_empty() { table.check() } else { Ok(()) }
}

/// The programs in a folder that no build touches for as long as this runs.
fn own_copies(parts: &Parts) -> Result<Parts> {
    let folder = shell::target().join("faults-programs");
    std::fs::create_dir_all(&folder)?;
    let copy = |from: &Path, name: &str| -> Result<PathBuf> {
        let to = folder.join(name);
        // A program that still runs can't be written to.
        let _ = std::fs::remove_file(&to);
        std::fs::copy(from, &to).with_context(|| from.display().to_string())?;
        Ok(to)
    };
    for name in ["tenantry", "tenantry-operator", "tenantry-agent"] {
        copy(&parts.bin_dir.join(name), name)?;
    }
    let standin = copy(&parts.standin, "standin")?;
    Ok(Parts { bin_dir: folder, standalone: parts.standalone.clone(), standin })
}
