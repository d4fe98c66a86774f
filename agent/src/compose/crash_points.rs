//! Points at which a test kills the agent: before, during and after each run of compose.

use std::ffi::OsString;
use std::time::Duration;

/// What we run of compose.
const COMMANDS: [&str; 8] = ["config", "up", "ps", "version", "stop", "restart", "pause", "unpause"];
/// When a run has just begun, and when it is at work.
const DURING: [(&str, Duration); 2] =
    [("begun", Duration::from_millis(30)), ("running", Duration::from_millis(500))];

/// A point before or after a run.
pub(super) fn at(arguments: &[OsString], when: &str) {
    tenantry_faults::point_named(|| format!("compose.{}.{when}", command(arguments)));
}

/// The points during a run, for as long as the value lives.
pub(super) struct Running(Option<tokio::task::JoinHandle<()>>);

pub(super) fn running(arguments: &[OsString]) -> Running {
    Running(cfg!(debug_assertions).then(|| {
        let command = command(arguments);
        tokio::spawn(async move {
            for (when, after) in DURING {
                tokio::time::sleep(after).await;
                tenantry_faults::point_named(|| format!("compose.{command}.{when}"));
            }
        })
    }))
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(points) = &self.0 {
            points.abort();
        }
    }
}

fn command(arguments: &[OsString]) -> &'static str {
    COMMANDS.into_iter().find(|known| arguments.iter().any(|argument| argument == known)).unwrap_or("other")
}
