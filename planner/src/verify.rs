//! Whether a release runs (promise P10): a judge over samples, with time as an argument.
//!
//! A release is good when every service has been as expected, and every probe has passed, for the whole stable
//! window without a break. What can't come right by itself fails at once; the rest has until the timeout.

mod probes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use tenantry_api::names::ServiceName;
use tenantry_protocol::{FailureCategory, ServiceHealth};

use crate::before::{Before, Was};
use crate::compare::{Container, Expected, Lifetime, Problem, of_service, problem, sharing_problem};

pub use probes::{Surroundings, named_probes, permitted, probed_services};

/// So often may a service be restarted before it was ever healthy: some wait for others by ending.
const RESTARTS_ALLOWED: u64 = 4;
/// So often may a stable window begin anew because a look came to nothing: an engine that flaps for ever ends it (P15).
const WINDOWS_LOST: u32 = 20;
/// At most so many problems are named in one message.
const NAMED_PROBLEMS: usize = 5;

/// One look at everything that runs.
#[derive(Clone, Debug)]
pub struct Sample<'a> {
    /// Milliseconds since any fixed moment.
    pub at_ms: u64,
    /// Every container of the project.
    pub containers: &'a [Container],
    /// What is wrong with probes of any kind, a sentence for each; empty when all have passed.
    pub probe_problems: &'a [String],
}

/// What the judge says of the samples so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet good, for these reasons.
    Waiting(Vec<String>),
    /// Good since a while; this many milliseconds of the stable window are left.
    Stabilising(u64),
    /// Good for the whole window.
    Good,
    /// It won't become good.
    Failed(FailureCategory, String),
}

/// Judges a release by samples.
#[derive(Clone, Debug)]
pub struct Judge {
    expected: BTreeMap<ServiceName, Expected>,
    timeout_ms: u64,
    stable_ms: u64,
    began: Option<u64>,
    good: Option<Good>,
    /// How often a stable window began anew because a look came to nothing.
    windows_lost: u32,
    restarts: BTreeMap<String, Restarts>,
    /// How services were that need not be better than that.
    before: Option<Before>,
    /// What is wrong with services that were no better before, as last seen.
    as_before: Vec<String>,
}

#[derive(Clone, Debug)]
struct Good {
    /// When the stable window began; `None` after a look that came to nothing.
    since: Option<u64>,
    containers: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug)]
struct Restarts {
    first: u64,
    last: u64,
}

impl Judge {
    /// Services have `timeout_ms` to become as expected and must then stay so for `stable_ms`.
    pub fn new(expected: BTreeMap<ServiceName, Expected>, timeout_ms: u64, stable_ms: u64) -> Self {
        Self {
            expected,
            timeout_ms,
            stable_ms,
            began: None,
            good: None,
            windows_lost: 0,
            restarts: BTreeMap::new(),
            before: None,
            as_before: Vec::new(),
        }
    }

    /// Asks of services that were not well before only that they are no worse (P18). Probes count for nothing while one
    /// is not well: nobody knows whether they passed before.
    #[must_use]
    pub fn no_worse_than(self, before: Before) -> Self {
        Self { before: Some(before), ..self }
    }

    /// What is wrong with services that were no better before, as last seen.
    pub fn as_before(&self) -> &[String] {
        &self.as_before
    }

    /// Takes one sample into account. Samples come in the order of time.
    pub fn judge(&mut self, sample: &Sample<'_>) -> Verdict {
        let began = *self.began.get_or_insert(sample.at_ms);
        if let Some((category, text)) = self.restart_problem(sample.containers) {
            return Verdict::Failed(category, text);
        }
        if self.windows_lost > WINDOWS_LOST {
            let text = "the engine did not answer again and again, so nobody saw the services for a whole stable window";
            return Verdict::Failed(FailureCategory::EngineFault, text.to_owned());
        }
        let (mut pending, mut as_before) = (Vec::new(), Vec::new());
        for (name, expected) in &self.expected {
            let own = of_service(sample.containers, name.as_str());
            match problem(name.as_str(), expected, &own) {
                None => {}
                Some(wrong) if self.is_excused(name, expected, &own) => {
                    as_before.push(wrong.text().to_owned());
                }
                Some(Problem::Pending(text)) => pending.push(text),
                Some(Problem::Final(category, text)) => return Verdict::Failed(category, text),
            }
        }
        self.as_before = as_before;
        let expected = |one: &&Container| self.expected.contains_key(one.service.as_str());
        let ours = sample.containers.iter().filter(expected);
        pending.extend(ours.filter_map(|one| sharing_problem(one, sample.containers)));
        let category =
            if pending.is_empty() { FailureCategory::ProbeFailed } else { FailureCategory::Unhealthy };
        if pending.is_empty() && self.as_before.is_empty() {
            pending.extend_from_slice(sample.probe_problems);
        }
        if pending.is_empty() {
            return self.good(sample);
        }
        self.good = None;
        if sample.at_ms.saturating_sub(began) < self.timeout_ms {
            return Verdict::Waiting(pending);
        }
        let seconds = self.timeout_ms.div_ceil(1_000);
        Verdict::Failed(category, format!("not healthy within {seconds} s: {}", named(&pending)))
    }

