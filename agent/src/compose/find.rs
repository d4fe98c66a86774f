//! Where the compose plugin is, and whether it may be used.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use tenantry_protocol::FailureCategory;
use tokio::process::Command;

use super::{environment, run};

const ASK_LIMIT: Duration = Duration::from_secs(15);
/// Where the Docker client looks for plugins, besides its configuration's folder.
const FOLDERS: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];

/// Why there is no compose to run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// It was not found.
    #[error("there is no docker compose plugin on this host: install docker-compose-plugin 2.40.2 or later")]
    Missing,
    /// It does not say its version.
    #[error(
        "{program} does not say its version and options: {problem}. Run '{program} version' on this host as the agent's user"
    )]
    Broken {
        /// Which one.
        program: String,
        /// What happened.
        problem: String,
    },
    /// It must not be used.
    #[error("docker compose {version} {problem}")]
    Refused {
        /// Its version.
        version: String,
        /// Why.
        problem: &'static str,
    },
}

impl ComposeError {
    /// The kind of failure. A plugin that is missing or broken may be one that is just being updated.
    pub fn category(&self) -> FailureCategory {
        match self {
            Self::Refused { .. } => FailureCategory::StartFailed,
            Self::Missing | Self::Broken { .. } => FailureCategory::EngineFault,
        }
    }
}

/// A compose that was found, and what it can do.
#[derive(Clone, Debug)]
pub struct Found {
    /// What is started.
    pub program: OsString,
    /// Its version, as it says.
    pub version: String,
    /// Whether `config` knows `--no-env-resolution`.
    pub keeps_env_files: bool,
    /// How a person calls it: `docker compose` or `docker-compose`.
    pub typed: &'static str,
}

/// Finds the plugin and asks for its version.
pub(super) async fn find(docker_host: &str) -> Result<Found, ComposeError> {
    let (program, typed) = program().ok_or(ComposeError::Missing)?;
    let ask = |arguments: &'static [&'static str]| {
        let mut command = Command::new(&program);
        command.args(arguments).env_clear().envs(environment(docker_host));
        run(command, std::path::Path::new("/"), ASK_LIMIT, None)
    };
    let broken = |problem: String| ComposeError::Broken { program: program.display().to_string(), problem };
    tenantry_faults::point("compose.ask.before");
    let (version, help) = tokio::join!(ask(&["version", "--short"]), ask(&["config", "--help"]));
    tenantry_faults::point("compose.ask.after");
    let output = version.map_err(|error| broken(error.to_string()))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().trim_start_matches('v').to_owned();
    check(&version)?;
    let help = help.map_err(|error| broken(error.to_string()))?;
    Ok(Found {
        program: OsString::from(program),
        version,
        keeps_env_files: String::from_utf8_lossy(&help.stdout).contains("--no-env-resolution"),
        typed,
    })
}

fn program() -> Option<(PathBuf, &'static str)> {
    let own = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")));
    let folders = own.map(|folder| folder.join("cli-plugins")).into_iter().chain(FOLDERS.map(PathBuf::from));
    let plugin = folders.map(|folder| folder.join("docker-compose")).find(|path| path.is_file());
    if let Some(path) = plugin {
        return Some((path, "docker compose"));
    }
    let path = std::env::var_os("PATH")?;
    let alone =
        std::env::split_paths(&path).map(|folder| folder.join("docker-compose")).find(|path| path.is_file());
    alone.map(|path| (path, "docker-compose"))
}

fn check(version: &str) -> Result<(), ComposeError> {
    let refuse = |problem| Err(ComposeError::Refused { version: version.to_owned(), problem });
    let mut numbers = version.split(['.', '-', '+']).map(|part| part.parse::<u32>().ok());
    let (Some(Some(major)), Some(Some(minor)), Some(Some(patch))) =
        (numbers.next(), numbers.next(), numbers.next())
    else {
        return refuse("has a version that is not understood: install 2.40.2 or later");
    };
    let number = (major, minor, patch);
    if number < (2, 20, 0) {
        return refuse("is too old: install 2.40.2 or later (2.20 to 2.33 would do)");
    }
    if ((2, 34, 0)..=(2, 40, 1)).contains(&number) {
        return refuse("has CVE-2025-62725 (it writes files outside its cache): install 2.40.2 or later");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_write_where_they_must_not_are_refused() {
        for good in ["2.20.0", "2.33.1", "2.40.2", "2.40.3-desktop.1", "5.0.2"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("2.34.0", "CVE"),
            ("2.40.1", "CVE"),
            ("1.29.2", "old"),
            ("", "understood"),
            ("dev", "understood"),
        ] {
            let message = check(bad).unwrap_err().to_string();
            assert!(message.contains(why), "{bad}: {message}");
        }
    }
}
