//! What the API server has, as last seen: one watch for each kind, kept small.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;

use futures::{Stream, StreamExt as _};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tenantry_api::{ComposeHost, TemplateBundle, Tenant};

use crate::key::Key;

/// How long a watch is held open, in seconds: below what the client waits for an answer.
const WATCH_SECONDS: u32 = 290;

/// Which namespaces are looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    All,
    /// One.
    Namespace(String),
}

impl Scope {
    /// Everything of a kind in this scope.
    pub fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        match self {
            Self::All => Api::all(client.clone()),
            Self::Namespace(name) => Api::namespaced(client.clone(), name),
        }
    }
}

/// Everything that is watched.
#[derive(Clone)]
pub struct Stores {
    /// Tenants.
    pub tenants: Store<Tenant>,
    /// Hosts.
    pub hosts: Store<ComposeHost>,
    /// Bundles.
    pub bundles: Store<TemplateBundle>,
}

impl Stores {
    /// The Tenants of a namespace for which something holds.
    pub fn tenants_where(&self, namespace: &str, holds: impl Fn(&Tenant) -> bool) -> Vec<Key> {
        let fits = |tenant: &&std::sync::Arc<Tenant>| {
            tenant.namespace().as_deref() == Some(namespace) && holds(tenant)
        };
        self.tenants.state().iter().filter(fits).map(|tenant| Key::of(tenant.as_ref())).collect()
    }

    /// Waits until every kind has been listed once.
    pub async fn ready(&self) -> bool {
        let (tenants, hosts, bundles) = tokio::join!(
            self.tenants.wait_until_ready(),
            self.hosts.wait_until_ready(),
            self.bundles.wait_until_ready()
        );
        tenants.is_ok() && hosts.is_ok() && bundles.is_ok()
    }
}

/// A watch of one kind: the store, and the task that feeds it and tells of what is new.
pub fn watch<K, M>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
    mark: impl Fn(&K) -> M + Send + 'static,
    changed: impl Fn(Key) + Send + 'static,
) -> (Store<K>, impl Future<Output = ()> + Send + 'static)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
    M: PartialEq + Send + 'static,
{
    let (store, mut writer) = reflector::store::<K>();
    let task = async move {
        let mut marks: HashMap<Key, M> = HashMap::new();
        let mut listed: Vec<Key> = Vec::new();
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event.modify(trim),
                Err(error) => {
                    tracing::warn!(kind = %K::kind(&()), "the watch broke off and is begun again: {error}");
                    continue;
                }
            };
            writer.apply_watcher_event(&event);
            for key in news(&event, &mut marks, &mut listed, &mark) {
                changed(key);
            }
        }
    };
    (store, task)
}

/// Which objects have changed in what their mark speaks of.
fn news<K: ResourceExt, M: PartialEq>(
    event: &Event<K>,
    marks: &mut HashMap<Key, M>,
    listed: &mut Vec<Key>,
    mark: &impl Fn(&K) -> M,
) -> Vec<Key> {
    match event {
        Event::Init => {
            listed.clear();
            Vec::new()
        }
        Event::InitApply(object) => {
            let key = Key::of(object);
            listed.push(key.clone());
            differs(marks, key, mark(object)).into_iter().collect()
        }
        Event::Apply(object) => differs(marks, Key::of(object), mark(object)).into_iter().collect(),
        Event::InitDone => {
            let present: std::collections::HashSet<Key> = listed.drain(..).collect();
            let gone: Vec<Key> = marks.keys().filter(|key| !present.contains(key)).cloned().collect();
            marks.retain(|key, _| present.contains(key));
            gone
        }
        Event::Delete(object) => {
            let key = Key::of(object);
            marks.remove(&key);
            vec![key]
        }
    }
}

fn differs<K: Eq + Hash + Clone, M: PartialEq>(marks: &mut HashMap<K, M>, key: K, mark: M) -> Option<K> {
    if marks.get(&key) == Some(&mark) {
        return None;
    }
    marks.insert(key.clone(), mark);
    Some(key)
}

/// Drops what nobody here reads.
fn trim<K: ResourceExt>(object: &mut K) {
    object.managed_fields_mut().clear();
    object.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
}

/// What the API server tells of a kind. It is asked for small pages, so that no list is held twice in memory.
pub fn events<K>(api: Api<K>) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().page_size(100).timeout(WATCH_SECONDS);
    watcher::watcher(api, config).default_backoff()
}

/// What of a Tenant is news: not its status, which we write ourselves.
pub fn tenant_mark(tenant: &Tenant) -> impl PartialEq + Send + use<> {
    (
        tenant.uid(),
        tenant.metadata.generation,
        tenant.metadata.deletion_timestamp.is_some(),
        tenant.annotations().clone(),
        tenant.finalizers().to_vec(),
    )
}

/// What of a host or a bundle is news: not its status, and not its annotations.
pub fn spec_mark<K: ResourceExt>(object: &K) -> impl PartialEq + Send + use<K> {
    (object.uid(), object.meta().generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str, generation: i64) -> Tenant {
        let value = serde_json::json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant",
            "metadata": {"name": name, "namespace": "fleet", "generation": generation},
            "spec": {"host": "n5", "project": "a", "directory": "/srv/a", "imageTag": "v1"},
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_what_the_mark_speaks_of_is_news() {
        let (mut marks, mut listed) = (HashMap::new(), Vec::new());
        let mark = |tenant: &Tenant| tenant.metadata.generation;
        let mut told = |event: Event<Tenant>| news(&event, &mut marks, &mut listed, &mark).len();
        assert_eq!(told(Event::Apply(tenant("a", 1))), 1);
        assert_eq!(told(Event::Apply(tenant("a", 1))), 0, "a status write is no news");
        assert_eq!(told(Event::Apply(tenant("a", 2))), 1);
        assert_eq!(told(Event::Delete(tenant("a", 2))), 1);
    }

    #[test]
    fn what_went_while_nobody_watched_is_news() {
        let (mut marks, mut listed) = (HashMap::new(), Vec::new());
        let mark = |tenant: &Tenant| tenant.metadata.generation;
        let mut told = |event: Event<Tenant>| {
            news(&event, &mut marks, &mut listed, &mark).into_iter().map(|key| key.name).collect::<Vec<_>>()
        };
        told(Event::Apply(tenant("a", 1)));
        told(Event::Apply(tenant("b", 1)));
        told(Event::Init);
        assert!(told(Event::InitApply(tenant("b", 1))).is_empty());
        assert_eq!(told(Event::InitDone), ["a"]);
    }
}
