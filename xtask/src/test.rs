//! `cargo xtask test`: everything that must hold, as it is checked everywhere.
//!
//! Two cores are busy or idle, and tests on real parts mostly wait for services to become healthy. So builds go beside
//! installs, test programs beside each other, and what needs the processor alone beside those that wait.

mod binaries;
mod runner;
mod times;

use std::path::Path;

use anyhow::{Result, bail};
use test_images::Registry;

use crate::setup::{self, Consent};
use crate::{codegen, shell};
use runner::Runner;
use times::Times;

/// Checks everything, or with a filter runs the tests whose name or whose program's name contains it.
pub fn run(filter: Option<&str>) -> Result<()> {
    let times = Times::begin();
    if filter.is_none() {
        shell::step("Format", || shell::run(&mut shell::command("cargo", &["fmt", "--all", "--check"])))?;
        shell::step("Generated files", || codegen::run(true))?;
    }
    let (parts, built) = setup::everything_with(Consent::new(false), binaries::build)?;
    let registry = Registry::start(&shell::target().join("test-registry"), None)?;
    let runner = Runner::new(&parts, &registry, filter)?;
    let begun = std::time::Instant::now();
    let (ran, chores) = std::thread::scope(|scope| {
        let chores = scope.spawn(|| if filter.is_none() { chores() } else { Vec::new() });
        let ran = runner.run(&built.tests);
        (ran, chores.join().unwrap_or_else(|_| vec!["a check ended by a panic".to_owned()]))
    });
    println!("    tests and the checks beside them: done in {:.1} s", begun.elapsed().as_secs_f64());
    times.tell(&ran)?;
    let failed: Vec<String> = ran
        .iter()
        .filter(|ran| !ran.success)
        .map(|ran| format!("{}:\n{}", ran.name, ran.failures().trim_end()))
        .chain(chores)
        .chain(built.warnings)
        .collect();
    if !failed.is_empty() {
        bail!("what must hold did not:\n\n{}", failed.join("\n\n"));
    }
    Ok(())
}

/// Checks that need no part of the tests, in the background; says which failed.
fn chores() -> Vec<String> {
    let go = [("The control plane", "standalone"), ("Argo CD's health", "gitops/argocd")];
    go.into_iter()
        .flat_map(|(what, folder)| go_module(what, &shell::root().join(folder)))
        .filter_map(|ended| ended.err().map(|error| format!("{error:#}")))
        .collect()
}

/// Everything that must hold for a module of Go.
fn go_module(what: &str, folder: &Path) -> [Result<()>; 3] {
    [
        shell::step(&format!("{what}: format"), || {
            let mut command = shell::command("gofmt", &["-l", "."]);
            let unformatted = shell::quietly(command.current_dir(folder))?;
            anyhow::ensure!(unformatted.trim().is_empty(), "gofmt would change {}", unformatted.trim());
            Ok(())
        }),
        shell::step(&format!("{what}: vet"), || shell::in_background("go", &["vet", "./..."], folder)),
        shell::step(&format!("{what}: tests"), || shell::in_background("go", &["test", "./..."], folder)),
    ]
}
