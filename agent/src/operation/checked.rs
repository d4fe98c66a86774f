//! What compose reads for a release, as it was when it was checked. Between Preflight and `up` lie a pull and a restore
//! point: a person may have edited a file meanwhile, or a container that can write to the directory.

use std::collections::BTreeMap;
use std::sync::Arc;

use tenantry_api::names::{RelativePath, Sha256};
use tenantry_planner::model::Model;
use tenantry_planner::steps::Checked;

use super::driver::Wrong;
use super::policy;
use super::work::Work;
use crate::compose::Discovered;
use crate::core::Tenant;
use crate::files::{Found, Tree};

/// What compose reads that is on disk now.
pub fn on_disk(tree: &Tree, tenant: &Tenant, inputs: &[RelativePath]) -> Result<Checked, Wrong> {
    let hash = |path: &RelativePath| -> Result<Option<Sha256>, Wrong> {
        Ok(match tree.inspect(path, &tenant.hashes)? {
            Found::File(seen) => Some(seen.sha256),
            Found::Missing | Found::Blocked(_) => None,
        })
    };
    inputs.iter().map(|path| Ok((path.clone(), hash(path)?))).collect()
}

/// What is to be started: the release as it was checked; where files were changed since, what is on disk, if the local
/// policy allows it (P13).
pub async fn release(work: &Work, checked: &Checked) -> Result<(Discovered, Arc<Model>), Wrong> {
    if differing(work, checked).await?.is_empty() {
        work.release().await
    } else {
        previous(work, checked).await
    }
}

/// What is on disk, as it was checked or as the local policy allows it.
pub async fn previous(work: &Work, checked: &Checked) -> Result<(Discovered, Arc<Model>), Wrong> {
    let found = work.on_disk().await?.ok_or_else(|| {
        let message = "containers ran here before, but there are no compose files to start them from again";
        Wrong::new(tenantry_protocol::FailureCategory::ComposeInvalid, message)
    })?;
    let differing = differing(work, checked).await?;
    if !differing.is_empty() && !tenantry_faults::mutant("check-once") {
        let names = differing.join(", ");
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
    let (tree, tenant, checked) = (work.tree()?, work.tenant.clone(), checked.clone());
    work.blocking(move || {
        let inputs: Vec<RelativePath> = checked.keys().cloned().collect();
        let now: BTreeMap<_, _> = on_disk(&tree, &tenant, &inputs)?;
        let changed = |(path, hash): &(&RelativePath, &Option<Sha256>)| checked.get(*path) != Some(*hash);
        Ok(now.iter().filter(changed).map(|(path, _)| path.to_string()).collect())
    })
    .await
}
