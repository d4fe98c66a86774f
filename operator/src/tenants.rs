//! Tenants: observe, decide, execute, record.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::bundles::Bundles;
use crate::events::Events;
use crate::hosts::Hosts;
use crate::key::Key;
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::stores::Stores;

mod execute;
mod follow;
mod gather;
mod memory;
mod pass;
mod record;

pub use memory::Memory;
pub use pass::PassError;

/// The longest that a Tenant waits after repeated failures.
const LONGEST_BACKOFF: Duration = Duration::from_mins(1);

/// Everything that a look at a Tenant needs.
pub struct Tenants {
    /// The API server.
    pub client: Client,
    /// What it has, as last seen.
    pub stores: Stores,
    /// Agents.
    pub hosts: Arc<Hosts>,
    /// Bundles, understood.
    pub bundles: Arc<Bundles>,
    /// Who is to be looked at.
    pub queue: Arc<Queue<Key>>,
    /// Events.
    pub events: Events,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// What is remembered of each Tenant; nothing that could not be found out again.
    pub memory: Mutex<HashMap<Key, Memory>>,
}

impl Tenants {
    /// Looks at Tenants until the end; `concurrency` of them at once.
    pub async fn run(self: Arc<Self>, concurrency: usize, end: CancellationToken) {
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..concurrency.max(1) {
            let (tenants, end) = (self.clone(), end.clone());
            workers.spawn(async move {
                loop {
                    let key = tokio::select! {
                        () = end.cancelled() => return,
                        key = tenants.queue.next() => key,
                    };
                    let again = tenants.look(&key).await;
                    tenants.queue.done(&key, again);
                }
            });
        }
        while workers.join_next().await.is_some() {}
    }

    /// Looks at one Tenant; says when to look again.
    async fn look(self: &Arc<Self>, key: &Key) -> Option<Duration> {
        let begun = Instant::now();
        let (result, again) = match self.pass(key).await {
            Ok(None) => ("gone", None),
            Ok(Some(again)) => {
                self.with_memory(key, |memory| memory.failures = 0);
                ("ok", Some(jittered(again)))
            }
            Err(error) => {
                let failures = self.with_memory(key, |memory| {
                    memory.failures = memory.failures.saturating_add(1);
                    memory.failures
                });
                tracing::warn!(tenant = %key, failures, "looked at in vain: {error}");
                (error.category(), Some(backoff(failures)))
            }
        };
        self.metrics.reconciled(result, begun.elapsed());
        again
    }

    pub(crate) fn with_memory<T>(&self, key: &Key, with: impl FnOnce(&mut Memory) -> T) -> T {
        with(self.locked().entry(key.clone()).or_default())
    }

    pub(crate) fn locked(&self) -> MutexGuard<'_, HashMap<Key, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time. The one place of this program's decisions that reads the clock.
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// Spreads waits over 90 to 110 percent, so that a fleet is not looked at in one breath.
pub(crate) fn jittered(wait: Duration) -> Duration {
    if wait < Duration::from_secs(2) { wait } else { wait.mul_f64(0.9 + 0.2 * fastrand::f64()) }
}

fn backoff(failures: u32) -> Duration {
    let wait = Duration::from_millis(250) * 2_u32.saturating_pow(failures.min(10));
    wait.min(LONGEST_BACKOFF).mul_f64(0.75 + 0.5 * fastrand::f64())
}
