//! An operation in a task of its own: from its journal to its end.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tenantry_planner::steps::{Record, State};
use tenantry_protocol::{OperationPhase, OperationState, OperationStatus, StepState};
use tokio::sync::OwnedSemaphorePermit;

use super::driver::{Effects, Log, drive};
use super::work::Work;
use crate::store::{Journal, StoreError, TenantLock};

/// How often an operation whose journal can't be written is taken up again, and after which pause.
const ATTEMPTS: u32 = 60;
const PAUSE: Duration = Duration::from_secs(5);

/// What an operation needs besides its effects.
pub struct Carried {
    /// Its journal.
    pub journal: Journal<Record>,
    /// What is in it.
    pub state: State,
    /// Held until it has ended: nobody else changes this tenant.
    pub lock: TenantLock,
}

struct JournalLog(Option<Journal<Record>>);

impl Log for JournalLog {
    async fn append(&mut self, record: Record) -> Result<(), StoreError> {
        let Some(mut journal) = self.0.take() else { return Err(lost()) };
        let appended = tokio::task::spawn_blocking(move || {
            let result = journal.append(&record);
            (journal, result)
        });
        let (journal, result) = appended.await.map_err(|_| lost())?;
        self.0 = Some(journal);
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
    work: Arc<Work>,
    journal: Journal<Record>,
    mut state: State,
    slot: OwnedSemaphorePermit,
) {
    let mut log = JournalLog(Some(journal));
    for attempt in 1..=ATTEMPTS {
        // The end is told last: whoever hears of it may ask for the next operation at once.
        let publish_unless_ended = |state: &State| {
            if state.outcome().is_none() {
                publish(&work, state);
            }
        };
        match drive(&*work, &mut log, state.clone(), Timestamp::now, publish_unless_ended).await {
            Ok(ended) => {
                tidy(&work, &ended).await;
                drop((work.unlock(), slot));
                publish(&work, &ended);
                return;
            }
            Err(error) => {
                tracing::error!(tenant = %work.request.tenant.name, operation = %work.id, %error, attempt, "the journal can't be written; the operation waits");
            }
        }
        tokio::time::sleep(PAUSE).await;
        match reopen(&work).await {
            Ok((journal, read)) => {
                log = JournalLog(Some(journal));
                state = read;
            }
            Err(error) => {
                tracing::error!(operation = %work.id, %error, "the journal can't be opened again");
            }
        }
    }
    tracing::error!(operation = %work.id, "given up until the agent is started again");
}

/// Goes on with an operation whose end nobody watches.
pub async fn go_on(
    effects: &impl Effects,
    journal: Journal<Record>,
    state: State,
) -> Result<State, StoreError> {
    drive(effects, &mut JournalLog(Some(journal)), state, Timestamp::now, |_| ()).await
}

async fn reopen(work: &Arc<Work>) -> Result<(Journal<Record>, State), StoreError> {
    let (host, uid, id) = (work.host.clone(), work.request.tenant.uid.clone(), work.id.clone());
    let read = tokio::task::spawn_blocking(move || host.store.open_journal::<Record>(&uid, &id));
    let (journal, records) = read.await.map_err(|_| lost())??.ok_or_else(lost)?;
    let state = State::fold(&records);
    Ok((journal, state))
}

/// Tells watchers of a new state. What they knew of progress stays until the pull is over.
fn publish(work: &Work, state: &State) {
    let mut status = state.status(&work.id);
    if let Some(phase) = status.phases.last() {
        tracing::info!(
            tenant = %work.request.tenant.name, namespace = %work.request.tenant.namespace, operation = %work.id,
            phase = ?phase.name, state = ?phase.state, message = phase.message.as_deref().unwrap_or_default(), "operation"
        );
    }
    let pulling = status
        .phases
        .last()
        .is_some_and(|phase| phase.name == OperationPhase::Pull && phase.state == StepState::Running);
    work.status.send_modify(|known| {
        status.progress = known.progress.filter(|_| pulling);
        status.seq = status.seq.max(known.seq + 1);
        *known = status;
    });
    work.tenant.records_changed();
}

/// Counts an operation that has ended, and forgets what was asked.
pub async fn tidy(work: &Arc<Work>, state: &State) {
    let status: OperationStatus = state.status(&work.id);
    for phase in &status.phases {
        let ended = phase.finished_at.unwrap_or(phase.started_at);
        let took = ended.duration_since(phase.started_at);
        work.host.metrics.phase_ended(phase.name, took.try_into().unwrap_or_default());
    }
    if let OperationState::Ended { outcome, failure, .. } = &status.state {
        work.host.metrics.operation_ended(*outcome, failure.as_ref().map(|failure| failure.category));
    }
    let (host, uid, id) = (work.host.clone(), work.request.tenant.uid.clone(), work.id.clone());
    let cleaned = tokio::task::spawn_blocking(move || {
        host.store.forget_request(&uid, &id)?;
        let kept = host.store.baseline(&uid)?.restore_point;
        host.store.prune_operations(&uid, &kept.into_iter().collect::<Vec<_>>())
    });
    if let Ok(Err(error)) = cleaned.await {
        tracing::warn!(operation = %work.id, %error, "records of the operation could not be cleaned up");
    }
}
