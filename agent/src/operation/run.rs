//! An operation in a task of its own: from its journal to its end.

use std::sync::Arc;
use std::time::Duration;

use tenantry_api::tenant_status::PhaseState;
use tenantry_planner::steps::{JournalState, Record};
use tenantry_process::runtime::{Runtime, blocking};
use tenantry_protocol::{OperationPhase, OperationState, OperationStatus};
use tokio::sync::OwnedSemaphorePermit;

use super::context::OperationContext;
use super::driver::{Effects, Log, drive};
use crate::host::Host;
use crate::store::{Journal, StoreError};

/// The first and the longest pause before an operation whose journal could not be written is taken up again.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// A journal, written on a thread where that holds up nobody. Gone while it is being written.
struct JournalLog {
    runtime: Arc<dyn Runtime>,
    journal: Option<Journal<Record>>,
}

impl JournalLog {
    fn new(host: &Host, journal: Journal<Record>) -> Self {
        Self { runtime: host.runtime.clone(), journal: Some(journal) }
    }
}

impl Log for JournalLog {
    async fn append(&mut self, record: Record) -> Result<(), StoreError> {
        let Some(mut journal) = self.journal.take() else { return Err(lost()) };
        let appended = blocking(&*self.runtime, move || {
            let result = journal.append(&record);
            (journal, result)
        });
        let (journal, result) = appended.await.map_err(|_| lost())?;
        self.journal = Some(journal);
        result
    }
}

fn lost() -> StoreError {
    StoreError::Damaged {
        path: std::path::PathBuf::new(),
        problem: "the journal was lost in memory".to_owned(),
    }
}

/// Carries an operation out to its end.
pub async fn carry_out(
    operation: Arc<OperationContext>,
    journal: Journal<Record>,
    mut state: JournalState,
    slot: OwnedSemaphorePermit,
) {
    let host = operation.host.clone();
    let mut log = JournalLog::new(&host, journal);
    let mut pause = PAUSE;
    loop {
        // The end is told last: whoever hears of it may ask for the next operation at once.
        let publish_unless_ended = |state: &JournalState| {
            if state.outcome().is_none() {
                publish(&operation, state);
            }
        };
        let error =
            match drive(&*operation, &mut log, state.clone(), || host.now(), publish_unless_ended).await {
                Ok(ended) => {
                    tidy(&operation, &ended).await;
                    drop((operation.unlock(), slot));
                    publish(&operation, &ended);
                    return;
                }
                Err(error) => error,
            };
        waits(&operation, &error);
        // A disk that is full by night may have room in the morning: this goes on for as long as it takes.
        loop {
            host.runtime.sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            match reopen(&operation).await {
                Ok((journal, read)) => {
                    (log, state) = (JournalLog::new(&host, journal), read);
                    break;
                }
                Err(error @ StoreError::Damaged { .. }) => {
                    waits(&operation, &error);
                    drop((operation.unlock(), slot));
                    return;
                }
                Err(error) => waits(&operation, &error),
            }
        }
    }
}

/// Tells watchers why an operation does not go on.
fn waits(operation: &OperationContext, error: &StoreError) {
    tracing::error!(tenant = %operation.request.tenant.name, operation = %operation.id, %error, "the operation waits: its journal can't be written");
    let why = error.to_string();
    operation.status.send_if_modified(|status| {
        let news = status.waits_for.as_ref() != Some(&why);
        status.waits_for = Some(why);
        status.seq += u64::from(news);
        news
    });
}

/// Goes on with an operation whose end nobody watches.
pub async fn go_on(
    host: &Host,
    effects: &impl Effects,
    journal: Journal<Record>,
    state: JournalState,
) -> Result<JournalState, StoreError> {
    drive(effects, &mut JournalLog::new(host, journal), state, || host.now(), |_| ()).await
}

async fn reopen(operation: &Arc<OperationContext>) -> Result<(Journal<Record>, JournalState), StoreError> {
    let (host, uid, id) =
        (operation.host.clone(), operation.request.tenant.uid.clone(), operation.id.clone());
    let read = blocking(&*operation.host.runtime, move || host.store.open_journal::<Record>(&uid, &id));
    let (mut journal, records) = read.await.map_err(|_| lost())??.ok_or_else(lost)?;
    // An end that is there may be what could not be made durable.
    let journal = blocking(&*operation.host.runtime, move || journal.make_durable().map(|()| journal));
    let journal = journal.await.map_err(|_| lost())??;
    let state = JournalState::fold(&records);
    Ok((journal, state))
}

/// Tells watchers of a new state. What they knew of progress stays until the pull is over.
fn publish(operation: &OperationContext, state: &JournalState) {
    let mut status = state.status(&operation.id);
    if let Some(phase) = status.phases.last() {
        tracing::info!(
            tenant = %operation.request.tenant.name, namespace = %operation.request.tenant.namespace, operation = %operation.id,
            phase = ?phase.name, state = ?phase.state, message = phase.message.as_deref().unwrap_or_default(), "operation"
        );
    }
    let pulling = status
        .phases
        .last()
        .is_some_and(|phase| phase.name == OperationPhase::Pull && phase.state == PhaseState::Running);
    operation.status.send_modify(|known| {
        status.progress = known.progress.filter(|_| pulling);
        status.seq = status.seq.max(known.seq + 1);
        *known = status;
    });
    operation.cache.records_changed();
}

/// Counts an operation that has ended, and forgets what was asked.
pub async fn tidy(operation: &Arc<OperationContext>, state: &JournalState) {
    let status: OperationStatus = state.status(&operation.id);
    for phase in &status.phases {
        let ended = phase.finished_at.unwrap_or(phase.started_at);
        let took = ended.duration_since(phase.started_at);
        operation.host.metrics.phase_ended(phase.name, took.try_into().unwrap_or_default());
    }
    if let OperationState::Ended { outcome, failure, .. } = &status.state {
        operation.host.metrics.operation_ended(*outcome, failure.as_ref().map(|failure| failure.category));
    }
    let (host, uid, id) =
        (operation.host.clone(), operation.request.tenant.uid.clone(), operation.id.clone());
    let cleaned = blocking(&*operation.host.runtime, move || {
        host.store.forget_request(&uid, &id)?;
        let kept = host.store.baseline(&uid)?.restore_point;
        host.store.prune_operations(&uid, &kept.into_iter().collect::<Vec<_>>())
    });
    if let Ok(Err(error)) = cleaned.await {
        tracing::warn!(operation = %operation.id, %error, "records of the operation could not be cleaned up");
    }
}
