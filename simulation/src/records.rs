//! What the agent's records say at this moment, read from its disk as a person could who looks beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tenantry_agent::files::DiskIo;
use tenantry_agent::store::{Baseline, Claim, Store, StoreError};
use tenantry_api::names::{OperationId, TenantUid};
use tenantry_planner::steps::{JournalState, Record};
use tenantry_protocol::OperateRequest;

/// What the agent's records say.
#[derive(Default)]
pub struct Records {
    /// Claims, released ones included.
    pub claims: BTreeMap<TenantUid, Claim>,
    /// Tenants that were deleted: nothing is done for them any more.
    pub tombstones: BTreeSet<TenantUid>,
    /// What was last written and started.
    pub baselines: BTreeMap<TenantUid, Baseline>,
    /// Journals of operations that were begun.
    pub journals: BTreeMap<(TenantUid, OperationId), Journal>,
    store: Option<Store>,
}

/// An operation's journal and its request.
#[derive(Clone)]
pub struct Journal {
    /// What was asked, as long as it is or was kept.
    pub request: Option<Arc<OperateRequest>>,
    /// What is in it.
    pub records: Vec<Record>,
}

impl Journal {
    /// Whether the operation was begun and has not ended.
    pub fn is_open(&self) -> bool {
        !self.records.is_empty() && !self.records.iter().any(|record| matches!(record, Record::Ended { .. }))
    }

    /// How the operation stands.
    pub fn state(&self) -> JournalState {
        JournalState::fold(&self.records)
    }
}

impl Records {
    /// Reads what has changed, and gives the journals' new records.
    pub fn read(
        &mut self,
        state_dir: &Path,
        changed: &BTreeSet<PathBuf>,
    ) -> Result<Vec<(OperationId, Record)>, StoreError> {
        let of_claims = |path: &PathBuf| path.ends_with("claim") || path.ends_with("gone");
        let all = changed.contains(Path::new(""));
        if all || self.store.is_none() || changed.iter().any(of_claims) {
            // No agent was started yet where there is nothing to open.
            let Ok(store) = Store::beside(state_dir, DiskIo::default()) else { return Ok(Vec::new()) };
            self.claims = store.all_claims().into_iter().map(|claim| (claim.uid.clone(), claim)).collect();
            let gone = |uid: &TenantUid| folder(state_dir, uid).join("gone").exists();
            self.tombstones = store.tenants()?.into_iter().filter(gone).collect();
            self.store = Some(store);
        }
        let Some(store) = self.store.take() else { return Ok(Vec::new()) };
        let mut news = Vec::new();
        for uid in store.tenants()? {
            let touched =
                |name: &str| all || changed.contains(&Path::new("tenants").join(uid.as_str()).join(name));
            if touched("baseline") {
                self.baselines.insert(uid.clone(), store.baseline(&uid)?);
            }
            for id in journals(state_dir, &uid) {
                if touched(&format!("journal/{id}")) {
                    self.journal(&store, &uid, id, &mut news)?;
                }
            }
        }
        if all {
            for ((uid, id), journal) in self.journals.iter_mut().filter(|(_, journal)| journal.is_open()) {
                if !folder(state_dir, uid).join("journal").join(id.as_str()).exists() {
                    journal.records.clear();
                }
            }
        }
        self.store = Some(store);
        Ok(news)
    }

    fn journal(
        &mut self,
        store: &Store,
        uid: &TenantUid,
        id: OperationId,
        news: &mut Vec<(OperationId, Record)>,
    ) -> Result<(), StoreError> {
        let records: Vec<Record> = store.journal_records(uid, &id)?.unwrap_or_default();
        let known = self.journals.remove(&(uid.clone(), id.clone()));
        let (request, seen) = known.map_or((None, 0), |known| (known.request, known.records.len()));
        let request = match request {
            Some(request) => Some(request),
            None => {
                store.request(uid, &id)?.and_then(|text| serde_json::from_slice(&text).ok()).map(Arc::new)
            }
        };
        news.extend(records.iter().skip(seen).map(|record| (id.clone(), record.clone())));
        self.journals.insert((uid.clone(), id), Journal { request, records });
        Ok(())
    }

    /// Forgets journals that had records and have none any more, and gives their names.
    pub fn forget_empty(&mut self) -> Vec<(TenantUid, OperationId)> {
        let empty = self.journals.extract_if(.., |_, journal| journal.records.is_empty());
        empty.map(|(name, _)| name).collect()
    }

    /// Its name.
    pub fn open_operation(&self) -> Option<OperationId> {
        self.open().map(|(_, id, _)| id.clone())
    }

    /// The operation that was begun and has not ended.
    pub fn open(&self) -> Option<(&TenantUid, &OperationId, &Journal)> {
        self.all_open().next()
    }

    /// All such operations: there is never more than one on one directory.
    pub fn all_open(&self) -> impl Iterator<Item = (&TenantUid, &OperationId, &Journal)> {
        self.journals.iter().filter(|(_, journal)| journal.is_open()).map(|((uid, id), one)| (uid, id, one))
    }

    /// Whether an operation of this name has a record: without one it was never begun.
    pub fn knows(&self, name: &str) -> bool {
        self.journals.iter().any(|((_, id), journal)| id.as_str() == name && !journal.records.is_empty())
    }
}

/// A tenant's records.
fn folder(state_dir: &Path, uid: &TenantUid) -> PathBuf {
    state_dir.join("tenants").join(uid.as_str())
}

/// The operations that a tenant has journals of.
fn journals(state_dir: &Path, uid: &TenantUid) -> Vec<OperationId> {
    let entries = std::fs::read_dir(folder(state_dir, uid).join("journal")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter_map(|name| OperationId::parse(name).ok()).collect()
}
