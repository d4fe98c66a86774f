//! How the agent begins, and what it tells of its own faults.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::calls::{Agent, StartError};
use crate::config::Config;
use crate::engine::own_id;
use crate::store::StoreError;

/// How long an agent in a container waits for its records.
const RECORDS_PATIENCE: Duration = Duration::from_mins(1);

/// Where a fault of our own is told, in the folder of the agent's records.
const CRASH_REPORT: &str = "crash-report";

/// A fault of our own is told in the log and, for whoever looks into it, in a file for root's eyes only: where it
/// happened and on what way, but never in its own words, which may hold values (P12). The file is the latest one's.
pub fn tell_faults(state_dir: &Path) {
    let path = state_dir.join(CRASH_REPORT);
    std::panic::set_hook(Box::new(move |fault| {
        let place = fault.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        // What stands in the program itself is nobody's secret.
        let words = fault.payload().downcast_ref::<&'static str>().copied().unwrap_or("(in other words)");
        tracing::error!(place, thread, words, report = %path.display(), "the agent met a fault of its own");
        let way = std::backtrace::Backtrace::force_capture();
        let version = env!("CARGO_PKG_VERSION");
        let now = jiff::Timestamp::now();
        let text = format!("{now} tenantry-agent {version}\n{place}, thread {thread}: {words}\n\n{way}\n");
        let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        if let Err(error) = opened.and_then(|mut file| file.write_all(text.as_bytes())) {
            tracing::error!(%error, "the crash report can't be written");
        }
    }));
}

/// Starts the core. In a container, the one that recreates the agent may hold the records for a while.
pub async fn core(config: Arc<Config>) -> Result<Arc<Agent>, StartError> {
    let patience = if own_id().is_some() { RECORDS_PATIENCE } else { Duration::ZERO };
    let deadline = Instant::now() + patience;
    loop {
        match Agent::start(config.clone()).await {
            Err(StartError::Records(StoreError::InUse { .. })) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            other => return other,
        }
    }
}
