//! Declared data in an operation: how much there is of it, and how it is kept.

use std::sync::Arc;

use tenantry_api::names::OperationId;
use tenantry_planner::steps::DataPlan;
use tenantry_protocol::{Action, FailureCategory};

use super::progress::CopyProgress;
use super::volumes::{self, Reach, Sight};
use crate::host::restore_points;
use crate::operation::context::OperationContext;
use crate::planning::StepError;
use crate::planning::data::{Declared, chosen_parts, declared};
use crate::snapshot::{ArchiveDir, Estimate, Part, What};

/// Space that stays free besides what is kept, in bytes.
const SPARE: u64 = 64 << 20;

/// Something that is kept, and where it is.
#[derive(Clone)]
struct Reached {
    what: What,
    /// How a volume's data is reached.
    reach: Option<Reach>,
}

/// How much there is of each part.
#[derive(Default)]
struct Room {
    parts: Vec<Estimate>,
}

impl Room {
    fn bytes(&self) -> u64 {
        self.parts.iter().map(|estimate| estimate.bytes).sum()
    }
}

/// Makes sure that declared data can be kept, and that what a person goes back to can be brought back: says in the plan
/// how much it is.
pub async fn reserve(operation: &OperationContext, plan: &mut DataPlan) -> Result<(), StepError> {
    volumes::clear(operation).await?;
    let coming = match &operation.request.action {
        Action::Rollback { to, data: true } => check(operation, to).await?,
        Action::Rollback { data: false, .. } | Action::Upgrade => 0,
    };
    let reached = reached(operation).await?;
    plan.bytes = room(operation, &reached, coming).await?.bytes();
    Ok(())
}

async fn reached(operation: &OperationContext) -> Result<Vec<Reached>, StepError> {
    let (mut sight, mut all) = (Sight::default(), Vec::new());
    for Declared { what, volume } in declared(operation).await? {
        let reach = match &volume {
            Some(volume) => Some(sight.of(operation, volume).await?),
            None => None,
        };
        all.push(Reached { what, reach });
    }
    Ok(all)
}

/// Reads all data of a restore point and compares it; how much it is when it is unpacked.
async fn check(operation: &OperationContext, point: &OperationId) -> Result<u64, StepError> {
    let parts = chosen_parts(operation).await?;
    let bytes = parts.iter().filter_map(|part| part.archive.as_ref()).map(|archive| archive.bytes).sum();
    let (tree, uid, point) = (operation.tree()?, operation.request.tenant.uid.clone(), point.clone());
    let follow = CopyProgress::new(operation, bytes);
    operation
        .blocking(move || {
            // Data that was inherited bears the name of the Tenant that kept it.
            let uid = restore_points::maker(&tree, &point)?.unwrap_or(uid);
            let archive_dir = ArchiveDir::open(&tree, &uid, &point)?;
            parts.iter().try_for_each(|part| archive_dir.verify(part, &follow)).map_err(StepError::from)
        })
        .await?;
    Ok(bytes)
}

/// How much there is; refused where there is no room for it.
async fn room(operation: &OperationContext, reached: &[Reached], coming: u64) -> Result<Room, StepError> {
    let mut room = Room::default();
    for (n, one) in reached.iter().enumerate() {
        let estimate = match (&one.what, &one.reach) {
            (What::Volume { key, name }, Some(Reach::Helped)) => {
                Box::pin(volumes::estimate(operation, n, key, name)).await?
            }
            _ => seen(operation, one).await?.unwrap_or_default(),
        };
        room.parts.push(estimate);
    }
    let needed = room.parts.iter().map(Estimate::space).sum::<u64>() + SPARE + coming;
    let free = operation.tree()?.free_bytes()?;
    if free >= needed {
        return Ok(room);
    }
    let message = format!(
        "{} MiB are free on the disk of the tenant's directory, {} MiB are needed to keep its data: make room",
        free >> 20,
        needed >> 20
    );
    Err(StepError::new(FailureCategory::DiskFull, message))
}

/// How much there is of what we see ourselves.
async fn seen(operation: &OperationContext, one: &Reached) -> Result<Option<Estimate>, StepError> {
    let (tree, one) = (operation.tree()?, one.clone());
    operation
        .blocking(move || {
            Ok(match (&one.what, &one.reach) {
                (What::Path(path), _) => ArchiveDir::estimate(&tree, path)?,
                (What::Volume { .. }, Some(Reach::Seen(at))) => ArchiveDir::estimate_volume(at)?,
                (What::Volume { .. }, _) => None,
            })
        })
        .await
}

/// Keeps everything that is declared, each part read back and compared.
pub async fn keep(operation: &OperationContext) -> Result<Vec<Part>, StepError> {
    volumes::clear(operation).await?;
    let reached = reached(operation).await?;
    let room = room(operation, &reached, 0).await?;
    // Everything is read once and then read back.
    let follow = Arc::new(CopyProgress::new(operation, room.bytes() * 2));
    let mut parts = Vec::new();
    for (n, (one, estimate)) in reached.into_iter().zip(room.parts).enumerate() {
        parts.extend(match one.reach {
            Some(Reach::Helped) => {
                Box::pin(volumes::keep(operation, n, &one.what, estimate, &*follow)).await?
            }
            _ => keep_seen(operation, n, one, follow.clone()).await?,
        });
    }
    Ok(parts)
}

async fn keep_seen(
    operation: &OperationContext,
    n: usize,
    one: Reached,
    follow: Arc<CopyProgress>,
) -> Result<Option<Part>, StepError> {
    let (tree, uid, id) = (operation.tree()?, operation.request.tenant.uid.clone(), operation.id.clone());
    operation
        .blocking(move || {
            let archive_dir = ArchiveDir::open(&tree, &uid, &id)?;
            Ok(match (&one.what, &one.reach) {
                (What::Path(path), _) => Some(archive_dir.keep(n, path, &*follow)?),
                (What::Volume { .. }, Some(Reach::Seen(at))) => {
                    Some(archive_dir.keep_volume(n, one.what.clone(), at, &*follow)?)
                }
                (What::Volume { .. }, _) => None,
            })
        })
        .await
}
