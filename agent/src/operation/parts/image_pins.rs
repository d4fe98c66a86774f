//! Tags of ours that keep images from being pruned while a rollback could need them.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _};
use tenantry_api::names::{OperationId, TenantUid};

use crate::engine::Engine;
use crate::host::restore_points::Line;
use crate::operation::context::OperationContext;
use crate::planning::StepError;

const SIDE_BY_SIDE: usize = 4;
const REPOSITORIES: &str = "tenantry.local/keep/";

fn repository(uid: &TenantUid) -> String {
    format!("{REPOSITORIES}{}", uid.as_str().to_ascii_lowercase().trim_end_matches('-'))
}

/// A tag for one image of an operation: the same image, the same tag.
fn tag(operation: &OperationId, image: &str) -> String {
    format!("{operation}-{}", tenantry_planner::compare::short(image))
}

/// Keeps images for an operation.
pub async fn keep(
    engine: &dyn Engine,
    uid: &TenantUid,
    operation: &OperationId,
    images: &[String],
) -> Result<(), StepError> {
    let repository = repository(uid);
    let distinct: BTreeMap<String, String> =
        images.iter().map(|image| (tag(operation, image), image.clone())).collect();
    let tags = distinct.into_iter().map(|(tag, image)| {
        let repository = repository.clone();
        async move { engine.tag(&image, &repository, &tag).await }
    });
    Ok(futures::stream::iter(tags).buffer_unordered(SIDE_BY_SIDE).try_collect().await?)
}

/// Lets go of images of all operations but these.
pub async fn release_all_but(
    engine: &dyn Engine,
    uid: &TenantUid,
    kept: &[OperationId],
) -> Result<(), StepError> {
    release(engine, uid, |operation| kept.iter().all(|kept| kept.as_str() != operation)).await
}

/// Lets go of the images of one operation.
pub async fn release_of(
    engine: &dyn Engine,
    uid: &TenantUid,
    operation: &OperationId,
) -> Result<(), StepError> {
    release(engine, uid, |of| of == operation.as_str()).await
}

/// Lets go of the images of Tenants that had this place before, but for those that their restore points need, which stay.
pub async fn release_former(operation: &OperationContext, kept: &[OperationId]) -> Result<(), StepError> {
    let request = &operation.request;
    let line = Line::of(&operation.host.store, &request.tenant.uid, &request.place);
    for former in line.former() {
        release_all_but(&*operation.host.engine, former, kept).await?;
    }
    Ok(())
}

async fn release(engine: &dyn Engine, uid: &TenantUid, gone: impl Fn(&str) -> bool) -> Result<(), StepError> {
    let repository = repository(uid);
    for tag in engine.tags_of(&repository).await? {
        // An operation's name may have hyphens of its own.
        if tag.rsplit_once('-').is_some_and(|(operation, _)| gone(operation)) {
            engine.untag(&format!("{repository}:{tag}")).await?;
        }
    }
    Ok(())
}
