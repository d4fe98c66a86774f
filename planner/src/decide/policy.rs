//! What a host's own policy does not grant: told whole before anything is begun, and looked at again once the policy has
//! changed.

use tenantry_api::tenant_status::{Grant, Lacking, Outcome};
use tenantry_protocol::{EnvKeyState, Observation, PolicyRefusal, Probe};

use super::conditions::PhaseReport;
use super::decision::Ruling;
use super::{Draft, lifecycle::Operation, lifecycle::Purpose};
use crate::policy::Verification;
use crate::policy::grants::sentences;
use crate::target::{Desired, RefusalReason};
use crate::verify::named_probes;

/// What a person is told who can do nothing but change the policy.
pub(super) const LOOKED_AT_AGAIN: &str =
    "It is tried again by itself once the host's policy file has changed.";

impl Draft<'_> {
    /// Takes over what the policy says now. A target that it refused is free again once the policy is another one.
    pub(super) fn note_policy(&mut self, desired: &Desired, observation: &Observation) {
        let now = observation.policy_revision.as_deref();
        let refused_by = self.block.as_ref().and_then(|block| block.policy_revision.as_deref());
        match (refused_by, now) {
            (Some(refused_by), Some(now)) if refused_by != now => self.block = None,
            // What is on the disk may ask for less than the release that was refused.
            (Some(_), _) => return,
            (None, _) => {}
        }
        self.next.lacking = lacking(desired, observation);
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
        let again = if lacking.grants.is_empty() {
            "It is looked at again by itself, and at once by `tenantry reconcile`."
        } else {
            LOOKED_AT_AGAIN
        };
        let message =
            format!("{}. Nothing was changed on the host. {again}", asks_for_more(desired, lacking));
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

/// What the policy does not grant of what is on the disk, and of how the Tenant is verified.
fn lacking(desired: &Desired, observation: &Observation) -> Option<Lacking> {
    let known = observation.lacking.clone().unwrap_or_default();
    let mut all = Lacking { file: observation.policy_file.clone(), ..known };
    all.grants.extend(command(desired, observation));
    Some(all.bounded()).filter(|lacking| !lacking.is_empty())
}

/// The line that lets releases be verified by commands, where the Tenant asks for that.
fn command(desired: &Desired, observation: &Observation) -> Option<Grant> {
    let granted = observation.granted_verifications.as_ref()?;
    let probes = named_probes(&desired.intent.verify.probes);
    let (at, _) = probes.iter().find(|(_, probe)| matches!(probe, Probe::Exec(_)))?;
    let way = Verification::Exec;
    (!granted.contains(&way.to_string())).then(|| Grant {
        list: "verify".to_owned(),
        item: way.to_string(),
        at: format!("spec.upgrade.{at}"),
        means: way.means().to_owned(),
    })
}

/// Whether nothing that compose reads would be changed by a release.
fn stays(observation: &Observation) -> bool {
    observation.files.iter().all(|file| file.state.has_wanted_content())
        && observation.leftover_files.iter().all(|file| file.hand_edited)
        && observation.env.keys.iter().all(EnvKeyState::is_right)
        && observation.images.iter().all(|image| image.pending.is_empty())
}

/// Whether a release would replace a compose file that is in use.
pub(super) fn replaces_compose(observation: &Observation) -> bool {
    let used = observation.compose.iter().flat_map(|compose| &compose.files);
    let changes = |path: &String| {
        let managed = observation.files.iter().find(|file| file.path.as_str() == path);
        managed.is_some_and(|file| !file.state.has_wanted_content())
    };
    used.into_iter().any(changes)
}
