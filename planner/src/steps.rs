//! An operation as a machine of steps: the journal's records are folded to a state, and the state says what is next.
//!
//! Nothing here does anything. The agent's driver performs a step, appends what came of it, and asks again; an agent
//! that was killed folds the same journal and goes on with the step that was begun. So every step can be done again.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tenantry_api::names::{OperationId, RelativePath};
use tenantry_api::tenant::OnFailure;
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::{
    ComposeUse, Failure, OperationPhase, OperationState, OperationStatus, PhaseRecord, PlanReport, RunImage,
    StepState,
};

/// Between two records this many changes of progress have numbers of their own.
const PROGRESS_NUMBERS: u64 = 1 << 20;

/// One step of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Step {
    /// Check everything that can be checked, plan, and keep what a rollback needs.
    Preflight,
    /// Make every image local. Nothing that runs is touched.
    Pull,
    /// Commit files and `.env` together.
    Write,
    /// Put the references of the compose file on the planned images.
    Point,
    /// `docker compose up`.
    Start,
    /// Restart or signal services whose mounted files changed and that compose did not recreate.
    Refresh,
    /// Watch until everything was healthy for the whole window.
    Verify,
    /// Record what was seen; forget what is no longer needed.
    Finish,
    /// Put files and `.env` back.
    RestoreFiles,
    /// Put the references back on the previous images.
    RestoreImages,
    /// Remove the containers that a first installation made.
    RemoveCreated,
    /// `docker compose up` of the previous release.
    StartPrevious,
    /// Restart services that had read the failed release's files.
    RefreshPrevious,
    /// Watch the previous release.
    VerifyPrevious,
    /// Forget what was prepared.
    Discard,
    /// Record what a failed release that is left running has written.
    Hold,
}

impl Step {
    /// The phase that people see; cleaning up is none.
    pub const fn phase(self) -> Option<OperationPhase> {
        Some(match self {
            Self::Preflight => OperationPhase::Preflight,
            Self::Pull => OperationPhase::Pull,
            Self::Write => OperationPhase::Write,
            Self::Point | Self::Start | Self::Refresh => OperationPhase::Start,
            Self::Verify => OperationPhase::Verify,
            Self::Finish => OperationPhase::Finish,
            Self::RestoreFiles
            | Self::RestoreImages
            | Self::RemoveCreated
            | Self::StartPrevious
            | Self::RefreshPrevious
            | Self::VerifyPrevious => OperationPhase::Rollback,
            Self::Discard | Self::Hold => return None,
        })
    }

    const fn is_backward(self) -> bool {
        matches!(self.phase(), Some(OperationPhase::Rollback) | None)
    }
}

/// One record of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "record")]
pub enum Record {
    /// The operation was taken on.
    #[serde(rename_all = "camelCase")]
    Accepted {
        /// When.
        at: Timestamp,
        /// Under which epoch.
        epoch: u64,
        /// To bring about which target.
        target_hash: String,
        /// What to do when it fails.
        on_failure: OnFailure,
    },
    /// A step is about to be performed.
    Begun {
        /// Which.
        step: Step,
        /// When.
        at: Timestamp,
    },
    /// A step was performed.
    Done {
        /// Which.
        step: Step,
        /// When.
        at: Timestamp,
        /// What it found or did.
        did: Did,
        /// What to tell people.
        message: Option<String>,
        /// The step that is begun with this very record.
        then: Option<Step>,
    },
    /// A step failed.
    Failed {
        /// Which.
        step: Step,
        /// When.
        at: Timestamp,
        /// Why.
        failure: Failure,
        /// The step that is begun with this very record.
        then: Option<Step>,
    },
    /// The agent was started again and took the operation up.
    Resumed {
        /// When.
        at: Timestamp,
    },
    /// The operation ended.
    Ended {
        /// When.
        at: Timestamp,
        /// How.
        outcome: Outcome,
        /// Why it failed, where it did.
        failure: Option<Failure>,
    },
}

