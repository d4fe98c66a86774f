//! Rollback: images, containers and verification of the previous release. Files are Write's own way back.

use std::sync::Arc;
use std::time::Duration;

use tenantry_planner::compare::expectations;
use tenantry_planner::model::Model;
use tenantry_planner::steps::JournalState;

use super::back::{present, terms};
use super::checked;
use super::driver::{Performed, Wrong};
use super::start::{bring_up, put, record_made};
use super::verify::watch;
use super::work::Work;
use crate::engine::{ProjectContainer, Reference};

/// Puts every reference back to where it pointed.
pub async fn restore_images(work: &Work, state: &JournalState) -> Result<Performed, Wrong> {
    let Some(plan) = state.plan() else { return Ok(Performed::quietly()) };
    let (host, uid) = (work.host.clone(), work.request.tenant.uid.clone());
    let known = work.blocking(move || Ok(host.store.baseline(&uid)?.images)).await?;
    for previous in &plan.references {
        // A tag that somebody took away pointed, for the release before, to what its containers ran.
        let ran = plan.previous_images.iter().find(|image| image.reference == previous.reference);
        match previous.image_id.as_ref().or(ran.map(|image| &image.image_id)) {
            Some(image) => {
                present(work, image, &previous.reference, &known).await?;
                put(work, &previous.reference, image).await?;
            }
            None => take_away(work, state, &previous.reference).await?,
        }
    }
    Ok(Performed::quietly())
}

/// A reference that pointed nowhere. Only where it is ours: another project may have pulled it meanwhile.
async fn take_away(work: &Work, state: &JournalState, reference: &str) -> Result<(), Wrong> {
    let ours = state.planned_images().iter().find(|image| image.reference == reference);
    let parsed = Reference::parse(reference);
    let (Some(ours), Some(Reference { tag: Some(_), digest: None, .. })) = (ours, parsed) else {
        return Ok(());
    };
    let now = work.host.engine.image(reference).await?;
    if now.is_some_and(|now| now.id == ours.image_id)
        && let Err(error) = work.host.engine.untag(reference).await
    {
        // It does no harm where it is.
        tracing::info!(reference, %error, "a reference of the failed release is left");
    }
    Ok(())
}

/// Removes what a first installation made. Volumes stay.
pub async fn remove_created(work: &Work, state: &JournalState) -> Result<Performed, Wrong> {
    let before = state.plan().map(|plan| plan.containers.as_slice()).unwrap_or_default();
    let containers = work.containers().await?;
    let made: Vec<&ProjectContainer> =
        containers.iter().filter(|one| !before.contains(&one.container.id)).collect();
    remove(work, &made, None).await?;
    let names: Vec<&str> = made.iter().map(|one| one.container.name.as_str()).collect();
    Ok(Performed::saying(format!(
        "nothing ran here before: {} containers that this operation made were removed; volumes were left",
        names.len()
    )))
}

async fn remove(work: &Work, containers: &[&ProjectContainer], model: Option<&Model>) -> Result<(), Wrong> {
    for one in containers {
        let service = model.and_then(|model| {
            model
                .services
                .iter()
                .find(|(name, _)| name.as_str() == one.container.service)
                .map(|(_, service)| service)
        });
        let grace = service.and_then(|service| service.stop_grace_ms).map(Duration::from_millis);
        work.host.engine.stop_and_remove(&one.container.id, grace).await?;
    }
    Ok(())
}

/// Starts the previous release from its restored files.
pub async fn start_previous(work: &Work, state: &JournalState) -> Result<Performed, Wrong> {
    let (discovered, model) = previous(work, state).await?;
    let before = state.plan().map(|plan| plan.containers.as_slice()).unwrap_or_default();
    let containers = work.containers().await?;
    // Services that only the failed release has.
    let strange = |one: &&ProjectContainer| {
        !before.contains(&one.container.id)
            && !model.services.keys().any(|name| name.as_str() == one.container.service)
    };
    let strange: Vec<&ProjectContainer> = containers.iter().filter(strange).collect();
    remove(work, &strange, None).await?;
    bring_up(work, state, &discovered, &model).await?;
    record_made(work, state, &model).await?;
    Ok(Performed::quietly())
}

/// Watches the previous release, by its own terms.
pub async fn verify_previous(work: &Work, state: &JournalState) -> Result<Performed, Wrong> {
    let (_, model) = previous(work, state).await?;
    let terms = terms(work, state).await?;
    let mut expected = expectations(&model, &terms.jobs);
    let images = state.plan().map(|plan| plan.previous_images.as_slice()).unwrap_or_default();
    for (name, expected) in &mut expected {
        expected.image_id =
            images.iter().find(|image| image.service == name.as_str()).map(|image| image.image_id.clone());
    }
    watch(work, expected, &terms.verify).await?;
    Ok(Performed::saying("the previous release runs again and was seen healthy"))
}

async fn previous(
    work: &Work,
    state: &JournalState,
) -> Result<(crate::compose::Discovered, Arc<Model>), Wrong> {
    let checked = state.plan().map(|plan| plan.previous_checked.clone()).unwrap_or_default();
    checked::previous(work, &checked).await
}
