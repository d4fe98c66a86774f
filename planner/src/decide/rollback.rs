//! Going back to a restore point, because a person asked for it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tenantry_api::conditions::{bounded, whole_seconds};
use tenantry_api::names::OperationId;
use tenantry_api::tenant::Approach;
use tenantry_api::tenant_status::{
    BlockedTarget, GivenUp, Handled, Outcome, Phase, RestorePoint, UpgradeStatus,
};
use tenantry_protocol::{Observation, ReleaseLabel, RestorePointBrief};

use super::annotations::asked;
use super::conditions::Verdict;
use super::upgrade::planning;
use super::{Answer, Effect, Pass, Submission, listed};
use crate::target::{Refusal, RefusalReason, Rollback};

/// How many restore points status lists.
const POINT_LIMIT: usize = 20;
/// How many parts of one restore point's data status lists.
const DATA_LIMIT: usize = 32;
/// How many restore points a message names.
const SHOWN: usize = 8;

/// What the annotation's value says: `<ID>[,data][,any token]`. An empty id means the newest.
struct Wish<'a> {
    id: &'a str,
    data: bool,
}

impl<'a> Wish<'a> {
    fn parse(value: &'a str) -> Self {
        let mut words = value.split(',').map(str::trim);
        let id = words.next().unwrap_or_default();
        Self { id, data: words.any(|word| word == "data") }
    }
}

