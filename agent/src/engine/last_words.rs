//! What a container that did not come up said last.

use bollard::container::LogOutput;
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use bollard::query_parameters::LogsOptions;
use futures::StreamExt as _;
use jiff::Timestamp;

use super::containers::instant;
use super::{DockerEngine, EngineError, limited};

/// The most that is kept of a log while it is read.
const LOG_LIMIT: usize = 1 << 20;
/// Where compose mounts secrets.
const SECRETS: &str = "/run/secrets/";

/// What a container said last. All of it may hold secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastWords {
    /// The last lines of its log; of one that the engine has started again those before it ended.
    pub log: Vec<String>,
    /// What its healthcheck printed last, where that failed.
    pub healthcheck: Option<String>,
    /// Why the engine could not start it, where it could not.
    pub refused: Option<String>,
    /// When it last ended.
    pub ended: Option<Timestamp>,
    /// Its variables, `NAME=value`.
    pub environment: Vec<String>,
    /// The files on the host that it sees as secrets.
    pub secret_files: Vec<String>,
}

impl DockerEngine {
    /// What a container said last: at most so many lines.
    pub async fn last_words(&self, id: &str, lines: u32) -> Result<LastWords, EngineError> {
        let ask = |docker: bollard::Docker| async move { docker.inspect_container(id, None).await };
        let seen = self.read("look at a container", ask).await?;
        let log = match self.log_of(id, lines).await {
            Ok(log) => log,
            // Some logging drivers keep nothing that could be read.
            Err(EngineError::Refused { message, .. }) => format!("(its log can't be read: {message})"),
            Err(error) => return Err(error),
        };
        Ok(understood(seen, &log))
    }

    async fn log_of(&self, id: &str, lines: u32) -> Result<String, EngineError> {
        let doing = "look at what a container said";
        let docker = self.client().await?;
        let options = LogsOptions {
            stdout: true,
            stderr: true,
            timestamps: true,
            tail: lines.to_string(),
            ..LogsOptions::default()
        };
        let work = async {
            let mut pieces = Box::pin(docker.logs(id, Some(options)));
            let mut said: Vec<u8> = Vec::new();
            while let Some(piece) = pieces.next().await {
                match piece.map_err(|error| EngineError::from_bollard(doing, &self.socket, error))? {
                    LogOutput::StdErr { message }
                    | LogOutput::StdOut { message }
                    | LogOutput::Console { message } => {
                        said.extend_from_slice(&message);
                    }
                    LogOutput::StdIn { .. } => {}
                }
                if said.len() > 2 * LOG_LIMIT {
                    said.drain(..said.len() - LOG_LIMIT);
                }
            }
            Ok(String::from_utf8_lossy(&said).into_owned())
        };
        limited(doing, self.limits.read, work).await?
    }
}

fn understood(seen: ContainerInspectResponse, log: &str) -> LastWords {
    let state = seen.state.unwrap_or_default();
    let ended = state.finished_at.as_deref().and_then(instant);
    let again =
        seen.restart_count.unwrap_or_default() > 0 && state.status == Some(ContainerStateStatusEnum::RUNNING);
    let checks = state.health.and_then(|health| health.log).unwrap_or_default();
    let failed = checks.into_iter().rev().find(|check| check.exit_code != Some(0));
    let mounts = seen.mounts.unwrap_or_default().into_iter();
    let secret = |mount: bollard::models::MountPoint| {
        mount.destination.is_some_and(|at| at.starts_with(SECRETS)).then_some(mount.source).flatten()
    };
    LastWords {
        log: lines(log, ended.filter(|_| again)),
        healthcheck: failed.and_then(|check| check.output).filter(|text| !text.trim().is_empty()),
        refused: state.error.as_deref().map(plain_refusal).filter(|text| !text.is_empty()),
        ended,
        environment: seen.config.and_then(|config| config.env).unwrap_or_default(),
        secret_files: mounts.filter_map(secret).collect(),
    }
}

/// What the engine said, without the names of the layers that it went through.
fn plain_refusal(text: &str) -> String {
    const LAYERS: [&str; 5] = [
        "failed to create task for container: ",
        "failed to create shim task: ",
        "OCI runtime create failed: ",
        "runc create failed: ",
        "unable to start container process: ",
    ];
    let text = text.trim().trim_end_matches(": unknown");
    let told = LAYERS.iter().fold(text, |text, layer| text.strip_prefix(layer).unwrap_or(text));
    told.to_owned()
}

/// The lines without their times; where `until` is given and any is as old as that, only those.
fn lines(log: &str, until: Option<Timestamp>) -> Vec<String> {
    let timed = |line: &str| -> (Option<Timestamp>, String) {
        let split = line.split_once(' ').unwrap_or((line, ""));
        match split.0.parse() {
            Ok(at) => (Some(at), split.1.to_owned()),
            Err(_) => (None, line.to_owned()),
        }
    };
    let all: Vec<(Option<Timestamp>, String)> = log.lines().map(timed).collect();
    let before =
        |line: &&(Option<Timestamp>, String)| line.0.zip(until).is_none_or(|(at, until)| at <= until);
    let kept = all.iter().filter(before).count();
    let whole = kept == 0;
    all.iter().filter(|line| whole || before(line)).map(|line| line.1.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_container_could_not_be_started_is_told_without_layers() {
        let said = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container \
                    process: exec: \"/app/server\": stat /app/server: no such file or directory: unknown";
        assert_eq!(plain_refusal(said), "exec: \"/app/server\": stat /app/server: no such file or directory");
        assert_eq!(plain_refusal("port is already allocated\n"), "port is already allocated");
        assert_eq!(plain_refusal(""), "");
    }

    #[test]
    fn of_a_container_that_was_started_again_the_lines_before_its_end_count() {
        let log =
            "2026-11-29T06:00:00.1Z boom: cannot open config\n2026-11-29T06:00:02.000000001Z starting anew\n";
        let ended = "2026-11-29T06:00:01Z".parse().ok();
        assert_eq!(lines(log, ended), ["boom: cannot open config"]);
        assert_eq!(lines(log, None).len(), 2);
        // Its log was cut since: what there is counts.
        assert_eq!(lines(&log[48..], ended), ["starting anew"]);
        assert_eq!(lines("no time\n", None), ["no time"]);
    }
}
