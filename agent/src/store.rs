//! The agent's own records: who owns what, what was last written and started, and every operation's journal.
//!
//! ```text
//! stateDir/lock                              held while an agent runs
//! stateDir/tenants/<uid>/claim               whose directory and project are, and the highest epoch seen
//! stateDir/tenants/<uid>/gone                its tombstone: its Tenant was deleted, nothing is done for it any more
//! stateDir/tenants/<uid>/lock                held by whoever changes this tenant
//! stateDir/tenants/<uid>/baseline, starts    what we last wrote, and what containers have read
//! stateDir/tenants/<uid>/journal/<op>        an operation, step by step
//! stateDir/tenants/<uid>/requests/<op>       what was asked, while it is under way: it may hold secrets
//! stateDir/tenants/<uid>/aside/              records that were damaged, once a person has accepted the host
//! stateDir/tenants/<uid>/compose.log         what compose said
//! ```
//!
//! Guarantees: what a call has written is durable when it returns; a record is whole or as it was before; damage is
//! an error that names the file, never a guess. All files are 0600, all folders 0700.

mod claims;
mod error;
mod handover;
mod journal;
mod quarantine;
mod records;
mod stray_processes;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tenantry_api::names::TenantUid;

use claims::Claims;
pub use claims::{Admitted, Claim, ClaimWanted, Held, admit};
pub use error::{ClaimError, StoreError};
pub use handover::Handed;
pub use journal::{Journal, Opened, fuzz};
pub use records::{Baseline, Start, Starts, Terms, Written};
pub use stray_processes::{OwnProcesses, StrayProcesses};
use stray_processes::{try_lock, wait_for_lock};

use crate::files::{DiskIo, FilesError, Folder, NewFile, Stat, Tree, read_record, write_record};

const TENANTS: &str = "tenants";
const LOCK: &str = "lock";

/// The agent's own records.
#[derive(Debug)]
pub struct Store {
    tenants: Folder,
    claims: Mutex<Claims>,
    strays: Arc<dyn StrayProcesses>,
    _lock: Option<NewFile>,
}

/// Whoever holds it is the only one that changes this tenant's host and records.
#[derive(Debug)]
pub struct TenantLock {
    file: NewFile,
}

impl TenantLock {
    /// The lock as a child's standard input: it stays taken for as long as the child lives, should this process not.
    pub fn for_child(&self) -> std::io::Result<OwnedFd> {
        self.file.file.try_clone().map(OwnedFd::from)
    }
}

impl Store {
    /// Opens the state directory, made if need be. Refused while another agent has it open.
    pub fn open(state_dir: &Path, disk_io: DiskIo) -> Result<Self, StoreError> {
        let root = Tree::create(&real(state_dir)?, disk_io)?.root;
        root.set_mode(0o700)?;
        let lock = root.open_own(LOCK)?;
        let fail = |error| FilesError::io("lock", lock.path(), error);
        if !wait_for_lock(&lock.file).map_err(fail)? {
            return Err(StoreError::InUse { path: state_dir.to_owned() });
        }
        root.make(TENANTS, 0o700)?;
        root.sync()?;
        let tenants = root.below(TENANTS)?;
        make_durable(&tenants)?;
        let claims = Mutex::new(Claims::load(&tenants)?);
        Ok(Self { tenants, claims, strays: Arc::new(OwnProcesses), _lock: Some(lock) })
    }

    /// The same; a tenant's lock that is held is freed in another way than on a machine of processes.
    #[must_use]
    pub fn freed_by(self, strays: Arc<dyn StrayProcesses>) -> Self {
        Self { strays, ..self }
    }

    /// Takes the tenant's lock; one that is held for longer than a moment is not waited for. Where a child of an agent
    /// that was killed holds it, the child is ended first.
    pub fn lock(&self, uid: &TenantUid) -> Result<TenantLock, StoreError> {
        let file = self.tenant(uid)?.open_own(LOCK)?;
        let fail = |error| FilesError::io("lock", file.path(), error);
        let taken = try_lock(&file.file).map_err(fail)? || self.strays.take_lock(&file.file).map_err(fail)?;
        if taken { Ok(TenantLock { file }) } else { Err(StoreError::Busy { uid: uid.clone() }) }
    }

    /// Where compose's output goes: a file in a folder that is there.
    pub fn compose_log(&self, uid: &TenantUid) -> Result<PathBuf, StoreError> {
        Ok(self.tenant(uid)?.path().join("compose.log"))
    }

    /// Tenants that have records here.
    pub fn tenants(&self) -> Result<Vec<TenantUid>, StoreError> {
        let names = self.tenants.names()?;
        Ok(names.into_iter().filter_map(|name| TenantUid::parse(name).ok()).collect())
    }

    /// A tenant's folder, made if need be.
    fn tenant(&self, uid: &TenantUid) -> Result<Folder, FilesError> {
        if self.tenants.make(uid.as_str(), 0o700)? {
            self.tenants.sync()?;
        }
        self.tenants.below(uid.as_str())
    }

    /// A tenant's folder, or one within it, if it is there: looking makes nothing.
    fn existing(&self, uid: &TenantUid, within: Option<&str>) -> Result<Option<Folder>, FilesError> {
        if self.tenants.stat(uid.as_str())? == Stat::Missing {
            return Ok(None);
        }
        let tenant = self.tenants.below(uid.as_str())?;
        match within {
            None => Ok(Some(tenant)),
            Some(name) if tenant.stat(name)? == Stat::Missing => Ok(None),
            Some(name) => tenant.below(name).map(Some),
        }
    }
}

/// Sees to it that no power cut takes back what is there. An agent that was killed may have put a record in its place and
/// not got to that, and whoever opens the records goes by them.
fn make_durable(tenants: &Folder) -> Result<(), FilesError> {
    tenants.sync()?;
    let mut uids = tenants.names()?.into_iter().filter_map(|name| TenantUid::parse(name).ok());
    uids.try_for_each(|uid| tenants.below(uid.as_str())?.sync())
}

/// The state directory's real path: unlike a tenant's directory it may be reached through symlinks, for the person
/// who runs the agent chose it.
fn real(state_dir: &Path) -> Result<PathBuf, FilesError> {
    let fail = |error| FilesError::io("find", state_dir, error);
    let absolute = std::path::absolute(state_dir).map_err(fail)?;
    let mut missing = Vec::new();
    let mut there = absolute.as_path();
    while let Err(error) = there.symlink_metadata() {
        let (Some(parent), Some(name)) = (there.parent(), there.file_name()) else { return Err(fail(error)) };
        missing.push(name);
        there = parent;
    }
    let real = there.canonicalize().map_err(fail)?;
    Ok(missing.iter().rev().fold(real, |path, name| path.join(name)))
}

/// Replaces a record: whole or as it was, and durable.
fn save(folder: &Folder, name: &str, record: &impl Serialize) -> Result<(), FilesError> {
    let temporary = format!("{name}.new");
    folder.remove(&temporary)?;
    write_record(folder, &temporary, record)?.sync()?;
    folder.rename(&temporary, folder, name)?;
    if tenantry_faults::Bug::ClaimUnsynced.is_seeded() {
        return Ok(());
    }
    folder.sync()
}

/// Reads a record; `None` where there is none.
fn load<T: DeserializeOwned>(folder: &Folder, name: &str) -> Result<Option<T>, FilesError> {
    read_record(folder, name)
}

#[cfg(test)]
mod tests;
