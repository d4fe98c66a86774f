//! Pull: every image of the staged release becomes local, by digest. Nothing that runs is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use tenantry_planner::steps::{JournalState, PlannedImage, StepOutput};
use tenantry_protocol::{FailureCategory, OperationPhase, Progress};

use super::driver::{Performed, Wrong};
use super::staged::Staged;
use super::work::Work;
use super::{hand_run, keep};
use crate::core::lock;
use crate::engine::{Image, PullProgress, Reference};

/// How many images come side by side.
const SIDE_BY_SIDE: usize = 4;
/// Watchers are not told of progress more often than this.
const TOLD_EVERY: Duration = Duration::from_millis(250);

/// Makes every image local. Meanwhile the staged release is compared with what a person would see.
pub async fn pull(work: &Work, state: &JournalState) -> Result<Performed, Wrong> {
    let Some(staged) = work.staged() else {
        // A restarted agent has lost what was only in memory; all of it can be made again.
        Box::pin(super::preflight::preflight(work)).await?;
        return Box::pin(pull(work, state)).await;
    };
    let kept = kept_already(state);
    let (checked, images) = tokio::join!(hand_run::check(work, &staged), images(work, &staged, &kept));
    checked.map_err(|wrong| wrong.during(OperationPhase::Preflight))?;
    let images = images?;
    let new = images.iter().filter(|image| !kept.contains(&image.image_id)).count();
    Ok(Performed {
        did: StepOutput::Pulled { images },
        message: Some(format!("{new} images are new on this host")),
    })
}

/// Images that Preflight has kept for this operation.
fn kept_already(state: &JournalState) -> BTreeSet<String> {
    let Some(plan) = state.plan() else { return BTreeSet::new() };
    let pointed = plan.references.iter().filter_map(|reference| reference.image_id.clone());
    pointed.chain(plan.previous_images.iter().map(|image| image.image_id.clone())).collect()
}

async fn images(work: &Work, staged: &Staged, held: &BTreeSet<String>) -> Result<Vec<PlannedImage>, Wrong> {
    let (host, request) = (work.host.clone(), work.request.clone());
    let baseline = work.blocking(move || Ok(host.store.baseline(&request.tenant.uid)?)).await?;
    let kept: BTreeMap<&str, &str> =
        baseline.images.iter().map(|image| (image.reference.as_str(), image.image_id.as_str())).collect();
    let references = staged.model.references();
    let meter = Meter::new(work, references.len());
    let references = references.into_iter().map(|(reference, pulled)| {
        let kept = kept.get(reference).map(|id| (*id).to_owned());
        (reference.to_owned(), pulled, kept)
    });
    let references: Vec<(String, bool, Option<String>)> = references.collect();
    let wanted = references.into_iter().map(|(reference, pulled, kept)| {
        let meter = &meter;
        async move {
            let image = if pulled {
                wanted(work, &reference, kept.as_deref(), meter).await?
            } else {
                local(work, &reference).await?
            };
            if !held.contains(&image.id) {
                let new = std::slice::from_ref(&image.id);
                keep::keep(&work.host.engine, &work.request.tenant.uid, &work.id, new).await?;
            }
            meter.done();
            let repo_digest = image.repo_digest(&reference);
            Ok::<_, Wrong>(PlannedImage { reference, image_id: image.id, repo_digest })
        }
    });
    let mut images: Vec<PlannedImage> =
        futures::stream::iter(wanted).buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
    images.sort_by(|a, b| a.reference.cmp(&b.reference));
    Ok(images)
}

/// An image that is never pulled.
async fn local(work: &Work, reference: &str) -> Result<Image, Wrong> {
    work.host.engine.image(reference).await?.ok_or_else(|| {
        let message = format!(
            "{reference} is not on this host; it is built here or never pulled, so build or load it first"
        );
        Wrong::new(FailureCategory::ImageNotFound, message)
    })
}

async fn wanted(work: &Work, reference: &str, kept: Option<&str>, meter: &Meter<'_>) -> Result<Image, Wrong> {
    let engine = &work.host.engine;
    let parsed = Reference::parse(reference).ok_or_else(|| {
        Wrong::new(FailureCategory::ComposeInvalid, format!("{reference:?} is no image reference"))
    })?;
    let pinned = work.request.pinned.iter().find(|pinned| pinned.reference == reference);
    let pinned = parsed.digest.clone().or_else(|| pinned.and_then(|pinned| pinned.digest.clone()));
    // A tag is resolved once: what it was resolved to for the deployed release holds until somebody asks.
    if pinned.is_none()
        && let Some(id) = kept
        && let Some(image) = engine.known_image(id).await?
    {
        return Ok(image);
    }
    let digest = match pinned {
        Some(digest) => digest,
        None => engine
            .remote_digest(reference)
            .await
            .map_err(|error| Wrong { category: error.registry_category(), ..Wrong::from(error) })?,
    };
    let name = parsed.at(&digest);
    if let Some(image) = engine.image(&name).await? {
        return Ok(image);
    }
    let pulled = engine.pull(&parsed.repository, &digest, |progress| meter.bytes(reference, progress)).await;
    pulled.map_err(|error| Wrong { category: error.registry_category(), ..Wrong::from(error) })?;
    engine.image(&name).await?.ok_or_else(|| {
        let message = format!("{name} was pulled, but the engine does not have it");
        Wrong::new(FailureCategory::EngineFault, message)
    })
}

/// Adds up the progress of all images and tells watchers now and then.
struct Meter<'a> {
    work: &'a Work,
    state: Mutex<MeterState>,
}

struct MeterState {
    images: BTreeMap<String, PullProgress>,
    done: u32,
    total: u32,
    told: Option<Instant>,
}

impl<'a> Meter<'a> {
    fn new(work: &'a Work, total: usize) -> Self {
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        Self { work, state: Mutex::new(MeterState { images: BTreeMap::new(), done: 0, total, told: None }) }
    }

    fn bytes(&self, reference: &str, progress: PullProgress) {
        let mut state = lock(&self.state);
        state.images.insert(reference.to_owned(), progress);
        if state.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            self.tell(&mut state);
        }
    }

    fn done(&self) {
        let mut state = lock(&self.state);
        state.done += 1;
        if state.done == state.total || state.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            self.tell(&mut state);
        }
    }

    fn tell(&self, state: &mut MeterState) {
        state.told = Some(Instant::now());
        self.work.progress(Progress {
            images_done: state.done,
            images_total: state.total,
            bytes_done: state.images.values().map(|image| image.done).sum(),
            bytes_total: state.images.values().map(|image| image.total).sum(),
        });
    }
}
