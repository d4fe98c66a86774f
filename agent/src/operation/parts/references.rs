//! References and the images that they stand for on this host.

use tenantry_protocol::RunImage;

use super::image_pins;
use crate::engine::{Image, Reference};
use crate::operation::context::OperationContext;
use crate::planning::StepError;
use crate::planning::way_back::{digest_of, gone};

/// Makes a reference point to an image. One with a digest points where it points.
pub async fn put(operation: &OperationContext, reference: &str, image: &str) -> Result<(), StepError> {
    let Some(Reference { repository, tag: Some(tag), digest: None }) = Reference::parse(reference) else {
        return Ok(());
    };
    if operation.host.engine.image(reference).await?.is_some_and(|now| now.id == image) {
        return Ok(());
    }
    Ok(operation.host.engine.tag(image, &repository, &tag).await?)
}

/// An image that was kept. A person may have removed it (`docker image prune -a` takes whatever no container uses): then
/// it is pulled once more, by the digest that was seen when it ran.
pub async fn present(
    operation: &OperationContext,
    id: &str,
    reference: &str,
    ran: &[RunImage],
) -> Result<Image, StepError> {
    if let Some(image) = operation.host.engine.image(id).await? {
        return Ok(image);
    }
    let digest = digest_of(operation, id, reference, ran)?;
    pulled_again(operation, id, reference, digest).await
}

/// Pulls an image that was kept and is gone, by the digest that was seen when it ran, and keeps it.
pub async fn pulled_again(
    operation: &OperationContext,
    id: &str,
    reference: &str,
    digest: &str,
) -> Result<Image, StepError> {
    let engine = &operation.host.engine;
    let gone = |why: &str| gone(id, reference, why);
    let parsed = Reference::parse(reference).ok_or_else(|| gone("no registry is known to have it"))?;
    if let Err(error) = engine.pull(&parsed.repository, digest, &mut |_| ()).await {
        return Err(gone(&format!("it could not be pulled again: {error}")));
    }
    let image = engine.image(id).await?.ok_or_else(|| gone("its registry has another one by that digest"))?;
    let kept = std::slice::from_ref(&image.id);
    image_pins::keep(&**engine, &operation.request.tenant.uid, &operation.id, kept).await?;
    Ok(image)
}