impl Pass<'_> {
    /// Keeps what can be gone back to, in the agent's order: newest first.
    pub(super) fn record_points(&mut self, observation: &Observation) {
        let mut points: Vec<RestorePoint> = Vec::new();
        for brief in observation.restore_points.iter().take(POINT_LIMIT) {
            // The list is a map by id to the API server.
            if !points.iter().any(|known| known.id == brief.id.as_str()) {
                points.push(point(&self.labelled(brief)));
            }
        }
        self.next.restore_points = points;
    }

    /// Begins to go back where that is asked for. True when the pass ends here.
    pub(super) fn asked_to_go_back(&mut self, observation: &Observation) -> bool {
        let handled = self.handled().rollback_to;
        let Some(value) = asked(self.facts.subject.rollback_to.as_deref(), handled.as_deref()) else {
            return false;
        };
        let wish = Wish::parse(&value);
        let found = match wish.id {
            "" => observation.restore_points.first(),
            id => observation.restore_points.iter().find(|point| point.id.as_str() == id),
        };
        let Some(found) = found.map(|point| self.labelled(point)) else {
            self.refuse(&self.no_such_point(wish.id, observation));
            return true;
        };
        let found = &found;
        if self.facts.subject.cannot_roll_back {
            let message = format!(
                "The agent of host {} can't go back to a restore point: install a tenantry-agent of this operator's version.",
                self.facts.subject.host
            );
            self.refuse(&Refusal::new(RefusalReason::RequestRefused, message));
            return true;
        }
        let epoch = self.next_epoch(observation);
        let Some((id, stored_epoch)) = self.named(epoch) else { return true };
        let data = wish.data;
        self.go_back(found, data, &id, stored_epoch);
        self.next.handled.get_or_insert_with(Handled::default).rollback_to = Some(value);
        self.effect = Some(Effect::Submit(submission(id, epoch, found, data, false)));
        true
    }

    /// What is wanted can't be said, but a person may go back all the same. True when the pass ends here.
    pub(super) fn only_goes_back(&mut self) -> bool {
        let Some(back) = self.facts.back else { return false };
        match self.facts.answer {
            Answer::NotAsked | Answer::Followed(_, None) => false,
            Answer::Unreached(why, text) => {
                self.unreached(why, text);
                true
            }
            Answer::Refused(error) | Answer::NotBegun(error) => {
                self.agent_refused(error);
                true
            }
            Answer::Seen(observation)
            | Answer::Unknown(observation)
            | Answer::Followed(_, Some(observation)) => {
                if self.claimed_by_other(observation)
                    || self.damaged(back, observation)
                    || self.strange_operation(observation)
                {
                    return true;
                }
                self.record_points(observation);
                self.asked_to_go_back(observation)
            }
        }
    }

    /// What is not to come back by itself: what is wanted, or, where that can't be said, what runs.
    fn given_up(&self) -> Option<GivenUp> {
        if let Ok(desired) = self.facts.desired {
            let target_hash = desired.target_hash(self.next.resolved.as_ref());
            return Some(GivenUp { target_hash, image_tag: desired.intent.image_tag.to_string() });
        }
        let deployed = self.next.deployed.as_ref()?;
        Some(GivenUp { target_hash: deployed.target_hash.clone(), image_tag: deployed.image_tag.clone() })
    }

    /// A point from before the first release that the agent was told the name of: status knows what ran then.
    fn labelled(&self, point: &RestorePointBrief) -> RestorePointBrief {
        let mut point = point.clone();
        if point.release.image_tag.is_empty() {
            let id = point.id.as_str();
            let last = self.next.upgrade.iter().filter(|last| last.id == id).map(|last| &last.from);
            let ended = self.next.history.iter().filter(|entry| entry.id == id).map(|entry| &entry.from);
            let known = last.chain(ended).find_map(Option::as_ref);
            point.release.image_tag = known.map_or_else(|| "what-ran-before".to_owned(), Clone::clone);
        }
        point
    }

    fn no_such_point(&self, id: &str, observation: &Observation) -> Refusal {
        let host = &self.facts.subject.host;
        let known: Vec<String> = observation
            .restore_points
            .iter()
            .map(|point| format!("{} ({})", point.id, point.release.image_tag))
            .collect();
        let what = if id.is_empty() {
            "The annotation tenantry.dev/rollback-to asks for the newest restore point".to_owned()
        } else {
            format!("The annotation tenantry.dev/rollback-to asks for restore point {}", bounded(id, 80))
        };
        let message = if known.is_empty() {
            format!(
                "{what}, but host {host} has none for this Tenant: one is made with each upgrade. Remove the annotation."
            )
        } else {
            format!(
                "{what}, which host {host} does not have; it has {}. Set the annotation to one of these, or remove it.",
                listed(&known, SHOWN)
            )
        };
        Refusal::new(RefusalReason::RestorePointMissing, message)
    }

    fn go_back(&mut self, to: &RestorePointBrief, data: bool, id: &OperationId, epoch: i64) {
        let unsettled = self.left_otherwise();
        let held = self.next.upgrade.as_ref().filter(|last| last.outcome == Some(Outcome::Held));
        let from = match held {
            Some(held) => Some(held.to.clone()),
            None => self.next.deployed.as_ref().map(|deployed| deployed.image_tag.clone()),
        };
        let label = &to.release;
        let now = Time(whole_seconds(self.facts.now));
        let upgrade = UpgradeStatus {
            id: id.to_string(),
            epoch,
            from,
            to: bounded(&label.image_tag, 128),
            target_hash: bounded(&to.target_hash, 128),
            bundle_revision: label.bundle_revision.as_deref().map(|revision| bounded(revision, 128)),
            files_hash: Some(bounded(&label.files_hash, 128)),
            rollback_to: Some(to.id.to_string()),
            gives_up: self.given_up(),
            unsettled,
            accepted: false,
            data_restored: false,
            attempt: 1,
            started_at: now.clone(),
            finished_at: None,
            outcome: None,
            phases: vec![planning(now)],
        };
        let with = if data { ", with data" } else { "" };
        let message = format!("{}{with}: checking the host.", what(&upgrade));
        self.next.upgrade = Some(upgrade);
        self.next.plan = None;
        self.settle(Verdict::of(Phase::Planning, message));
    }

    /// Submits a rollback that the agent never got, under the same id where that still fits; else asks anew.
    pub(super) fn resubmit_rollback(&mut self, observation: &Observation) {
        let Some(upgrade) = self.in_flight() else { return };
        let (epoch, id) = (u64::try_from(upgrade.epoch).unwrap_or(0), OperationId::parse(&upgrade.id));
        let to = upgrade.rollback_to.as_deref();
        let found = observation.restore_points.iter().find(|point| Some(point.id.as_str()) == to);
        let fits = observation.epoch <= epoch;
        let found = found.map(|point| self.labelled(point));
        if let (Ok(id), Some(found), true) = (id, &found, fits) {
            let asked = self.handled().rollback_to.unwrap_or_default();
            let data = Wish::parse(&asked).data;
            self.effect = Some(Effect::Submit(submission(id, epoch, found, data, true)));
            return;
        }
        self.ask_again_to_go_back("Never reached the agent; it is asked anew.");
        self.rest();
    }

    /// What a person asked for was not begun: it still stands.
    pub(super) fn ask_again_to_go_back(&mut self, why: &str) {
        let by_person = self.in_flight().is_some_and(|upgrade| upgrade.rollback_to.is_some());
        self.forget_unbegun(why);
        if let Some(handled) = self.next.handled.as_mut().filter(|_| by_person) {
            handled.rollback_to = None;
        }
    }

    /// How going back ended, as phase and conditions. Where it failed before or without a change that lasts, what was
    /// blocked stays blocked and what was deployed stays so.
    pub(super) fn went_back(&mut self, upgrade: &UpgradeStatus, outcome: Outcome, reason: &str, word: &str) {
        let to = upgrade.rollback_to.as_deref().unwrap_or_default();
        let gives_up = upgrade.gives_up.clone().filter(|given| given.target_hash != upgrade.target_hash);
        let block = |target_hash: &str, image_tag: &str, reason: &str| BlockedTarget {
            target_hash: target_hash.to_owned(),
            image_tag: image_tag.to_owned(),
            outcome: if outcome == Outcome::Succeeded { Outcome::RolledBack } else { outcome },
            reason: bounded(reason, 2_048),
            accepted: false,
            at: Time(whole_seconds(self.facts.now)),
        };
        let (phase, word, message) = match outcome {
            Outcome::Succeeded => {
                let said =
                    format!("rolled back by a person to {} (restore point {to}). {reason}", upgrade.to);
                let said = said.trim_end().to_owned();
                self.next.blocked_target =
                    gives_up.as_ref().map(|given| block(&given.target_hash, &given.image_tag, &said));
                let phase = if gives_up.is_some() { Phase::RolledBack } else { Phase::Ready };
                (phase, phase.as_str(), format!("The Tenant was {said}"))
            }
            Outcome::RollbackFailed => {
                self.next.blocked_target = Some(block(&upgrade.target_hash, &upgrade.to, reason));
                (Phase::RollbackFailed, word, format!("Going back to {} failed: {reason}", upgrade.to))
            }
            Outcome::Held => {
                let message = format!("Going back to {} failed, and it was left so: {reason}", upgrade.to);
                let given = gives_up.map_or((upgrade.target_hash.clone(), upgrade.to.clone()), |given| {
                    (given.target_hash, given.image_tag)
                });
                self.next.blocked_target = Some(block(&given.0, &given.1, &message));
                (Phase::Held, word, message)
            }
            Outcome::Aborted => {
                (Phase::Aborted, word, format!("Going back to {} was not begun: {reason}", upgrade.to))
            }
            Outcome::RolledBack => {
                let message = format!("Going back to {} failed and was undone: {reason}", upgrade.to);
                (Phase::RolledBack, word, message)
            }
        };
        self.settle(Verdict::with_reason(phase, word, message));
    }

    /// Whether a target is blocked because a person went back from it.
    pub(super) fn gave_up(&self, blocked: &BlockedTarget) -> bool {
        let ended_so = |last: &&UpgradeStatus| match blocked.outcome {
            Outcome::RolledBack => last.outcome == Some(Outcome::Succeeded),
            other => last.outcome == Some(other),
        };
        let gives_up = self.next.upgrade.as_ref().filter(ended_so).and_then(|last| last.gives_up.as_ref());
        gives_up.is_some_and(|given| given.target_hash == blocked.target_hash)
    }

    /// Says what was lost with the data that was restored (P9).
    pub(super) fn lost(&self, upgrade: &UpgradeStatus, observation: Option<&Observation>) -> String {
        let id = upgrade.rollback_to.as_ref().unwrap_or(&upgrade.id);
        let seen = observation.into_iter().flat_map(|seen| &seen.restore_points);
        let seen = seen.filter(|point| point.id.as_str() == id).map(|point| whole_seconds(point.at));
        let known = self.next.restore_points.iter().filter(|point| point.id == *id).map(|point| point.at.0);
        let since = seen.chain(known).next();
        let since = since.map_or_else(|| format!("restore point {id} was made"), |at| at.to_string());
        format!(
            "Data was restored, too: what was written to the declared paths and volumes since {since} is lost."
        )
    }
}

