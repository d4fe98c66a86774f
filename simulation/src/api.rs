//! The API server: versions, compare-and-swap, watches that lag, calls that fail or are carried out unanswered.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use serde_json::json;
use tenantry_api::names::TenantUid;
use tenantry_api::tenant::TenantSpec;
use tenantry_api::tenant_status::TenantStatus;
use tenantry_api::{ComposeHost, FINALIZER, Tenant};
use tenantry_operator::cluster::{Cluster, ClusterError, Reply};
use tenantry_operator::hosts::pending_releases;
use tenantry_operator::key::Key;
use tenantry_planner::bundle::Bundle;
use tenantry_planner::decide::Event;
use tenantry_planner::target::Refusal;

use crate::operator::tick;
use crate::scenario::Spec;
use crate::scheduler::{Shared, Topic, sleep};
use crate::world::{Fault, World};

/// The one Tenant's name. A new one of the same name has another UID.
pub const NAME: &str = "acme";
/// The one ComposeHost's name, and its agent's identity.
const HOST: &str = "n5";
const NAMESPACE: &str = "fleet";

/// The API server.
pub struct Server {
    /// The Tenant, while there is one.
    pub tenant: Option<Arc<Object>>,
    /// The same, as it is sent.
    resource: Option<Arc<Tenant>>,
    /// The ComposeHost.
    host: Arc<ComposeHost>,
    /// Until when an operator does not reach it.
    pub cut: [u64; 2],
    /// Until when nobody does.
    pub down: u64,
    versions: u64,
    made: u64,
}

/// A Tenant as the API server has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its UID.
    pub uid: TenantUid,
    /// Rises with every write.
    pub version: u64,
    /// Rises with every change of the spec.
    pub generation: i64,
    /// When its deletion was asked for.
    pub deleted_at: Option<Timestamp>,
    /// Whether our finalizer holds it.
    pub finalizer: bool,
    /// The spec.
    pub spec: Spec,
    /// Annotations.
    pub annotations: BTreeMap<&'static str, String>,
    /// The status.
    pub status: Arc<TenantStatus>,
}

/// The ComposeHost's key.
pub fn host_key() -> Key {
    Key { namespace: NAMESPACE.to_owned(), name: HOST.to_owned() }
}

impl Default for Server {
    fn default() -> Self {
        let host = json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "ComposeHost",
            "metadata": {"name": HOST, "namespace": NAMESPACE, "uid": "a0", "generation": 1, "resourceVersion": "1"},
            "spec": {"connection": {"dial": {"address": "127.0.0.1:1"}}, "identity": HOST},
            "status": {"capabilities": ["ImageOnly", "Release", "Rollback", "Probes", "Images"]},
        });
        #[allow(clippy::expect_used, reason = "a literal that decodes")]
        let host = Arc::new(serde_json::from_value(host).expect("a host"));
        Self { tenant: None, resource: None, host, cut: [0; 2], down: 0, versions: 1, made: 0 }
    }
}

impl Server {
    /// The newest version.
    pub fn newest(&self) -> u64 {
        self.versions
    }

    /// The Tenant and the ComposeHost as a list has them.
    pub fn listed(&self) -> (Option<Arc<Tenant>>, Arc<ComposeHost>) {
        (self.resource.clone(), self.host.clone())
    }

    /// Whether the release of a claim is pending whose Tenant went without the host.
    pub fn owes(&self) -> bool {
        self.host.annotations().contains_key(pending_releases::ANNOTATION)
    }
}

impl Object {
    fn resource(&self, spec: TenantSpec) -> Tenant {
        let mut tenant = Tenant::new(NAME, spec);
        let metadata = &mut tenant.metadata;
        metadata.namespace = Some(NAMESPACE.to_owned());
        metadata.uid = Some(self.uid.to_string());
        metadata.resource_version = Some(self.version.to_string());
        metadata.generation = Some(self.generation);
        metadata.deletion_timestamp = self.deleted_at.map(Time);
        metadata.finalizers = self.finalizer.then(|| vec![FINALIZER.to_owned()]);
        let annotations = self.annotations.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        metadata.annotations = Some(annotations.collect());
        tenant.status = Some(&*self.status).filter(|status| **status != TenantStatus::default()).cloned();
        tenant
    }
}

