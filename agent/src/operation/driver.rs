//! Drives an operation: asks the machine what is next, performs it, records what came of it.

use jiff::Timestamp;
use tenantry_planner::steps::{JournalState, Next, Record, Step, StepOutput};

use crate::planning::StepError;
use crate::store::StoreError;

/// Everything that an operation does to the world. The driver itself changes nothing but the journal.
pub trait Effects: Sync {
    /// Performs a step. It may have been performed before, wholly or in part.
    fn perform(
        &self,
        step: Step,
        state: &JournalState,
    ) -> impl Future<Output = Result<StepResult, StepError>> + Send;
}

/// Where records go. Durable when a call returns.
pub trait Log: Send {
    /// Adds a record.
    fn append(&mut self, record: Record) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A step that was performed.
#[derive(Debug)]
pub struct StepResult {
    /// What later steps need of it.
    pub did: StepOutput,
    /// What to tell people.
    pub message: Option<String>,
}

impl StepResult {
    /// A step of which later ones need nothing.
    pub fn quietly() -> Self {
        Self { did: StepOutput::Nothing, message: None }
    }

    /// A step of which people are told.
    pub fn saying(message: impl Into<String>) -> Self {
        Self { did: StepOutput::Nothing, message: Some(message.into()) }
    }
}

/// Goes on with an operation until it has ended. `seen` is told of every new state.
pub async fn drive(
    effects: &impl Effects,
    log: &mut impl Log,
    mut state: JournalState,
    now: impl Fn() -> Timestamp,
    seen: impl Fn(&JournalState),
) -> Result<JournalState, StoreError> {
    loop {
        let step = match state.next() {
            Next::Nothing => return Ok(state),
            Next::End(outcome, failure) => {
                record(log, &mut state, Record::Ended { at: now(), outcome, failure }, &seen).await?;
                continue;
            }
            Next::Do(step) => step,
        };
        if state.current() != Some(step) {
            record(log, &mut state, Record::Begun { step, at: now() }, &seen).await?;
        }
        tenantry_faults::point_named(|| format!("step.{step:?}.before"));
        let result = effects.perform(step, &state).await;
        tenantry_faults::point_named(|| format!("step.{step:?}.after"));
        let record_of = |then| match &result {
            Ok(StepResult { did, message }) => {
                Record::Done { step, at: now(), did: did.clone(), message: message.clone(), then }
            }
            Err(error) => {
                Record::Failed { step, at: now(), failure: error.clone().failure(step.phase()), then }
            }
        };
        // What comes next is known as soon as this is: one record tells both.
        let mut ahead = state.clone();
        ahead.take(&record_of(None));
        let then = match ahead.next() {
            Next::Do(step) => Some(step),
            Next::End(..) | Next::Nothing => None,
        };
        record(log, &mut state, record_of(then), &seen).await?;
    }
}

async fn record(
    log: &mut impl Log,
    state: &mut JournalState,
    record: Record,
    seen: &impl Fn(&JournalState),
) -> Result<(), StoreError> {
    log.append(record.clone()).await?;
    state.take(&record);
    seen(state);
    Ok(())
}
