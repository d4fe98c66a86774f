//! Operations as calls: begun once per id, watched, and taken up again after a restart.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tenantry_api::names::{Identity, OperationId, TenantUid};
use tenantry_planner::steps::{JournalState, Record};
use tenantry_protocol::{ApiError, ErrorCode, OperateRequest, OperationState, OperationStatus};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{Core, Host, Running, Tenant, blocking, claim_refused, fault, lock, refused, store_refused};
use crate::operation::{Carried, Work, carry_out, check};
use crate::store::{ClaimWanted, StoreError};

/// How often a tenant that is busy at the start is tried again.
const BUSY_AGAIN: Duration = Duration::from_secs(5);

/// Refuses what must wait for an operation in flight.
pub(super) fn not_busy(tenant: &Tenant, unless: Option<&OperationId>) -> Result<(), ApiError> {
    let Some(running) = tenant.running().filter(|running| Some(&running.id) != unless) else { return Ok(()) };
    if running.status.borrow().state != OperationState::Running {
        return Ok(());
    }
    Err(busy_with(&running.id))
}

pub(super) fn busy_with(id: &OperationId) -> ApiError {
    let message = format!("operation {id} of this tenant is in flight; it is never cut short");
    refused(ErrorCode::Busy, "", message)
}

impl Core {
    pub(super) async fn begin(
        self: &Arc<Self>,
        operator: &Identity,
        id: OperationId,
        body: OperateRequest,
    ) -> Result<OperationStatus, ApiError> {
        check(&body)?;
        let text = serde_json::to_vec(&body).map_err(fault)?;
        let tenant = self.tenant(&body.tenant.uid);
        if let Some(known) = self.known(&tenant, &body.tenant.uid, &id, &text).await? {
            return Ok(known);
        }
        self.host.allowed(&body.place.directory)?;
        not_busy(&tenant, Some(&id))?;
        let slot = self.slots.clone().try_acquire_owned().map_err(|_| {
            let message = format!(
                "{} operations are in flight on this host, as many as it may carry out",
                self.host.config.max_operations
            );
            refused(ErrorCode::Overloaded, "", message)
        })?;
        let (host, operator, begun) = (self.host.clone(), operator.to_string(), id.clone());
        let request = Arc::new(body);
        let asked = request.clone();
        let taken = blocking(move || take_on(&host, operator, &begun, &asked, &text)).await?;
        let carried = taken.inspect_err(|error| self.left_by(&request.tenant.uid, error))?;
        tracing::info!(tenant = %request.tenant.name, namespace = %request.tenant.namespace, operation = %id, epoch = request.epoch, approach = ?request.approach, "operation accepted");
        Ok(self.spawn(tenant, id, request, carried, slot))
    }

    /// The status of an operation that is known already; refused where its body was another.
    async fn known(
        &self,
        tenant: &Tenant,
        uid: &TenantUid,
        id: &OperationId,
        text: &[u8],
    ) -> Result<Option<OperationStatus>, ApiError> {
        let (host, uid, wanted) = (self.host.clone(), uid.clone(), id.clone());
        let read = blocking(move || host.store.open_journal::<Record>(&uid, &wanted)).await?;
        let Some((journal, records)) = read.map_err(|error| store_refused(&error))? else { return Ok(None) };
        if records.is_empty() {
            return Ok(None);
        }
        if *journal.request_sha256() != crate::files::sha256(text) {
            let message =
                format!("operation {id} was begun with another body: give the new one an id of its own");
            return Err(refused(ErrorCode::OperationMismatch, "", message));
        }
        let running = tenant.running().filter(|running| running.id == *id);
        let status = running.map_or_else(
            || JournalState::fold(&records).status(id),
            |running| running.status.borrow().clone(),
        );
        Ok(Some(status))
    }

