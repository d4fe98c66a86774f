//! A TemplateBundle's status, and word to its Tenants when its files change.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{PartialObjectMeta, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use tenantry_api::bundle::TemplateBundleStatus;
use tenantry_api::conditions::{READY, RECONCILING, STALLED, Truth, set};
use tenantry_api::{FIELD_MANAGER, TemplateBundle};
use tenantry_planner::bundle::Bundle;
use tenantry_planner::target::Refusal;
use tenantry_planner::text::counted;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::Bundles;
use crate::key::Key;
use crate::metrics::Metrics;
use crate::queue::Queue;
use tenantry_process::runtime::Runtime;

/// How often a folder is looked at: nothing tells of its changes.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// How soon it is looked at again whether Tenants have noted a new digest.
const NOTED_WITHIN: Duration = Duration::from_millis(100);
/// How long a bundle's status waits for that.
const NOTED_AT_LATEST: Duration = Duration::from_secs(10);
/// How often a bundle that can't be used is looked at again.
const RETRY_EVERY: Duration = Duration::from_secs(30);

/// Whether no Tenant of a bundle is `Ready` at another digest than this one.
pub type Noted = Box<dyn Fn(&Key, &str) -> bool + Send + Sync>;

/// Reads bundles and writes down what came of it.
pub struct BundleStatus {
    /// The API server.
    pub client: Client,
    /// Time.
    pub runtime: Arc<dyn Runtime>,
    /// The bundles.
    pub bundles: Arc<Bundles>,
    /// Which are to be looked at.
    pub queue: Arc<Queue<Key>>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Told when a bundle has other files than before.
    pub changed: Box<dyn Fn(&Key) + Send + Sync>,
    /// Asked before a new digest is written down.
    pub noted: Noted,
    /// New digests that Tenants are to note before the bundle's status says them, and since when.
    pub telling: Mutex<HashMap<Key, (String, Instant)>>,
    /// The `ConfigMap`s that are watched, by bundle.
    pub watched: Mutex<HashMap<Key, Watched>>,
}

/// A watch of one ConfigMap.
pub struct Watched {
    map: String,
    task: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl BundleStatus {
    /// Looks at bundles until the end.
    pub async fn run(self: Arc<Self>, end: CancellationToken) {
        loop {
            let key = tokio::select! {
                () = end.cancelled() => return,
                key = self.queue.next() => key,
            };
            let again = self.reconcile(&key).await;
            self.queue.done(&key, again);
        }
    }

    async fn reconcile(&self, key: &Key) -> Option<Duration> {
        let Some(bundle) = self.bundles.object(key) else {
            self.watched.lock().remove(key);
            self.telling.lock().remove(key);
            (self.changed)(key);
            return None;
        };
        self.watch_map(key, &bundle);
        let from_directory = bundle.spec.source.directory.is_some();
        let result =
            if from_directory { self.bundles.get(key).await } else { self.bundles.read(key, &bundle).await };
        let old = bundle.status.clone().unwrap_or_default();
        let new = next_status(&old, &result, bundle.metadata.generation.unwrap_or(0), self.runtime.now());
        if let Some(digest) = new.digest.as_ref().filter(|digest| old.digest.as_ref() != Some(*digest))
            && self.waits_for_tenants(key, digest)
        {
            return Some(NOTED_WITHIN);
        }
        if new != old {
            self.write(&bundle, &new).await;
            (self.changed)(key);
        }
        match (from_directory, result.is_err()) {
            (true, _) => Some(LOOK_EVERY),
            (false, true) => Some(RETRY_EVERY),
            (false, false) => None,
        }
    }

    /// Tells the bundle's Tenants of new files first. Who sees the new digest in the bundle's status must find none of them
    /// `Ready` at the old one; but a Tenant that can't be written holds the bundle up for a while only.
    fn waits_for_tenants(&self, key: &Key, digest: &str) -> bool {
        let now = self.runtime.instant();
        let mut telling = self.telling.lock();
        let told = telling.remove(key).filter(|(told, _)| told == digest);
        if (self.noted)(key, digest) {
            return false;
        }
        let since = told.map_or_else(
            || {
                (self.changed)(key);
                now
            },
            |(_, since)| since,
        );
        let waits = now.saturating_duration_since(since) < NOTED_AT_LATEST;
        if waits {
            telling.insert(key.clone(), (digest.to_owned(), since));
        }
        waits
    }

    /// Watches the ConfigMap that the bundle names, and only that one.
    fn watch_map(&self, key: &Key, bundle: &TemplateBundle) {
        let mut watched = self.watched.lock();
        let Some(source) = &bundle.spec.source.config_map else {
            watched.remove(key);
            return;
        };
        let same = watched.get(key).is_some_and(|one| one.map == source.name && !one.task.is_finished());
        if same {
            return;
        }
        let maps: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(self.client.clone(), &key.namespace);
        let (queue, bundle, map) = (self.queue.clone(), key.clone(), source.name.clone());
        let config = watcher::Config::default().fields(&format!("metadata.name={map}"));
        let task = tokio::spawn(async move {
            // The object itself is read when it is needed: only that it changed matters here.
            let mut events = std::pin::pin!(watcher::watcher(maps, config).default_backoff());
            while let Some(event) = events.next().await {
                if matches!(
                    event,
                    Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone)
                ) {
                    queue.now(bundle.clone());
                }
            }
        });
        watched.insert(key.clone(), Watched { map: source.name.clone(), task: task.abort_handle() });
    }

    async fn write(&self, bundle: &TemplateBundle, status: &TemplateBundleStatus) {
        let api: Api<TemplateBundle> =
            Api::namespaced(self.client.clone(), &bundle.namespace().unwrap_or_default());
        let body = json!({
            "apiVersion": TemplateBundle::api_version(&()),
            "kind": TemplateBundle::kind(&()),
            "metadata": { "name": bundle.name_any() },
            "status": status,
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        match api.patch_status(&bundle.name_any(), &parameters, &Patch::Apply(&body)).await {
            Ok(_) => self.metrics.wrote("templatebundle_status"),
            Err(error) => {
                tracing::warn!(bundle = %Key::of(bundle), "its status could not be written: {error}");
            }
        }
    }
}

fn next_status(
    old: &TemplateBundleStatus,
    result: &Result<Arc<Bundle>, Refusal>,
    generation: i64,
    now: Timestamp,
) -> TemplateBundleStatus {
    let mut new = old.clone();
    new.observed_generation = Some(generation);
    let (ready, reason, message) = match result {
        Ok(bundle) => {
            new.digest = Some(bundle.identity.digest.clone());
            new.files = Some(i32::try_from(bundle.files.len()).unwrap_or(i32::MAX));
            let jobs = bundle.jobs.len();
            (
                true,
                "Understood",
                format!("Understood: {} and {}.", counted(bundle.files.len(), "file"), counted(jobs, "job")),
            )
        }
        Err(refusal) => {
            new.digest = None;
            new.files = None;
            (false, refusal.reason.as_str(), refusal.message.clone())
        }
    };
    let mut put = |kind, truth: bool, message: &str| {
        set(&mut new.conditions, kind, Truth::from(truth), reason, message, generation, now);
    };
    put(READY, ready, &message);
    put(RECONCILING, false, "");
    put(STALLED, !ready, if ready { "" } else { &message });
    new
}
