//! What a person gets who types something in a login shell of this host.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use super::{Output, RunError, run};

const LIMIT: Duration = Duration::from_mins(1);
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];
/// The engine that a person's client talks to unless told otherwise.
const USUAL_ENGINE: &str = "unix:///var/run/docker.sock";

/// Runs words in a login shell. Beside an agent in a container of its own there is none that a person could log in to.
pub(super) async fn login_shell(
    docker_host: &str,
    directory: &Path,
    words: &[OsString],
) -> Result<Option<Output>, RunError> {
    let Some(shell) = shell() else { return Ok(None) };
    let mut command = Command::new(shell);
    command.args(["-l", "-c", "exec \"$@\"", "login"]).args(words).env_clear();
    command.envs(login_variables());
    if is_another_engine(docker_host) {
        command.env("DOCKER_HOST", docker_host);
    }
    tenantry_faults::point("compose.by-hand.before");
    let ended = run(command, directory, LIMIT, None).await;
    tenantry_faults::point("compose.by-hand.after");
    ended.map(Some)
}

/// What a login sets by itself. Compose is run with the same, so that a compose file that asks for it means the same by
/// hand and by us.
pub fn login_variables() -> Vec<(OsString, OsString)> {
    let kept = ["HOME", "LANG", "PATH"];
    let mut all: Vec<(OsString, OsString)> =
        kept.into_iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?))).collect();
    if let Some(user) = user_name() {
        all.extend(["USER", "LOGNAME"].map(|name| (name.into(), user.clone().into())));
    }
    all.extend(shell().map(|shell| ("SHELL".into(), shell.into())));
    // A profile may ask for a terminal's kind.
    all.push(("TERM".into(), "dumb".into()));
    all
}

fn shell() -> Option<&'static str> {
    SHELLS.into_iter().find(|shell| Path::new(shell).exists())
}

/// Whether this engine is another one than a person's client talks to by itself.
pub fn is_another_engine(docker_host: &str) -> bool {
    docker_host != USUAL_ENGINE
}

/// The name of the user that we run as, which a login sets.
fn user_name() -> Option<String> {
    let own = rustix::process::geteuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    users
        .lines()
        .map(fields)
        .find(|fields| fields.get(2) == Some(&own))
        .map(|mut fields| fields.swap_remove(0))
}
