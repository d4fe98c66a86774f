//! What the container that recreates the agent tells the agent: records in the tenant's folder, for the two have no
//! other way to each other. It reads beside the agent that holds the state directory, and writes nothing else.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tenantry_api::names::{OperationId, TenantUid};

use super::claims::Claims;
use super::journal::records;
use super::{OwnProcesses, Store, StoreError, TENANTS, load, real, save};
use crate::files::{DiskIo, Tree};

const HANDED: &str = "handed";

/// That a finisher has run compose over the agent's service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handed {
    /// For which operation.
    pub operation: OperationId,
    /// For which of its steps.
    pub step: String,
    /// What went wrong, if anything did.
    pub problem: Option<String>,
}

impl Store {
    /// The records as they are, beside whoever has the state directory open. Nothing is changed through it but what
    /// [`Store::save_handed`] writes.
    pub fn beside(state_dir: &Path, disk_io: DiskIo) -> Result<Self, StoreError> {
        let tenants = Tree::create(&real(state_dir)?, disk_io)?.root.below(TENANTS)?;
        let claims = Mutex::new(Claims::load(&tenants)?);
        Ok(Self { tenants, claims, strays: Arc::new(OwnProcesses), _lock: None })
    }

    /// An operation's records as far as they are whole; nothing of the journal is mended.
    pub fn journal_records<T: DeserializeOwned>(
        &self,
        uid: &TenantUid,
        operation: &OperationId,
    ) -> Result<Option<Vec<T>>, StoreError> {
        records(self, uid, operation)
    }

    /// What the last finisher has told.
    pub fn handed(&self, uid: &TenantUid) -> Result<Option<Handed>, StoreError> {
        match self.existing(uid, None)? {
            Some(folder) => Ok(load(&folder, HANDED)?),
            None => Ok(None),
        }
    }

    /// Tells the agent that compose has been run over its service.
    pub fn save_handed(&self, uid: &TenantUid, handed: &Handed) -> Result<(), StoreError> {
        Ok(save(&self.tenant(uid)?, HANDED, handed)?)
    }
}
