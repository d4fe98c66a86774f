//! Pull: every image that the plan chose becomes local. Nothing that runs is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use tenantry_planner::steps::{ImageChoice, ImageSource, JournalState, PlannedImage, StepOutput};
use tenantry_protocol::{FailureCategory, Progress};

use crate::engine::{Image, PullProgress, Reference};
use crate::operation::context::OperationContext;
use crate::operation::driver::StepResult;
use crate::operation::parts::image_pins;
use crate::planning::StepError;

/// How many images come side by side.
const SIDE_BY_SIDE: usize = 4;
/// Watchers are not told of progress more often than this.
const TOLD_EVERY: Duration = Duration::from_millis(250);

/// Makes every image local.
pub async fn pull(operation: &OperationContext, state: &JournalState) -> Result<StepResult, StepError> {
    let choices = state.plan().and_then(|plan| plan.choices.clone()).ok_or_else(|| {
        let message = "the plan of this operation chose no images, for an older agent made it: ask for the upgrade again";
        StepError::new(FailureCategory::AgentFault, message)
    })?;
    let pinned = pinned_already(state);
    let images = images(operation, choices, &pinned).await?;
    let new = images.iter().filter(|image| !pinned.contains(&image.image_id)).count();
    Ok(StepResult {
        did: StepOutput::Pulled { images },
        message: Some(format!("{new} images are new on this host")),
    })
}

/// Images that Preflight has pinned for this operation.
fn pinned_already(state: &JournalState) -> BTreeSet<String> {
    let Some(plan) = state.plan() else { return BTreeSet::new() };
    let pointed = plan.references.iter().filter_map(|reference| reference.image_id.clone());
    pointed.chain(plan.previous_images.iter().map(|image| image.image_id.clone())).collect()
}

async fn images(
    operation: &OperationContext,
    choices: Vec<ImageChoice>,
    pinned: &BTreeSet<String>,
) -> Result<Vec<PlannedImage>, StepError> {
    let meter = Meter::new(operation, choices.len());
    let wanted = choices.into_iter().map(|choice| {
        let meter = &meter;
        async move {
            let image = local(operation, &choice, meter).await?;
            if !pinned.contains(&image.id) {
                let new = std::slice::from_ref(&image.id);
                image_pins::keep(&*operation.host.engine, &operation.request.tenant.uid, &operation.id, new)
                    .await?;
            }
            meter.done();
            let repo_digest = image.repo_digest(&choice.reference);
            Ok::<_, StepError>(PlannedImage { reference: choice.reference, image_id: image.id, repo_digest })
        }
    });
    let mut images: Vec<PlannedImage> =
        futures::stream::iter(wanted).buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
    images.sort_by(|a, b| a.reference.cmp(&b.reference));
    Ok(images)
}

/// Makes one image local.
async fn local(
    operation: &OperationContext,
    choice: &ImageChoice,
    meter: &Meter<'_>,
) -> Result<Image, StepError> {
    let (engine, reference) = (&operation.host.engine, choice.reference.as_str());
    let digest = match &choice.from {
        ImageSource::Registry { digest } => digest,
        ImageSource::Host { image_id } => {
            return engine.known_image(image_id).await?.ok_or_else(|| {
                let message = format!(
                    "image {image_id} of {reference} was on this host when it was planned, and is gone"
                );
                StepError::new(FailureCategory::ImageNotFound, message)
            });
        }
    };
    let parsed = Reference::parse(reference).ok_or_else(|| {
        StepError::new(FailureCategory::ComposeInvalid, format!("{reference:?} is no image reference"))
    })?;
    let name = parsed.at(digest);
    if let Some(image) = engine.image(&name).await? {
        return Ok(image);
    }
    let mut progress = |progress| meter.bytes(reference, progress);
    let pulled = engine.pull(&parsed.repository, digest, &mut progress).await;
    pulled.map_err(|error| StepError::new(error.registry_category(), error.about_image(reference)))?;
    engine.image(&name).await?.ok_or_else(|| {
        let message = format!("{name} was pulled, but the engine does not have it");
        StepError::new(FailureCategory::EngineFault, message)
    })
}

/// Adds up the progress of all images and tells watchers now and then.
struct Meter<'a> {
    operation: &'a OperationContext,
    state: Mutex<MeterState>,
}

struct MeterState {
    images: BTreeMap<String, PullProgress>,
    done: u32,
    total: u32,
    told: Option<Instant>,
}

impl<'a> Meter<'a> {
    fn new(operation: &'a OperationContext, total: usize) -> Self {
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        Self {
            operation,
            state: Mutex::new(MeterState { images: BTreeMap::new(), done: 0, total, told: None }),
        }
    }

    fn bytes(&self, reference: &str, progress: PullProgress) {
        let mut state = self.state.lock();
        state.images.insert(reference.to_owned(), progress);
        if self.is_due(&state) {
            self.tell(&mut state);
        }
    }

    fn done(&self) {
        let mut state = self.state.lock();
        state.done += 1;
        if state.done == state.total || self.is_due(&state) {
            self.tell(&mut state);
        }
    }

    /// Whether watchers were told long enough ago.
    fn is_due(&self, state: &MeterState) -> bool {
        state.told.is_none_or(|told| self.operation.host.since(told) >= TOLD_EVERY)
    }

    fn tell(&self, state: &mut MeterState) {
        state.told = Some(self.operation.host.runtime.instant());
        self.operation.progress(Progress {
            images_done: state.done,
            images_total: state.total,
            bytes_done: state.images.values().map(|image| image.done).sum(),
            bytes_total: state.images.values().map(|image| image.total).sum(),
        });
    }
}
