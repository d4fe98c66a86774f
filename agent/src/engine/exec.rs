//! Commands in running containers.

use std::time::Duration;

use bollard::exec::{CreateExecOptions, StartExecResults};
use futures::StreamExt as _;
use tenantry_api::names::Argv;
use tokio::time::Instant;

use super::{DockerEngine, EngineError};

/// The most that is kept of what a command prints.
const OUTPUT: usize = 16 * 1024;
/// How soon the engine is asked again for the end of a command whose output has ended.
const AGAIN: Duration = Duration::from_millis(50);

/// How far a command came.
#[derive(Debug)]
pub enum Executed {
    /// It has ended.
    Ended {
        /// Its exit code.
        code: i64,
        /// The beginning of what it printed. It may hold secrets.
        output: String,
    },
    /// It still runs under this id: the engine has no call to end it.
    Running(String),
}

impl DockerEngine {
    /// Runs a command in a running container, as that container's own user and with no more rights than it has.
    pub async fn execute(
        &self,
        container: &str,
        command: &Argv,
        limit: Duration,
    ) -> Result<Executed, EngineError> {
        let deadline = Instant::now() + limit;
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            privileged: Some(false),
            cmd: Some(command.words().to_vec()),
            ..CreateExecOptions::default()
        };
        let prepare = |docker: bollard::Docker| async move { docker.create_exec(container, options).await };
        let id = self.read("prepare a command", prepare).await?.id;
        let start = |docker: bollard::Docker| {
            let id = id.clone();
            async move { docker.start_exec(&id, None).await }
        };
        let mut output = Vec::new();
        if let StartExecResults::Attached { output: mut printed, .. } =
            self.read("run a command", start).await?
        {
            let drained = async {
                while let Some(Ok(part)) = printed.next().await {
                    // What is beyond is read all the same: a command that is not read from would hang.
                    let room = OUTPUT.saturating_sub(output.len());
                    output.extend(part.into_bytes().into_iter().take(room));
                }
            };
            let _ = tokio::time::timeout_at(deadline, drained).await;
        }
        loop {
            if let Some(code) = self.exit_code(&id).await? {
                return Ok(Executed::Ended { code, output: String::from_utf8_lossy(&output).into_owned() });
            }
            if Instant::now() >= deadline {
                return Ok(Executed::Running(id));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The exit code of a command; `None` while it runs.
    pub async fn exit_code(&self, id: &str) -> Result<Option<i64>, EngineError> {
        let look = |docker: bollard::Docker| async move { docker.inspect_exec(id).await };
        let seen = self.read("look at a command", look).await?;
        Ok(seen.exit_code.filter(|_| seen.running != Some(true)))
    }
}