    fn spawn(
        self: &Arc<Self>,
        tenant: Arc<Tenant>,
        id: OperationId,
        request: Arc<OperateRequest>,
        carried: Carried,
        slot: OwnedSemaphorePermit,
    ) -> OperationStatus {
        let Carried { journal, state, lock } = carried;
        let status = state.status(&id);
        let (sender, receiver) = watch::channel(status.clone());
        tenant.set_running(Running { id: id.clone(), status: receiver });
        let work = Arc::new(Work::new(self.host.clone(), tenant, id, request, sender, lock));
        let end = self.end.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = carry_out(work, journal, state, slot) => {}
                // What is being done is cut off here; the journal says how to go on.
                () = end.cancelled() => {}
            }
        });
        status
    }

    pub(super) async fn wait_for(
        &self,
        id: &OperationId,
        after: u64,
        wait: Duration,
    ) -> Result<OperationStatus, ApiError> {
        let tenants: Vec<Arc<Tenant>> = lock(&self.tenants).values().cloned().collect();
        let running = tenants.iter().filter_map(|tenant| tenant.running()).find(|running| running.id == *id);
        if let Some(mut running) = running {
            let newer = running.status.wait_for(|status| status.seq > after);
            let found = tokio::select! {
                found = tokio::time::timeout(wait, newer) => found.ok().and_then(Result::ok).map(|status| status.clone()),
                () = self.end.cancelled() => None,
            };
            return Ok(found.unwrap_or_else(|| running.status.borrow().clone()));
        }
        let (host, wanted) = (self.host.clone(), id.clone());
        let recorded =
            blocking(move || recorded(&host, &wanted)).await?.map_err(|error| store_refused(&error))?;
        recorded.ok_or_else(|| {
            refused(
                ErrorCode::NotFound,
                "",
                format!("this host knows no operation {id}: it was never begun, or is long over"),
            )
        })
    }

    /// A disk that failed may have kept the first record whole all the same: then the operation was begun, and goes on.
    fn left_by(self: &Arc<Self>, uid: &TenantUid, error: &ApiError) {
        if error.code == ErrorCode::HostFault {
            let (core, uid) = (self.clone(), uid.clone());
            self.tasks.spawn(async move {
                tokio::select! {
                    () = core.resume_busy(vec![uid]) => {}
                    () = core.end.cancelled() => {}
                }
            });
        }
    }

    /// Takes up what was in flight when the agent was ended.
    pub(super) async fn resume(self: &Arc<Self>) {
        let host = self.host.clone();
        let found = tokio::task::spawn_blocking(move || in_flight(&host)).await.unwrap_or_default();
        self.take_up(found.0).await;
        if !found.1.is_empty() {
            let core = self.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = core.resume_busy(found.1) => {}
                    () = core.end.cancelled() => {}
                }
            });
        }
    }

    /// Tenants whose lock another holds that can't be ended: their operations wait until they are free.
    async fn resume_busy(self: &Arc<Self>, mut busy: Vec<TenantUid>) {
        while !busy.is_empty() {
            tokio::time::sleep(BUSY_AGAIN).await;
            let (host, asked) = (self.host.clone(), std::mem::take(&mut busy));
            let found = tokio::task::spawn_blocking(move || take_up_each(&host, asked)).await;
            let (found, still) = found.unwrap_or_default();
            self.take_up(found).await;
            busy = still;
        }
    }

    async fn take_up(self: &Arc<Self>, found: Vec<InFlight>) {
        for (uid, id, request, carried) in found {
            // These were accepted: they count, but none of them waits.
            let Ok(slot) = self.slots.clone().acquire_owned().await else { return };
            tracing::warn!(tenant = %request.tenant.name, operation = %id, "taken up again after a restart");
            self.spawn(self.tenant(&uid), id, request, carried, slot);
        }
    }
}

/// Claims the place and writes the journal's first record, all durable.
fn take_on(
    host: &Host,
    operator: String,
    id: &OperationId,
    request: &OperateRequest,
    text: &[u8],
) -> Result<Carried, ApiError> {
    let store = |error: StoreError| store_refused(&error);
    let uid = &request.tenant.uid;
    let lock = host.store.lock(uid).map_err(store)?;
    if let Some(damage) = super::damage(host, uid).map_err(store)? {
        return Err(store_refused(&damage));
    }
    let wanted = ClaimWanted {
        tenant: request.tenant.clone(),
        operator,
        place: request.place.clone(),
        epoch: request.epoch,
        operation: Some(id.clone()),
        take_over: false,
    };
    if let Some(open) = in_journal(host, uid).map_err(store)?.filter(|open| open != id) {
        return Err(busy_with(&open));
    }
    host.store.claim(&wanted).map_err(|error| claim_refused(&error))?;
    let begun = match host.store.begin(uid, id, text) {
        // The agent was killed between the journal's head and its first record.
        Err(StoreError::Exists { .. }) => {
            host.store.open_journal(uid, id).map(|found| found.map(|(journal, _)| journal))
        }
        other => other.map(Some),
    };
    let mut journal = begun.map_err(store)?.ok_or_else(|| fault("the operation's journal is gone"))?;
    let record = Record::accepted(Timestamp::now(), request);
    journal.append(&record).map_err(store)?;
    let state = JournalState::fold([&record]);
    Ok(Carried { journal, state, lock })
}

