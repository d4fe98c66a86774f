//! Verify: samples for the judge, taken whenever the engine reports something, and every so often besides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use tenantry_api::names::ServiceName;
use tenantry_planner::before::Was;
use tenantry_planner::compare::{Container, ContainerState, Lifetime, expectations_on};
use tenantry_planner::model::Model;
use tenantry_planner::steps::{JournalState, StepOutput};
use tenantry_planner::text::listed;
use tenantry_planner::verify::{Judge, Sample, Verdict, probed_services};
use tenantry_process::runtime::timeout;
use tenantry_protocol::{FailureCategory, RunImage, VerifyPolicy};

use crate::operation::context::OperationContext;
use crate::operation::driver::StepResult;
use crate::operation::parts::{attachments, probes::Probes, terms::terms};
use crate::planning::StepError;
use crate::planning::checks::probes;

/// A look at least so often, whatever the events say.
const EVERY: Duration = Duration::from_secs(2);
/// How many services a message names.
const SHOWN: usize = 8;
/// A look at most so often.
const PAUSE: Duration = Duration::from_millis(100);

/// Watches the release.
pub async fn verify(operation: &OperationContext, state: &JournalState) -> Result<StepResult, StepError> {
    let (_, model) = operation.release().await?;
    let terms = terms(operation, state).await?;
    let networks = attachments::networks(operation, &model).await?;
    let mut expected = expectations_on(networks, &model, &terms.jobs);
    // The policy may have been narrowed while this operation waited for its agent.
    let inside = state.plan().and_then(|plan| plan.inside.as_deref());
    probes::check(operation, &terms.verify, &expected, inside)?;
    for (name, expected) in &mut expected {
        let reference = model.services.get(name).map(|service| service.image.as_str());
        let planned = state.planned_images().iter().find(|image| Some(image.reference.as_str()) == reference);
        expected.image_id = planned.map(|image| image.image_id.clone());
        // What had been running for long is no job that was just at work.
        let was = state.plan().and_then(|plan| plan.before.get(name.as_str()));
        if was == Some(&Was::Running { long: true }) {
            expected.lifetime = expected.lifetime.of_one_that_ran_for_long();
        }
    }
    let lifetimes = expected.iter().map(|(name, expected)| (name.clone(), expected.lifetime)).collect();
    let judge = Judge::new(expected, terms.verify.timeout_ms, terms.verify.stable_for_ms);
    let watched = watch(operation, judge, &terms.verify).await;
    let containers = watched.map_err(|error| about_probed(error, &terms.verify, &model))?.containers;
    let images = run_images(state, &model, &containers);
    Ok(StepResult {
        message: Some(summary(&terms.verify, &lifetimes, &containers)),
        did: StepOutput::Verified { images },
    })
}

/// What was seen at the end of watching.
pub struct Watched {
    /// The containers.
    pub containers: Vec<Container>,
    /// What is wrong with services that were no better before.
    pub as_before: Vec<String>,
}

/// Takes samples until the judge has decided.
pub async fn watch(
    operation: &OperationContext,
    mut judge: Judge,
    policy: &VerifyPolicy,
) -> Result<Watched, StepError> {
    let probes = Probes::new(operation, &policy.probes)?;
    let mut events = operation.host.engine.events().subscribe();
    let host = &operation.host;
    let began = host.runtime.instant();
    let mut answered = began;
    // The first and the last look are fresh ones: an event may come a moment after what it tells of.
    let mut fresh = true;
    loop {
        events.mark_unchanged();
        let containers: Vec<Container> =
            match if fresh { operation.containers().await } else { operation.known_containers().await } {
                Ok(containers) => containers.into_iter().map(|one| one.container).collect(),
                Err(error) => {
                    if host.since(answered) > host.limits.away {
                        return Err(error);
                    }
                    judge.missed();
                    host.runtime.sleep(EVERY).await;
                    continue;
                }
            };
        answered = host.runtime.instant();
        let problems = probes.ask(&containers).await;
        let at_ms = u64::try_from(host.since(began).as_millis()).unwrap_or(u64::MAX);
        let sample = Sample { at_ms, containers: &containers, probe_problems: &problems };
        let wait = match judge.judge(&sample) {
            Verdict::Good if !fresh => {
                fresh = true;
                continue;
            }
            Verdict::Good => {
                return Ok(Watched { containers, as_before: judge.as_before().to_vec() });
            }
            Verdict::Failed(category, text) => {
                return Err(StepError::new(category, text).about(judge.restarted(&containers)));
            }
            Verdict::Waiting(_) if problems.is_empty() => EVERY,
            Verdict::Waiting(_) => probes.again(),
            Verdict::Stabilising(left) => EVERY.min(Duration::from_millis(left)),
        };
        fresh = false;
        host.runtime.sleep(PAUSE.min(wait)).await;
        let _ = timeout(&*host.runtime, wait.saturating_sub(PAUSE), events.changed()).await;
    }
}

/// A probe that did not pass is about the services that it asks.
fn about_probed(error: StepError, policy: &VerifyPolicy, model: &Model) -> StepError {
    if error.category != FailureCategory::ProbeFailed {
        return error;
    }
    let mut about = error.about.clone();
    about.extend(probed_services(&policy.probes, model));
    error.about(about)
}

fn run_images(state: &JournalState, model: &Model, containers: &[Container]) -> Vec<RunImage> {
    let image = |name: &ServiceName, reference: &str| {
        let container = containers.iter().find(|container| container.service == name.as_str());
        let planned = state.planned_images().iter().find(|image| image.reference == reference);
        let image_id =
            container.map(|one| one.image_id.clone()).or_else(|| planned.map(|p| p.image_id.clone()))?;
        Some(RunImage {
            service: name.to_string(),
            reference: reference.to_owned(),
            image_id,
            repo_digest: planned.and_then(|image| image.repo_digest.clone()),
        })
    };
    model.services.iter().filter_map(|(name, service)| image(name, &service.image)).collect()
}

fn summary(
    policy: &VerifyPolicy,
    lifetimes: &BTreeMap<ServiceName, Lifetime>,
    containers: &[Container],
) -> String {
    use ContainerState::{Exited, Running};
    let seconds = policy.stable_for_ms.div_ceil(1_000);
    let without =
        |one: &&Container| one.state == Running && one.health == tenantry_protocol::ServiceHealth::None;
    let mut names: Vec<&str> = containers.iter().filter(without).map(|one| one.service.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut text = format!("every service was healthy for {seconds} s");
    match names.len() {
        0 => {}
        1..=8 => {
            let _ = write!(text, "; without a healthcheck, so only seen running: {}", names.join(", "));
        }
        many => {
            let _ = write!(text, "; {many} services have no healthcheck and were only seen running");
        }
    }
    let may_end = |one: &Container| {
        let of = lifetimes.get(one.service.as_str());
        one.state == Exited && matches!(of, Some(Lifetime::MayEnd { .. }))
    };
    let ended: BTreeSet<&str> =
        containers.iter().filter(|one| may_end(one)).map(|one| one.service.as_str()).collect();
    if !ended.is_empty() {
        let ended: Vec<String> = ended.into_iter().map(str::to_owned).collect();
        let _ = write!(text, "; ended with code 0 and done by that: {}", listed(&ended, SHOWN));
    }
    text
}
