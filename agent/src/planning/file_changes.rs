//! Which files a request changes, worked out from what is on disk now.

use std::fmt::Write as _;

use tenantry_api::names::{OperationId, RelativePath};
use tenantry_api::tenant::Approach;
use tenantry_planner::env::patch;
use tenantry_protocol::{EnvManifest, FailureCategory, FileManifest, FileState, OperateRequest};

use super::changes::{Changes, protect};
use super::error::StepError;
use super::way_back;
use crate::files::{Before, Change, FILE_LIMIT, Found, Tree};
use crate::host::TenantCache;
use crate::observe::{edited, file_state};
use crate::store::{Baseline, Store};

/// What a request changes, whatever it asks for. `own` is the operation that has begun on it, where one has.
pub fn file_changes(
    request: &OperateRequest,
    own: Option<&OperationId>,
    tree: &Tree,
    cache: &TenantCache,
    store: &Store,
) -> Result<Changes, StepError> {
    match way_back::chosen(request, tree)? {
        Some(point) => way_back::changes(request, own, &point, tree, cache),
        None => changes(request, tree, cache, &store.baseline(&request.tenant.uid)?),
    }
}

/// Works out the changes of an upgrade; refuses those that must not be made.
pub fn changes(
    request: &OperateRequest,
    tree: &Tree,
    cache: &TenantCache,
    baseline: &Baseline,
) -> Result<Changes, StepError> {
    let mut all = Changes::default();
    let mut hand_edited = Vec::new();
    let mut strange = Vec::new();
    // A host where nothing was ever recorded may hold a person's own context.
    let unknown = *baseline == Baseline::default() && !request.overwrite;
    for file in &request.manifest.files {
        let found = tree.inspect(&file.path, &cache.hashes)?;
        protect(request, &file.path)?;
        let Some(differs) = difference(file, &found)? else {
            all.counts.unchanged += 1;
            continue;
        };
        let now = match &found {
            Found::File(seen) => Some(&seen.sha256),
            Found::Missing | Found::Blocked(_) => None,
        };
        if differs.content
            && edited(&file.path, now, baseline)
            && !tenantry_faults::Bug::OverwriteEdits.is_seeded()
        {
            hand_edited.push(file.path.to_string());
        }
        if differs.content && now.is_some() && unknown {
            strange.push(file.path.to_string());
        }
        write(request, tree, file, &found, differs.content, &mut all)?;
    }
    leftovers(request, tree, cache, baseline, &mut all)?;
    refuse(request, &all, &hand_edited, &strange)?;
    env(request, tree, &mut all)?;
    Ok(all)
}

struct Difference {
    content: bool,
}

fn difference(file: &FileManifest, found: &Found) -> Result<Option<Difference>, StepError> {
    match found {
        Found::Missing => Ok(Some(Difference { content: true })),
        Found::Blocked(what) => {
            let message = format!("{}: {what}; remove it, or let the bundle write somewhere else", file.path);
            Err(StepError::new(FailureCategory::PathRefused, message))
        }
        Found::File(seen) => Ok(match file_state(file, seen) {
            FileState::Same => None,
            FileState::Attributes => Some(Difference { content: false }),
            _ => Some(Difference { content: true }),
        }),
    }
}

fn write(
    request: &OperateRequest,
    tree: &Tree,
    file: &FileManifest,
    found: &Found,
    content_differs: bool,
    all: &mut Changes,
) -> Result<(), StepError> {
    let brought = request.contents.iter().find(|content| content.path == file.path);
    let content = match brought {
        Some(brought) => brought.content.0.clone(),
        None if !content_differs => tree.read(&file.path, FILE_LIMIT)?.unwrap_or_default(),
        None => {
            let message = format!(
                "{} is to be written, but the request did not bring its content: it was changed since the operator looked",
                file.path
            );
            return Err(StepError::new(FailureCategory::HandEdited, message));
        }
    };
    let before = match found {
        Found::File(seen) => Before::Is(seen.sha256.clone()),
        Found::Missing | Found::Blocked(_) => Before::Missing,
    };
    match before {
        Before::Missing => all.counts.created += 1,
        Before::Any | Before::Is(_) => all.counts.modified += 1,
    }
    if file.path.as_str() == ".env" {
        all.env |= content_differs;
    } else if content_differs {
        all.changed.push(file.path.clone());
    }
    let (path, mode, owner) = (file.path.clone(), Some(file.mode), file.owner);
    all.set.changes.push(Change::Write { path, content, mode, owner, before });
    Ok(())
}

