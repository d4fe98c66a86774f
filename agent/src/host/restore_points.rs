//! A restore point: all that leads back to where a tenant was before an operation, under the operation's id.
//!
//! ```text
//! DIR/.tenantry/restore/<op>/index, files/   the files (see `files::kept_files`)
//! DIR/.tenantry/restore/<op>/data/           declared paths and volumes (see `snapshot`)
//! DIR/.tenantry/restore/<op>/point           this record: with it the restore point counts
//! DIR/.tenantry/restore/<op>/README          for a person who has nothing but a shell
//! ```

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tenantry_api::names::{OperationId, TenantUid};
use tenantry_planner::steps::PreviousReference;
use tenantry_protocol::{ComposeUse, Place, RestorePointBrief, RunImage, TARGET_OF_ADOPTED};

use crate::files::{FilesError, KeptFiles, POINT, Transactions, Tree, read_record};
use crate::snapshot::{Part, What};
use crate::store::{Baseline, Claim, Store};

/// What leads back to where a tenant was, besides the kept files and data themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestorePoint {
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

impl RestorePoint {
    /// As operators are told.
    pub fn brief(&self) -> RestorePointBrief {
        RestorePointBrief {
            id: self.operation.clone(),
            at: self.at,
            release: self.baseline.release.clone(),
            target_hash: self.baseline.target_hash.clone().unwrap_or_else(|| TARGET_OF_ADOPTED.to_owned()),
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

/// Whose restore points count in a directory: the Tenant's that has it, and those of Tenants that had the very place
/// before and gave it back. They belong to the directory, and a new Tenant there inherits them.
pub struct Line {
    own: TenantUid,
    former: BTreeSet<TenantUid>,
}

impl Line {
    /// That of a Tenant alone.
    pub fn alone(own: &TenantUid) -> Self {
        Self { own: own.clone(), former: BTreeSet::new() }
    }

    /// That of a Tenant at a place.
    pub fn of(store: &Store, own: &TenantUid, place: &Place) -> Self {
        let had = |claim: &Claim| {
            claim.released && (&claim.project, &claim.directory) == (&place.project, &place.directory)
        };
        let former = store.all_claims().into_iter().filter(had).map(|claim| claim.uid);
        Self { own: own.clone(), former: former.filter(|uid| uid != own).collect() }
    }

    /// Those who had the place before.
    pub fn former(&self) -> impl Iterator<Item = &TenantUid> {
        self.former.iter()
    }

    /// Whether a Tenant's restore points count.
    fn has(&self, uid: &TenantUid) -> bool {
        self.own == *uid || self.former.contains(uid)
    }
}

/// A restore point of a directory; `None` where there is none, or it was never finished, or is another Tenant's.
pub fn load(tree: &Tree, line: &Line, id: &OperationId) -> Result<Option<RestorePoint>, FilesError> {
    let Some(folder) = Transactions::new(tree).existing_point(id)? else { return Ok(None) };
    let point: Option<RestorePoint> = read_record(&folder, POINT)?;
    match point {
        Some(point) if point.operation != *id => {
            Err(FilesError::damaged(folder.path().join(POINT), "it is another operation's"))
        }
        other => Ok(other.filter(|point| line.has(&point.tenant))),
    }
}

/// Which Tenant made a restore point; `None` while it is being made.
pub fn maker(tree: &Tree, id: &OperationId) -> Result<Option<TenantUid>, FilesError> {
    let Some(folder) = Transactions::new(tree).existing_point(id)? else { return Ok(None) };
    let point: Option<RestorePoint> = read_record(&folder, POINT)?;
    Ok(point.map(|point| point.tenant))
}

/// Every restore point of a directory that can be read, newest first.
pub fn all(tree: &Tree, line: &Line) -> Result<Vec<RestorePoint>, FilesError> {
    let mut points = Vec::new();
    for id in Transactions::new(tree).points()? {
        match load(tree, line, &id) {
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
pub fn briefs(tree: &Tree, line: &Line) -> Result<Vec<RestorePointBrief>, FilesError> {
    Ok(all(tree, line)?.iter().filter(|point| !point.first).map(RestorePoint::brief).collect())
}

/// The restore points from one upwards, in the order in which they were made, but for the asking operation's own: what
/// it changes is worked out from them.
pub fn chain(
    tree: &Tree,
    line: &Line,
    to: &RestorePoint,
    own: Option<&OperationId>,
) -> Result<Vec<KeptFiles>, FilesError> {
    let transactions = Transactions::new(tree);
    let mut points = Vec::new();
    for id in transactions.points()?.into_iter().filter(|id| Some(id) != own) {
        // One that is damaged may be any of them, so all that are there must be readable.
        if let Some(point) = load(tree, line, &id)?
            && point.number >= to.number
        {
            let kept = transactions.kept_files(&id)?;
            points.push((point.number, kept.ok_or(FilesError::NoRestorePoint(id))?));
        }
    }
    points.sort_by_key(|(number, _)| *number);
    Ok(points.into_iter().map(|(_, kept)| kept).collect())
}

/// The restore points that stay once an operation has ended: all that were inherited, and of the Tenant's own the newest,
/// the operation's own among them in any case. What each of the others holds of files goes to the one before it where that
/// stays, so that of those which stay none leads through one that is gone.
pub fn retain(
    tree: &Tree,
    line: &Line,
    own: &OperationId,
    retain: u32,
) -> Result<Vec<OperationId>, FilesError> {
    let points = all(tree, line)?;
    let others = (retain.max(1) - 1) as usize;
    let mine = points.iter().filter(|point| point.tenant == line.own && point.operation != *own);
    let kept: BTreeSet<&OperationId> = mine.take(others).map(|point| &point.operation).collect();
    let stays = |point: &RestorePoint| {
        point.tenant != line.own || point.operation == *own || kept.contains(&point.operation)
    };
    let transactions = Transactions::new(tree);
    let mut before: Option<&OperationId> = None;
    for point in points.iter().rev() {
        match before {
            _ if stays(point) => before = Some(&point.operation),
            Some(before) => transactions.fold_into(before, &point.operation)?,
            None => {}
        }
    }
    let stay: Vec<OperationId> =
        points.iter().filter(|point| stays(point)).map(|point| point.operation.clone()).collect();
    Ok(if stay.contains(own) { stay } else { stay.into_iter().chain([own.clone()]).collect() })
}
