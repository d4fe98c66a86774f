//! Why a plan can't be made, or a step of an operation failed.

use tenantry_api::tenant_status::Lacking;
use tenantry_protocol::{FailedServices, Failure, FailureCategory, OperationPhase, PolicyRefusal};

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
    /// Services that it is about, beyond those that are seen not to be well: one that was restarted a moment ago, say.
    pub about: Vec<String>,
    /// The services that did not come up.
    pub services: Box<FailedServices>,
}

impl StepError {
    /// A failure in the step's own phase.
    pub fn new(category: FailureCategory, message: impl Into<String>) -> Self {
        Self {
            category,
            message: message.into(),
            during: None,
            policy: None,
            about: Vec::new(),
            services: Box::default(),
        }
    }

    /// The same, about these services.
    #[must_use]
    pub fn about(mut self, services: Vec<String>) -> Self {
        self.about = services;
        self
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
        Failure { during, category: self.category, message, policy: self.policy, services: *self.services }
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
    EngineError => EngineError::category,
    ComposeError => ComposeError::category,
    RunError => |_| FailureCategory::EngineFault,
    StoreError => |_| FailureCategory::AgentFault,
    SnapshotError => SnapshotError::category,
}

impl From<Explained> for StepError {
    fn from(explained: Explained) -> Self {
        Self::new(explained.category, explained.message)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn refused(status: u16) -> EngineError {
        EngineError::Refused { doing: "look".to_owned(), status, message: "no".to_owned() }
    }

    #[rstest]
    #[case::bad_request(refused(400), FailureCategory::StartFailed)]
    #[case::conflict(refused(409), FailureCategory::StartFailed)]
    #[case::a_fault_of_its_own(refused(500), FailureCategory::EngineFault)]
    #[case::being_restarted(refused(503), FailureCategory::EngineFault)]
    #[case::broke_off(refused(0), FailureCategory::EngineFault)]
    #[case::away(
        EngineError::Down { socket: "s".to_owned(), problem: "refused".to_owned() },
        FailureCategory::EngineFault
    )]
    fn only_what_may_pass_is_a_fault_of_the_engine(
        #[case] error: EngineError,
        #[case] category: FailureCategory,
    ) {
        assert_eq!(StepError::from(error).category, category);
    }

    #[test]
    fn a_compose_that_must_not_be_used_is_no_fault_that_passes() {
        let error = ComposeError::Refused { version: "2.1".to_owned(), problem: "is too old" };
        assert_eq!(StepError::from(error).category, FailureCategory::StartFailed);
        assert_eq!(StepError::from(ComposeError::Missing).category, FailureCategory::EngineFault);
    }
}
