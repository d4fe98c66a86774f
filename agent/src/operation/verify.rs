//! Verify: samples for the judge, taken whenever the engine reports something, and every so often besides.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tenantry_api::names::ServiceName;
use tenantry_planner::compare::{Container, Expected, expectations};
use tenantry_planner::model::Model;
use tenantry_planner::steps::{Did, State};
use tenantry_planner::verify::{Judge, Sample, Verdict};
use tenantry_protocol::{FailureCategory, ProbeHttp, RunImage, VerifyPolicy};

use super::back::terms;
use super::driver::{Performed, Wrong};
use super::work::Work;

/// A look at least so often, whatever the events say.
const EVERY: Duration = Duration::from_secs(2);
/// A look at most so often.
const PAUSE: Duration = Duration::from_millis(100);
/// Probes that were not answered as said are asked again so soon.
const PROBE_AGAIN: Duration = Duration::from_millis(250);
const PROBE_LIMIT: Duration = Duration::from_secs(5);
const PROBE_BODY: usize = 64 * 1024;

/// Watches the release.
pub async fn verify(work: &Work, state: &State) -> Result<Performed, Wrong> {
    let (_, model) = work.release().await?;
    let terms = terms(work, state).await?;
    let mut expected = expectations(&model, &terms.jobs);
    for (name, expected) in &mut expected {
        let reference = model.services.get(name).map(|service| service.image.as_str());
        let planned = state.planned_images().iter().find(|image| Some(image.reference.as_str()) == reference);
        expected.image_id = planned.map(|image| image.image_id.clone());
    }
    let containers = watch(work, expected, &terms.verify).await?;
    let images = run_images(state, &model, &containers);
    Ok(Performed { message: Some(summary(&terms.verify, &containers)), did: Did::Verified { images } })
}

/// Takes samples until the judge has decided; gives the last containers seen.
pub async fn watch(
    work: &Work,
    expected: BTreeMap<ServiceName, Expected>,
    policy: &VerifyPolicy,
) -> Result<Vec<Container>, Wrong> {
    let probes = policy.http.as_slice();
    let mut judge = Judge::new(expected, policy.timeout_ms, policy.stable_for_ms);
    let mut events = work.host.engine.events().subscribe();
    let client = probe_client(probes)?;
    let began = Instant::now();
    let mut answered = Instant::now();
    // The first and the last look are fresh ones: an event may come a moment after what it tells of.
    let mut fresh = true;
    loop {
        events.mark_unchanged();
        let containers: Vec<Container> =
            match if fresh { work.containers().await } else { work.known_containers().await } {
                Ok(containers) => containers.into_iter().map(|one| one.container).collect(),
                Err(wrong) => {
                    if answered.elapsed() > work.host.limits.away {
                        return Err(wrong);
                    }
                    judge.missed();
                    tokio::time::sleep(EVERY).await;
                    continue;
                }
            };
        answered = Instant::now();
        let problems = match &client {
            Some(client) => probe_all(client, probes).await,
            None => Vec::new(),
        };
        let at_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let sample = Sample { at_ms, containers: &containers, probe_problems: &problems };
        let wait = match judge.judge(&sample) {
            Verdict::Good if !fresh => {
                fresh = true;
                continue;
            }
            Verdict::Good => return Ok(containers),
            Verdict::Failed(category, text) => return Err(Wrong::new(category, text)),
            Verdict::Waiting(_) if problems.is_empty() => EVERY,
            Verdict::Waiting(_) => PROBE_AGAIN,
            Verdict::Stabilising(left) => EVERY.min(Duration::from_millis(left)),
        };
        fresh = false;
        tokio::time::sleep(PAUSE.min(wait)).await;
        let _ = tokio::time::timeout(wait.saturating_sub(PAUSE), events.changed()).await;
    }
}

fn probe_client(probes: &[ProbeHttp]) -> Result<Option<reqwest::Client>, Wrong> {
    if probes.is_empty() {
        return Ok(None);
    }
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(PROBE_LIMIT)
        .build()
        .map_err(|error| Wrong::new(FailureCategory::AgentFault, format!("no client for probes: {error}")))?;
    Ok(Some(client))
}

async fn probe_all(client: &reqwest::Client, probes: &[ProbeHttp]) -> Vec<String> {
    let asked = probes.iter().cloned().map(|probe| {
        let client = client.clone();
        async move { probe_one(&client, &probe).await }
    });
    futures::stream::iter(asked).buffered(4).filter_map(|problem| async move { problem }).collect().await
}

/// What is wrong with a probe's answer, if anything. The answer itself is never quoted.
async fn probe_one(client: &reqwest::Client, probe: &ProbeHttp) -> Option<String> {
    let mut answer = match client.get(&probe.url).send().await {
        Ok(answer) => answer,
        Err(error) if error.is_timeout() => {
            return Some(format!("{}: no answer within {} s", probe.url, PROBE_LIMIT.as_secs()));
        }
        Err(_) => return Some(format!("{}: can't connect", probe.url)),
    };
    let status = answer.status().as_u16();
    if status != probe.status {
        return Some(format!("{}: answered {status} instead of {}", probe.url, probe.status));
    }
    let wanted = probe.contains.as_deref()?;
    let mut body = Vec::new();
    while body.len() < PROBE_BODY {
        match answer.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(_) => return Some(format!("{}: the answer broke off", probe.url)),
        }
    }
    body.truncate(PROBE_BODY);
    let found = String::from_utf8_lossy(&body).contains(wanted);
    (!found).then(|| format!("{}: the answer does not contain {wanted:?}", probe.url))
}

fn run_images(state: &State, model: &Model, containers: &[Container]) -> Vec<RunImage> {
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

fn summary(policy: &VerifyPolicy, containers: &[Container]) -> String {
    use tenantry_planner::compare::ContainerState::Running;
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
    text
}
