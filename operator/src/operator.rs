//! The operator's parts, wired together.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use kube::Client;
use parking_lot::Mutex;
use tenantry_api::names::TenantUid;
use tenantry_api::{ComposeHost, TemplateBundle, Tenant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::agents::Agents;
use crate::bundles::Bundles;
use crate::bundles::status::BundleStatus;
use crate::cluster::{ApiServer, Cluster};
use crate::events::Events;
use crate::hosts::Hosts;
use crate::hosts::changes::HostChanges;
use crate::hosts::status::HostStatus;
use crate::key::Key;
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::rights::Rights;
use crate::stores::{Scope, Stores, events, spec_mark, tenant_mark, watch};
use crate::tenants::{Tenants, is_ready, speaks_of};
use tenantry_process::runtime::{Runtime, TokioRuntime};

/// What an operator is started with.
pub struct Setup {
    /// The API server.
    pub client: Client,
    /// Which namespaces.
    pub scope: Scope,
    /// Where agents are had from.
    pub agents: Arc<dyn Agents>,
    /// Bundles of this machine.
    pub bundle_directory: Option<PathBuf>,
    /// How many Tenants are looked at at once.
    pub concurrency: usize,
    /// Who writes the events.
    pub instance: Option<String>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// What the client's user may do.
    pub rights: Arc<Rights>,
}

/// An operator that has its parts but does nothing yet.
pub struct Operator {
    stores: Stores,
    watches: Watches,
    tenants: Arc<Tenants>,
    hosts: Arc<HostStatus>,
    bundles: Arc<BundleStatus>,
    concurrency: usize,
}

impl Operator {
    /// Puts the parts together.
    pub fn new(setup: Setup) -> Self {
        let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime);
        let queue = || Arc::new(Queue::new(runtime.clone()));
        let (queue, host_queue, bundle_queue) = (queue(), queue(), queue());
        let (stores, watches) = stores(&setup, &queue, &host_queue, &bundle_queue);
        let hosts = Arc::new(Hosts::new(stores.hosts.clone(), setup.agents.clone()));
        let bundles = Arc::new(Bundles::new(
            setup.client.clone(),
            stores.bundles.clone(),
            setup.bundle_directory.clone(),
        ));
        let told = Events::new(setup.client.clone(), setup.instance.clone());
        let cluster: Arc<dyn Cluster> = Arc::new(ApiServer::new(setup.client.clone(), bundles.clone(), told));
        let tenants = Arc::new(Tenants {
            cluster: cluster.clone(),
            runtime: runtime.clone(),
            watched: stores.tenants.clone(),
            hosts: hosts.clone(),
            rights: setup.rights.clone(),
            queue: queue.clone(),
            metrics: setup.metrics.clone(),
            caches: Mutex::default(),
        });
        let changes = HostChanges {
            runtime: runtime.clone(),
            hosts: hosts.clone(),
            changed: Box::new(of_host(stores.clone(), queue.clone())),
            followed: Mutex::default(),
            tasks: TaskTracker::new(),
        };
        let host_status = HostStatus {
            client: setup.client.clone(),
            cluster,
            runtime: runtime.clone(),
            hosts,
            queue: host_queue,
            metrics: setup.metrics.clone(),
            changes: Arc::new(changes),
        };
        let bundle_status = BundleStatus {
            client: setup.client,
            runtime,
            bundles,
            queue: bundle_queue,
            metrics: setup.metrics,
            changed: Box::new(of_bundle(stores.clone(), queue)),
            noted: Box::new(noted(stores.clone())),
            telling: Mutex::default(),
            watched: Mutex::new(HashMap::new()),
        };
        Self {
            stores,
            watches,
            tenants,
            hosts: Arc::new(host_status),
            bundles: Arc::new(bundle_status),
            concurrency: setup.concurrency,
        }
    }

    /// Works until the end. `ready` is called when everything has been listed once.
    pub async fn run(self, ready: impl FnOnce(), end: CancellationToken) {
        let mut watching = tokio::task::JoinSet::new();
        for watch in self.watches {
            let end = end.clone();
            watching.spawn(async move {
                tokio::select! {
                    () = end.cancelled() => {}
                    () = watch => {}
                }
            });
        }
        let (tenants, ended, stores) = (self.tenants.clone(), end.clone(), self.stores.clone());
        watching.spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = tenants.watch_over_rights(&stores) => {}
            }
        });
        tokio::select! {
            () = end.cancelled() => return,
            listed = self.stores.ready() => if !listed { return },
        }
        ready();
        tokio::join!(
            self.tenants.run(self.concurrency, end.clone()),
            self.hosts.run(end.clone()),
            self.bundles.run(end.clone()),
        );
        while watching.join_next().await.is_some() {}
    }
}

