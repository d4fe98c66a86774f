//! An operation as a machine of steps: the journal's records are folded to a state, and the state says what is next.
//!
//! Nothing here does anything. The agent's driver performs a step, appends what came of it, and asks again; an agent
//! that was killed folds the same journal and goes on with the step that was begun. So every step can be done again.
//!
//! An upgrade goes forward through
//! Preflight, Pull, *Quiesce*, Snapshot, *Unquiesce*, *Write*, `RetagImages`, Start, Refresh, *`HandOver`*, Verify, Finish;
//! going back to a restore point pulls nothing and puts *`StopForChosen`*, *`RestoreChosen`* before `RetagImages`. What is
//! slanted is left out where there is nothing to do. The ways back from a failure are in `order.rs`.

mod order;
mod plan;
mod record;
mod state;
mod status;

use serde::{Deserialize, Serialize};
use tenantry_protocol::OperationPhase;

pub use plan::{
    Checked, DataPlan, FileChange, ImageChoice, ImageEdit, ImageSource, Plan, PlannedImage,
    PreviousReference, RemovedService,
};
pub use record::{Record, StepOutput};
pub use state::{JournalState, Next};

/// One step of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Step {
    /// Check everything that can be checked, plan, and keep what a rollback needs.
    Preflight,
    /// Make every image local. Nothing that runs is touched.
    Pull,
    /// Stop or pause the containers that mount declared data.
    Quiesce,
    /// Make the restore point: files, records and declared data, durable and read back.
    Snapshot,
    /// Let paused containers go on.
    Unquiesce,
    /// Commit files and `.env` together.
    Write,
    /// Stop whatever mounts the data that the chosen restore point holds.
    StopForChosen,
    /// Put the data of the chosen restore point in place.
    RestoreChosen,
    /// Put the references of the compose file on the planned images. The journal's word for the step stays `Point`, as it
    /// always was, so that an agent of either version goes on with a journal that the other wrote.
    #[serde(rename = "Point")]
    RetagImages,
    /// `docker compose up`.
    Start,
    /// Restart or signal services whose mounted files changed and that compose did not recreate, and restart who hangs on
    /// what was started anew.
    Refresh,
    /// Have the container of the agent itself recreated, where it is one of the project.
    HandOver,
    /// Watch until everything was healthy for the whole window.
    Verify,
    /// Record what was seen; forget what is no longer needed.
    Finish,
    /// Start the very containers again that were stopped or paused for the snapshot.
    Revive,
    /// Watch what was never changed.
    VerifyRevived,
    /// Put files and `.env` back.
    RestoreFiles,
    /// Stop whatever mounts the declared data.
    StopForData,
    /// Put the data back as this operation's own restore point holds it.
    RestoreData,
    /// Put the references back on the previous images.
    RestoreImages,
    /// Remove the containers that a first installation made.
    RemoveCreated,
    /// `docker compose up` of the previous release.
    StartPrevious,
    /// Restart services that had read the failed release's files.
    RefreshPrevious,
    /// Have the container of the agent itself recreated as the previous release has it.
    HandBack,
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
            Self::Quiesce | Self::Snapshot | Self::Unquiesce => OperationPhase::Snapshot,
            Self::Write | Self::StopForChosen | Self::RestoreChosen => OperationPhase::Write,
            Self::RetagImages | Self::Start | Self::Refresh | Self::HandOver => OperationPhase::Start,
            Self::Verify => OperationPhase::Verify,
            Self::Finish => OperationPhase::Finish,
            Self::Revive
            | Self::VerifyRevived
            | Self::RestoreFiles
            | Self::StopForData
            | Self::RestoreData
            | Self::RestoreImages
            | Self::RemoveCreated
            | Self::StartPrevious
            | Self::RefreshPrevious
            | Self::HandBack
            | Self::VerifyPrevious => OperationPhase::Rollback,
            Self::Discard | Self::Hold => return None,
        })
    }

    const fn is_backward(self) -> bool {
        matches!(self.phase(), Some(OperationPhase::Rollback) | None)
    }

    /// Whether the step replaces declared data.
    const fn replaces_data(self) -> bool {
        matches!(self, Self::RestoreChosen | Self::RestoreData)
    }
}

#[cfg(test)]
mod tests;
