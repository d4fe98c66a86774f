//! What the journals of a host say of operations: which is in flight, how one stands, and what keeps them from being used.

use tenantry_api::names::{OperationId, TenantUid};
use tenantry_planner::steps::{JournalState, Record};
use tenantry_protocol::{OperateRequest, OperationStatus};

use super::Host;
use crate::store::{Opened, StoreError};

/// What keeps a tenant's records from being used: one that can't be read, or an operation that nobody can go on with.
pub fn damage(host: &Host, uid: &TenantUid) -> Result<Option<StoreError>, StoreError> {
    let checked =
        host.store.check::<Record>(uid).and_then(|latest| match latest.as_ref().and_then(unended) {
            Some(id) => request_of(host, uid, id).map(drop),
            None => Ok(()),
        });
    match checked {
        Ok(()) => Ok(None),
        Err(damage @ StoreError::Damaged { .. }) => Ok(Some(damage)),
        Err(error) => Err(error),
    }
}

/// How an operation stands by its journal; `None` where this host knows none of that id.
pub fn recorded(host: &Host, id: &OperationId) -> Result<Option<OperationStatus>, StoreError> {
    for uid in host.store.tenants()? {
        let found = host.store.open_journal::<Record>(&uid, id)?;
        // One without a record was never begun: its request is asked for again.
        if let Some((_, records)) = found.filter(|(_, records)| !records.is_empty()) {
            let state = JournalState::fold(&records);
            if state.outcome().is_none() {
                request_of(host, &uid, id)?;
            }
            return Ok(Some(state.status(id)));
        }
    }
    Ok(None)
}

/// The operation that began and has not ended, by a tenant's journals. It may be one that nobody drives right now, for
/// the disk failed or another holds the tenant's lock: it will be.
pub fn open_operation(host: &Host, uid: &TenantUid) -> Result<Option<OperationId>, StoreError> {
    let latest = host.store.latest_journal(uid)?;
    Ok(latest.as_ref().and_then(unended).cloned())
}

/// The operation of a journal that has records and no end.
fn unended((journal, records): &Opened<Record>) -> Option<&OperationId> {
    let began = !records.is_empty();
    (began && JournalState::fold(records).outcome().is_none()).then(|| journal.operation())
}

/// What was asked of an operation that has not ended.
pub fn request_of(host: &Host, uid: &TenantUid, id: &OperationId) -> Result<OperateRequest, StoreError> {
    let damaged = |problem: &str| StoreError::Damaged {
        path: format!("request of operation {id}").into(),
        problem: problem.to_owned(),
    };
    let text = host.store.request(uid, id)?.ok_or_else(|| damaged("it is missing"))?;
    serde_json::from_slice(&text).map_err(|_| damaged("it does not decode"))
}