/// What a step found or did, as far as later steps need it. Never holds a secret value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "did")]
pub enum Did {
    /// Nothing that later steps need.
    Nothing,
    /// The plan.
    Planned(Box<Plan>),
    /// Every reference's image.
    Pulled {
        /// One for each reference.
        images: Vec<PlannedImage>,
    },
    /// What was seen at the end.
    Verified {
        /// What every service runs.
        images: Vec<RunImage>,
    },
    /// Whether anything of the tenant's had been changed and was put back.
    Restored {
        /// True when something had been changed.
        touched: bool,
    },
}

/// What Preflight decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What changes, for people.
    pub report: PlanReport,
    /// The compose files of the release.
    pub compose: ComposeUse,
    /// The compose files of what ran before; absent where there was none.
    pub previous_compose: Option<ComposeUse>,
    /// Whether any file changes.
    pub writes: bool,
    /// Whether nothing ran here before.
    pub first: bool,
    /// Managed files whose content changes, `.env` aside.
    pub changed: Vec<RelativePath>,
    /// Ids of the containers that were there before.
    pub containers: Vec<String>,
    /// What each reference of both releases pointed to before.
    pub references: Vec<PreviousReference>,
    /// What each service ran before.
    pub previous_images: Vec<RunImage>,
    /// Services that the release no longer has.
    pub left_running: Vec<String>,
    /// Managed files that the release no longer has and that were edited by hand.
    pub left_files: Vec<String>,
}

/// What a reference pointed to before the operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviousReference {
    /// The reference.
    pub reference: String,
    /// The image; absent where it pointed nowhere.
    pub image_id: Option<String>,
}

/// The image that a reference is to point to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedImage {
    /// The reference.
    pub reference: String,
    /// The image.
    pub image_id: String,
    /// The registry's digest, where it has one.
    pub repo_digest: Option<String>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Perform this step.
    Do(Step),
    /// The operation ends.
    End(Outcome, Option<Failure>),
    /// It has ended.
    Nothing,
}

/// An operation, folded from its journal.
#[derive(Clone, Debug, Default)]
pub struct State {
    records: u64,
    epoch: u64,
    target_hash: String,
    hold: bool,
    phases: Vec<PhaseRecord>,
    current: Option<Step>,
    done: Vec<Step>,
    failed: Option<(Step, Failure)>,
    rollback_failed: Option<Failure>,
    touched: bool,
    ended: Option<(Timestamp, Outcome, Option<Failure>)>,
    plan: Option<Plan>,
    planned: Vec<PlannedImage>,
    images: Vec<RunImage>,
}