fn recorded(host: &Host, id: &OperationId) -> Result<Option<OperationStatus>, StoreError> {
    for uid in host.store.tenants()? {
        let found = host.store.open_journal::<Record>(&uid, id)?;
        // One without a record was never begun: its request is asked for again.
        if let Some((_, records)) = found.filter(|(_, records)| !records.is_empty()) {
            let state = JournalState::fold(&records);
            if state.outcome().is_none() {
                asked(host, &uid, id)?;
            }
            return Ok(Some(state.status(id)));
        }
    }
    Ok(None)
}

type InFlight = (TenantUid, OperationId, Arc<OperateRequest>, Carried);

/// Every operation that has begun and not ended, and the tenants that are busy.
fn in_flight(host: &Host) -> (Vec<InFlight>, Vec<TenantUid>) {
    let tenants = host.store.tenants().unwrap_or_else(|error| {
        tracing::error!(%error, "the tenants' records can't be read");
        Vec::new()
    });
    take_up_each(host, tenants)
}

/// A tenant whose records are damaged is left alone, loudly; one that is busy, or whose disk fails, is given back.
fn take_up_each(host: &Host, tenants: Vec<TenantUid>) -> (Vec<InFlight>, Vec<TenantUid>) {
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

/// The operation that began and has not ended, by a tenant's journals. It may be one that nobody drives right now, for
/// the disk failed or another holds the tenant's lock: it will be.
pub(super) fn in_journal(host: &Host, uid: &TenantUid) -> Result<Option<OperationId>, StoreError> {
    let Some(id) = host.store.operations(uid)?.pop() else { return Ok(None) };
    let Some((_, records)) = host.store.open_journal::<Record>(uid, &id)? else { return Ok(None) };
    let open = !records.is_empty() && JournalState::fold(&records).outcome().is_none();
    Ok(open.then_some(id))
}

/// Why nobody can go on with the operation that a tenant's journals say is in flight.
pub(super) fn stranded(host: &Host, uid: &TenantUid) -> Result<Option<StoreError>, StoreError> {
    let Some(id) = in_journal(host, uid)? else { return Ok(None) };
    match asked(host, uid, &id) {
        Ok(_) => Ok(None),
        Err(damage @ StoreError::Damaged { .. }) => Ok(Some(damage)),
        Err(error) => Err(error),
    }
}

/// What was asked of an operation that has not ended.
fn asked(host: &Host, uid: &TenantUid, id: &OperationId) -> Result<OperateRequest, StoreError> {
    let damaged = |problem: &str| StoreError::Damaged {
        path: format!("request of operation {id}").into(),
        problem: problem.to_owned(),
    };
    let text = host.store.request(uid, id)?.ok_or_else(|| damaged("it is missing"))?;
    serde_json::from_slice(&text).map_err(|_| damaged("it does not decode"))
}

/// Takes up the operation of one tenant, for a process that serves nobody.
pub(super) async fn take_up_one(
    host: &Arc<Host>,
    uid: &TenantUid,
) -> Result<Option<(OperateRequest, Carried)>, StoreError> {
    let (host, uid) = (host.clone(), uid.clone());
    let taken = tokio::task::spawn_blocking(move || latest(&host, &uid)).await;
    let taken = taken.unwrap_or(Ok(None))?;
    Ok(taken.map(|(_, _, request, carried)| ((*request).clone(), carried)))
}

fn latest(host: &Host, uid: &TenantUid) -> Result<Option<InFlight>, StoreError> {
    let Some(id) = host.store.operations(uid)?.pop() else { return Ok(None) };
    let Some((mut journal, records)) = host.store.open_journal::<Record>(uid, &id)? else { return Ok(None) };
    let mut state = JournalState::fold(&records);
    if state.outcome().is_some() {
        // The agent was killed between the end and forgetting what was asked, which may hold secrets.
        host.store.forget_request(uid, &id)?;
    }
    if records.is_empty() || state.outcome().is_some() {
        return Ok(None);
    }
    let request = asked(host, uid, &id)?;
    let lock = host.store.lock(uid)?;
    let record = Record::Resumed { at: Timestamp::now() };
    journal.append(&record)?;
    state.take(&record);
    Ok(Some((uid.clone(), id.clone(), Arc::new(request), Carried { journal, state, lock })))
}
