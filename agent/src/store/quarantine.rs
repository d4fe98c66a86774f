//! Records that can't be read: which one it is, and the quarantine that it is moved to when a person says so. Nothing is
//! deleted.

use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tenantry_api::names::{OperationId, TenantUid};

use super::claims::CLAIM;
use super::error::StoreError;
use super::journal::{JOURNAL, Opened};
use super::records::{BASELINE, STARTS};
use super::{Baseline, Starts, Store};
use crate::files::{FilesError, Folder, Stat};

/// Beneath a tenant's folder: what was damaged, numbered.
const QUARANTINE: &str = "aside";

impl Store {
    /// Reads all of a tenant's own records: the journal of its latest operation, or what can't be read. `T` is what
    /// journals hold.
    pub fn check<T: Serialize + DeserializeOwned>(
        &self,
        uid: &TenantUid,
    ) -> Result<Option<Opened<T>>, StoreError> {
        if let Some(damage) = self.damaged_claim(uid) {
            return Err(damage);
        }
        self.baseline(uid)?;
        self.starts(uid)?;
        self.latest_journal(uid)
    }

    /// Moves baseline, starts and journals that can't be read to quarantine; what can be read stays. The caller holds
    /// the tenant's lock. Says where each of them is now.
    pub fn quarantine<T: Serialize + DeserializeOwned>(
        &self,
        uid: &TenantUid,
    ) -> Result<Vec<PathBuf>, StoreError> {
        let folder = self.tenant(uid)?;
        let mut moved = Vec::new();
        if is_damaged::<Baseline>(self.baseline(uid))? {
            moved.push(move_to_quarantine(&folder, &folder, BASELINE, BASELINE)?);
        }
        if is_damaged::<Starts>(self.starts(uid))? {
            moved.push(move_to_quarantine(&folder, &folder, STARTS, STARTS)?);
        }
        let Some(journals) = self.existing(uid, Some(JOURNAL))? else { return Ok(moved) };
        for operation in journals.names()?.into_iter().filter_map(|name| OperationId::parse(name).ok()) {
            if is_damaged(self.open_journal::<T>(uid, &operation))? {
                let name = operation.as_str();
                moved.push(move_to_quarantine(&folder, &journals, name, &format!("{JOURNAL}-{name}"))?);
                // Nobody can go on with it, and it may hold secrets.
                self.forget_request(uid, &operation)?;
            }
        }
        Ok(moved)
    }

    /// Moves a tenant's damaged claim to quarantine.
    pub(super) fn quarantine_claim(&self, uid: &TenantUid) -> Result<PathBuf, StoreError> {
        let folder = self.tenant(uid)?;
        Ok(move_to_quarantine(&folder, &folder, CLAIM, CLAIM)?)
    }
}

fn is_damaged<T>(read: Result<T, StoreError>) -> Result<bool, StoreError> {
    match read {
        Ok(_) => Ok(false),
        Err(StoreError::Damaged { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Moves a file to quarantine under the first number that is free.
fn move_to_quarantine(
    tenant: &Folder,
    from: &Folder,
    name: &str,
    label: &str,
) -> Result<PathBuf, FilesError> {
    if tenant.make(QUARANTINE, 0o700)? {
        tenant.sync()?;
    }
    let folder = tenant.below(QUARANTINE)?;
    let mut number = 1;
    while folder.stat(&format!("{label}-{number}"))? != Stat::Missing {
        number += 1;
    }
    let target = format!("{label}-{number}");
    from.rename(name, &folder, &target)?;
    folder.sync()?;
    from.sync()?;
    Ok(folder.path().join(target))
}
