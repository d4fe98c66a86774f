//! Tenants: observe, decide, execute, record.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::runtime::reflector::Store;
use parking_lot::Mutex;
use tenantry_api::Tenant;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, ClusterError};
use crate::hosts::Hosts;
use crate::key::Key;
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::rights::{self, Rights};
use crate::stores::Stores;
use tenantry_process::runtime::{Runtime, jittered};

mod cache;
mod execute;
mod follow;
mod observe;
mod reconcile;
mod record;

pub use cache::TenantCache;
pub use reconcile::{ReconcileError, is_ready, speaks_of};

/// The longest that a Tenant waits after repeated failures.
const LONGEST_BACKOFF: Duration = Duration::from_mins(1);

/// Everything that reconciling a Tenant needs.
pub struct Tenants {
    /// The API server, and what else is read of the cluster.
    pub cluster: Arc<dyn Cluster>,
    /// Time, chance and tasks.
    pub runtime: Arc<dyn Runtime>,
    /// The Tenants, as the watch last told of them.
    pub watched: Store<Tenant>,
    /// Agents.
    pub hosts: Arc<Hosts>,
    /// What the operator may do.
    pub rights: Arc<Rights>,
    /// Who is to be looked at.
    pub queue: Arc<Queue<Key>>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// What is cached of each Tenant; nothing that could not be found out again.
    pub caches: Mutex<HashMap<Key, TenantCache>>,
}

impl Tenants {
    /// Reconciles Tenants until the end; `concurrency` of them at once.
    pub async fn run(self: Arc<Self>, concurrency: usize, end: CancellationToken) {
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..concurrency.max(1) {
            workers.spawn(self.clone().work(end.clone()));
        }
        while workers.join_next().await.is_some() {}
    }

    /// Reconciles one Tenant after the other until the end.
    pub async fn work(self: Arc<Self>, end: CancellationToken) {
        loop {
            let key = tokio::select! {
                biased;
                () = end.cancelled() => return,
                key = self.queue.next() => key,
            };
            let again = self.reconcile(&key).await;
            self.queue.done(&key, again);
        }
    }

    /// Reconciles one Tenant; says when to do so again.
    async fn reconcile(self: &Arc<Self>, key: &Key) -> Option<Duration> {
        let begun = self.runtime.instant();
        let (result, again) = match self.try_reconcile(key).await {
            Ok(None) => ("gone", None),
            Ok(Some(again)) => {
                self.with_cache(key, |cache| cache.failures = 0);
                ("ok", Some(jittered(self.runtime.as_ref(), again)))
            }
            Err(error) => {
                let failures = self.with_cache(key, |cache| {
                    cache.failures = cache.failures.saturating_add(1);
                    cache.failures
                });
                tracing::warn!(tenant = %key, failures, "reconciled in vain: {error}");
                if let ReconcileError::Api(ClusterError::Forbidden(what)) = &error {
                    self.tell_forbidden(key, what).await;
                }
                (error.category(), Some(backoff(self.runtime.as_ref(), failures)))
            }
        };
        self.metrics.reconciled(result, self.runtime.instant().saturating_duration_since(begun));
        again
    }

    /// Looks after what the operator may do; when all of it has been given, everybody is looked at again.
    pub async fn watch_over_rights(&self, stores: &Stores) {
        let everybody = || {
            for tenant in stores.tenants.state() {
                self.queue.now(Key::of(tenant.as_ref()));
            }
        };
        self.rights.watch_over(self.cluster.as_ref(), self.runtime.as_ref(), everybody).await;
    }

    /// Says on the Tenant itself what its operator may not do, as far as that may be written.
    async fn tell_forbidden(&self, key: &Key, what: &str) {
        self.rights.seen_missing();
        let Ok(Some(tenant)) = self.cluster.get_tenant(key).await else { return };
        rights::tell(self.cluster.as_ref(), &tenant, what, self.runtime.now()).await;
    }

    pub(crate) fn with_cache<T>(&self, key: &Key, with: impl FnOnce(&mut TenantCache) -> T) -> T {
        with(self.caches.lock().entry(key.clone()).or_default())
    }
}

fn backoff(runtime: &dyn Runtime, failures: u32) -> Duration {
    let wait = Duration::from_millis(250) * 2_u32.saturating_pow(failures.min(10));
    wait.min(LONGEST_BACKOFF).mul_f64(0.75 + 0.5 * runtime.random())
}
