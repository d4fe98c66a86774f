//! An operator's process: how it begins to lead, dies and is stopped, and what it has of time and of its watches.
//!
//! What it does in between is the shipped `Tenants::work`, over the API server of `api.rs` and the network of `net.rs`.

use std::sync::Arc;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use kube::ResourceExt;
use kube::runtime::watcher::{self, Event};
use parking_lot::Mutex;
use tenantry_api::{ComposeHost, Tenant};
use tenantry_operator::cluster::Cluster;
use tenantry_operator::hosts::{Hosts, pending_releases};
use tenantry_operator::key::Key;
use tenantry_operator::metrics::Metrics;
use tenantry_operator::queue::Queue;
use tenantry_operator::rights::Rights;
use tenantry_operator::stores::{spec_mark, tenant_mark, watch};
use tenantry_operator::tenants::Tenants;
use tenantry_process::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::net;
use crate::runtime::VirtualRuntime;
use crate::scheduler::{Owner, Shared, die, sleep};
use crate::world::{Fault, World};

/// How long a lease holds.
pub const LEASE: u64 = 15_000;
/// How often hosts are asked whether they answer.
const ASK_EVERY: u64 = 30_000;

/// An operator's process, as far as the world knows it. What it remembers is its own, and lost with it.
#[derive(Default)]
pub struct Process {
    /// Whether it runs and believes itself the leader.
    pub leads: bool,
    /// What it hears of Tenants.
    pub tenants: Watch<Tenant>,
    /// What it hears of hosts.
    pub hosts: Watch<ComposeHost>,
}

type News<K> = Result<Event<K>, watcher::Error>;

/// A watch of one object.
pub struct Watch<K> {
    events: Option<UnboundedSender<News<K>>>,
    /// The version that was last told.
    version: u64,
    last: Option<Arc<K>>,
    /// The version that was last seen, be it by a read or a write.
    known: Option<String>,
}

impl<K> Default for Watch<K> {
    fn default() -> Self {
        Self { events: None, version: 0, last: None, known: None }
    }
}

impl<K: ResourceExt + Clone> Watch<K> {
    /// Begins anew with a list.
    fn list(&mut self, version: u64, newest: Option<Arc<K>>) -> UnboundedReceiver<News<K>> {
        let (sender, receiver) = unbounded();
        self.events = Some(sender);
        self.version = version;
        self.last.clone_from(&newest);
        self.send(Event::Init);
        if let Some(newest) = newest {
            self.knows(&newest);
            self.send(Event::InitApply((*newest).clone()));
        }
        self.send(Event::InitDone);
        receiver
    }

    /// Hears of a version; nothing of one that is older than what was heard already.
    pub fn hear(&mut self, version: u64, newest: Option<Arc<K>>) {
        if self.version >= version {
            return;
        }
        self.version = version;
        match (newest.clone(), self.last.take()) {
            (Some(newest), _) => {
                self.knows(&newest);
                self.send(Event::Apply((*newest).clone()));
            }
            (None, Some(last)) => self.send(Event::Delete((*last).clone())),
            (None, None) => {}
        }
        self.last = newest;
    }

    /// Takes note of a version that was read or written; false where it was not known yet.
    pub fn knows(&mut self, object: &K) -> bool {
        let version = object.resource_version();
        let known = self.known == version;
        self.known = version;
        known
    }

    fn send(&self, event: Event<K>) {
        if let Some(events) = &self.events {
            let _ = events.unbounded_send(Ok(event));
        }
    }
}

/// An operator leads from now on: it lists, watches, and works.
pub async fn lead(shared: Shared, number: usize) {
    let cluster: Arc<dyn Cluster> = Arc::new(api::Connection { shared: shared.clone(), operator: number });
    let tenants = begin(&shared, number, cluster.clone()).await;
    let settling = release_pending(shared.clone(), tenants.hosts.clone(), cluster);
    shared.world().spawn(Owner::Operator(number), settling);
    tenants.work(CancellationToken::new()).await;
}

