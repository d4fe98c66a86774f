//! The host's own compose plugin: found once, run by argv with a cleared environment, its output kept on the host.

mod choice;
mod crash_points;
mod discover;
mod explain;
mod find;
mod launcher;
mod links;
mod log;
mod login_shell;
mod outside;
mod paths;
mod refusals;
mod scan;
mod yaml;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tenantry_planner::policy::Grants;
use tenantry_process::runtime::{Runtime, blocking};
use tenantry_protocol::{FailureCategory, Place};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

pub use choice::{left_unread, unread};
pub use discover::{Discovered, InputFile, inputs};
pub use explain::{Explained, explain};
pub use find::{ComposeError, Found};
pub use launcher::{Launcher, Programs, Run};
pub use links::{Links, links, see_through};
pub use login_shell::{is_another_engine, login_variables};
pub use outside::{Outside, OutsideFile, ReadOutside, Seen};
pub use scan::{Scan, scan};

/// The most that is kept of what compose prints.
const STDOUT_LIMIT: u64 = 64 * 1024 * 1024;
const STDERR_LIMIT: u64 = 1024 * 1024;
/// How long an ended child's pipes may stay open in other hands.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// The compose plugin of this host.
#[derive(Clone)]
pub struct Compose {
    found: Found,
    launcher: Arc<dyn Launcher>,
}

/// What a run of compose gave.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed. It may hold secrets.
    pub stdout: Vec<u8>,
    /// What it complained about. It may hold secrets.
    pub stderr: String,
}

/// Why there is no output.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not be run.
    #[error("compose could not be run: {0}")]
    Start(std::io::Error),
    /// It took too long and was ended.
    #[error("compose did not end within {} s and was ended", .0.as_secs())]
    Slow(Duration),
}

impl Compose {
    /// Looks for the plugin.
    pub async fn find(launcher: Arc<dyn Launcher>) -> Result<Self, ComposeError> {
        let found = launcher.find().await?;
        Ok(Self { found, launcher })
    }

    /// Its version, as it says.
    pub fn version(&self) -> &str {
        &self.found.version
    }

    /// What a person types for it: `docker compose` or `docker-compose`.
    pub fn typed(&self) -> &'static str {
        self.found.typed
    }

    /// Runs compose in a directory and waits for its end. When `limit` is over, or when the caller gives up, it and
    /// all its children are ended. `lock` is the lock under which it changes something: should this process be killed,
    /// compose goes on holding it, and the next agent finds it by that.
    pub async fn run(
        &self,
        directory: &Path,
        arguments: &[OsString],
        limit: Duration,
        lock: Option<OwnedFd>,
    ) -> Result<Output, RunError> {
        self.launcher.compose(&self.found.program, Run { directory, arguments, limit, lock }).await
    }

    /// The arguments that print the resolved model of what was discovered in a directory.
    ///
    /// A compose that would read environment files for it is not asked where one lies outside of the directory: what they
    /// are is known only then, and so the host's policy has not judged them yet. Nor is any compose asked where it would read
    /// other files outside of the directory that the policy does not grant (P13).
    pub fn resolving(
        &self,
        discovered: &Discovered,
        place: &Place,
        directory: &Path,
    ) -> Result<Vec<OsString>, Explained> {
        if !discovered.outside.lacking.is_empty() {
            let lacking: Grants = discovered.outside.lacking.iter().cloned().collect();
            let message = format!("this host's policy does not allow: {}", lacking.problems());
            return Err(Explained::new(FailureCategory::PolicyRefused, message));
        }
        if discovered.env_files_outside && !self.found.keeps_env_files {
            let message = format!(
                "env_file names a file outside of the tenant's directory, which takes docker compose 2.40.2 or later; this is {}",
                self.version()
            );
            return Err(Explained::new(FailureCategory::PathRefused, message));
        }
        Ok(self.config_arguments(discovered.arguments(place, directory)))
    }

    /// The arguments that print a resolved model, after others.
    pub fn config_arguments(&self, mut before: Vec<OsString>) -> Vec<OsString> {
        before.extend(["config", "--format", "json"].map(OsString::from));
        before.extend(self.found.keeps_env_files.then(|| "--no-env-resolution".into()));
        before
    }

    /// The arguments that print the variables which the model is resolved with: secrets among them.
    pub fn environment_arguments(mut before: Vec<OsString>) -> Vec<OsString> {
        before.extend(["config", "--environment"].map(OsString::from));
        before
    }
}

/// All that compose sees of our environment.
fn environment(docker_host: &str) -> Vec<(OsString, OsString)> {
    let own = std::env::var_os("DOCKER_CONFIG").map(|value| ("DOCKER_CONFIG".into(), value));
    let engine = [("DOCKER_HOST".into(), docker_host.into())];
    login_variables().into_iter().chain(own).chain(engine).collect()
}

/// Runs a program in a process group of its own, bounded in time and output.
async fn run(
    mut command: Command,
    directory: &Path,
    limit: Duration,
    lock: Option<OwnedFd>,
) -> Result<Output, RunError> {
    // The lock's file is empty: to the child it is the same as no input.
    let stdin = lock.map_or_else(Stdio::null, Stdio::from);
    command.current_dir(directory).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.process_group(0).spawn().map_err(RunError::Start)?;
    let group = Group(child.id());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let out = tokio::spawn(drain(stdout, STDOUT_LIMIT));
    let err = tokio::spawn(drain(stderr, STDERR_LIMIT));
    let Ok(status) = tokio::time::timeout(limit, child.wait()).await else {
        drop(group);
        // Killed, it is gone at once, unless the kernel itself is stuck.
        let _ = tokio::time::timeout(DRAIN_LIMIT, child.wait()).await;
        return Err(RunError::Slow(limit));
    };
    let status = status.map_err(RunError::Start)?;
    // Its own end is seen; whatever of its children still holds the pipes is not waited for.
    let (stdout, stderr) = tokio::join!(collected(out), collected(err));
    group.done();
    Ok(Output { status, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() })
}

async fn drain(pipe: Option<impl tokio::io::AsyncRead + Unpin>, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let mut limited = pipe.take(limit);
        let _ = limited.read_to_end(&mut bytes).await;
        // A child that is not read from would hang.
        let _ = tokio::io::copy(&mut limited.into_inner(), &mut tokio::io::sink()).await;
    }
    bytes
}

async fn collected(task: tokio::task::JoinHandle<Vec<u8>>) -> Vec<u8> {
    let abort = task.abort_handle();
    if let Ok(bytes) = tokio::time::timeout(DRAIN_LIMIT, task).await {
        return bytes.unwrap_or_default();
    }
    abort.abort();
    Vec::new()
}

/// Ends the process group unless it has ended by itself.
struct Group(Option<u32>);

impl Group {
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.0.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Appends what compose said to the tenant's log on this host.
pub async fn keep_output(runtime: &dyn Runtime, path: PathBuf, title: String, output: String) {
    let kept = blocking(runtime, move || log::append(&path, &title, &output)).await;
    if let Ok(Err(error)) = kept {
        tracing::warn!(%error, "compose's output could not be kept");
    }
}
