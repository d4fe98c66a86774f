//! What a host's own policy does not grant: told whole before anything is begun, and looked at again once the policy has
//! changed.

use tenantry_api::tenant_status::{Lacking, Outcome};
use tenantry_protocol::{FileState, Observation, PolicyRefusal};

use super::conditions::PhaseReport;
use super::decision::Ruling;
use super::{Draft, lifecycle::Operation, lifecycle::Purpose};
use crate::policy::grants::sentences;
use crate::target::{Desired, RefusalReason};

/// What a person is told who can do nothing but change the policy.
pub(super) const LOOKED_AT_AGAIN: &str =
    "It is tried again by itself once the host's policy file has changed.";

impl Draft<'_> {
    /// Takes over what the policy says now. A target that it refused is free again once the policy is another one.
    pub(super) fn note_policy(&mut self, observation: &Observation) {
        let now = observation.policy_revision.as_deref();
        let refused_by = self.block.as_ref().and_then(|block| block.policy_revision.as_deref());
        match (refused_by, now) {
            (Some(refused_by), Some(now)) if refused_by != now => self.block = None,
            // What is on the disk may ask for less than the release that was refused.
            (Some(_), _) => return,
            (None, _) => {}
        }
        self.next.lacking = lacking(observation);
    }

    /// Keeps what of a release was refused, and by which policy.
    pub(super) fn refused_by_policy(&mut self, operation: &Operation, refusal: PolicyRefusal) {
        let Some(block) = self.block.as_mut().filter(|_| operation.purpose == Purpose::Upgrade) else {
            return;
        };
        if matches!(block.cause.outcome(), Outcome::Aborted | Outcome::RolledBack) {
            block.policy_revision = Some(tenantry_api::conditions::bounded(&refusal.revision, 128));
            self.next.lacking = Some(refusal.lacking.bounded()).filter(|lacking| !lacking.is_empty());
        }
    }

    /// Ends the pass where what is on the disk stays and asks for more than the policy grants. Where a release changes what
    /// compose reads, only the agent can say what the release asks for.
    pub(super) fn not_granted(&self, desired: &Desired, observation: &Observation) -> Option<Ruling> {
        let lacking = self.next.lacking.as_ref().filter(|_| stays(observation))?;
        let message = format!(
            "{}. Nothing was changed on the host. {LOOKED_AT_AGAIN}",
            asks_for_more(desired, lacking)
        );
        Some(Ruling::says(PhaseReport::refused(RefusalReason::PolicyRefused, &message)))
    }
}

/// Says what a project asks for beyond the policy; without a closing full stop.
pub(super) fn asks_for_more(desired: &Desired, lacking: &Lacking) -> String {
    format!(
        "The project in {} asks for more than the policy of host {} grants; `tenantry explain {}` tells what and why. {}",
        desired.intent.place.directory,
        desired.intent.host,
        desired.intent.tenant.name,
        sentences(lacking)
    )
}

/// What of what is on the disk the policy does not grant.
pub(super) fn lacking(observation: &Observation) -> Option<Lacking> {
    let lacking = observation.lacking.clone().map(Lacking::bounded);
    lacking.filter(|lacking| !lacking.is_empty())
}

/// Whether nothing that compose reads would be changed by a release.
fn stays(observation: &Observation) -> bool {
    let same = |state: &FileState| matches!(state, FileState::Same | FileState::Attributes);
    observation.files.iter().all(|file| same(&file.state))
        && observation.leftover_files.iter().all(|file| file.hand_edited)
        && observation.env.keys.iter().all(|key| key.as_wanted)
}

/// Whether a release would replace a compose file that is in use.
pub(super) fn replaces_compose(observation: &Observation) -> bool {
    let used = observation.compose.iter().flat_map(|compose| &compose.files);
    let changes = |path: &String| {
        let managed = observation.files.iter().find(|file| file.path.as_str() == path);
        managed.is_some_and(|file| !matches!(file.state, FileState::Same | FileState::Attributes))
    };
    used.into_iter().any(changes)
}