    /// A look came to nothing. What happened meanwhile nobody has seen: the stable window begins anew with the next sample.
    pub fn missed(&mut self) {
        if let Some(good) = &mut self.good {
            good.since = None;
            self.windows_lost += 1;
        }
    }

    /// Services of which a container was restarted since the first sample.
    pub fn restarted(&self, containers: &[Container]) -> Vec<String> {
        let again = |one: &&Container| self.restarts.get(&one.id).is_some_and(|seen| seen.last > seen.first);
        containers.iter().filter(again).map(|one| one.service.clone()).collect()
    }

    /// Whether a service is no worse than it was before, image aside.
    fn is_excused(&self, name: &ServiceName, expected: &Expected, own: &[&Container]) -> bool {
        let Some(before) = &self.before else { return false };
        let was = before.get(name.as_str()).copied().unwrap_or(Was::Absent);
        let as_planned =
            |one: &&Container| expected.image_id.as_ref().is_none_or(|planned| *planned == one.image_id);
        own.iter().all(as_planned)
            && own.iter().all(|container| was.excuses(Was::seen(container), expected))
            && (!own.is_empty() || was.excuses(Was::Absent, expected))
    }

    /// Whether a service may be restarted: it kept ending before, too.
    fn may_restart(&self, service: &str) -> bool {
        let was = self.before.as_ref().and_then(|before| before.get(service));
        was.is_some_and(|was| was.kept_ending())
    }

    fn good(&mut self, sample: &Sample<'_>) -> Verdict {
        let containers: BTreeSet<String> =
            sample.containers.iter().map(|container| container.id.clone()).collect();
        let mut good = match self.good.take() {
            Some(good) if good.containers == containers => good,
            _ => Good { since: None, containers },
        };
        let stable_for = sample.at_ms.saturating_sub(*good.since.get_or_insert(sample.at_ms));
        self.good = Some(good);
        if stable_for >= self.stable_ms || tenantry_faults::Bug::SkipStableWindow.is_seeded() {
            Verdict::Good
        } else {
            Verdict::Stabilising(self.stable_ms - stable_for)
        }
    }

    fn restart_problem(&mut self, containers: &[Container]) -> Option<(FailureCategory, String)> {
        let within_window = self.good.is_some();
        for container in containers {
            let now = container.restart_count;
            let known = Restarts { first: now, last: now };
            let counted = self.restarts.entry(container.id.clone()).or_insert(known);
            let before = std::mem::replace(&mut counted.last, now);
            let times = now.saturating_sub(counted.first);
            if now <= before
                || tenantry_faults::Bug::IgnoreRestarts.is_seeded()
                || self.may_restart(&container.service)
            {
                continue;
            }
            let Some(expected) = self.expected.get(container.service.as_str()) else { continue };
            if expected.lifetime == (Lifetime::MayEnd { retried: true }) {
                // It is tried again until it ends well, for as long as there is time: only the window begins anew.
                self.good = None;
                continue;
            }
            let (name, code) = (&container.service, container.exit_code);
            let memory = if container.oom_killed { " (out of memory)" } else { "" };
            if within_window {
                let after = match container.health {
                    ServiceHealth::None => "while it was watched",
                    _ => "after it had been healthy",
                };
                let text = format!("{name} ended with code {code}{memory} {after}, and was restarted");
                return Some((FailureCategory::Crashed, text));
            }
            if times > RESTARTS_ALLOWED {
                let text = format!("{name} keeps ending: {times} restarts, last code {code}{memory}");
                return Some((FailureCategory::Crashed, text));
            }
        }
        None
    }
}

/// Some problems in one line.
pub fn named(problems: &[String]) -> String {
    let mut text = problems.iter().take(NAMED_PROBLEMS).cloned().collect::<Vec<_>>().join("; ");
    if problems.len() > NAMED_PROBLEMS {
        let _ = write!(text, "; and {} more", problems.len() - NAMED_PROBLEMS);
    }
    text
}

#[cfg(test)]
mod tests;
