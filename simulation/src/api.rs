//! The API server: versions, compare-and-swap, watches that lag, calls that fail or are carried out unanswered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use tenantry_api::names::TenantUid;
use tenantry_api::tenant_status::TenantStatus;
use tenantry_protocol::TenantRef;

use crate::scenario::Spec;
use crate::sched::{Shared, Topic, sleep};
use crate::world::{Fault, World};

/// The one Tenant's name. A new one of the same name has another UID.
pub const NAME: &str = "acme";

/// The API server.
#[derive(Default)]
pub struct Server {
    /// The Tenant, while there is one.
    pub tenant: Option<Arc<Object>>,
    /// What is owed to a host whose Tenant went without it.
    pub owed: BTreeSet<String>,
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

/// Why a call came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiFault {
    /// No answer, or a server's error.
    Failed,
    /// Somebody else wrote in between.
    Conflict,
    /// There is no such object.
    Gone,
}

impl Server {
    /// The newest version.
    pub fn newest(&self) -> u64 {
        self.versions
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
        self.notify(Topic::Script);
        for operator in 0..2 {
            self.watched(operator);
        }
    }

    /// An operator's watch hears of the newest version, late or not at all.
    fn watched(&mut self, operator: usize) {
        let rate = self.scenario.rates.missed;
        let mut late = self.rng.u64(1..40);
        if self.chance(rate) {
            self.count(Fault::WatchMissed);
            late = 60_000 + self.rng.u64(0..120_000);
        }
        let (newest, version) = (self.api.tenant.clone(), self.api.versions);
        self.after(late, move |world| {
            let memory = &mut world.operators[operator];
            if memory.watched_version < version {
                memory.watched_version = version;
                memory.watched = newest;
                memory.due = Some(world.queue.now);
                world.notify(Topic::Queue(operator));
            }
        });
    }

    fn reached(&mut self, operator: usize) -> Result<(), ApiFault> {
        if self.queue.now < self.api.down.max(self.api.cut[operator]) {
            return Err(ApiFault::Failed);
        }
        let rates = self.scenario.rates.clone();
        if self.chance(rates.api / 8) {
            self.count(Fault::ApiDown);
            self.api.down = self.queue.now + self.rng.u64(1_000..90_000);
            return Err(ApiFault::Failed);
        }
        if self.chance(rates.partition) {
            self.count(Fault::ApiPartition);
            self.api.cut[operator] = self.queue.now + self.rng.u64(1_000..60_000);
            return Err(ApiFault::Failed);
        }
        Ok(())
    }
}

/// Reads the Tenant from the API server itself.
pub async fn get(shared: &Shared, operator: usize) -> Result<Option<Arc<Object>>, ApiFault> {
    travel(shared).await;
    let mut world = shared.world();
    world.reached(operator)?;
    Ok(world.api.tenant.clone())
}

/// Writes where the version is still the one that was read.
pub async fn write(
    shared: &Shared,
    operator: usize,
    of: &Object,
    change: impl FnOnce(&mut Object),
) -> Result<Arc<Object>, ApiFault> {
    travel(shared).await;
    let written = {
        let mut world = shared.world();
        world.reached(operator)?;
        let rate = world.scenario.rates.api;
        let Some(now) = world.api.tenant.clone() else { return Err(ApiFault::Gone) };
        if now.version != of.version || now.uid != of.uid {
            world.count(Fault::Conflict);
            return Err(ApiFault::Conflict);
        }
        let mut next = (*now).clone();
        change(&mut next);
        if next == *now {
            return Ok(now);
        }
        world.written(&now, &next);
        let goes = next.deleted_at.is_some() && !next.finalizer;
        let answer = Object { version: world.api.versions + 1, ..next.clone() };
        world.store_tenant(Some(next));
        if world.chance(rate) {
            world.count(Fault::WriteUnanswered);
            return Err(ApiFault::Failed);
        }
        if goes {
            return Ok(Arc::new(answer));
        }
        Arc::new(answer)
    };
    travel(shared).await;
    Ok(written)
}

/// Owes a release to a host.
pub async fn owe(shared: &Shared, operator: usize, tenant: &TenantRef) -> Result<(), ApiFault> {
    travel(shared).await;
    let mut world = shared.world();
    world.reached(operator)?;
    world.api.owed.insert(tenant.uid.to_string());
    Ok(())
}

async fn travel(shared: &Shared) {
    let ms = shared.world().rng.u64(1..25);
    sleep(shared, ms).await;
}
