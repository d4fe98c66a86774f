//! What is cached of a Tenant between two reconciliations, to save work. All of it can be lost at any time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tenantry_api::Tenant;
use tenantry_planner::target::{Desired, Refusal};
use tenantry_protocol::{FileContent, Observation, OperationStatus};

use crate::agents::AgentError;
use tenantry_process::runtime::Task;

/// What is cached of one Tenant.
#[derive(Default)]
pub struct TenantCache {
    /// The object as the last write left it: newer than the watch until the watch has caught up.
    pub written: Option<Arc<Tenant>>,
    /// What was last parsed and rendered.
    pub prepared: Option<Prepared>,
    /// What the agent last saw.
    pub seen: Option<Seen>,
    /// News of the operation in flight.
    pub news: Option<News>,
    /// The task that waits for news.
    pub follower: Option<Follower>,
    /// When progress alone may be written again.
    pub progress: Progress,
    /// How often in a row it was reconciled in vain.
    pub failures: u32,
    /// The phase that the metrics count it under.
    pub phase: Option<&'static str>,
}

/// What a spec and a bundle were parsed and rendered to.
#[derive(Clone)]
pub struct Prepared {
    /// What was parsed and rendered.
    pub of: PreparedOf,
    /// When that was.
    pub at: Instant,
    /// The target, or why there is none.
    pub desired: Result<Arc<Desired>, Refusal>,
    /// What a person could go back with all the same.
    pub back: Option<Arc<Desired>>,
    /// Contents of its files; dropped once they are on the host, and rendered again when needed.
    pub contents: Option<Arc<Vec<FileContent>>>,
}

/// Which Tenant and bundle, in which version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreparedOf {
    /// The Tenant's UID.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// The bundle's digest, or why there is none.
    pub bundle: Option<String>,
    /// What a person has set last to have everything looked at again: `tenantry.dev/retry` and `tenantry.dev/reconcile`.
    pub asked: [Option<String>; 2],
}

/// How long it holds that a bundle can't be rendered in time: the machine may have been busy, or have stood still.
const RENDERED_AGAIN: Duration = Duration::from_mins(5);

impl Prepared {
    /// Whether it is what this spec and this bundle are rendered to now.
    pub fn is_still(&self, of: &PreparedOf, now: Instant) -> bool {
        let may_pass = self.desired.as_ref().is_err_and(|refusal| refusal.may_pass);
        self.of == *of && !(may_pass && now.saturating_duration_since(self.at) >= RENDERED_AGAIN)
    }
}

/// What the agent saw, and which question it answered.
#[derive(Clone)]
pub struct Seen {
    /// The target's hash, UID and host.
    pub of: String,
    /// The observation's hash.
    pub hash: String,
    /// The observation.
    pub observation: Arc<Observation>,
}

/// News of an operation.
#[derive(Clone)]
pub struct News {
    /// Its id.
    pub id: String,
    /// How it stands, or why that is not known.
    pub status: Result<Arc<OperationStatus>, AgentError>,
}

/// A task that waits for news of an operation.
pub struct Follower {
    /// The operation and the agent's address.
    pub of: (String, String),
    /// Ends it.
    pub task: Box<dyn Task>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How often progress alone is written: after 2, 4, 8, 16 and then every 30 seconds.
#[derive(Debug, Default)]
pub struct Progress {
    next: Option<Instant>,
    interval: Duration,
}

impl Progress {
    const FIRST: Duration = Duration::from_secs(2);
    const LONGEST: Duration = Duration::from_secs(30);

    /// Whether progress alone may be written now; else how long to wait.
    pub fn may_write(&mut self, now: Instant) -> Result<(), Duration> {
        match self.next {
            None => {
                self.interval = Self::FIRST;
                self.next = Some(now + self.interval);
                Err(self.interval)
            }
            Some(next) if now < next => Err(next - now),
            Some(_) => {
                self.interval = (self.interval * 2).min(Self::LONGEST);
                self.next = Some(now + self.interval);
                Ok(())
            }
        }
    }

    /// Something else than progress was written.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use tenantry_planner::target::RefusalReason;

    use super::*;

    #[test]
    fn p4_that_a_bundle_was_not_rendered_in_time_holds_for_a_while_and_any_other_refusal_for_good() {
        let (of, at) = (PreparedOf::default(), Instant::now());
        let prepared =
            |refusal| Prepared { of: of.clone(), at, desired: Err(refusal), back: None, contents: None };
        let refusal = Refusal::new(RefusalReason::RenderFailed, "x");
        let (of_time, other) = (prepared(refusal.clone().of_time()), prepared(refusal));
        let day = Duration::from_hours(24);
        assert!(of_time.is_still(&of, at) && !of_time.is_still(&of, at + RENDERED_AGAIN));
        assert!(other.is_still(&of, at + day));
        let changed = PreparedOf { generation: 2, ..of.clone() };
        let asked = PreparedOf { asked: [Some("1".to_owned()), None], ..of.clone() };
        assert!(!other.is_still(&changed, at) && !of_time.is_still(&asked, at));
    }

    #[test]
    fn p15_progress_alone_is_written_ever_more_seldom() {
        let begun = Instant::now();
        let mut progress = Progress::default();
        let mut written = Vec::new();
        for second in 0..120 {
            if progress.may_write(begun + Duration::from_secs(second)).is_ok() {
                written.push(second);
            }
        }
        assert_eq!(written, [2, 6, 14, 30, 60, 90]);
    }
}