/// Puts the shipped parts together, as `tenantry_operator::operator` does, and waits until everything was listed once.
async fn begin(shared: &Shared, number: usize, cluster: Arc<dyn Cluster>) -> Arc<Tenants> {
    let owner = Owner::Operator(number);
    let runtime: Arc<dyn Runtime> = Arc::new(VirtualRuntime::new(shared, owner));
    let (tenant_news, host_news) = list(shared, number);
    let queue: Arc<Queue<Key>> = Arc::new(Queue::new(runtime.clone()));
    let to = queue.clone();
    let (watched, tenant_watch) = watch(tenant_news, tenant_mark, move |key| to.now(key));
    // The ComposeHost's spec does not change: there is no news of it, only other annotations.
    let (hosts, host_watch) = watch(host_news, spec_mark, |_| ());
    {
        let mut world = shared.world();
        world.spawn(owner, host_watch);
        world.spawn(owner, tenant_watch);
    }
    // Neither can fail: the watches end with this process alone.
    let _ = tokio::join!(watched.wait_until_ready(), hosts.wait_until_ready());
    let agents = Arc::new(net::Connection::new(shared, number));
    Arc::new(Tenants {
        cluster,
        runtime,
        watched,
        hosts: Arc::new(Hosts::new(hosts, agents)),
        rights: Arc::new(Rights::all()),
        queue,
        metrics: Arc::default(),
        caches: Mutex::default(),
    })
}

/// A new leader lists first.
fn list(
    shared: &Shared,
    number: usize,
) -> (UnboundedReceiver<News<Tenant>>, UnboundedReceiver<News<ComposeHost>>) {
    let mut world = shared.world();
    world.say(|_| format!("operator {number} leads"));
    let ((tenant, host), version) = (world.api.listed(), world.api.newest());
    let process = &mut world.operators[number];
    process.leads = true;
    (process.tenants.list(version, tenant), process.hosts.list(version, Some(host)))
}

/// Pending releases are made whenever the host answers.
async fn release_pending(shared: Shared, hosts: Arc<Hosts>, cluster: Arc<dyn Cluster>) {
    let (key, metrics) = (api::host_key(), Metrics::default());
    loop {
        sleep(&shared, ASK_EVERY).await;
        let (Some(host), Some(route)) = (hosts.get(&key), hosts.route(&key)) else { continue };
        if let Ok(agent) = &route.agent {
            pending_releases::release_all(cluster.as_ref(), &metrics, &host, agent).await;
        }
    }
}

/// A pause of an operator: where it may be killed, or stopped for longer than its lease.
pub async fn tick(shared: &Shared, number: usize) {
    if dies(&mut shared.world(), number) {
        die().await;
    }
    sleep(shared, 1).await;
}

fn dies(world: &mut World, number: usize) -> bool {
    // One future of it was killed just now: the others do nothing any more.
    if world.queue.killed(Owner::Operator(number)) {
        return true;
    }
    let rates = world.scenario.rates.clone();
    if world.chance(rates.operator_pause) {
        pause(world, number);
    }
    let dies = world.chance(rates.operator_kill);
    if dies {
        world.count(Fault::OperatorKilled);
        end(world, number);
    }
    dies
}

/// An operator's process ends; another leads once the lease is over.
fn end(world: &mut World, number: usize) {
    world.queue.kill(Owner::Operator(number));
    world.operators[number] = Process::default();
    let after = world.rng.u64(500..LEASE);
    let other = if world.rng.bool() { number } else { 1 - number };
    let Some(shared) = world.shared.clone() else { return };
    world.after(after, move |world| {
        if !world.operators.iter().any(|operator| operator.leads) {
            world.operators[other].leads = true;
            world.spawn(Owner::Operator(other), lead(shared, other));
        }
    });
}

/// A leader is stopped past its lease and revived. Until it notices that it was deposed, two act.
fn pause(world: &mut World, number: usize) {
    world.count(Fault::OperatorPaused);
    let other = 1 - number;
    let until = world.now() + LEASE + world.rng.u64(0..60_000);
    world.queue.pause(Owner::Operator(number), until);
    let Some(shared) = world.shared.clone() else { return };
    let takes_over = world.rng.u64(500..LEASE);
    world.after(takes_over, move |world| {
        if !world.operators[other].leads {
            world.count(Fault::TwoLeaders);
            world.oracle.two_leaders = true;
            world.operators[other].leads = true;
            world.spawn(Owner::Operator(other), lead(shared, other));
        }
    });
    let notices = until - world.now() + world.rng.u64(0..40_000);
    world.after(notices, move |world| {
        if world.operators[other].leads && world.operators[number].leads {
            world.say(|_| format!("operator {number} notices that it was deposed"));
            world.queue.kill(Owner::Operator(number));
            world.operators[number] = Process::default();
        }
    });
}
