//! `cargo xtask test`: everything that must hold, as it is checked everywhere.

use anyhow::{Context as _, Result};
use test_images::Registry;

use crate::setup::{self, Consent, Parts};
use crate::{codegen, shell};

/// Scenarios that run at the same time: each has an agent, an operator and containers.
const SCENARIOS_AT_ONCE: &str = "4";

/// Checks everything, or with a filter runs the tests whose name contains it.
pub fn run(filter: Option<&str>) -> Result<()> {
    if filter.is_none() {
        check_style()?;
    }
    let parts = setup::everything(Consent::new(false), setup::Profile::Dev)?;
    if filter.is_none() {
        check_standalone()?;
    }
    let scratch = shell::target().join("test-registry");
    let registry = Registry::start(&scratch, None)?;
    run_tests(&parts, &registry, filter)
}

fn check_style() -> Result<()> {
    shell::step("Format", || shell::run(&mut shell::command("cargo", &["fmt", "--all", "--check"])))?;
    shell::step("Clippy", || {
        let arguments =
            ["clippy", "--locked", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
        shell::run(&mut shell::command("cargo", &arguments))
    })?;
    shell::step("Generated files", || codegen::run(true))
}

fn check_standalone() -> Result<()> {
    let folder = shell::root().join("standalone");
    shell::step("The control plane: format, vet and tests", || {
        let unformatted = shell::quietly(shell::command("gofmt", &["-l", "."]).current_dir(&folder))?;
        anyhow::ensure!(unformatted.trim().is_empty(), "gofmt would change {}", unformatted.trim());
        shell::run(shell::command("go", &["vet", "./..."]).current_dir(&folder))?;
        shell::run(shell::command("go", &["test", "./..."]).current_dir(&folder))
    })
}

fn run_tests(parts: &Parts, registry: &Registry, filter: Option<&str>) -> Result<()> {
    shell::step("Tests on a real control plane, engine and registry", || {
        let mut command = shell::command("cargo", &["test", "--locked", "--workspace", "--no-fail-fast"]);
        command
            .env("TENANTRY_BIN_DIR", &parts.bin_dir)
            .env("TENANTRY_STANDALONE", &parts.standalone)
            .env("TENANTRY_STANDIN", &parts.standin)
            .env("TENANTRY_TEST_REGISTRY", registry.address())
            .env("RUST_TEST_THREADS", SCENARIOS_AT_ONCE);
        if let Some(filter) = filter {
            command.arg(filter);
        }
        shell::run(&mut command)
    })
    .context("some tests failed: their names are above")
}
