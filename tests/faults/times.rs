//! How long a recovery takes, and what of it is whose.
//!
//! Counted is from the start of the agent's process until an operator is told that the operation has ended. Of that,
//! compose's own time is whenever at least one `docker compose` of the agent's runs, and watching is the step that
//! looks on while services become healthy and stay so for the window that the tenant asked for. The rest is the
//! agent's own: its start, its records, the engine's answers, images, data.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// Steps in which services are watched.
const WATCHING: [&str; 3] = ["step.Verify", "step.VerifyPrevious", "step.VerifyRevived"];

/// A recovery, in milliseconds: so its fields are called in reports.
#[allow(clippy::struct_field_names)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// From the agent's start to the operation's end.
    pub all_ms: u64,
    /// Of that, until it went on: its first record, or its first compose.
    pub first_ms: u64,
    /// Of that, while compose ran.
    pub compose_ms: u64,
    /// Of that, while services were watched.
    pub watching_ms: u64,
    /// What is left: the agent's own.
    pub own_ms: u64,
}

/// What runs at a moment.
#[derive(Default)]
struct Runs {
    compose: i32,
    watching: i32,
}

impl Recovery {
    /// From a log of points with their times.
    pub fn of(log: &str, started: SystemTime, took: Duration) -> Self {
        let started = since_epoch(started);
        let ended = started + took;
        let (mut runs, mut at, mut first) = (Runs::default(), started, None);
        let (mut compose, mut watching) = (Duration::ZERO, Duration::ZERO);
        let mut pass = |runs: &Runs, until: Duration| {
            let span = until.min(ended).saturating_sub(at);
            at += span;
            if runs.compose > 0 {
                compose += span;
            } else if runs.watching > 0 {
                watching += span;
            }
        };
        for line in log.lines() {
            let Some((micros, name)) = line.split_once(' ') else { continue };
            let Ok(micros) = micros.parse() else { continue };
            let now = Duration::from_micros(micros);
            pass(&runs, now);
            if name.starts_with("journal.") || name.starts_with("compose.") {
                first.get_or_insert(now);
            }
            runs.take(name);
        }
        pass(&runs, ended);
        let own = took.saturating_sub(compose + watching);
        let first = first.map_or(took, |first| first.saturating_sub(started));
        Self {
            all_ms: millis(took),
            first_ms: millis(first),
            compose_ms: millis(compose),
            watching_ms: millis(watching),
            own_ms: millis(own),
        }
    }
}

impl Runs {
    fn take(&mut self, name: &str) {
        let Some((what, when)) = name.rsplit_once('.') else { return };
        let step = match when {
            "before" => 1,
            "after" => -1,
            _ => return,
        };
        if what.starts_with("compose.") {
            self.compose += step;
        } else if WATCHING.contains(&what) {
            self.watching += step;
        }
    }
}

fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[test]
fn what_compose_and_watching_take_is_not_the_agents_own() {
    // Two composes overlap; the second runs into the watching.
    let log = "1000200000 journal.resumed.before\n1000300000 compose.config.before\n1000500000 compose.up.before\n\
               1000600000 compose.config.begun\n1000700000 compose.config.after\n1001000000 step.Verify.before\n\
               1001100000 compose.up.after\n1001900000 step.Verify.after\nodd\n1002000000 journal.ended.after\n";
    let found = Recovery::of(log, UNIX_EPOCH + Duration::from_secs(1_000), Duration::from_millis(2_500));
    let wanted = Recovery { all_ms: 2_500, first_ms: 200, compose_ms: 800, watching_ms: 800, own_ms: 900 };
    assert_eq!(found, wanted);
}
