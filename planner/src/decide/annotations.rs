//! Annotations: each value is handled once.

use tenantry_api::conditions::bounded;
use tenantry_api::tenant_status::{Handled, Resolved, ResolvedImage};
use tenantry_protocol::{Observation, ResolveResponse};

use super::decision::Ruling;
use super::ended::plain_digest;
use super::{Draft, Effect};
use crate::target::Desired;

/// The longest annotation value that is echoed, and so told apart.
const VALUE_LIMIT: usize = 256;
/// The most references that are looked up at once.
const REFERENCE_LIMIT: usize = 256;

/// What an annotation asks for now: its value, where that is not the one that was handled.
pub(super) fn asked(value: Option<&str>, handled: Option<&str>) -> Option<String> {
    value.map(|value| bounded(value, VALUE_LIMIT)).filter(|value| Some(value.as_str()) != handled)
}

/// A value that was handled and whose annotation is gone: the same value asks anew when it comes back. The record itself
/// stays, for that a person has asked once can count still.
fn forget(handled: &mut Option<String>, value: Option<&str>) {
    if let (Some(known), None) = (handled, value) {
        known.clear();
    }
}

impl Draft<'_> {
    /// Takes note of annotations that are gone, as tools that sync manifests take them away.
    pub(super) fn note_removed_annotations(&mut self) {
        let (subject, Some(handled)) = (self.facts.subject, &mut self.next.handled) else { return };
        let goes_back = self.lifecycle.in_flight().is_some_and(|operation| operation.rollback_to().is_some());
        forget(&mut handled.reconcile, subject.reconcile.as_deref());
        forget(&mut handled.retry, subject.retry.as_deref());
        // What going back is done with is read of it until that has ended.
        if !goes_back {
            forget(&mut handled.rollback_to, subject.rollback_to.as_deref());
        }
        forget(&mut handled.accept_host, subject.accept_host.as_deref());
        forget(&mut handled.claim, subject.claim.as_deref());
    }

    /// Handles what is asked for. That ends the pass where a registry must be asked first, or where a person goes back
    /// to a restore point.
    pub(super) fn annotations(&mut self, desired: &Desired, observation: &Observation) -> Option<Ruling> {
        let subject = self.facts.subject;
        if let Some(value) = asked(subject.claim.as_deref(), self.handled().claim.as_deref()) {
            // Nobody else holds the place: there is nothing to take over.
            self.next.handled.get_or_insert_with(Handled::default).claim = Some(value);
        }
        if let Some(value) = asked(subject.retry.as_deref(), self.handled().retry.as_deref()) {
            self.next.handled.get_or_insert_with(Handled::default).retry = Some(value);
            self.block = None;
            self.forget_tries();
        }
        if self.next.resolved.as_ref().is_some_and(|resolved| resolved.base_hash != desired.base_hash) {
            self.next.resolved = None;
        }
        self.asked_to_reconcile(desired, observation).or_else(|| self.asked_to_go_back(desired, observation))
    }

    /// Asks the registry where that is asked for, and takes its answer.
    fn asked_to_reconcile(&mut self, desired: &Desired, observation: &Observation) -> Option<Ruling> {
        let handled = self.handled().reconcile;
        let value = asked(self.facts.subject.reconcile.as_deref(), handled.as_deref())?;
        let references = pulled_references(observation);
        let target = desired.target_hash(self.next.resolved.as_ref());
        if self.at_target(&target) && !references.is_empty() {
            let Some(answer) = self.facts.resolved else {
                return Some(Ruling::unchanged().with(Effect::Resolve { references }));
            };
            self.take_digests(desired, answer);
        }
        self.next.handled.get_or_insert_with(Handled::default).reconcile = Some(value);
        None
    }

    /// The annotation values that count as handled.
    pub(super) fn handled(&self) -> Handled {
        self.next.handled.clone().unwrap_or_default()
    }

    /// Digests other than the deployed ones make a new target; an answer that says nothing changes nothing.
    fn take_digests(&mut self, desired: &Desired, answer: &ResolveResponse) {
        let Some(deployed) = &self.next.deployed else { return };
        let mut images: Vec<ResolvedImage> = Vec::new();
        let mut moved = false;
        for found in &answer.references {
            let before = deployed.images.iter().find(|image| image.reference == found.reference);
            let before =
                before.and_then(|image| image.repo_digest.clone()).map(|digest| plain_digest(&digest));
            let now = found.digest.as_deref().map(plain_digest);
            if let (Some(before), Some(now)) = (&before, &now) {
                moved |= before != now;
            }
            if let Some(digest) = now.or(before) {
                images.push(ResolvedImage { reference: bounded(&found.reference, 512), digest });
            }
        }
        if moved {
            images.sort();
            images.dedup_by(|a, b| a.reference == b.reference);
            images.truncate(REFERENCE_LIMIT);
            self.next.resolved = Some(Resolved { base_hash: desired.base_hash.clone(), images });
        }
    }
}

fn pulled_references(observation: &Observation) -> Vec<String> {
    let mut references: Vec<String> = observation
        .services
        .iter()
        .filter(|service| !service.local_image && !service.image_ref.contains('@'))
        .map(|service| service.image_ref.clone())
        .collect();
    references.sort();
    references.dedup();
    references.truncate(REFERENCE_LIMIT);
    references
}
