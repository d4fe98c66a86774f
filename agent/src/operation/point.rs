//! A restore point: all that leads back to where a tenant was before an operation, under the operation's id.
//!
//! ```text
//! DIR/.tenantry/restore/<op>/index, files/   the files (see `files::kept`)
//! DIR/.tenantry/restore/<op>/data/           declared paths and volumes (see `snapshot`)
//! DIR/.tenantry/restore/<op>/point           this record: with it the restore point counts
//! DIR/.tenantry/restore/<op>/README          for a person who has nothing but a shell
//! ```

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tenantry_api::names::{OperationId, TenantUid};
use tenantry_planner::steps::{JournalState, PlanRecord, PreviousReference};
use tenantry_protocol::{ComposeUse, FailureCategory, OperationPhase, RestorePointBrief, RunImage};

use super::changes::planned;
use super::driver::{Performed, Wrong};
use super::readme::readme;
use super::work::Work;
use crate::files::{FileSet, FilesError, POINT, RestorePoint, Transactions, Tree, read_record, write_record};
use crate::snapshot::{Part, What};
use crate::store::Baseline;

const README: &str = "README";
/// What a release is called to people whose target nobody knows: it was there before us.
const ADOPTED: &str = "adopted";

/// What leads back, besides files and data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Point {
    /// The operation before which it was made.
    pub operation: OperationId,
    /// Whose it is.
    pub tenant: TenantUid,
    /// Rises with every restore point of the tenant: the order in which they were made, whatever clocks say.
    pub number: u64,
    /// When it was made.
    pub at: Timestamp,
    /// Whether nothing ran before: then it leads back to nothing.
    pub first: bool,
    /// The compose files that were in use.
    pub compose: Option<ComposeUse>,
    /// What each reference pointed to.
    pub references: Vec<PreviousReference>,
    /// What each service ran.
    pub images: Vec<RunImage>,
    /// Our own record of the release, as it was.
    pub baseline: Baseline,
    /// Declared paths and volumes.
    pub data: Vec<Part>,
    /// Its size in bytes, this record aside.
    pub bytes: u64,
}

impl Point {
    /// As operators are told.
    pub fn brief(&self) -> RestorePointBrief {
        RestorePointBrief {
            id: self.operation.clone(),
            at: self.at,
            release: self.baseline.release.clone(),
            target_hash: self.baseline.target_hash.clone().unwrap_or_else(|| ADOPTED.to_owned()),
            data: self.data.iter().map(described).collect(),
            bytes: self.bytes,
        }
    }

    /// The image that a reference stood for: what ran by it, or else what it pointed to.
    pub fn image(&self, reference: &str) -> Option<&str> {
        let ran = self.images.iter().find(|image| image.reference == reference);
        let pointed = self.references.iter().find(|known| known.reference == reference);
        ran.map(|image| image.image_id.as_str()).or(pointed.and_then(|known| known.image_id.as_deref()))
    }
}

/// A part for people.
fn described(part: &Part) -> String {
    match &part.what {
        What::Path(path) => format!("path {path}"),
        What::Volume { key, .. } => format!("volume {key}"),
    }
}

/// What a part takes on disk, in bytes.
fn stored(part: &Part) -> u64 {
    part.archive.as_ref().map_or(0, |archive| archive.archive_bytes + archive.manifest_bytes)
}

/// A restore point of a tenant; `None` where there is none, or it was never finished, or is another Tenant's.
pub fn load(tree: &Tree, uid: &TenantUid, id: &OperationId) -> Result<Option<Point>, FilesError> {
    let Some(folder) = Transactions::new(tree).existing_point(id)? else { return Ok(None) };
    let point: Option<Point> = read_record(&folder, POINT)?;
    match point {
        Some(point) if point.operation != *id => {
            Err(FilesError::damaged(folder.path().join(POINT), "it is another operation's"))
        }
        other => Ok(other.filter(|point| point.tenant == *uid)),
    }
}

/// Every restore point of a tenant that can be read, newest first.
pub fn all(tree: &Tree, uid: &TenantUid) -> Result<Vec<Point>, FilesError> {
    let mut points = Vec::new();
    for id in Transactions::new(tree).points()? {
        match load(tree, uid, &id) {
            Ok(point) => points.extend(point),
            Err(FilesError::Damaged { path, problem }) => {
                tracing::warn!(path = %path.display(), problem, "a restore point is damaged");
            }
            Err(error) => return Err(error),
        }
    }
    points.sort_by_key(|point| std::cmp::Reverse(point.number));
    Ok(points)
}

