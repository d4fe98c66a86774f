//! The journal that the driver writes: durable when it says so, and torn where it is killed in between.

use tenantry_agent::operation::Log;
use tenantry_agent::store::StoreError;
use tenantry_api::names::{OperationId, TenantUid};
use tenantry_planner::steps::Record;

use crate::agent::tick;
use crate::scheduler::Shared;
use crate::world::{Fault, World};

/// An operation's journal, open for appending.
pub struct JournalLog {
    shared: Shared,
    key: (TenantUid, OperationId),
    broken: bool,
}

impl JournalLog {
    /// Opens a journal.
    pub fn new(shared: &Shared, uid: &TenantUid, id: &OperationId) -> Self {
        let key = (uid.clone(), id.clone());
        Self { shared: shared.clone(), key, broken: false }
    }

    /// Adds a record; durable when it returns.
    pub async fn write(&mut self, record: &Record) -> Result<(), StoreError> {
        let broken = || StoreError::Broken { path: "journal".into() };
        if self.broken {
            return Err(broken());
        }
        tick(&self.shared, 2).await;
        {
            let mut world = self.shared.world();
            let rate = world.scenario.rates.journal;
            if world.chance(rate) {
                world.count(Fault::JournalFault);
                self.broken = true;
                // Only its sync has failed, perhaps: then it is there for whoever reads the journal next.
                if world.rng.bool() {
                    self.keep(&mut world, record);
                }
                return Err(broken());
            }
            if let Some(journal) = world.host.store.journals.get_mut(&self.key) {
                journal.unsynced = Some(record.clone());
            }
        }
        tick(&self.shared, 2).await;
        self.keep(&mut self.shared.world(), record);
        Ok(())
    }

    fn keep(&self, world: &mut World, record: &Record) {
        if let Some(journal) = world.host.store.journals.get_mut(&self.key) {
            journal.unsynced = None;
            journal.records.push(record.clone());
        }
        world.recorded(&self.key.1, record);
    }
}

impl Log for JournalLog {
    async fn append(&mut self, record: Record) -> Result<(), StoreError> {
        self.write(&record).await
    }
}
