//! Going back to a restore point: which files change, which images are pointed to, by which terms the release of then
//! is judged.

use tenantry_api::names::OperationId;
use tenantry_planner::model::Model;
use tenantry_planner::steps::{JournalState, PlannedImage};
use tenantry_protocol::{Action, FailureCategory, OperateRequest, Owner, RunImage};

use super::changes::{Changes, protect};
use super::driver::Wrong;
use super::point::{self, Point};
use super::work::Work;
use crate::core::Tenant;
use crate::engine::{Image, Reference};
use crate::files::{Before, Change, FilesError, Found, Kept, Transactions, Tree, Was, composed};
use crate::store::Terms;

/// The restore point that a request goes back to; `None` for an upgrade. Refused where it leads nowhere.
pub fn chosen(request: &OperateRequest, tree: &Tree) -> Result<Option<Point>, Wrong> {
    let Action::Rollback { to, data } = &request.action else { return Ok(None) };
    let point = point::load(tree, &request.tenant.uid, to).map_err(|error| unusable(to, &error))?;
    let refuse = |problem: &str| {
        Err(Wrong::new(FailureCategory::RestorePointUnusable, format!("restore point {to}: {problem}")))
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
pub async fn chosen_by(work: &Work) -> Result<Option<Point>, Wrong> {
    if work.request.action == Action::Upgrade {
        return Ok(None);
    }
    let (request, tree) = (work.request.clone(), work.tree()?);
    work.blocking(move || chosen(&request, &tree)).await
}

fn unusable(to: &OperationId, error: &FilesError) -> Wrong {
    Wrong::new(FailureCategory::RestorePointUnusable, format!("restore point {to}: {error}"))
}

/// What has to change for every file to be as it was: a person asked for it, so what was edited by hand since goes, too.
/// It is in the restore point that this operation makes.
pub fn changes(
    request: &OperateRequest,
    own: &OperationId,
    to: &Point,
    tree: &Tree,
    tenant: &Tenant,
) -> Result<Changes, Wrong> {
    let refuse = |error: FilesError| match error {
        FilesError::Damaged { .. } | FilesError::NoRestorePoint(_) => unusable(&to.operation, &error),
        other => other.into(),
    };
    let points = point::chain(tree, &request.tenant.uid, to, own).map_err(refuse)?;
    let mut all = Changes::default();
    for (operation, kept) in composed(&points).into_values() {
        let found = tree.inspect(&kept.path, &tenant.hashes)?;
        let content = || Transactions::new(tree).kept(operation, kept).map_err(refuse);
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
    kept: &Kept,
    found: &Found,
    content: impl FnOnce() -> Result<Option<Vec<u8>>, Wrong>,
    all: &mut Changes,
) -> Result<bool, Wrong> {
    let path = kept.path.clone();
    let (before, now) = match found {
        Found::Missing => (Before::Missing, None),
        Found::File(seen) => (Before::Is(seen.sha256.clone()), Some(seen)),
        Found::Blocked(what) => {
            let message = format!("{path}: {what}; a file was there, and can't be put back");
            return Err(Wrong::new(FailureCategory::PathRefused, message));
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

/// The images of the release that is gone back to. They were kept: no registry is asked unless a person has removed them.
pub async fn images(work: &Work, to: &Point, model: &Model) -> Result<Vec<PlannedImage>, Wrong> {
    let mut images = Vec::new();
    for reference in model.references().into_keys() {
        // A reference that nothing ran by then may still be on this host.
        let name = to.image(reference).unwrap_or(reference);
        let image = present(work, name, reference, &to.baseline.images).await.map_err(|wrong| {
            let message = format!("restore point {}: {}", to.operation, wrong.message);
            Wrong::new(FailureCategory::RestorePointUnusable, message)
        })?;
        let repo_digest = image.repo_digest(reference);
        images.push(PlannedImage { reference: reference.to_owned(), image_id: image.id, repo_digest });
    }
    Ok(images)
}

/// An image that was kept. A person may have removed it (`docker image prune -a` takes whatever no container uses): then
/// it is pulled once more, by the digest that was seen when it ran.
pub async fn present(work: &Work, id: &str, reference: &str, ran: &[RunImage]) -> Result<Image, Wrong> {
    let engine = &work.host.engine;
    if let Some(image) = engine.image(id).await? {
        return Ok(image);
    }
    let gone = |why: &str| {
        let message =
            format!("image {id} of {reference} is no longer on this host, and {why}; load or pull it");
        Wrong::new(FailureCategory::ImageNotFound, message)
    };
    let digest = ran.iter().find(|image| image.image_id == id).and_then(|image| image.repo_digest.as_deref());
    let (Some(digest), Some(parsed)) = (digest, Reference::parse(reference)) else {
        return Err(gone("no registry is known to have it"));
    };
    if !work.host.config.allow.reference(reference) {
        return Err(gone("this host's policy does not allow its registry"));
    }
    if let Err(error) = engine.pull(&parsed.repository, digest, |_| ()).await {
        return Err(gone(&format!("it could not be pulled again: {error}")));
    }
    let image = engine.image(id).await?.ok_or_else(|| gone("its registry has another one by that digest"))?;
    let kept = std::slice::from_ref(&image.id);
    super::keep::keep(engine, &work.request.tenant.uid, &work.id, kept).await?;
    Ok(image)
}

/// By which terms the release is judged that this operation brings about, or, once it has failed, the one before.
pub async fn terms(work: &Work, state: &JournalState) -> Result<Terms, Wrong> {
    let request = &work.request;
    if request.action == Action::Upgrade && state.failure().is_none() {
        return Ok(Terms::of(request));
    }
    let known = if state.failure().is_some() {
        let (host, uid) = (work.host.clone(), request.tenant.uid.clone());
        work.blocking(move || Ok(host.store.baseline(&uid)?.terms)).await?
    } else {
        chosen_by(work).await?.and_then(|point| point.baseline.terms)
    };
    Ok(known.unwrap_or_else(|| {
        // A release that was there before us has none of its own, and a target's probes are for the target.
        let mut terms = Terms::of(request);
        terms.verify.http.clear();
        terms
    }))
}
