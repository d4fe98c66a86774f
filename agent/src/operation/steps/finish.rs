//! Finish: what was seen is recorded; what no rollback can need any more is let go.

use std::collections::BTreeMap;

use tenantry_planner::steps::JournalState;
use tenantry_protocol::OperateRequest;

use crate::files::{Found, Transactions, Tree};
use crate::host::TenantCache;
use crate::host::restore_points::{self, Line};
use crate::operation::context::OperationContext;
use crate::operation::driver::StepResult;
use crate::operation::parts::image_pins;
use crate::planning::{StepError, way_back::chosen};
use crate::store::{Baseline, Terms, Written};

/// Records what the operation left, as it was seen, and cleans up behind the release before the last.
pub async fn finish(operation: &OperationContext, state: &JournalState) -> Result<StepResult, StepError> {
    let (host, cache, request, tree) =
        (operation.host.clone(), operation.cache.clone(), operation.request.clone(), operation.tree()?);
    let (id, images) = (operation.id.clone(), state.images().to_vec());
    let left: Vec<String> = state.plan().map(|plan| plan.left_files.clone()).unwrap_or_default();
    let kept = operation
        .blocking(move || {
            let uid = &request.tenant.uid;
            let line = Line::of(&host.store, uid, &request.place);
            let old = host.store.baseline(uid)?;
            // An agent that was killed here had recorded it; what it was worked out from may be pruned by now.
            if old.restore_point.as_ref() != Some(&id) {
                let new = baseline(&request, &tree, &line, &cache, old, &left)?;
                let new = Baseline { images, restore_point: Some(id.clone()), ..new };
                host.store.save_baseline(uid, &new)?;
            }
            let transactions = Transactions::new(&tree);
            transactions.finish(&id)?;
            let kept = restore_points::retain(&tree, &line, &id, request.snapshot.retain)?;
            transactions.prune(&kept)?;
            cache.records_changed();
            let led_back = restore_points::briefs(&tree, &line)?.into_iter().map(|point| point.id).collect();
            Ok((kept, led_back))
        })
        .await?;
    let (kept, led_back): (Vec<_>, Vec<_>) = kept;
    let released =
        image_pins::release_all_but(&*operation.host.engine, &operation.request.tenant.uid, &kept).await;
    let released = match released {
        Ok(()) => image_pins::release_former(operation, &led_back).await,
        error => error,
    };
    if let Err(error) = released {
        tracing::warn!(tenant = %operation.request.tenant.name, problem = %error.message, "images of older releases are still kept");
    }
    Ok(StepResult::quietly())
}

/// What is ours from now on, but for what was seen to run.
fn baseline(
    request: &OperateRequest,
    tree: &Tree,
    line: &Line,
    cache: &TenantCache,
    old: Baseline,
    left: &[String],
) -> Result<Baseline, StepError> {
    if let Some(point) = chosen(request, tree, line)? {
        // What is gone back to is ours as it was written then: what was edited since shows as such.
        return Ok(point.baseline);
    }
    let mut files = BTreeMap::new();
    for file in &request.manifest.files {
        if let Found::File(seen) = tree.inspect(&file.path, &cache.hashes)? {
            // What a person has edited in the meantime stays known as we wrote it, so that the edit shows as one.
            let (sha256, mode) = (file.sha256.clone(), seen.stamp.mode & 0o7777);
            files.insert(file.path.clone(), Written { sha256, mode });
        }
    }
    // What was left because a person had edited it stays known as ours, as we last wrote it.
    files.extend(old.files.into_iter().filter(|(path, _)| left.iter().any(|left| left == path.as_str())));
    Ok(Baseline {
        target_hash: Some(request.target_hash.clone()),
        files,
        release: request.release.clone(),
        terms: Some(Terms::of(request)),
        ..Baseline::default()
    })
}

/// Forgets what was prepared: the restore point of the deployed release is what counts again.
pub async fn discard(operation: &OperationContext) -> Result<StepResult, StepError> {
    operation.forget_staged();
    let (cache, tree, id) = (operation.cache.clone(), operation.tree()?, operation.id.clone());
    operation
        .blocking(move || {
            let transactions = Transactions::new(&tree);
            transactions.finish(&id)?;
            transactions.forget(&id)?;
            cache.records_changed();
            Ok(())
        })
        .await?;
    image_pins::release_of(&*operation.host.engine, &operation.request.tenant.uid, &operation.id).await?;
    Ok(StepResult::quietly())
}

/// A failed release that is left running has written files, which are ours from now on. What it was to reach was not
/// reached: target, images and restore point stay those of the release before.
pub async fn hold(operation: &OperationContext) -> Result<StepResult, StepError> {
    let (host, cache, request, tree, id) = (
        operation.host.clone(),
        operation.cache.clone(),
        operation.request.clone(),
        operation.tree()?,
        operation.id.clone(),
    );
    operation
        .blocking(move || {
            let uid = &request.tenant.uid;
            let mut baseline = host.store.baseline(uid)?;
            for file in &request.manifest.files {
                if let Found::File(seen) = tree.inspect(&file.path, &cache.hashes)?
                    && seen.sha256 == file.sha256
                {
                    let mode = seen.stamp.mode & 0o7777;
                    baseline.files.insert(file.path.clone(), Written { sha256: seen.sha256, mode });
                }
            }
            host.store.save_baseline(uid, &baseline)?;
            cache.records_changed();
            Ok(Transactions::new(&tree).finish(&id)?)
        })
        .await?;
    Ok(StepResult::quietly())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::files::{DiskIo, sha256};

    #[test]
    fn p16_an_edit_by_hand_in_mid_operation_does_not_become_ours() {
        let folder = tempfile::tempdir().unwrap();
        let ours = |path: &str, content: &str| {
            let sha256 = sha256(content.as_bytes());
            json!({"path": path, "sha256": sha256, "size": content.len(), "mode": 0o644, "sensitive": false})
        };
        let request: OperateRequest = serde_json::from_value(json!({
            "tenant": {"uid": "0b0b0b0b-0000-4000-8000-0000000000cc", "namespace": "default", "name": "acme"},
            "place": {"project": "acme", "directory": folder.path()},
            "epoch": 1, "targetHash": "sha256:1", "approach": "Release",
            "manifest": {
                "files": [ours("a.conf", "ours\n"), ours("b.conf", "ours\n"), ours("gone.conf", "ours\n")],
                "protect": [], "jobs": [], "onChange": [], "env": {"ownership": "adopted", "patch": []},
            },
            "contents": [], "pinned": [], "onFailure": "Rollback", "overwrite": false,
            "verify": {"timeoutMs": 20_000, "stableForMs": 200, "http": []},
        }))
        .unwrap();
        std::fs::write(folder.path().join("a.conf"), "ours\n").unwrap();
        std::fs::write(folder.path().join("b.conf"), "by hand\n").unwrap();
        let tree = Tree::open(folder.path(), DiskIo::default()).unwrap();
        let line = Line::alone(&request.tenant.uid);
        let known =
            baseline(&request, &tree, &line, &TenantCache::default(), Baseline::default(), &[]).unwrap();
        let known: BTreeMap<_, _> =
            known.files.iter().map(|(path, file)| (path.as_str(), &file.sha256)).collect();
        let ours = sha256(b"ours\n");
        assert_eq!(known, BTreeMap::from([("a.conf", &ours), ("b.conf", &ours)]));
    }
}
