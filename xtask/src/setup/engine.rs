//! The Docker engine: one that answers is used as it is, never reconfigured or restarted.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::packages;
use crate::shell;

/// Whether an engine answers.
pub fn answers() -> bool {
    shell::works("docker", &["version", "--format", "{{.Server.Version}}"])
}

/// Starts the engine where none answers.
pub fn ensure() -> Result<()> {
    if answers() {
        return Ok(());
    }
    shell::step("Starting the Docker engine", || {
        if std::path::Path::new("/run/systemd/system").exists() {
            packages::as_root(&["systemctl", "start", "docker"])?;
        } else {
            start_by_hand()?;
        }
        let deadline = Instant::now() + Duration::from_mins(1);
        while !answers() {
            if Instant::now() > deadline {
                bail!("the engine did not answer within 60 s: see {}", log().display());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    })
}

fn log() -> std::path::PathBuf {
    shell::target().join("dockerd.log")
}

/// Without a service manager: in a session of its own, so that it outlives this command. The engine starts itself anew, as
/// other programs, several times for each container, and collects garbage each time: a higher bound spares a tenth of that.
fn start_by_hand() -> Result<()> {
    let dockerd = packages::find("dockerd").context("dockerd is missing: install docker.io")?;
    std::fs::create_dir_all(shell::target())?;
    let output = std::fs::File::create(log())?;
    let mut command = shell::command("setsid", &[]);
    command.arg(dockerd).env("GOGC", "400").stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    command.spawn().context("dockerd could not be started")?;
    Ok(())
}
