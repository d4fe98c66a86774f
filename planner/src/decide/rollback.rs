//! Going back to a restore point, because a person asked for it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tenantry_api::conditions::{bounded, whole_seconds};
use tenantry_api::names::OperationId;
use tenantry_api::tenant::Approach;
use tenantry_api::tenant_status::{GivenUp, Handled, HistoryEntry, Outcome, Phase, RestorePoint};
use tenantry_protocol::{Observation, ReleaseLabel, RestorePointBrief};

use super::annotations::asked;
use super::conditions::PhaseReport;
use super::decision::Ruling;
use super::in_flight::planning;
use super::lifecycle::{End, Lifecycle, Operation, Purpose};
use super::outcomes::Meaning;
use super::progress;
use super::{Answer, Draft, Effect, SHOWN, Submission, refused};
use crate::target::{Desired, OperationTerms, Refusal, RefusalReason, Rollback};
use crate::text::listed;

/// How many restore points status lists.
const POINT_LIMIT: usize = 20;
/// How many parts of one restore point's data status lists.
const DATA_LIMIT: usize = 32;

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

impl Draft<'_> {
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

    /// Begins to go back where that is asked for.
    pub(super) fn asked_to_go_back(
        &mut self,
        desired: &Desired,
        observation: &Observation,
    ) -> Option<Ruling> {
        let handled = self.handled().rollback_to;
        let value = asked(self.facts.subject.rollback_to.as_deref(), handled.as_deref())?;
        let wish = Wish::parse(&value);
        let begun = self.begin_to_go_back(&wish, desired, observation);
        if begun.is_ok() {
            self.next.handled.get_or_insert_with(Handled::default).rollback_to = Some(value);
        }
        Some(begun.unwrap_or_else(|refusal| refused(&refusal)))
    }

    fn begin_to_go_back(
        &mut self,
        wish: &Wish<'_>,
        desired: &Desired,
        observation: &Observation,
    ) -> Result<Ruling, Refusal> {
        let ids = observation.restore_points.iter().map(|point| point.id.as_str());
        let found = match wish.id {
            "" => further_back(ids, &self.next.history).and_then(|at| observation.restore_points.get(at)),
            id => observation.restore_points.iter().find(|point| point.id.as_str() == id),
        };
        let to = self.labelled(found.ok_or_else(|| self.no_such_point(wish.id, observation))?);
        if self.facts.subject.cannot_roll_back {
            let message = format!(
                "The agent of host {} can't go back to a restore point: install a tenantry-agent of this operator's version.",
                self.facts.subject.host
            );
            return Err(Refusal::new(RefusalReason::RequestRefused, message));
        }
        let (id, epoch) = self.named(self.next_epoch(observation))?;
        let operation = self.operation_back(&to, &id, epoch.stored);
        let and_data = if wish.data { ", with data" } else { "" };
        let message = format!("{}{and_data}: checking the host.", progress::what(&operation));
        self.lifecycle = Lifecycle::InFlight(operation);
        self.next.plan = None;
        let terms = terms(epoch.raised, &to, wish.data);
        let submission = Submission { id, terms, desired: desired.clone(), again: false };
        let report = PhaseReport::of(Phase::Planning, message);
        Ok(Ruling::says(report).with(Effect::Submit(Box::new(submission))))
    }

    fn operation_back(&self, to: &RestorePointBrief, id: &OperationId, epoch: i64) -> Operation {
        let from = match &self.lifecycle {
            Lifecycle::Ended(held, End { outcome: Outcome::Held, .. }) => Some(held.to.clone()),
            Lifecycle::None | Lifecycle::InFlight(_) | Lifecycle::Ended(..) => {
                self.next.deployed.as_ref().map(|deployed| deployed.image_tag.clone())
            }
        };
        let label = label(&to.release);
        let now = Time(whole_seconds(self.facts.now));
        Operation {
            id: id.to_string(),
            epoch,
            from,
            to: label.image_tag,
            target_hash: bounded(&to.target_hash, 128),
            bundle_revision: label.bundle_revision,
            files_hash: Some(label.files_hash),
            purpose: Purpose::Rollback { to: to.id.to_string(), gives_up: self.given_up() },
            began_on: self.lifecycle.host(),
            attempt: 1,
            failing_since: None,
            started_at: now.clone(),
            phases: vec![planning(now)],
        }
    }

    /// What is wanted can't be said, but a person may go back all the same.
    pub(super) fn only_goes_back(&mut self) -> Option<Ruling> {
        let back = self.facts.back?;
        match self.facts.answer {
            Answer::NotAsked | Answer::Followed(_, None) => None,
            Answer::Unreached(why, text) => Some(self.unreached(why, text)),
            Answer::Refused(error) | Answer::NotBegun(error) => Some(self.agent_refused(error)),
            Answer::Seen(observation)
            | Answer::Unknown(observation)
            | Answer::Followed(_, Some(observation)) => {
                if let Some(ruling) = self.not_ours(back, observation) {
                    return Some(ruling);
                }
                self.record_points(observation);
                self.asked_to_go_back(back, observation)
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
            let last = self.lifecycle.operation().filter(|last| last.id == id).map(|last| &last.from);
            let ended = self.next.history.iter().filter(|entry| entry.id == id).map(|entry| &entry.from);
            let known = last.into_iter().chain(ended).find_map(Option::as_ref);
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
        let message = if id.is_empty() && !known.is_empty() {
            format!(
                "{what}, but nothing is further back than what runs, which a person went back to; host {host} has {}. Set \
                 the annotation to one of these, or remove it.",
                listed(&known, SHOWN)
            )
        } else if known.is_empty() {
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

    /// Submits a rollback that the agent never got, under the same id where that still fits; else asks anew.
    pub(super) fn resubmit_rollback(
        &mut self,
        operation: &Operation,
        desired: &Desired,
        observation: &Observation,
    ) -> Ruling {
        let to = operation.rollback_to();
        let found = observation.restore_points.iter().find(|point| Some(point.id.as_str()) == to);
        let fits = observation.epoch <= operation.epoch();
        let (Some(id), Some(found), true) = (operation.id(), found, fits) else {
            self.ask_again_to_go_back(operation, "Never reached the agent; it is asked anew.");
            return self.at_rest();
        };
        let asked = self.handled().rollback_to.unwrap_or_default();
        let terms = terms(operation.epoch(), &self.labelled(found), Wish::parse(&asked).data);
        let again = Submission { id, terms, desired: desired.clone(), again: true };
        Ruling::unchanged().with(Effect::Submit(Box::new(again)))
    }

    /// Ends an operation that was not begun. What a person asked for still stands.
    pub(super) fn ask_again_to_go_back(&mut self, operation: &Operation, why: &str) {
        self.end_unbegun(operation, why);
        self.restore_wish(operation, None);
    }

    /// Sets back what counts as handled of a person's wish, where the operation was for that.
    pub(super) fn restore_wish(&mut self, operation: &Operation, handled: Option<String>) {
        match (&operation.purpose, &mut self.next.handled) {
            (Purpose::Rollback { .. }, Some(known)) => known.rollback_to = handled,
            (Purpose::Rollback { .. }, None) | (Purpose::Upgrade, _) => {}
        }
    }

    /// How going back ended, as people see it. Where it failed before or without a change that lasts, what was
    /// blocked stays blocked and what was deployed stays so.
    pub(super) fn went_back(
        &mut self,
        operation: &Operation,
        gives_up: Option<&GivenUp>,
        outcome: Outcome,
        reason: &str,
        word: &str,
    ) -> PhaseReport {
        let (meaning, tag, hash) = (Meaning::of(outcome), &operation.to, &operation.target_hash);
        let gives_up = gives_up.filter(|given| given.target_hash != *hash);
        let message = format!("Going back to {tag} {}: {reason}", meaning.rollback);
        match outcome {
            Outcome::Succeeded => return self.is_back(operation, gives_up, reason),
            Outcome::RollbackFailed => self.block = Some(self.blocks(hash, tag, outcome, reason)),
            Outcome::Held => {
                let (hash, tag) =
                    gives_up.map_or((hash, tag), |given| (&given.target_hash, &given.image_tag));
                self.block = Some(self.blocks(hash, tag, outcome, &message));
            }
            Outcome::Aborted | Outcome::RolledBack => {}
        }
        PhaseReport::with_reason(meaning.phase, word, message)
    }

    /// The Tenant is back at the restore point, and what a person went back from is blocked.
    fn is_back(&mut self, operation: &Operation, gives_up: Option<&GivenUp>, reason: &str) -> PhaseReport {
        let point = operation.rollback_to().unwrap_or_default();
        let said = format!("rolled back by a person to {} (restore point {point}). {reason}", operation.to);
        let said = said.trim_end();
        self.block = gives_up
            .map(|given| self.blocks(&given.target_hash, &given.image_tag, Outcome::RolledBack, said));
        let phase = if gives_up.is_some() { Phase::RolledBack } else { Phase::Ready };
        PhaseReport::of(phase, format!("The Tenant was {said}"))
    }

    /// Says what was lost with the data that was restored (P9).
    pub(super) fn lost(&self, operation: &Operation, observation: Option<&Observation>) -> String {
        let id = operation.rollback_to().unwrap_or(&operation.id);
        let seen = observation.into_iter().flat_map(|seen| &seen.restore_points);
        let seen = seen.filter(|point| point.id.as_str() == id).map(|point| whole_seconds(point.at));
        let known = self.next.restore_points.iter().filter(|point| point.id == id).map(|point| point.at.0);
        let since = seen.chain(known).next();
        let since = since.map_or_else(|| format!("restore point {id} was made"), |at| at.to_string());
        format!(
            "Data was restored, too: what was written to the declared paths and volumes since {since} is lost."
        )
    }
}

/// Which of the restore points, newest first, leads furthest forward without leading to what a person has left: who was
/// taken back goes on from there, not to what was undone by that. `None` where nothing is further back.
pub fn further_back<'a>(
    points: impl IntoIterator<Item = &'a str>,
    history: &[HistoryEntry],
) -> Option<usize> {
    let points: Vec<&str> = points.into_iter().collect();
    let left_by = |id: &str| {
        let entry = history.iter().find(|entry| entry.id == id && entry.outcome == Outcome::Succeeded);
        entry.and_then(|entry| entry.rollback_to.as_deref())
    };
    let mut at = 0;
    loop {
        let Some(to) = left_by(points.get(at)?) else { return Some(at) };
        // Only what is older: each round goes on.
        at += 1 + points[at..].iter().skip(1).position(|id| *id == to)? + 1;
    }
}

fn terms(epoch: u64, to: &RestorePointBrief, data: bool) -> OperationTerms {
    OperationTerms {
        epoch,
        target_hash: bounded(&to.target_hash, 128),
        approach: Approach::Release,
        pinned: Vec::new(),
        checks_reach: false,
        rollback: Some(Rollback { to: to.id.clone(), data, release: label(&to.release) }),
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
