//! Which image every reference of a release stands for: a tag is resolved once, and nothing is pulled yet.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, TryStreamExt as _};
use tenantry_api::names::TenantUid;
use tenantry_api::tenant_status::Outcome;
use tenantry_planner::model::{ImageFrom, Model};
use tenantry_planner::steps::{ImageChoice, ImageSource, JournalState, Record};
use tenantry_protocol::{FailureCategory, OperationPhase};

use super::context::RequestContext;
use super::error::StepError;
use crate::engine::Reference;
use crate::store::Store;

/// How many references are looked at side by side.
const SIDE_BY_SIDE: usize = 4;

/// Chooses the image of every reference of a model.
pub async fn choices(context: &RequestContext, model: &Model) -> Result<Vec<ImageChoice>, StepError> {
    let known = known(context).await?;
    let references = model.references().into_iter().map(|(reference, from)| (reference.to_owned(), from));
    let references: Vec<(String, ImageFrom)> = references.collect();
    let choices = references.into_iter().map(|(reference, from)| {
        let known = known.get(&reference).cloned();
        async move {
            let from = match from {
                ImageFrom::Host => local(context, &reference).await,
                ImageFrom::Registry => pulled_from(context, &reference, known).await,
                ImageFrom::RegistryOrHost => pulled_or_local(context, &reference, known).await,
            };
            // People are told what it was for: the image was to be pulled.
            let from = from.map_err(|error| error.during(OperationPhase::Pull))?;
            Ok::<_, StepError>(ImageChoice { reference, from })
        }
    });
    let mut choices: Vec<ImageChoice> =
        futures::stream::iter(choices).buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
    choices.sort_by(|a, b| a.reference.cmp(&b.reference));
    Ok(choices)
}

/// Which image each reference stands for already: that of the deployed release, or, where none of ours ever ran, the one
/// that was found running. A tag that has moved since is a new target only when somebody asks.
async fn known(context: &RequestContext) -> Result<BTreeMap<String, String>, StepError> {
    let (host, request) = (context.host.clone(), context.request.clone());
    let deployed = context
        .blocking(move || {
            let uid = &request.tenant.uid;
            let images = host.store.baseline(uid)?.images;
            Ok(if images.is_empty() && is_untouched(&host.store, uid)? { None } else { Some(images) })
        })
        .await?;
    match deployed {
        Some(images) => Ok(images.into_iter().map(|image| (image.reference, image.image_id)).collect()),
        None => found_running(context).await,
    }
}

/// Whether no operation of ours has left anything running.
fn is_untouched(store: &Store, uid: &TenantUid) -> Result<bool, StepError> {
    for operation in store.operations(uid)? {
        let Some((_, records)) = store.open_journal::<Record>(uid, &operation)? else { continue };
        match JournalState::fold(&records).outcome() {
            None | Some(Outcome::Aborted | Outcome::RolledBack) => {}
            Some(Outcome::Succeeded | Outcome::Held | Outcome::RollbackFailed) => return Ok(false),
        }
    }
    Ok(true)
}

/// The images that containers were found to run, by the references that they were made from. Where containers of one
/// reference run several, it is the one that the reference points to.
async fn found_running(context: &RequestContext) -> Result<BTreeMap<String, String>, StepError> {
    let mut running: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for one in context.known_containers().await? {
        running.entry(one.container.image_ref).or_default().insert(one.container.image_id);
    }
    let mut found = BTreeMap::new();
    for (reference, ids) in running {
        let id = match ids.len() {
            1 => ids.into_iter().next(),
            _ => context
                .host
                .engine
                .known_image(&reference)
                .await?
                .map(|image| image.id)
                .filter(|id| ids.contains(id)),
        };
        found.extend(id.map(|id| (reference, id)));
    }
    Ok(found)
}

/// An image that has both `image` and `build`: that of a registry, as `docker compose pull` gets it, or the one that was
/// built here.
async fn pulled_or_local(
    context: &RequestContext,
    reference: &str,
    known: Option<String>,
) -> Result<ImageSource, StepError> {
    let pulled = if context.host.policy.allow().reference(reference) {
        pulled_from(context, reference, known).await
    } else {
        local(context, reference).await
    };
    match pulled {
        Ok(source) => Ok(source),
        Err(why) => local(context, reference).await.map_err(|_| why),
    }
}

/// An image that is never pulled.
async fn local(context: &RequestContext, reference: &str) -> Result<ImageSource, StepError> {
    let Some(image) = context.host.engine.image(reference).await? else {
        let message = format!(
            "{reference} is not on this host; it is built here or never pulled, so build or load it first"
        );
        return Err(StepError::new(FailureCategory::ImageNotFound, message));
    };
    Ok(ImageSource::Host { image_id: image.id })
}

async fn pulled_from(
    context: &RequestContext,
    reference: &str,
    known: Option<String>,
) -> Result<ImageSource, StepError> {
    let engine = &context.host.engine;
    let parsed = Reference::parse(reference).ok_or_else(|| {
        StepError::new(FailureCategory::ComposeInvalid, format!("{reference:?} is no image reference"))
    })?;
    let pinned = context.request.pinned.iter().find(|pinned| pinned.reference == reference);
    if let Some(digest) = parsed.digest.or_else(|| pinned.and_then(|pinned| pinned.digest.clone())) {
        return Ok(ImageSource::Registry { digest });
    }
    if let Some(image_id) = known
        && engine.known_image(&image_id).await?.is_some()
    {
        return Ok(ImageSource::Host { image_id });
    }
    match engine.remote_digest(reference).await {
        Ok(digest) => Ok(ImageSource::Registry { digest }),
        Err(error) => Err(StepError::new(error.registry_category(), error.about_image(reference))),
    }
}
