//! Which services did not come up, what failed first before who waited for it, and what people are told of their words.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tenantry_api::conditions::bounded;
use tenantry_api::names::ServiceName;
use tenantry_protocol::{FailedService, ServiceHealth};

use crate::compare::{Container, ContainerState, Expected, Lifetime, of_service, problem};
use crate::model::Model;

/// The longest line of a log that is put into a sentence.
const QUOTED: usize = 240;

/// How a service takes part in a failure; the first are causes, the last wait for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// It ended, was restarted, or its healthcheck says that it is not well.
    Failed,
    /// It runs and is not ready yet.
    NotReady,
    /// It runs as it should, but a probe of it did not pass.
    Probed,
    /// It is otherwise than planned.
    Otherwise,
    /// It was never started.
    Waits,
}

/// A service that did not come up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The service.
    pub service: String,
    /// How it takes part.
    pub part: Part,
    /// What is wrong with it.
    pub problem: String,
    /// The container that says most about it.
    pub container: Option<String>,
    /// When that container last ended, once that is known.
    pub ended: Option<Timestamp>,
}

impl Suspect {
    /// The same once it is known what its container went through: when it ended, and why the engine could not start it, which
    /// makes it a cause where it else only waited.
    #[must_use]
    pub fn knowing(self, ended: Option<Timestamp>, refused: Option<&str>) -> Self {
        match refused.filter(|_| self.part == Part::Waits) {
            Some(why) => {
                let problem = format!("{} could not be started: {}", self.service, bounded(why, QUOTED));
                Self { part: Part::Failed, problem, ended, ..self }
            }
            None => Self { ended, ..self },
        }
    }
}

/// The services that are not as expected, and those that are named besides: for a restart that is over, or a probe.
pub fn suspects(
    expected: &BTreeMap<ServiceName, Expected>,
    containers: &[Container],
    named: &[String],
) -> Vec<Suspect> {
    let one = |(name, expected): (&ServiceName, &Expected)| {
        let own = of_service(containers, name.as_str());
        let found = problem(name.as_str(), expected, &own).map(|problem| problem.text().to_owned());
        let named = named.iter().any(|one| one == name.as_str());
        let worst = own.iter().max_by_key(|container| Reverse(part(container, expected))).copied();
        let restarted = named && worst.is_some_and(|container| container.restart_count > 0);
        let (part, problem) = match (found, worst) {
            (Some(text), Some(container)) => (part(container, expected), text),
            (Some(text), None) => (Part::Waits, text),
            (None, _) if restarted => (Part::Failed, format!("{name} ended and was restarted")),
            (None, _) if named => (Part::Probed, format!("{name} runs, but a probe of it did not pass")),
            (None, _) => return None,
        };
        let container = worst.map(|container| container.id.clone());
        Some(Suspect { service: name.to_string(), part, problem, container, ended: None })
    };
    expected.iter().filter_map(one).collect()
}

fn part(container: &Container, expected: &Expected) -> Part {
    match container.state {
        ContainerState::Exited if expected.lifetime.is_done_by_ending() && container.exit_code == 0 => {
            Part::Otherwise
        }
        ContainerState::Exited | ContainerState::Dead | ContainerState::Restarting => Part::Failed,
        ContainerState::Created => Part::Waits,
        ContainerState::Running if container.health == ServiceHealth::Unhealthy => Part::Failed,
        ContainerState::Running
            if container.health == ServiceHealth::Starting || expected.lifetime == Lifetime::Ends =>
        {
            Part::NotReady
        }
        ContainerState::Running | ContainerState::Paused | ContainerState::Removing => Part::Otherwise,
    }
}

/// The same, what failed first before what failed for it: by part, then whoever depends on fewer of the others, then by time.
pub fn in_order(mut suspects: Vec<Suspect>, model: &Model) -> Vec<Suspect> {
    let names: BTreeSet<String> = suspects.iter().map(|one| one.service.clone()).collect();
    let suspected = |service: &&&str| names.contains(**service);
    suspects.sort_by_cached_key(|one| {
        let depends = model.dependencies(&one.service).iter().filter(suspected).count();
        let ended = one.ended.unwrap_or(Timestamp::MAX);
        (one.part, depends, ended, one.service.clone())
    });
    suspects
}

/// The one sentence of a service's own words that a message has room for: its last line, or what its healthcheck printed.
pub fn said(failed: &FailedService) -> Option<String> {
    let last =
        |text: &str| text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned);
    let quoted = |line: String| bounded(&line, QUOTED);
    let check = failed.healthcheck.as_deref().and_then(last);
    let line = failed.log.iter().rev().find_map(|line| last(line));
    let service = &failed.service;
    let refused = format!("{service} could not be started: ");
    match (check, line) {
        (None, None) if failed.problem.starts_with(&refused) => Some(failed.problem.clone()),
        (Some(check), Some(line)) => Some(format!(
            "The healthcheck of {service} printed: \"{}\"; {service} said last: \"{}\"",
            quoted(check),
            quoted(line)
        )),
        (Some(check), None) => Some(format!("The healthcheck of {service} printed: \"{}\"", quoted(check))),
        (None, Some(line)) => Some(format!("{service} said last: \"{}\"", quoted(line))),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests;
