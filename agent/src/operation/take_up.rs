//! Taking up what was in flight when an agent ended.

use std::sync::Arc;

use tenantry_api::names::{OperationId, TenantUid};
use tenantry_planner::steps::{JournalState, Record};
use tenantry_process::runtime::blocking;
use tenantry_protocol::OperateRequest;

use crate::host::{Host, request_of};
use crate::store::{Journal, StoreError, TenantLock};

/// An operation that is to be carried out: its journal and the tenant's lock are this process's.
pub struct OpenOperation {
    /// Its journal.
    pub journal: Journal<Record>,
    /// What is in it.
    pub state: JournalState,
    /// Held until it has ended: nobody else changes this tenant.
    pub lock: TenantLock,
}

/// An operation that was in flight, and whose it is.
pub struct TakenUp {
    /// The Tenant's.
    pub uid: TenantUid,
    /// Which.
    pub id: OperationId,
    /// What was asked.
    pub request: Arc<OperateRequest>,
    /// What it goes on with.
    pub open: OpenOperation,
}

/// Takes up every operation of these tenants that began and did not end. A tenant whose records are damaged is left alone,
/// loudly; one that is busy, or whose disk fails, is given back.
pub fn take_up(host: &Host, tenants: Vec<TenantUid>) -> (Vec<TakenUp>, Vec<TenantUid>) {
    let (mut found, mut busy) = (Vec::new(), Vec::new());
    for uid in tenants {
        match latest(host, &uid) {
            Ok(Some(one)) => found.push(one),
            Ok(None) => {}
            Err(StoreError::Busy { .. }) => {
                tracing::warn!(tenant = %uid, "another holds the tenant's lock; its operation waits");
                busy.push(uid);
            }
            Err(error @ (StoreError::Files(_) | StoreError::Broken { .. })) => {
                tracing::error!(tenant = %uid, %error, "the disk fails; its operation waits");
                busy.push(uid);
            }
            Err(error) => tracing::error!(tenant = %uid, %error, "an operation can't be taken up again"),
        }
    }
    (found, busy)
}

/// Takes up the operation of one tenant, for a process that serves nobody.
pub async fn take_up_one(
    host: &Arc<Host>,
    uid: &TenantUid,
) -> Result<Option<(OperateRequest, OpenOperation)>, StoreError> {
    let (shared, uid) = (host.clone(), uid.clone());
    let taken = blocking(&*host.runtime, move || latest(&shared, &uid)).await;
    let taken = taken.unwrap_or(Ok(None))?;
    Ok(taken.map(|taken| ((*taken.request).clone(), taken.open)))
}

fn latest(host: &Host, uid: &TenantUid) -> Result<Option<TakenUp>, StoreError> {
    if unended(host, uid)?.is_none() {
        return Ok(None);
    }
    let lock = host.store.lock(uid)?;
    // Whoever held the lock until now wrote to the journal, and may have ended the operation.
    let Some((mut journal, mut state)) = unended(host, uid)? else { return Ok(None) };
    let id = journal.operation().clone();
    let request = Arc::new(request_of(host, uid, &id)?);
    let record = Record::Resumed { at: host.now() };
    journal.append(&record)?;
    state.take(&record);
    Ok(Some(TakenUp { uid: uid.clone(), id, request, open: OpenOperation { journal, state, lock } }))
}

/// The operation that was begun last, where it has not ended. What was asked of one that has is forgotten.
fn unended(host: &Host, uid: &TenantUid) -> Result<Option<(Journal<Record>, JournalState)>, StoreError> {
    let Some((mut journal, records)) = host.store.latest_journal::<Record>(uid)? else { return Ok(None) };
    let state = JournalState::fold(&records);
    if state.outcome().is_some() {
        // The agent was killed between the end and forgetting what was asked, which may hold secrets. Should the power be
        // cut, an end that is not durable would be lost, and nobody could go on without what was asked.
        journal.make_durable()?;
        host.store.forget_request(uid, journal.operation())?;
        return Ok(None);
    }
    Ok((!records.is_empty()).then_some((journal, state)))
}
