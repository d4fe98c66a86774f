//! Finish: what was seen is recorded; what no rollback can need any more is let go.

use tenantry_planner::steps::State;

use super::driver::{Performed, Wrong};
use super::keep;
use super::work::Work;
use crate::files::{Found, Transactions};
use crate::store::{Baseline, Written};

/// Records what the operation left, as it was seen, and cleans up behind the release before the last.
pub async fn finish(work: &Work, state: &State) -> Result<Performed, Wrong> {
    let (host, tenant, request, tree) =
        (work.host.clone(), work.tenant.clone(), work.request.clone(), work.tree()?);
    let (id, images) = (work.id.clone(), state.images().to_vec());
    let left: Vec<String> = state.plan().map(|plan| plan.left_files.clone()).unwrap_or_default();
    work.blocking(move || {
        let uid = &request.tenant.uid;
        let old = host.store.baseline(uid)?;
        let mut files = std::collections::BTreeMap::new();
        for file in &request.manifest.files {
            if let Found::File(seen) = tree.inspect(&file.path, &tenant.hashes)? {
                let mode = seen.stamp.mode & 0o7777;
                files.insert(file.path.clone(), Written { sha256: seen.sha256, mode });
            }
        }
        // What was left because a person had edited it stays known as ours, as we last wrote it.
        files.extend(old.files.into_iter().filter(|(path, _)| left.iter().any(|left| left == path.as_str())));
        let target_hash = Some(request.target_hash.clone());
        let baseline = Baseline { target_hash, files, images, restore_point: Some(id.clone()) };
        host.store.save_baseline(uid, &baseline)?;
        tenant.records_changed();
        let transactions = Transactions::new(&tree);
        transactions.finish(&id)?;
        transactions.prune(std::slice::from_ref(&id))?;
        Ok(())
    })
    .await?;
    if let Err(wrong) =
        keep::release_all_but(&work.host.engine, &work.request.tenant.uid, Some(&work.id)).await
    {
        tracing::warn!(tenant = %work.request.tenant.name, problem = %wrong.message, "images of older releases are still kept");
    }
    Ok(Performed::quietly())
}

/// Forgets what was prepared: the restore point of the deployed release is what counts again.
pub async fn discard(work: &Work) -> Result<Performed, Wrong> {
    work.forget_staged();
    let (host, request, tree, id) = (work.host.clone(), work.request.clone(), work.tree()?, work.id.clone());
    work.blocking(move || {
        let baseline = host.store.baseline(&request.tenant.uid)?;
        let transactions = Transactions::new(&tree);
        transactions.finish(&id)?;
        let kept: Vec<_> = baseline.restore_point.into_iter().collect();
        Ok(transactions.prune(&kept)?)
    })
    .await?;
    keep::release_of(&work.host.engine, &work.request.tenant.uid, &work.id).await?;
    Ok(Performed::quietly())
}

/// A failed release that is left running has written files, which are ours from now on. What it was to reach was not
/// reached: target, images and restore point stay those of the release before.
pub async fn hold(work: &Work) -> Result<Performed, Wrong> {
    let (host, tenant, request, tree, id) =
        (work.host.clone(), work.tenant.clone(), work.request.clone(), work.tree()?, work.id.clone());
    work.blocking(move || {
        let uid = &request.tenant.uid;
        let mut baseline = host.store.baseline(uid)?;
        for file in &request.manifest.files {
            if let Found::File(seen) = tree.inspect(&file.path, &tenant.hashes)?
                && seen.sha256 == file.sha256
            {
                let mode = seen.stamp.mode & 0o7777;
                baseline.files.insert(file.path.clone(), Written { sha256: seen.sha256, mode });
            }
        }
        host.store.save_baseline(uid, &baseline)?;
        tenant.records_changed();
        Ok(Transactions::new(&tree).finish(&id)?)
    })
    .await?;
    Ok(Performed::quietly())
}
