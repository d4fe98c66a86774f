//! The real parts: each is looked for, and installed where it is missing. Working parts are left as they are.

mod compose;
mod engine;
mod packages;
pub mod programs;

pub use programs::Profile;

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::{Result, bail};

/// Whether installing needs a person's word.
#[derive(Clone, Copy, Debug)]
pub enum Consent {
    /// Ask at the terminal.
    Ask,
    /// Given, or nobody is there to be asked.
    Given,
}

impl Consent {
    /// Asks only where a person is at the terminal and did not say yes beforehand.
    pub fn new(yes: bool) -> Self {
        if yes || !std::io::stdin().is_terminal() { Self::Given } else { Self::Ask }
    }

    /// Asks whether something may be done to this machine.
    pub fn to(self, what: &str) -> Result<()> {
        if matches!(self, Self::Given) {
            println!("    {what}");
            return Ok(());
        }
        print!("{what}? [y/N] ");
        std::io::stdout().flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if !answer.trim().eq_ignore_ascii_case("y") {
            bail!("stopped: without it there is nothing to go on with (to {what})");
        }
        Ok(())
    }
}

/// Where the parts that we build are.
#[derive(Clone, Debug)]
pub struct Parts {
    /// `tenantry`, `tenantry-operator` and `tenantry-agent`.
    pub bin_dir: PathBuf,
    /// The embedded control plane.
    pub standalone: PathBuf,
    /// The stand-in application.
    pub standin: PathBuf,
}

/// Every part of the quickstart and the benches.
pub fn everything(consent: Consent, profile: Profile) -> Result<Parts> {
    everything_with(consent, || Ok((programs::own(profile)?, ()))).map(|(parts, ())| parts)
}

/// The same where the caller builds our own programs: says in which folder they are, and what else it built with them.
/// What Go builds is built beside what cargo builds.
pub fn everything_with<T>(
    consent: Consent,
    own: impl FnOnce() -> Result<(PathBuf, T)>,
) -> Result<(Parts, T)> {
    packages::ensure(consent)?;
    let build_compose = compose::is_missing()?;
    if build_compose {
        consent.to(compose::WHAT)?;
    }
    std::thread::scope(|scope| {
        let by_go = scope.spawn(move || {
            engine::ensure()?;
            if build_compose {
                compose::build()?;
            }
            programs::standalone()
        });
        let by_cargo = own().and_then(|own| Ok((own, programs::standin()?)));
        let standalone = by_go.join().unwrap_or_else(|_| bail!("what Go builds could not be built"));
        let ((bin_dir, also), standin) = by_cargo?;
        Ok((Parts { bin_dir, standalone: standalone?, standin }, also))
    })
}