type Watches = Vec<Pin<Box<dyn Future<Output = ()> + Send>>>;
type Wake = Box<dyn Fn(&Key) + Send>;

fn stores(
    setup: &Setup,
    queue: &Arc<Queue<Key>>,
    host_queue: &Arc<Queue<Key>>,
    bundle_queue: &Arc<Queue<Key>>,
) -> (Stores, Watches) {
    let to = queue.clone();
    let (tenants, tenant_watch) =
        watch(events(setup.scope.api::<Tenant>(&setup.client)), tenant_mark, move |key| to.now(key));
    // The Tenants' store must be there before a host's news can be told to them.
    let slot: Arc<Mutex<Option<Wake>>> = Arc::default();
    let to = host_queue.clone();
    let told = slot.clone();
    let (hosts, host_watch) =
        watch(events(setup.scope.api::<ComposeHost>(&setup.client)), spec_mark, move |key| {
            tell(&told, &key);
            to.now(key);
        });
    let to = bundle_queue.clone();
    let (bundles, bundle_watch) =
        watch(events(setup.scope.api::<TemplateBundle>(&setup.client)), spec_mark, move |key| to.now(key));
    let stores = Stores { tenants, hosts, bundles };
    let wake = of_host(stores.clone(), queue.clone());
    *slot.lock() = Some(Box::new(move |host| wake(host, None)));
    (stores, vec![Box::pin(tenant_watch), Box::pin(host_watch), Box::pin(bundle_watch)])
}

fn tell(slot: &Mutex<Option<Wake>>, key: &Key) {
    if let Some(wake) = slot.lock().as_ref() {
        wake(key);
    }
}

/// Wakes the Tenants of a host: all, or these.
fn of_host(stores: Stores, queue: Arc<Queue<Key>>) -> impl Fn(&Key, Option<&[TenantUid]>) + Send + Sync {
    move |host, these| {
        let meant = |tenant: &Tenant| {
            let uid = tenant.metadata.uid.as_deref();
            these.is_none_or(|these| these.iter().any(|one| Some(one.as_str()) == uid))
        };
        wake(&stores, &queue, host, |tenant| tenant.spec.host == host.name && meant(tenant));
    }
}

/// Has Tenants looked at that are beside an object and of which this holds.
fn wake(stores: &Stores, queue: &Queue<Key>, beside: &Key, holds: impl Fn(&Tenant) -> bool) {
    for key in stores.tenants_where(&beside.namespace, holds) {
        queue.now(key);
    }
}

/// Whether no Tenant of a bundle is `Ready` at another digest than this.
fn noted(stores: Stores) -> impl Fn(&Key, &str) -> bool + Send + Sync {
    move |bundle, digest| {
        let behind = |tenant: &Tenant| {
            tenant.spec.bundle.as_deref() == Some(&bundle.name)
                && tenant.metadata.deletion_timestamp.is_none()
                && tenant
                    .status
                    .as_ref()
                    .is_some_and(|status| is_ready(status) && !speaks_of(status, Some(digest)))
        };
        stores.tenants_where(&bundle.namespace, behind).is_empty()
    }
}

/// Wakes the Tenants of a bundle.
fn of_bundle(stores: Stores, queue: Arc<Queue<Key>>) -> impl Fn(&Key) + Send + Sync {
    move |bundle| {
        wake(&stores, &queue, bundle, |tenant| tenant.spec.bundle.as_deref() == Some(&bundle.name));
    }
}
