//! Which image every reference of a release stands for: a tag is resolved once, and nothing is pulled yet.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _};
use tenantry_planner::model::Model;
use tenantry_planner::steps::{ImageChoice, ImageSource};
use tenantry_protocol::{FailureCategory, OperationPhase};

use super::context::RequestContext;
use super::error::StepError;
use crate::engine::Reference;

/// How many references are looked at side by side.
const SIDE_BY_SIDE: usize = 4;

/// Chooses the image of every reference of a model.
pub async fn choices(context: &RequestContext, model: &Model) -> Result<Vec<ImageChoice>, StepError> {
    let (host, request) = (context.host.clone(), context.request.clone());
    let baseline = context.blocking(move || Ok(host.store.baseline(&request.tenant.uid)?)).await?;
    let deployed: BTreeMap<String, String> =
        baseline.images.into_iter().map(|image| (image.reference, image.image_id)).collect();
    let references = model.references().into_iter().map(|(reference, pulled)| (reference.to_owned(), pulled));
    let references: Vec<(String, bool)> = references.collect();
    let choices = references.into_iter().map(|(reference, pulled)| {
        let deployed = deployed.get(&reference).cloned();
        async move {
            let from = if pulled {
                pulled_from(context, &reference, deployed).await
            } else {
                local(context, &reference).await
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
    deployed: Option<String>,
) -> Result<ImageSource, StepError> {
    let engine = &context.host.engine;
    let parsed = Reference::parse(reference).ok_or_else(|| {
        StepError::new(FailureCategory::ComposeInvalid, format!("{reference:?} is no image reference"))
    })?;
    let pinned = context.request.pinned.iter().find(|pinned| pinned.reference == reference);
    if let Some(digest) = parsed.digest.or_else(|| pinned.and_then(|pinned| pinned.digest.clone())) {
        return Ok(ImageSource::Registry { digest });
    }
    // What a tag was resolved to for the deployed release holds until somebody asks.
    if let Some(image_id) = deployed
        && engine.known_image(&image_id).await?.is_some()
    {
        return Ok(ImageSource::Host { image_id });
    }
    match engine.remote_digest(reference).await {
        Ok(digest) => Ok(ImageSource::Registry { digest }),
        Err(error) => Err(StepError { category: error.registry_category(), ..StepError::from(error) }),
    }
}
