//! The Compose plugin: one that works is used, unless its version is known to write files that it should only read.

use anyhow::{Context as _, Result, bail};

use super::packages;
use crate::shell;

/// The version that is installed where there is none.
const VERSION: &str = "v5.0.2";
/// From and to: these write files even on `config` and `ps` (CVE-2025-62725).
const REFUSED: ((u64, u64, u64), (u64, u64, u64)) = ((2, 34, 0), (2, 40, 1));

/// What is done where there is none, as a person is asked.
pub const WHAT: &str = "build Docker Compose v5.0.2 and install it as the docker CLI's plugin";

/// Whether `docker compose` does not work; a version that must not be used is an error.
pub fn is_missing() -> Result<bool> {
    let found = shell::quietly(&mut shell::command("docker", &["compose", "version", "--short"])).ok();
    let Some(version) = found.as_deref().and_then(parse) else { return Ok(true) };
    if version >= REFUSED.0 && version <= REFUSED.1 {
        bail!("docker compose {version:?} has CVE-2025-62725: update it to v2.40.2 or newer");
    }
    Ok(false)
}

/// Builds and installs the plugin.
pub fn build() -> Result<()> {
    shell::step("Building Docker Compose", || {
        let folder = shell::target().join("tools").join("compose");
        let flags = format!("-s -w -X github.com/docker/compose/v5/internal.Version={VERSION}");
        let module = format!("github.com/docker/compose/v5/cmd@{VERSION}");
        let mut build = shell::command("go", &["install", "-trimpath", "-ldflags", &flags, &module]);
        shell::run(build.env("GOBIN", &folder))?;
        install(&folder.join("cmd"))?;
        shell::run(&mut shell::command("docker", &["compose", "version"]))
    })
}

fn install(program: &std::path::Path) -> Result<()> {
    let program = program.to_str().context("a path that is text")?;
    packages::as_root(&[
        "install",
        "-D",
        "-m",
        "0755",
        program,
        "/usr/local/lib/docker/cli-plugins/docker-compose",
    ])
}

fn parse(text: &str) -> Option<(u64, u64, u64)> {
    let text = text.trim().trim_start_matches('v');
    let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_told_the_version_that_is_built() {
        assert!(WHAT.contains(VERSION));
    }

    #[test]
    fn versions_are_read_as_compose_prints_them() {
        assert_eq!(parse("v5.0.2\n"), Some((5, 0, 2)));
        assert_eq!(parse("2.40.1+ds1"), Some((2, 40, 1)));
        assert_eq!(parse("dev"), None);
    }
}
