//! The state that records are folded to.

use jiff::Timestamp;
use tenantry_api::tenant::{OnFailure, RollbackData};
use tenantry_api::tenant_status::{Outcome, PhaseState};
use tenantry_protocol::{Action, Failure, PhaseRecord, ReleaseLabel, RunImage};

use super::Step;
use super::plan::{Plan, PlannedImage};
use super::record::{Record, StepOutput};

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Perform this step.
    Do(Step),
    /// The operation ends.
    End(Outcome, Option<Failure>),
    /// Nothing: the operation has ended.
    Nothing,
}

/// An operation, folded from its journal.
#[derive(Clone, Debug, Default)]
pub struct JournalState {
    pub(super) records: u64,
    epoch: u64,
    target_hash: String,
    hold: bool,
    action: Action,
    rollback_data: RollbackData,
    pub(super) release: ReleaseLabel,
    pub(super) phases: Vec<PhaseRecord>,
    current: Option<Step>,
    done: Vec<Step>,
    failed: Option<(Step, Failure)>,
    rollback_failed: Option<Failure>,
    touched: bool,
    pub(super) data_restored: bool,
    pub(super) ended: Option<(Timestamp, Outcome, Option<Failure>)>,
    plan: Option<Plan>,
    planned: Vec<PlannedImage>,
    images: Vec<RunImage>,
}

impl JournalState {
    /// Folds a journal.
    pub fn fold<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut state = Self::default();
        for record in records {
            state.take(record);
        }
        state
    }

    /// Takes one more record into account.
    pub fn take(&mut self, record: &Record) {
        self.records += 1;
        match record {
            Record::Accepted { epoch, target_hash, on_failure, action, rollback_data, release, .. } => {
                self.epoch = *epoch;
                self.target_hash.clone_from(target_hash);
                self.hold = matches!(on_failure, OnFailure::Hold);
                self.action = action.clone();
                self.rollback_data = *rollback_data;
                self.release = release.clone();
            }
            Record::Begun { step, at } => self.begin(*step, *at),
            Record::Done { step, at, did, message, then } => {
                self.done(*step, did);
                self.leave(*step, *at, *then, PhaseState::Succeeded, message.clone());
            }
            Record::Failed { step, at, failure, then } => {
                self.fail(*step, failure);
                self.leave(*step, *at, *then, PhaseState::Failed, Some(failure.message.clone()));
            }
            Record::Resumed { .. } => {}
            Record::Ended { at, outcome, failure } => {
                self.current = None;
                self.ended = Some((*at, *outcome, failure.clone()));
            }
        }
    }

    fn done(&mut self, step: Step, did: &StepOutput) {
        self.done.push(step);
        self.data_restored |= step.replaces_data();
        match did {
            StepOutput::Nothing => {}
            StepOutput::Planned(plan) => {
                self.planned.clone_from(&plan.images);
                self.plan = Some((**plan).clone());
            }
            StepOutput::Pulled { images } => self.planned.clone_from(images),
            StepOutput::Verified { images } => self.images.clone_from(images),
            StepOutput::Restored { touched } => self.touched = *touched,
        }
    }

    fn fail(&mut self, step: Step, failure: &Failure) {
        // A part of the data may have been replaced, and then what was written since is lost.
        self.data_restored |= step.replaces_data();
        if step.is_backward() {
            self.done.push(step);
            // What is only cleaned up or noted down is no reason to call a host inconsistent.
            if !matches!(step, Step::Discard | Step::Hold) {
                self.rollback_failed.get_or_insert_with(|| failure.clone());
            }
        } else {
            self.failed = Some((step, failure.clone()));
        }
    }

    fn begin(&mut self, step: Step, at: Timestamp) {
        self.current = Some(step);
        let Some(name) = step.phase() else { return };
        match self.phases.iter_mut().find(|phase| phase.name == name) {
            Some(phase) => {
                phase.state = PhaseState::Running;
                phase.finished_at = None;
            }
            None => self.phases.push(PhaseRecord {
                name,
                state: PhaseState::Running,
                started_at: at,
                finished_at: None,
                message: None,
            }),
        }
    }

    fn leave(
        &mut self,
        step: Step,
        at: Timestamp,
        then: Option<Step>,
        as_: PhaseState,
        message: Option<String>,
    ) {
        self.current = None;
        if let Some(phase) = self.phases.iter_mut().find(|phase| Some(phase.name) == step.phase()) {
            phase.state = as_;
            phase.finished_at = Some(at);
            if let Some(message) = message {
                phase.message = Some(message);
            }
        }
        if let Some(then) = then {
            self.begin(then, at);
        }
    }

    /// What to do next.
    pub fn next(&self) -> Next {
        if self.ended.is_some() {
            return Next::Nothing;
        }
        if let Some(step) = self.current {
            return Next::Do(step);
        }
        match &self.failed {
            None => self.forward(),
            Some((step, failure)) => self.backward(*step, failure),
        }
    }

    /// The step that was begun and has not ended.
    pub fn current(&self) -> Option<Step> {
        self.current
    }

    /// Whether a step has ended: on the way forward with success, on the way back anyhow.
    pub fn was_done(&self, step: Step) -> bool {
        self.done.contains(&step)
    }

    /// What Preflight decided.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// What the operation is to do.
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// Whether a rollback after a failure restores data, too.
    pub fn rollback_data(&self) -> RollbackData {
        self.rollback_data
    }

    /// The images that the references are to point to.
    pub fn planned_images(&self) -> &[PlannedImage] {
        &self.planned
    }

    /// Why the operation is being taken back, if it is.
    pub fn failure(&self) -> Option<&Failure> {
        self.failed.as_ref().map(|(_, failure)| failure)
    }

    pub(super) fn rollback_failure(&self) -> Option<&Failure> {
        self.rollback_failed.as_ref()
    }

    /// Whether the failed release is left running. Only a release that was asked for: who goes back and fails is
    /// brought back to where they were.
    pub(super) fn holds(&self) -> bool {
        self.hold && self.action == Action::Upgrade
    }

    pub(super) fn touched(&self) -> bool {
        self.touched
    }

    /// How the operation ended, if it did.
    pub fn outcome(&self) -> Option<Outcome> {
        self.ended.as_ref().map(|(_, outcome, _)| *outcome)
    }

    /// When the first step was begun.
    pub fn began(&self) -> Option<Timestamp> {
        self.phases.first().map(|phase| phase.started_at)
    }

    /// The epoch that the operation runs under.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The target that the operation brings about.
    pub fn target_hash(&self) -> &str {
        &self.target_hash
    }

    /// What every service was seen to run.
    pub fn images(&self) -> &[RunImage] {
        &self.images
    }
}
