//! The way back to a restore point: where it leads, which files change, and which images are pointed to.

use tenantry_api::names::OperationId;
use tenantry_planner::model::Model;
use tenantry_planner::steps::PlannedImage;
use tenantry_protocol::{Action, FailureCategory, OperateRequest, Owner, RunImage};

use super::changes::{Changes, protect};
use super::context::RequestContext;
use super::error::StepError;
use crate::engine::Reference;
use crate::files::{Before, Change, FilesError, Found, KeptFile, Transactions, Tree, Was, earliest_states};
use crate::host::TenantCache;
use crate::host::restore_points::{self, Line, RestorePoint};

/// The restore point that a request goes back to; `None` for an upgrade. Refused where it leads nowhere.
pub fn chosen(request: &OperateRequest, tree: &Tree, line: &Line) -> Result<Option<RestorePoint>, StepError> {
    let Action::Rollback { to, data } = &request.action else { return Ok(None) };
    let point = restore_points::load(tree, line, to).map_err(|error| unusable(to, &error))?;
    let refuse = |problem: &str| {
        Err(StepError::new(FailureCategory::RestorePointUnusable, format!("restore point {to}: {problem}")))
    };
    match point {
        None => {
            refuse("there is none of this tenant on this host; status.restorePoints names those that are")
        }
        Some(point) if point.first => refuse("nothing ran before it, so it leads back to nothing"),
        Some(point) if *data && point.data.is_empty() => {
            refuse("it holds no data: go back to it without, or choose another")
        }
        other => Ok(other),
    }
}

/// The same, from the tenant's directory.
pub async fn chosen_by(context: &RequestContext) -> Result<Option<RestorePoint>, StepError> {
    if context.request.action == Action::Upgrade {
        return Ok(None);
    }
    let (host, request, tree) = (context.host.clone(), context.request.clone(), context.tree()?);
    context
        .blocking(move || {
            chosen(&request, &tree, &Line::of(&host.store, &request.tenant.uid, &request.place))
        })
        .await
}

fn unusable(to: &OperationId, error: &FilesError) -> StepError {
    StepError::new(FailureCategory::RestorePointUnusable, format!("restore point {to}: {error}"))
}

/// What has to change for every file to be as it was: a person asked for it, so what was edited by hand since goes, too.
/// It is in the restore point that this operation makes.
pub fn changes(
    request: &OperateRequest,
    own: Option<&OperationId>,
    to: &RestorePoint,
    tree: &Tree,
    line: &Line,
    cache: &TenantCache,
) -> Result<Changes, StepError> {
    let refuse = |error: FilesError| match error {
        FilesError::Damaged { .. } | FilesError::NoRestorePoint(_) => unusable(&to.operation, &error),
        other => other.into(),
    };
    let points = restore_points::chain(tree, line, to, own).map_err(refuse)?;
    let mut all = Changes::default();
    for (operation, kept) in earliest_states(&points).into_values() {
        let found = tree.inspect(&kept.path, &cache.hashes)?;
        let content = || Transactions::new(tree).kept_content(operation, kept).map_err(refuse);
        if change(kept, &found, content, &mut all)? {
            protect(request, &kept.path)?;
        } else {
            all.counts.unchanged += 1;
        }
    }
    Ok(all)
}

/// Adds what makes one file as it was; false where it is so.
fn change(
    kept: &KeptFile,
    found: &Found,
    content: impl FnOnce() -> Result<Option<Vec<u8>>, StepError>,
    all: &mut Changes,
) -> Result<bool, StepError> {
    let path = kept.path.clone();
    let (before, now) = match found {
        Found::Missing => (Before::Missing, None),
        Found::File(seen) => (Before::Is(seen.sha256.clone()), Some(seen)),
        Found::Blocked(what) => {
            let message = format!("{path}: {what}; a file was there, and can't be put back");
            return Err(StepError::new(FailureCategory::PathRefused, message));
        }
    };
    let differs = match (&kept.before, now) {
        (Was::Absent, None) => return Ok(false),
        (Was::Absent, Some(_)) => {
            all.counts.deleted += 1;
            all.set.changes.push(Change::Delete { path: path.clone(), before });
            true
        }
        (Was::File { sha256, mode, uid, gid, .. }, now) => {
            let stamp = now.map(|seen| &seen.stamp);
            let attributes = stamp.is_some_and(|now| (now.mode, now.uid, now.gid) == (*mode, *uid, *gid));
            let differs = now.is_none_or(|seen| seen.sha256 != *sha256);
            if attributes && !differs {
                return Ok(false);
            }
            match now {
                None => all.counts.created += 1,
                Some(_) => all.counts.modified += 1,
            }
            let owner = Some(Owner { uid: *uid, gid: *gid });
            let content = content()?.unwrap_or_default();
            all.set.changes.push(Change::Write {
                path: path.clone(),
                content,
                mode: Some(*mode),
                owner,
                before,
            });
            differs
        }
    };
    if path.as_str() == ".env" {
        all.env |= differs;
    } else if differs {
        all.changed.push(path);
    }
    Ok(true)
}

/// The images of the release that is gone back to. They were kept, so no registry is needed, unless a person has removed
/// them since: then the registry's digest of what ran must be known, and its registry allowed.
pub async fn images(
    context: &RequestContext,
    to: &RestorePoint,
    model: &Model,
) -> Result<Vec<PlannedImage>, StepError> {
    let mut images = Vec::new();
    for reference in model.references().into_keys() {
        // A reference that nothing ran by then may still be on this host.
        let id = to.image(reference).unwrap_or(reference);
        let image = image(context, id, reference, to).await.map_err(|error| {
            let message = format!("restore point {}: {}", to.operation, error.message);
            StepError::new(FailureCategory::RestorePointUnusable, message)
        })?;
        images.push(image);
    }
    Ok(images)
}

async fn image(
    context: &RequestContext,
    id: &str,
    reference: &str,
    to: &RestorePoint,
) -> Result<PlannedImage, StepError> {
    if let Some(image) = context.host.engine.image(id).await? {
        let repo_digest = image.repo_digest(reference);
        return Ok(PlannedImage { reference: reference.to_owned(), image_id: image.id, repo_digest });
    }
    let digest = digest_of(context, id, reference, &to.baseline.images)?;
    Ok(PlannedImage {
        reference: reference.to_owned(),
        image_id: id.to_owned(),
        repo_digest: Some(digest.to_owned()),
    })
}

/// The registry's digest by which an image that is no longer here can be pulled again; refused where there is none.
pub fn digest_of<'a>(
    context: &RequestContext,
    id: &str,
    reference: &str,
    ran: &'a [RunImage],
) -> Result<&'a str, StepError> {
    let digest = ran.iter().find(|image| image.image_id == id).and_then(|image| image.repo_digest.as_deref());
    match digest {
        None => Err(gone(id, reference, "no registry is known to have it")),
        Some(_) if Reference::parse(reference).is_none() => {
            Err(gone(id, reference, "no registry is known to have it"))
        }
        Some(_) if !context.host.policy.allow().reference(reference) => {
            Err(gone(id, reference, "this host's policy does not allow its registry"))
        }
        Some(digest) => Ok(digest),
    }
}

/// An image that a way back needs, and that is not to be had.
pub fn gone(id: &str, reference: &str, why: &str) -> StepError {
    let message = format!("image {id} of {reference} is no longer on this host, and {why}; load or pull it");
    StepError::new(FailureCategory::ImageNotFound, message)
}
