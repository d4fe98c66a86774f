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
    let Some(shell) = SHELLS.into_iter().find(|shell| Path::new(shell).exists()) else { return Ok(None) };
    let mut command = Command::new(shell);
    command.args(["-l", "-c", "exec \"$@\"", "login"]).args(words).env_clear();
    for name in ["HOME", "LANG", "PATH"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    if let Some(user) = user_name() {
        command.env("USER", &user).env("LOGNAME", &user);
    }
    // A profile may print, and may ask for a terminal's kind.
    command.env("TERM", "dumb").env("SHELL", shell);
    if is_another_engine(docker_host) {
        command.env("DOCKER_HOST", docker_host);
    }
    tenantry_faults::point("compose.by-hand.before");
    let ended = run(command, directory, LIMIT, None).await;
    tenantry_faults::point("compose.by-hand.after");
    ended.map(Some)
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
