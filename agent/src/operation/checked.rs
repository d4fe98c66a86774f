//! What compose reads for a release, as it was when it was checked. Between Preflight and `up` lie a pull and a restore
//! point: a person may have edited a file meanwhile, or a container that can write to the directory.

use std::sync::Arc;

use tenantry_api::names::{RelativePath, Sha256};
use tenantry_planner::model::Model;
use tenantry_planner::steps::Checked;
use tenantry_protocol::FailureCategory;

use super::driver::Wrong;
use super::policy;
use super::work::Work;
use crate::compose::Discovered;
use crate::files::Found;

/// These files as they are on disk now.
pub async fn now(work: &Work, inputs: Vec<RelativePath>) -> Result<Checked, Wrong> {
    let (tree, tenant) = (work.tree()?, work.tenant.clone());
    work.blocking(move || {
        let hash = |path: RelativePath| -> Result<(RelativePath, Option<Sha256>), Wrong> {
            let found = match tree.inspect(&path, &tenant.hashes)? {
                Found::File(seen) => Some(seen.sha256),
                Found::Missing | Found::Blocked(_) => None,
            };
            Ok((path, found))
        };
        inputs.into_iter().map(hash).collect()
    })
    .await
}

/// What is to be started: the release as it was checked; where files were changed since, what is on disk, if the local
/// policy allows it (P13).
pub async fn release(work: &Work, checked: &Checked) -> Result<(Discovered, Arc<Model>), Wrong> {
    let changed = differing(work, checked).await?;
    if changed.is_empty() { work.release().await } else { judged(work, &changed).await }
}

/// What is on disk, as it was checked or as the local policy allows it.
pub async fn previous(work: &Work, checked: &Checked) -> Result<(Discovered, Arc<Model>), Wrong> {
    judged(work, &differing(work, checked).await?).await
}

async fn judged(work: &Work, changed: &[String]) -> Result<(Discovered, Arc<Model>), Wrong> {
    let found = work.on_disk().await?.ok_or_else(|| {
        let message = "containers ran here before, but there are no compose files to start them from again";
        Wrong::new(FailureCategory::ComposeInvalid, message)
    })?;
    if !changed.is_empty() && !tenantry_faults::Bug::CheckOnce.is_seeded() {
        let names = changed.join(", ");
        tracing::warn!(tenant = %work.request.tenant.name, operation = %work.id, files = %names, "changed since they were checked");
        policy::judge(work, &found.1).await.map_err(|wrong| {
            let message = format!(
                "{names} changed while the operation was under way, and what it says now is refused: {}",
                wrong.message
            );
            Wrong { message, ..wrong }
        })?;
    }
    Ok(found)
}

async fn differing(work: &Work, checked: &Checked) -> Result<Vec<String>, Wrong> {
    let now = now(work, checked.keys().cloned().collect()).await?;
    let changed = now.iter().filter(|(path, hash)| checked.get(*path) != Some(*hash));
    Ok(changed.map(|(path, _)| path.to_string()).collect())
}
