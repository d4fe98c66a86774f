//! Tags of ours that keep images from being pruned while a rollback could need them.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _};
use tenantry_api::names::{OperationId, TenantUid};

use super::driver::Wrong;
use crate::engine::Engine;

const SIDE_BY_SIDE: usize = 4;

fn repository(uid: &TenantUid) -> String {
    format!("tenantry.local/keep/{}", uid.as_str().to_ascii_lowercase().trim_end_matches('-'))
}

/// A tag for one image of an operation: the same image, the same tag.
fn tag(operation: &OperationId, image: &str) -> String {
    format!("{operation}-{}", tenantry_planner::compare::short(image))
}

/// Keeps images for an operation.
pub async fn keep(
    engine: &Engine,
    uid: &TenantUid,
    operation: &OperationId,
    images: &[String],
) -> Result<(), Wrong> {
    let repository = repository(uid);
    let distinct: BTreeMap<String, String> =
        images.iter().map(|image| (tag(operation, image), image.clone())).collect();
    let tags = distinct.into_iter().map(|(tag, image)| {
        let (engine, repository) = (engine.clone(), repository.clone());
        async move { engine.tag(&image, &repository, &tag).await }
    });
    Ok(futures::stream::iter(tags).buffer_unordered(SIDE_BY_SIDE).try_collect().await?)
}

/// Lets go of images of all operations but one.
pub async fn release_all_but(
    engine: &Engine,
    uid: &TenantUid,
    kept: Option<&OperationId>,
) -> Result<(), Wrong> {
    let kept = kept.map(|operation| format!("{operation}-"));
    release(engine, uid, |tag| kept.as_ref().is_none_or(|prefix| !tag.starts_with(prefix))).await
}

/// Lets go of the images of one operation.
pub async fn release_of(engine: &Engine, uid: &TenantUid, operation: &OperationId) -> Result<(), Wrong> {
    let prefix = format!("{operation}-");
    release(engine, uid, |tag| tag.starts_with(&prefix)).await
}

async fn release(engine: &Engine, uid: &TenantUid, gone: impl Fn(&str) -> bool) -> Result<(), Wrong> {
    let repository = repository(uid);
    for tag in engine.tags_of(&repository).await? {
        if gone(&tag) {
            engine.untag(&format!("{repository}:{tag}")).await?;
        }
    }
    Ok(())
}