impl State {
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
            Record::Accepted { epoch, target_hash, on_failure, .. } => {
                self.epoch = *epoch;
                self.target_hash.clone_from(target_hash);
                self.hold = matches!(on_failure, OnFailure::Hold);
            }
            Record::Begun { step, at } => self.begin(*step, *at),
            Record::Done { step, at, did, message, then } => {
                self.done(*step, did);
                self.leave(*step, *at, *then, StepState::Succeeded, message.clone());
            }
            Record::Failed { step, at, failure, then } => {
                self.fail(*step, failure);
                self.leave(*step, *at, *then, StepState::Failed, Some(failure.message.clone()));
            }
            Record::Resumed { .. } => {}
            Record::Ended { at, outcome, failure } => {
                self.current = None;
                self.ended = Some((*at, *outcome, failure.clone()));
            }
        }
    }

    fn done(&mut self, step: Step, did: &Did) {
        self.done.push(step);
        match did {
            Did::Nothing => {}
            Did::Planned(plan) => self.plan = Some((**plan).clone()),
            Did::Pulled { images } => self.planned.clone_from(images),
            Did::Verified { images } => self.images.clone_from(images),
            Did::Restored { touched } => self.touched = *touched,
        }
    }

    fn fail(&mut self, step: Step, failure: &Failure) {
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
                phase.state = StepState::Running;
                phase.finished_at = None;
            }
            None => self.phases.push(PhaseRecord {
                name,
                state: StepState::Running,
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
        as_: StepState,
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

    fn forward(&self) -> Next {
        use Step::{Finish, Point, Preflight, Pull, Refresh, Start, Verify, Write};
        let writes = self.plan.as_ref().is_some_and(|plan| plan.writes);
        let order = [Preflight, Pull, Write, Point, Start, Refresh, Verify, Finish];
        let wanted = order.into_iter().filter(|step| writes || *step != Write);
        self.first_open(wanted).map_or(Next::End(Outcome::Succeeded, None), Next::Do)
    }

    fn backward(&self, failed: Step, failure: &Failure) -> Next {
        let end = |outcome| Next::End(outcome, Some(failure.clone()));
        if let Some(second) = &self.rollback_failed {
            let mut both = second.clone();
            both.message = format!(
                "{} The rollback then failed: {}",
                sentence(&failure.message),
                sentence(&second.message)
            );
            return Next::End(Outcome::RollbackFailed, Some(both));
        }
        match failed {
            Step::Preflight | Step::Pull => {
                self.first_open([Step::Discard]).map_or_else(|| end(Outcome::Aborted), Next::Do)
            }
            Step::Write => self.first_open([Step::RestoreFiles, Step::Discard]).map_or_else(
                || end(if self.touched { Outcome::RolledBack } else { Outcome::Aborted }),
                Next::Do,
            ),
            Step::Start | Step::Refresh | Step::Verify if self.hold => {
                self.first_open([Step::Hold]).map_or_else(|| end(Outcome::Held), Next::Do)
            }
            // The release was seen healthy: it stays, with its restore point, until a person has looked.
            Step::Finish => end(Outcome::Held),
            _ => self.rollback().map_or_else(|| end(Outcome::RolledBack), Next::Do),
        }
    }

    fn rollback(&self) -> Option<Step> {
        use Step::{
            Discard, RefreshPrevious, RemoveCreated, RestoreFiles, RestoreImages, StartPrevious,
            VerifyPrevious,
        };
        if self.plan.as_ref().is_some_and(|plan| plan.first) {
            return self.first_open([RestoreFiles, RemoveCreated, RestoreImages, Discard]);
        }
        self.first_open([
            RestoreFiles,
            RestoreImages,
            StartPrevious,
            RefreshPrevious,
            VerifyPrevious,
            Discard,
        ])
    }

    fn first_open(&self, order: impl IntoIterator<Item = Step>) -> Option<Step> {
        order.into_iter().find(|step| !self.done.contains(step))
    }

    /// The step that was begun and has not ended.
    pub fn current(&self) -> Option<Step> {
        self.current
    }

    /// What Preflight decided.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// The images that the references are to point to.
    pub fn planned_images(&self) -> &[PlannedImage] {
        &self.planned
    }

    /// Why the operation is being taken back, if it is.
    pub fn failure(&self) -> Option<&Failure> {
        self.failed.as_ref().map(|(_, failure)| failure)
    }

    /// How it ended, if it did.
    pub fn outcome(&self) -> Option<Outcome> {
        self.ended.as_ref().map(|(_, outcome, _)| *outcome)
    }

    /// Under which epoch it runs.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The target that it brings about.
    pub fn target_hash(&self) -> &str {
        &self.target_hash
    }

    /// What every service was seen to run.
    pub fn images(&self) -> &[RunImage] {
        &self.images
    }

    /// The status as operators see it. Its number leaves room for changes of progress until the next record.
    pub fn status(&self, id: &OperationId) -> OperationStatus {
        let plan = self.plan.as_ref();
        let state = match &self.ended {
            None => OperationState::Running,
            Some((at, outcome, failure)) => {
                OperationState::Ended { outcome: *outcome, failure: failure.clone(), at: *at }
            }
        };
        OperationStatus {
            id: id.clone(),
            seq: self.records * PROGRESS_NUMBERS,
            epoch: self.epoch,
            target_hash: self.target_hash.clone(),
            state,
            phases: self.phases.clone(),
            plan: plan.map(|plan| plan.report.clone()),
            progress: None,
            left_running: plan.map(|plan| plan.left_running.clone()).unwrap_or_default(),
            left_files: plan.map(|plan| plan.left_files.clone()).unwrap_or_default(),
            images: self.images.clone(),
            compose: plan.map(|plan| plan.compose.clone()),
            release: tenantry_protocol::ReleaseLabel::default(),
            data_restored: false,
        }
    }
}

fn sentence(text: &str) -> String {
    let text = text.trim_end();
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

#[cfg(test)]
mod tests;
