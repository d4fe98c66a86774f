//! Every developer's command: `cargo xtask COMMAND`.

mod bench;
mod codegen;
#[cfg(test)]
mod docs;
mod faults;
mod gitops;
mod host;
mod quickstart;
mod setup;
mod shell;
mod simulate;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Every developer's command")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows an upgrade and a rollback on real parts, each claim checked; installs what is missing
    Quickstart {
        /// Ends after the story, with status 0 only if each of its claims was checked
        #[arg(long)]
        exit: bool,
        /// Does not ask before it installs something
        #[arg(long)]
        yes: bool,
    },
    /// Measures upgrades beside the same done by hand, and resident memory; writes target/bench.json
    Bench(bench::Options),
    /// Format, clippy, generated files, and every test on real parts; installs what is missing
    Test {
        /// Only tests whose name contains this; skips the checks of format and style
        filter: Option<String>,
    },
    /// Kills an agent at every point it has, on real parts; writes target/faults.json
    Faults(faults::Options),
    /// Tries what Flux sees by its own kustomize-controller, on real parts
    Gitops,
    /// Runs the shipped operator and agent on made-up machines, over many seeds of faults
    Simulate(simulate::Options),
    /// Writes the custom resource definitions to crds/
    Codegen {
        /// Writes nothing and fails where a file is not up to date
        #[arg(long)]
        check: bool,
    },
    /// Installs what is missing, and does nothing where all is there
    Setup {
        /// Does not ask
        #[arg(long)]
        yes: bool,
    },
}

/// An error is shown with its causes and no backtrace, so that it is the last thing to be read.
fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Quickstart { exit, yes } => quickstart::run(exit, yes),
        Command::Bench(options) => bench::run(&options),
        Command::Test { filter } => test::run(filter.as_deref()),
        Command::Faults(options) => faults::run(&options),
        Command::Gitops => gitops::run(),
        Command::Simulate(options) => simulate::run(&options),
        Command::Codegen { check } => codegen::run(check),
        Command::Setup { yes } => setup::everything(setup::Consent::new(yes), setup::Profile::Dev).map(drop),
    }
}