/// Restore points that a person can go back to, newest first.
pub fn briefs(tree: &Tree, uid: &TenantUid) -> Result<Vec<RestorePointBrief>, FilesError> {
    Ok(all(tree, uid)?.iter().filter(|point| !point.first).map(Point::brief).collect())
}

/// The restore points from one upwards, in the order in which they were made, but for the asking operation's own: what
/// it changes is worked out from them.
pub fn chain(
    tree: &Tree,
    uid: &TenantUid,
    to: &Point,
    own: &OperationId,
) -> Result<Vec<RestorePoint>, FilesError> {
    let transactions = Transactions::new(tree);
    let mut points = Vec::new();
    for id in transactions.points()?.into_iter().filter(|id| id != own) {
        // One that is damaged may be any of them, so all that are there must be readable.
        if let Some(point) = load(tree, uid, &id)?
            && point.number >= to.number
        {
            let kept = transactions.restore_point(&id)?;
            points.push((point.number, kept.ok_or(FilesError::NoRestorePoint(id))?));
        }
    }
    points.sort_by_key(|(number, _)| *number);
    Ok(points.into_iter().map(|(_, kept)| kept).collect())
}

/// Makes the restore point. It counts once its record is durable; before that nothing of the tenant's was changed.
pub async fn snapshot(work: &Work, state: &JournalState) -> Result<Performed, Wrong> {
    let plan =
        state.plan().cloned().ok_or_else(|| Wrong::new(FailureCategory::AgentFault, "there is no plan"))?;
    let kept = keep(work, plan.writes).await.map_err(told)?;
    let data = match &plan.data {
        Some(_) => super::data::keep(work).await.map_err(told)?,
        None => Vec::new(),
    };
    let bytes = kept + data.iter().map(stored).sum::<u64>();
    let message = plan.data.as_ref().map(|data| format!("kept: {}", data.parts.join(", ")));
    record(work, plan, data, bytes).await.map_err(told)?;
    Ok(Performed { message, ..Performed::quietly() })
}

/// What failed, failed for the snapshot; a full disk and a file that somebody edits are told as such.
fn told(wrong: Wrong) -> Wrong {
    let category = match wrong.category {
        FailureCategory::WriteFailed => FailureCategory::SnapshotFailed,
        other => other,
    };
    Wrong { category, ..wrong }.during(OperationPhase::Snapshot)
}

async fn keep(work: &Work, writes: bool) -> Result<u64, Wrong> {
    let (request, id) = (work.request.clone(), work.id.clone());
    let (tenant, tree, host) = (work.tenant.clone(), work.tree()?, work.host.clone());
    work.blocking(move || {
        let set = if writes {
            planned(&request, &id, &tree, &tenant, &host.store)?.set
        } else {
            FileSet::default()
        };
        Ok(Transactions::new(&tree).keep(&id, &set, &request.manifest.protect)?)
    })
    .await
}

async fn record(work: &Work, plan: PlanRecord, data: Vec<Part>, bytes: u64) -> Result<(), Wrong> {
    let (request, id, host, tree) = (work.request.clone(), work.id.clone(), work.host.clone(), work.tree()?);
    work.blocking(move || {
        let uid = &request.tenant.uid;
        let newest = all(&tree, uid)?.first().map_or(0, |point| point.number);
        let point = Point {
            operation: id.clone(),
            tenant: uid.clone(),
            number: newest + 1,
            at: Timestamp::now(),
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

fn write(tree: &Tree, tenant: &tenantry_protocol::TenantRef, point: &Point) -> Result<(), FilesError> {
    let transactions = Transactions::new(tree);
    let folder = transactions.point_folder(&point.operation)?;
    for name in [POINT, README] {
        folder.remove(name)?;
    }
    let kept = transactions.restore_point(&point.operation)?;
    let kept = kept.ok_or_else(|| FilesError::NoRestorePoint(point.operation.clone()))?;
    let mut text = folder.create(README)?;
    text.append(readme(tree.directory(), tenant, point, &kept).as_bytes())?;
    text.sync()?;
    write_record(&folder, POINT, point)?.sync()?;
    folder.sync()?;
    let read: Option<Point> = read_record(&folder, POINT)?;
    if read.as_ref() == Some(point) {
        return Ok(());
    }
    Err(FilesError::damaged(folder.path().join(POINT), "it does not read back as it was written"))
}
