//! Verification: samples for the shipped judge, whenever the engine reports something, and every so often besides.

use std::collections::BTreeMap;

use tenantry_agent::operation::StepResult;
use tenantry_agent::planning::StepError;
use tenantry_api::names::ServiceName;
use tenantry_planner::compare::{Container, Expected, expectations};
use tenantry_planner::steps::{JournalState, StepOutput};
use tenantry_planner::verify::{Judge, Sample, Verdict};
use tenantry_protocol::RunImage;

use super::{Operation, no_compose_file};
use crate::agent::tick;
use crate::releases::DIRECTORY;

const EVERY: u64 = 2_000;
const PAUSE: u64 = 100;
const ENGINE_PATIENCE: u32 = 15;

impl Operation {
    pub(super) async fn verify(&self, state: &JournalState) -> Result<StepResult, StepError> {
        let model = self.release()?;
        let mut expected = expectations(&model, &self.request.manifest.jobs);
        for (name, expected) in &mut expected {
            let reference = model.services.get(name).map(|service| service.image.as_str());
            let planned =
                state.planned_images().iter().find(|image| Some(image.reference.as_str()) == reference);
            expected.image_id = planned.map(|image| image.image_id.clone());
        }
        let containers = self.watch(expected).await?;
        let images = model.services.iter().filter_map(|(name, service)| {
            let container = containers.iter().find(|container| container.service == name.as_str());
            let planned = state.planned_images().iter().find(|image| image.reference == service.image);
            let image_id = container
                .map(|one| one.image_id.clone())
                .or_else(|| planned.map(|one| one.image_id.clone()))?;
            Some(RunImage {
                service: name.to_string(),
                reference: service.image.clone(),
                image_id,
                repo_digest: planned.and_then(|image| image.repo_digest.clone()),
            })
        });
        let images = images.collect();
        Ok(StepResult { did: StepOutput::Verified { images }, message: None })
    }

    pub(super) async fn verify_previous(&self, state: &JournalState) -> Result<StepResult, StepError> {
        let model = self.on_disk()?.ok_or_else(no_compose_file)?;
        let mut expected = expectations(&model, &self.request.manifest.jobs);
        let images = state.plan().map(|plan| plan.previous_images.clone()).unwrap_or_default();
        for (name, expected) in &mut expected {
            let image = images.iter().find(|image| image.service == name.as_str());
            expected.image_id = image.map(|image| image.image_id.clone());
        }
        self.watch(expected).await?;
        Ok(StepResult::saying("the previous release runs again and was seen healthy"))
    }

    async fn watch(&self, expected: BTreeMap<ServiceName, Expected>) -> Result<Vec<Container>, StepError> {
        let policy = &self.request.verify;
        let mut judge = Judge::new(expected, policy.timeout_ms, policy.stable_for_ms);
        let mut away = 0;
        let mut fresh = true;
        loop {
            if let Err(wrong) = self.engine() {
                away += 1;
                if away > ENGINE_PATIENCE {
                    return Err(wrong);
                }
                judge.missed();
                tick(&self.shared, EVERY).await;
                continue;
            }
            away = 0;
            let (at_ms, containers, event) = self.look();
            let sample = Sample { at_ms, containers: &containers, probe_problems: &[] };
            let wait = match judge.judge(&sample) {
                Verdict::Good if !fresh => {
                    fresh = true;
                    continue;
                }
                Verdict::Good => return Ok(containers),
                Verdict::Failed(category, text) => return Err(StepError::new(category, text)),
                Verdict::Waiting(_) => EVERY,
                Verdict::Stabilising(left) => EVERY.min(left),
            };
            fresh = false;
            tick(&self.shared, 1).await;
            let now = self.shared.world().now();
            let next = event.map_or(wait, |event| wait.min(event.saturating_sub(now) + PAUSE));
            crate::scheduler::sleep(&self.shared, next.max(PAUSE.min(wait)).max(1)).await;
        }
    }

    fn look(&self) -> (u64, Vec<Container>, Option<u64>) {
        let world = self.shared.world();
        let engine = &world.host.engine;
        let now = world.now();
        let own: Vec<_> = engine.containers.values().filter(|one| one.directory == DIRECTORY).collect();
        let containers = own.iter().map(|one| engine.seen(one, now)).collect();
        let event = own.iter().filter_map(|one| engine.next_event(one, now)).min();
        (now, containers, event)
    }
}
