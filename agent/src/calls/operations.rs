//! Operations as calls: begun once per id, watched, and taken up again after a restart.

use std::sync::Arc;
use std::time::Duration;

use tenantry_api::names::{Identity, OperationId, TenantUid};
use tenantry_planner::steps::{JournalState, Record};
use tenantry_process::runtime::{blocking, timeout};
use tenantry_protocol::{ApiError, ErrorCode, OperateRequest, OperationState, OperationStatus};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::Agent;
use super::validate::validate;
use crate::host::{
    Host, RunningOperation, TenantCache, claim_refused, damage, fault, open_operation, recorded, refused,
    store_refused,
};
use crate::operation::{OpenOperation, OperationContext, TakenUp, carry_out, take_up};
use crate::planning::RequestContext;
use crate::store::{ClaimWanted, StoreError};

/// How often a tenant that is busy at the start is tried again.
const BUSY_AGAIN: Duration = Duration::from_secs(5);

/// Refuses what must wait for an operation in flight.
pub(super) fn not_busy(cache: &TenantCache, unless: Option<&OperationId>) -> Result<(), ApiError> {
    let Some(running) = cache.running().filter(|running| Some(&running.id) != unless) else { return Ok(()) };
    if running.status.borrow().state != OperationState::Running {
        return Ok(());
    }
    Err(busy_with(&running.id))
}

pub(super) fn busy_with(id: &OperationId) -> ApiError {
    let message = format!("operation {id} of this tenant is in flight; it is never cut short");
    refused(ErrorCode::Busy, "", message)
}

impl Agent {
    pub(super) async fn begin(
        self: &Arc<Self>,
        operator: &Identity,
        id: OperationId,
        body: OperateRequest,
    ) -> Result<OperationStatus, ApiError> {
        validate(&body)?;
        let text = serde_json::to_vec(&body).map_err(fault)?;
        let cache = self.cache(&body.tenant.uid);
        if let Some(known) = self.known(&cache, &body.tenant.uid, &id, &text).await? {
            return Ok(known);
        }
        self.host.allowed(&body.place.directory)?;
        not_busy(&cache, Some(&id))?;
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
        let taken = self.host.blocking(move || take_on(&host, operator, &begun, &asked, &text)).await?;
        let open = taken.inspect_err(|error| self.left_by(&request.tenant.uid, error))?;
        tracing::info!(tenant = %request.tenant.name, namespace = %request.tenant.namespace, operation = %id, epoch = request.epoch, approach = ?request.approach, "operation accepted");
        Ok(self.spawn(cache, id, request, open, slot))
    }

    /// The status of an operation that is known already; refused where its body was another.
    async fn known(
        &self,
        cache: &TenantCache,
        uid: &TenantUid,
        id: &OperationId,
        text: &[u8],
    ) -> Result<Option<OperationStatus>, ApiError> {
        let (host, uid, wanted) = (self.host.clone(), uid.clone(), id.clone());
        let read = self.host.blocking(move || host.store.open_journal::<Record>(&uid, &wanted)).await?;
        let Some((journal, records)) = read.map_err(|error| store_refused(&error))? else { return Ok(None) };
        if records.is_empty() {
            return Ok(None);
        }
        if *journal.request_sha256() != crate::files::sha256(text) {
            let message =
                format!("operation {id} was begun with another body: give the new one an id of its own");
            return Err(refused(ErrorCode::OperationMismatch, "", message));
        }
        let running = cache.running().filter(|running| running.id == *id);
        let status = running.map_or_else(
            || JournalState::fold(&records).status(id),
            |running| running.status.borrow().clone(),
        );
        Ok(Some(status))
    }

    fn spawn(
        self: &Arc<Self>,
        cache: Arc<TenantCache>,
        id: OperationId,
        request: Arc<OperateRequest>,
        open: OpenOperation,
        slot: OwnedSemaphorePermit,
    ) -> OperationStatus {
        let OpenOperation { journal, state, lock } = open;
        let status = state.status(&id);
        let (sender, receiver) = watch::channel(status.clone());
        cache.set_running(RunningOperation { id: id.clone(), status: receiver });
        let asked = RequestContext { host: self.host.clone(), cache, request };
        let operation = Arc::new(OperationContext::new(asked, id, sender, lock));
        // What is being done is cut off at the end of the agent; the journal says how to go on.
        self.spawn_until_end(carry_out(operation, journal, state, slot));
        status
    }