impl World {
    /// A person makes the Tenant.
    pub fn make_tenant(&mut self, spec: Spec) {
        self.api.made += 1;
        let text = format!("{:08x}-0000-4000-8000-{:012x}", 0x0a00_0000 + self.api.made, self.api.made);
        let Ok(uid) = TenantUid::parse(text) else { return };
        let object = Object {
            uid,
            version: 0,
            generation: 1,
            deleted_at: None,
            finalizer: false,
            spec,
            annotations: BTreeMap::new(),
            status: Arc::default(),
        };
        self.store_tenant(Some(object));
    }

    /// A person changes the Tenant.
    pub fn change_tenant(&mut self, change: impl FnOnce(&mut Object)) {
        let Some(tenant) = self.api.tenant.clone() else { return };
        let mut changed = (*tenant).clone();
        change(&mut changed);
        if changed.spec != tenant.spec {
            changed.generation += 1;
        }
        self.store_tenant(Some(changed));
    }

    /// A person deletes the Tenant.
    pub fn delete_tenant(&mut self) {
        let now = self.timestamp();
        self.change_tenant(|tenant| {
            tenant.deleted_at.get_or_insert(now);
        });
    }

    fn store_tenant(&mut self, object: Option<Object>) {
        self.api.versions += 1;
        let version = self.api.versions;
        let object = object.map(|object| Object { version, ..object });
        let stays = object.filter(|object| object.deleted_at.is_none() || object.finalizer);
        self.api.tenant = stays.map(Arc::new);
        let directory = self.host.disk.directory();
        let (api, releases) = (&mut self.api, &mut self.releases);
        let resource =
            api.tenant.as_ref().map(|object| object.resource(releases.spec(&object.spec, &directory)));
        api.resource = resource.map(Arc::new);
        self.notify(Topic::Script);
        for operator in 0..2 {
            self.watched(operator);
        }
    }

    /// An operator's watch hears of the Tenant's newest version, late or not at all.
    fn watched(&mut self, operator: usize) {
        let (late, newest, version) = (self.lateness(), self.api.resource.clone(), self.api.versions);
        self.after(late, move |world| world.operators[operator].tenants.hear(version, newest));
    }

    /// The same of the ComposeHost.
    fn host_watched(&mut self, operator: usize) {
        let (late, newest, version) = (self.lateness(), self.api.host.clone(), self.api.versions);
        self.after(late, move |world| world.operators[operator].hosts.hear(version, Some(newest)));
    }

    fn lateness(&mut self) -> u64 {
        let rate = self.scenario.rates.missed;
        let late = self.rng.u64(1..40);
        if !self.chance(rate) {
            return late;
        }
        self.count(Fault::WatchMissed);
        60_000 + self.rng.u64(0..120_000)
    }

    fn reached(&mut self, operator: usize) -> Result<(), ClusterError> {
        if self.queue.now < self.api.down.max(self.api.cut[operator]) {
            return Err(failed());
        }
        let rates = self.scenario.rates.clone();
        if self.chance(rates.api / 8) {
            self.count(Fault::ApiDown);
            self.api.down = self.queue.now + self.rng.u64(1_000..90_000);
            return Err(failed());
        }
        if self.chance(rates.partition) {
            self.count(Fault::ApiPartition);
            self.api.cut[operator] = self.queue.now + self.rng.u64(1_000..60_000);
            return Err(failed());
        }
        Ok(())
    }
}

fn failed() -> ClusterError {
    ClusterError::Failed("it does not answer".into())
}

async fn travel(shared: &Shared) {
    let ms = shared.world().rng.u64(1..25);
    sleep(shared, ms).await;
}

/// The API server as one operator reaches it. At each call the operator may be killed or stopped.
pub struct Connection {
    /// The world.
    pub shared: Shared,
    /// Which operator.
    pub operator: usize,
}

impl Connection {
    async fn get<T>(&self, read: impl FnOnce(&mut World) -> T) -> Result<T, ClusterError> {
        tick(&self.shared, self.operator).await;
        travel(&self.shared).await;
        let mut world = self.shared.world();
        world.reached(self.operator)?;
        Ok(read(&mut world))
    }

    /// Writes where the version is still the one that was read.
    async fn write<T>(
        &self,
        change: impl FnOnce(&mut World) -> Result<T, ClusterError>,
    ) -> Result<T, ClusterError> {
        tick(&self.shared, self.operator).await;
        travel(&self.shared).await;
        let written = {
            let mut world = self.shared.world();
            world.reached(self.operator)?;
            let before = world.api.versions;
            let written = change(&mut world)?;
            let rate = world.scenario.rates.api;
            if world.api.versions != before && world.chance(rate) {
                world.count(Fault::WriteUnanswered);
                return Err(failed());
            }
            written
        };
        travel(&self.shared).await;
        Ok(written)
    }