/// What a rollback by a person does, as the beginning of a sentence.
pub(super) fn what(upgrade: &UpgradeStatus) -> String {
    let from = upgrade.from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
    let point = upgrade.rollback_to.as_deref().unwrap_or_default();
    format!("Rolling back{from} to {} (restore point {point})", upgrade.to)
}

fn submission(id: OperationId, epoch: u64, to: &RestorePointBrief, data: bool, again: bool) -> Submission {
    Submission {
        id,
        epoch,
        target_hash: bounded(&to.target_hash, 128),
        approach: Approach::Release,
        pinned: Vec::new(),
        rollback: Some(Rollback { to: to.id.clone(), data, release: label(&to.release) }),
        again,
    }
}

fn label(release: &ReleaseLabel) -> ReleaseLabel {
    ReleaseLabel {
        image_tag: bounded(&release.image_tag, 128),
        bundle_revision: release.bundle_revision.as_deref().map(|revision| bounded(revision, 128)),
        files_hash: bounded(&release.files_hash, 128),
    }
}

fn point(brief: &RestorePointBrief) -> RestorePoint {
    RestorePoint {
        id: brief.id.to_string(),
        at: Time(whole_seconds(brief.at)),
        image_tag: bounded(&brief.release.image_tag, 128),
        data: brief.data.iter().take(DATA_LIMIT).map(|part| bounded(part, 1_040)).collect(),
        bytes: i64::try_from(brief.bytes).unwrap_or(i64::MAX),
    }
}
