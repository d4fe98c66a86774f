//! What runs where, for programs that started this one.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

/// The ready file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// The kubeconfig of the cluster that is used.
    pub kubeconfig: PathBuf,
    /// The namespace of the ComposeHost.
    pub namespace: String,
    /// The ComposeHost's name.
    pub host: String,
    /// Where the agent listens.
    pub agent: String,
    /// Where metrics and health are served.
    pub metrics: Metrics,
    /// Process ids; they change when a program is restarted.
    pub pids: Pids,
    /// The state folder.
    pub state_dir: PathBuf,
    /// The folder of the logs.
    pub logs: PathBuf,
}

/// Addresses of metrics and health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Metrics {
    /// The operator's.
    pub operator: String,
    /// The agent's.
    pub agent: String,
}

/// Process ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pids {
    /// This program.
    pub up: u32,
    /// The control plane, where it is the tree's own.
    pub control_plane: Option<u32>,
    /// The operator.
    pub operator: u32,
    /// The agent.
    pub agent: u32,
}

/// Writes the ready file: a reader sees all of it or none.
pub fn write(path: &Path, ready: &Ready) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let text = serde_json::to_string_pretty(ready)?;
    let written = std::fs::write(&new, text + "\n").and_then(|()| std::fs::rename(&new, path));
    written.with_context(|| format!("can't write the ready file {}", path.display()))
}

/// Removes an older run's ready file.
pub fn forget(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't replace the ready file {}", path.display()))
        }
        _ => Ok(()),
    }
}