    async fn write_tenant(
        &self,
        of: &Tenant,
        change: impl FnOnce(&mut Object),
    ) -> Result<Arc<Tenant>, ClusterError> {
        let number = self.operator;
        let written = self.write(|world| world.write_tenant(of, change)).await?;
        self.shared.world().operators[number].tenants.knows(&written);
        Ok(written)
    }
}

impl World {
    fn write_tenant(
        &mut self,
        of: &Tenant,
        change: impl FnOnce(&mut Object),
    ) -> Result<Arc<Tenant>, ClusterError> {
        let Some((now, resource)) = self.api.tenant.clone().zip(self.api.resource.clone()) else {
            return Err(ClusterError::NotFound);
        };
        if resource.resource_version() != of.resource_version() {
            self.count(Fault::Conflict);
            return Err(ClusterError::Conflict);
        }
        let mut next = (*now).clone();
        change(&mut next);
        if next == *now {
            return Ok(resource);
        }
        self.written(&now, &next);
        let directory = self.host.disk.directory();
        let spec = self.releases.spec(&next.spec, &directory);
        self.store_tenant(Some(next.clone()));
        // The last write of one that is deleted is answered with what it was.
        let answer = Object { version: self.api.versions, ..next };
        Ok(self.api.resource.clone().unwrap_or_else(|| Arc::new(answer.resource(spec))))
    }

    fn annotate_host(
        &mut self,
        of: &ComposeHost,
        annotation: &str,
        value: Option<&str>,
    ) -> Result<(), ClusterError> {
        if self.api.host.resource_version() != of.resource_version() {
            self.count(Fault::Conflict);
            return Err(ClusterError::Conflict);
        }
        if self.api.host.annotations().get(annotation).map(String::as_str) == value {
            return Ok(());
        }
        let mut next = (*self.api.host).clone();
        match value {
            Some(value) => next.annotations_mut().insert(annotation.to_owned(), value.to_owned()),
            None => next.annotations_mut().remove(annotation),
        };
        self.api.versions += 1;
        next.metadata.resource_version = Some(self.api.versions.to_string());
        self.api.host = Arc::new(next);
        for operator in 0..2 {
            self.host_watched(operator);
        }
        Ok(())
    }
}

/// A status as it comes back from the API server: what JSON does not keep is not kept.
fn through_json(status: &TenantStatus) -> TenantStatus {
    let text = serde_json::to_vec(status).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

impl Cluster for Connection {
    fn get_tenant<'a>(&'a self, _: &'a Key) -> Reply<'a, Option<Arc<Tenant>>> {
        async move {
            let found = self.get(|world| world.api.resource.clone()).await?;
            let mut world = self.shared.world();
            if let Some(found) = &found
                && !world.operators[self.operator].tenants.knows(found)
            {
                world.count(Fault::StaleRead);
            }
            Ok(found)
        }
        .boxed()
    }

    fn apply_status<'a>(&'a self, tenant: &'a Tenant, status: &'a TenantStatus) -> Reply<'a, Arc<Tenant>> {
        let status = Arc::new(through_json(status));
        self.write_tenant(tenant, |object| object.status = status).boxed()
    }

    fn patch_finalizers<'a>(
        &'a self,
        tenant: &'a Tenant,
        finalizers: &'a [String],
    ) -> Reply<'a, Arc<Tenant>> {
        let ours = finalizers.iter().any(|name| name == FINALIZER);
        self.write_tenant(tenant, move |object| object.finalizer = ours).boxed()
    }

    fn get_host<'a>(&'a self, _: &'a Key) -> Reply<'a, Option<Arc<ComposeHost>>> {
        self.get(|world| Some(world.api.host.clone())).boxed()
    }

    fn annotate_host<'a>(
        &'a self,
        host: &'a ComposeHost,
        annotation: &'a str,
        value: Option<&'a str>,
    ) -> Reply<'a, ()> {
        self.write(move |world| world.annotate_host(host, annotation, value)).boxed()
    }

    fn bundle<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Arc<Bundle>, Refusal>> {
        async move { self.shared.world().releases.bundle(&key.name) }.boxed()
    }

    fn publish<'a>(&'a self, _: &'a Tenant, _: &'a [Event]) -> BoxFuture<'a, ()> {
        tick(&self.shared, self.operator).boxed()
    }
}
