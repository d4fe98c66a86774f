//! `spec.suspend`: nothing is done on the host, and `Ready` says all the same how it stands to what is wanted.

use tenantry_api::conditions::{READY, Truth, find};
use tenantry_protocol::{ClaimState, Observation};

use super::conditions::PhaseReport;
use super::decision::Ruling;
use super::{Answer, Draft, SHOWN};
use crate::target::Desired;
use crate::text::{listed, sentence};

impl Draft<'_> {
    /// What is said while nothing may be done.
    pub(super) fn suspended(&mut self) -> Ruling {
        let (ready, known) = match self.facts.desired {
            Ok(desired) => self.stands(desired),
            Err(refusal) => (Truth::Unknown, sentence(&refusal.message)),
        };
        Ruling::says(PhaseReport::suspended(ready, &known))
    }

    /// Whether what is wanted runs, and a sentence on that.
    fn stands(&mut self, desired: &Desired) -> (Truth, String) {
        let tag = &desired.intent.image_tag;
        if !self.at_target(&desired.target_hash(self.next.resolved.as_ref())) {
            let runs = self.next.deployed.as_ref().map(|deployed| deployed.image_tag.clone());
            let known = match runs {
                Some(runs) if runs == tag.as_str() => {
                    format!("{tag} as the spec has it now is not deployed yet.")
                }
                Some(runs) => format!("{tag} is not deployed; {runs} is."),
                None => format!("{tag} is not deployed."),
            };
            return (Truth::False, known);
        }
        let host = &self.facts.subject.host;
        match self.facts.answer {
            Answer::Seen(observation)
            | Answer::Unknown(observation)
            | Answer::Followed(_, Some(observation)) => self.seen_suspended(desired, observation),
            Answer::Unreached(_, text) => (Truth::Unknown, format!("Host {host}: {}", sentence(text))),
            Answer::Refused(error) | Answer::NotBegun(error) => (
                Truth::Unknown,
                format!("The agent of host {host} refuses: {}", sentence(&error.to_string())),
            ),
            Answer::NotAsked | Answer::Followed(_, None) => {
                let before = find(&self.next.conditions, READY).map(|ready| Truth::parse(&ready.status));
                (before.unwrap_or(Truth::Unknown), String::new())
            }
        }
    }

    fn seen_suspended(&mut self, desired: &Desired, observation: &Observation) -> (Truth, String) {
        let tag = &desired.intent.image_tag;
        let strange = observation.operation.as_ref().is_some_and(|operation| operation.outcome.is_none());
        let others = matches!(observation.claim, ClaimState::Other { .. });
        if strange || others || observation.damage.is_some() {
            let known = format!("What is on host {} can't be relied on now.", self.facts.subject.host);
            return (Truth::Unknown, known);
        }
        self.drift(observation);
        match self.problems(observation).as_slice() {
            [] => (Truth::True, format!("{tag} is deployed.")),
            problems => {
                (Truth::False, format!("{tag} is deployed, but not well: {}.", listed(problems, SHOWN)))
            }
        }
    }
}