/// Files that we wrote and that the release no longer has: taken away if they are as we wrote them.
fn leftovers(
    request: &OperateRequest,
    tree: &Tree,
    cache: &TenantCache,
    baseline: &Baseline,
    all: &mut Changes,
) -> Result<(), StepError> {
    let wanted = |path: &RelativePath| request.manifest.files.iter().any(|file| file.path == *path);
    // An adopted .env is the tenant's from now on, whoever wrote it before.
    let gone = baseline.files.iter().filter(|(path, _)| !wanted(path) && path.as_str() != ".env");
    for (path, written) in gone {
        let protected = request.manifest.protect.iter().any(|protected| protected.conflicts_with(path));
        match tree.inspect(path, &cache.hashes)? {
            Found::Missing => {}
            Found::File(seen) if seen.sha256 == written.sha256 && !protected => {
                all.counts.deleted += 1;
                all.changed.push(path.clone());
                let before = Before::Is(seen.sha256);
                all.set.changes.push(Change::Delete { path: path.clone(), before });
            }
            Found::File(_) | Found::Blocked(_) => all.left.push(path.clone()),
        }
    }
    Ok(())
}

fn refuse(
    request: &OperateRequest,
    all: &Changes,
    edited: &[String],
    strange: &[String],
) -> Result<(), StepError> {
    if !edited.is_empty() {
        let message = format!(
            "edited by hand since they were last written: {}. Put them back, or bring the edits into the bundle",
            some(edited)
        );
        return Err(StepError::new(FailureCategory::HandEdited, message));
    }
    if !strange.is_empty() {
        let message = format!(
            "already there with other content, and never written by us: {}. Set spec.adopt to Overwrite to replace them",
            some(strange)
        );
        return Err(StepError::new(FailureCategory::AdoptionNeeded, message));
    }
    let managed: Vec<String> =
        all.set.changes.iter().map(|c| c.path().to_string()).filter(|path| path != ".env").collect();
    if request.approach == Approach::ImageOnly && !managed.is_empty() {
        let message = format!(
            "the release changes managed files ({}): use the approach Release or Auto",
            some(&managed)
        );
        return Err(StepError::new(FailureCategory::ReleaseNeeded, message));
    }
    Ok(())
}

fn some(paths: &[String]) -> String {
    let mut text = paths.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
    if paths.len() > 8 {
        let _ = write!(text, " and {} more", paths.len() - 8);
    }
    text
}

fn env(request: &OperateRequest, tree: &Tree, all: &mut Changes) -> Result<(), StepError> {
    let EnvManifest::Adopted { patch: values } = &request.manifest.env else { return Ok(()) };
    if values.is_empty() {
        return Ok(());
    }
    let path = RelativePath::parse(".env")
        .map_err(|error| StepError::new(FailureCategory::AgentFault, error.to_string()))?;
    protect(request, &path)?;
    let old = tree.read(&path, FILE_LIMIT)?;
    let patched = patch(old.as_deref().unwrap_or_default(), values)
        .map_err(|error| StepError::new(FailureCategory::EnvUnrepresentable, error.to_string()))?;
    if old.as_deref() == Some(patched.bytes.as_slice()) {
        return Ok(());
    }
    all.env = true;
    let before = old.map_or(Before::Missing, |old| Before::Is(crate::files::sha256(&old)));
    all.set.changes.push(Change::Write { path, content: patched.bytes, mode: None, owner: None, before });
    Ok(())
}