    /// Runs a task beside the callers, for as long as the agent does.
    pub(super) fn spawn_until_end(&self, task: impl Future<Output = ()> + Send + 'static) {
        let end = self.end.clone();
        let bounded = async move {
            end.run_until_cancelled(task).await;
        };
        drop(self.host.runtime.spawn(Box::pin(self.tasks.track_future(bounded))));
    }

    pub(super) async fn wait_for(
        &self,
        id: &OperationId,
        after: u64,
        wait: Duration,
    ) -> Result<OperationStatus, ApiError> {
        let tenants: Vec<Arc<TenantCache>> = self.caches.lock().values().cloned().collect();
        let running = tenants.iter().filter_map(|tenant| tenant.running()).find(|running| running.id == *id);
        if let Some(mut running) = running {
            let newer = running.status.wait_for(|status| status.seq > after);
            let newer = timeout(&*self.host.runtime, wait, self.end.run_until_cancelled(newer));
            let found = newer.await.flatten().and_then(Result::ok).map(|status| status.clone());
            return Ok(found.unwrap_or_else(|| running.status.borrow().clone()));
        }
        let (host, wanted) = (self.host.clone(), id.clone());
        let recorded = self
            .host
            .blocking(move || recorded(&host, &wanted))
            .await?
            .map_err(|error| store_refused(&error))?;
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
            let (agent, uid) = (self.clone(), uid.clone());
            self.spawn_until_end(async move { agent.resume_busy(vec![uid]).await });
        }
    }

    /// Takes up what was in flight when the agent was ended.
    pub(super) async fn resume(self: &Arc<Self>) {
        let host = self.host.clone();
        let found = blocking(&*self.host.runtime, move || take_up_all(&host)).await.unwrap_or_default();
        self.go_on(found.0).await;
        if !found.1.is_empty() {
            let agent = self.clone();
            self.spawn_until_end(async move { agent.resume_busy(found.1).await });
        }
    }

    /// Tenants whose lock another holds that can't be ended: their operations wait until they are free.
    async fn resume_busy(self: &Arc<Self>, mut busy: Vec<TenantUid>) {
        while !busy.is_empty() {
            self.host.runtime.sleep(BUSY_AGAIN).await;
            let (host, asked) = (self.host.clone(), std::mem::take(&mut busy));
            let found = blocking(&*self.host.runtime, move || take_up(&host, asked)).await;
            let (found, still) = found.unwrap_or_default();
            self.go_on(found).await;
            busy = still;
        }
    }

    /// Has operations that were taken up carried out.
    async fn go_on(self: &Arc<Self>, found: Vec<TakenUp>) {
        for TakenUp { uid, id, request, open } in found {
            // These were accepted: they count, but none of them waits.
            let Ok(slot) = self.slots.clone().acquire_owned().await else { return };
            tracing::warn!(tenant = %request.tenant.name, operation = %id, "taken up again after a restart");
            self.spawn(self.cache(&uid), id, request, open, slot);
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
) -> Result<OpenOperation, ApiError> {
    let store = |error: StoreError| store_refused(&error);
    let uid = &request.tenant.uid;
    let lock = host.store.lock(uid).map_err(store)?;
    if let Some(damage) = damage(host, uid).map_err(store)? {
        return Err(store_refused(&damage));
    }
    let wanted = ClaimWanted {
        operation: Some(id.clone()),
        ..ClaimWanted::new(&request.tenant, operator, &request.place, request.epoch)
    };
    if let Some(open) = open_operation(host, uid).map_err(store)?.filter(|open| open != id) {
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
    let record = Record::accepted(host.now(), request);
    journal.append(&record).map_err(store)?;
    let state = JournalState::fold([&record]);
    Ok(OpenOperation { journal, state, lock })
}

/// Takes up every operation that began and did not end, of all tenants; the tenants that are busy are given back.
fn take_up_all(host: &Host) -> (Vec<TakenUp>, Vec<TenantUid>) {
    let tenants = host.store.tenants().unwrap_or_else(|error| {
        tracing::error!(%error, "the tenants' records can't be read");
        Vec::new()
    });
    take_up(host, tenants)
}
