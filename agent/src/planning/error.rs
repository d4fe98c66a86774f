//! Why a plan can't be made, or a step of an operation failed.

use tenantry_api::tenant_status::Lacking;
use tenantry_protocol::{Failure, FailureCategory, OperationPhase, PolicyRefusal};

use crate::compose::{ComposeError, Explained, RunError};
use crate::engine::EngineError;
use crate::files::FilesError;
use crate::snapshot::SnapshotError;
use crate::store::StoreError;

/// Why a step failed.
#[derive(Clone, Debug)]
pub struct StepError {
    /// What kind of failure.
    pub category: FailureCategory,
    /// What went wrong and what to do.
    pub message: String,
    /// The phase that people are told, where it isn't the step's own.
    pub during: Option<OperationPhase>,
    /// What the local policy says, where that is why.
    pub policy: Option<Box<PolicyRefusal>>,
}

impl StepError {
    /// A failure in the step's own phase.
    pub fn new(category: FailureCategory, message: impl Into<String>) -> Self {
        Self { category, message: message.into(), during: None, policy: None }
    }

    /// The same, told as of another phase.
    #[must_use]
    pub fn during(mut self, phase: OperationPhase) -> Self {
        self.during = Some(phase);
        self
    }

    /// The same, where it is the policy's word: by which policy it was said. A release is judged anew under another one, so
    /// that the policy of before the judgement is the one to name.
    #[must_use]
    pub fn judged_by(mut self, revision: &str) -> Self {
        if self.category == FailureCategory::PolicyRefused {
            let lacking = self.policy.take().map_or_else(Lacking::default, |refusal| refusal.lacking);
            self.policy = Some(Box::new(PolicyRefusal { revision: revision.to_owned(), lacking }));
        }
        self
    }

    /// The failure that the journal and people are told, where `phase` is the step's own.
    pub fn failure(self, phase: Option<OperationPhase>) -> Failure {
        let during = self.during.or(phase).unwrap_or(OperationPhase::Rollback);
        let message =
            tenantry_api::conditions::bounded(&self.message, tenantry_api::conditions::MESSAGE_LIMIT / 2);
        Failure { during, category: self.category, message, policy: self.policy }
    }
}

macro_rules! step_error {
    ($($error:ty => $category:expr),* $(,)?) => {
        $(impl From<$error> for StepError {
            fn from(error: $error) -> Self {
                let category: fn(&$error) -> FailureCategory = $category;
                Self::new(category(&error), error.to_string())
            }
        })*
    };
}

step_error! {
    FilesError => FilesError::category,
    EngineError => |_| FailureCategory::EngineFault,
    ComposeError => |_| FailureCategory::EngineFault,
    RunError => |_| FailureCategory::EngineFault,
    StoreError => |_| FailureCategory::AgentFault,
    SnapshotError => SnapshotError::category,
}

impl From<Explained> for StepError {
    fn from(explained: Explained) -> Self {
        Self::new(explained.category, explained.message)
    }
}
