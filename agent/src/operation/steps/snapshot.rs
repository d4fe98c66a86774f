//! Snapshot: makes the restore point, by which everything leads back.

use tenantry_planner::steps::{JournalState, Plan};
use tenantry_protocol::{FailureCategory, OperationPhase, TenantRef};

use crate::files::{FileSet, FilesError, POINT, Transactions, Tree, read_record, write_record};
use crate::host::restore_points::{self, Line, RestorePoint};
use crate::operation::context::OperationContext;
use crate::operation::driver::StepResult;
use crate::operation::parts::{data, planned::planned, readme::readme};
use crate::planning::{StepError, file_changes::planned_changes};
use crate::snapshot::Part;

const README: &str = "README";

/// Makes the restore point. It counts once its record is durable; before that nothing of the tenant's was changed.
pub async fn snapshot(operation: &OperationContext, state: &JournalState) -> Result<StepResult, StepError> {
    let plan = planned(state)?;
    let kept = keep(operation, plan.clone()).await.map_err(told)?;
    let data = match &plan.data {
        Some(_) => data::keep(operation).await.map_err(told)?,
        None => Vec::new(),
    };
    let bytes = kept + data.iter().map(stored).sum::<u64>();
    let message = plan.data.as_ref().map(|data| format!("kept: {}", data.parts.join(", ")));
    record(operation, plan, data, bytes).await.map_err(told)?;
    Ok(StepResult { message, ..StepResult::quietly() })
}

/// What failed, failed for the snapshot; a full disk and a file that somebody edits are told as such.
fn told(wrong: StepError) -> StepError {
    let category = match wrong.category {
        FailureCategory::WriteFailed => FailureCategory::SnapshotFailed,
        other => other,
    };
    StepError { category, ..wrong }.during(OperationPhase::Snapshot)
}

async fn keep(operation: &OperationContext, plan: Plan) -> Result<u64, StepError> {
    let (request, id) = (operation.request.clone(), operation.id.clone());
    let (cache, tree, host) = (operation.cache.clone(), operation.tree()?, operation.host.clone());
    operation
        .blocking(move || {
            let set = if plan.writes {
                planned_changes(&request, &id, &tree, &cache, &host.store, &plan)?.set
            } else {
                FileSet::default()
            };
            Ok(Transactions::new(&tree).keep(&id, &set, &request.manifest.protect)?)
        })
        .await
}

async fn record(
    operation: &OperationContext,
    plan: Plan,
    data: Vec<Part>,
    bytes: u64,
) -> Result<(), StepError> {
    let (request, id, host, tree) =
        (operation.request.clone(), operation.id.clone(), operation.host.clone(), operation.tree()?);
    operation
        .blocking(move || {
            let uid = &request.tenant.uid;
            let newest = restore_points::all(&tree, &Line::of(&host.store, uid, &request.place))?
                .first()
                .map_or(0, |point| point.number);
            let point = RestorePoint {
                operation: id.clone(),
                tenant: uid.clone(),
                number: newest + 1,
                at: host.now(),
                first: plan.first,
                compose: plan.previous_compose,
                references: plan.references,
                images: plan.previous_images,
                baseline: host.store.baseline(uid)?,
                data,
                bytes,
            };
            Ok(write(&tree, &request.tenant, &point)?)
        })
        .await
}

fn write(tree: &Tree, tenant: &TenantRef, point: &RestorePoint) -> Result<(), FilesError> {
    let transactions = Transactions::new(tree);
    let folder = transactions.point_folder(&point.operation)?;
    for name in [POINT, README] {
        folder.remove(name)?;
    }
    let kept = transactions.kept_files(&point.operation)?;
    let kept = kept.ok_or_else(|| FilesError::NoRestorePoint(point.operation.clone()))?;
    let mut text = folder.create(README)?;
    text.append(readme(tree.directory(), tenant, point, &kept).as_bytes())?;
    text.sync()?;
    write_record(&folder, POINT, point)?.sync()?;
    folder.sync()?;
    let read: Option<RestorePoint> = read_record(&folder, POINT)?;
    if read.as_ref() == Some(point) {
        return Ok(());
    }
    Err(FilesError::damaged(folder.path().join(POINT), "it does not read back as it was written"))
}

/// What a part takes on disk, in bytes.
fn stored(part: &Part) -> u64 {
    part.archive.as_ref().map_or(0, |archive| archive.archive_bytes + archive.manifest_bytes)
}
