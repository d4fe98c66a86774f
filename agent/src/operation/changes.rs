//! Which files an operation changes, worked out from what is on disk now.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tenantry_api::names::{OperationId, RelativePath};
use tenantry_api::tenant::Approach;
use tenantry_planner::env::patch;
use tenantry_protocol::{EnvManifest, FailureCategory, FileCounts, FileManifest, FileState, OperateRequest};

use super::back;
use super::driver::Wrong;
use crate::core::Tenant;
use crate::files::{Before, Change, FILE_LIMIT, FileSet, Found, Tree};
use crate::observe::{edited, file_state};
use crate::store::{Baseline, Store};

/// What changes on disk.
#[derive(Debug, Default)]
pub struct Changes {
    /// All of it, to be committed together.
    pub set: FileSet,
    /// In numbers.
    pub counts: FileCounts,
    /// Managed files whose content changes, `.env` aside.
    pub changed: Vec<RelativePath>,
    /// Files that the release no longer has and that were edited by hand.
    pub left: Vec<RelativePath>,
    /// Whether `.env` changes.
    pub env: bool,
}

/// What becomes of a file's content.
pub enum Becomes<'a> {
    /// It stays.
    AsItIs,
    /// It is replaced.
    Written(&'a [u8]),
    /// The file is deleted.
    Gone,
}

impl Changes {
    /// What becomes of a path's content.
    pub fn content(&self, path: &RelativePath) -> Becomes<'_> {
        match self.set.changes.iter().find(|change| change.path() == path) {
            None => Becomes::AsItIs,
            Some(Change::Write { content, .. }) => Becomes::Written(content),
            Some(Change::Delete { .. }) => Becomes::Gone,
        }
    }

    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.set.changes.is_empty()
    }
}

/// What an operation changes, whatever it is to do.
pub fn planned(
    request: &OperateRequest,
    id: &OperationId,
    tree: &Tree,
    tenant: &Tenant,
    store: &Store,
) -> Result<Changes, Wrong> {
    match back::chosen(request, tree)? {
        Some(point) => back::changes(request, id, &point, tree, tenant),
        None => changes(request, tree, tenant, &store.baseline(&request.tenant.uid)?),
    }
}

/// Works out the changes of an upgrade; refuses those that must not be made.
pub fn changes(
    request: &OperateRequest,
    tree: &Tree,
    tenant: &Tenant,
    baseline: &Baseline,
) -> Result<Changes, Wrong> {
    let mut all = Changes::default();
    let mut hand_edited = Vec::new();
    let mut strange = Vec::new();
    // A host where nothing was ever recorded may hold a person's own work.
    let unknown = *baseline == Baseline::default() && !request.overwrite;
    for file in &request.manifest.files {
        let found = tree.inspect(&file.path, &tenant.hashes)?;
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
    leftovers(request, tree, tenant, baseline, &mut all)?;
    refuse(request, &all, &hand_edited, &strange)?;
    env(request, tree, &mut all)?;
    Ok(all)
}

struct Difference {
    content: bool,
}

fn difference(file: &FileManifest, found: &Found) -> Result<Option<Difference>, Wrong> {
    match found {
        Found::Missing => Ok(Some(Difference { content: true })),
        Found::Blocked(what) => {
            let message = format!("{}: {what}; remove it, or let the bundle write somewhere else", file.path);
            Err(Wrong::new(FailureCategory::PathRefused, message))
        }
        Found::File(seen) => Ok(match file_state(file, seen) {
            FileState::Same => None,
            FileState::Attributes => Some(Difference { content: false }),
            _ => Some(Difference { content: true }),
        }),
    }
}

/// Refuses what is the tenant's own.
pub fn protect(request: &OperateRequest, path: &RelativePath) -> Result<(), Wrong> {
    match request.manifest.protect.iter().find(|protected| protected.conflicts_with(path)) {
        None => Ok(()),
        Some(protected) => {
            let message = format!(
                "{path} is protected by '{protected}' in spec.protect; nothing of ours is written there"
            );
            Err(Wrong::new(FailureCategory::PathRefused, message))
        }
    }
}

fn write(
    request: &OperateRequest,
    tree: &Tree,
    file: &FileManifest,
    found: &Found,
    content_differs: bool,
    all: &mut Changes,
) -> Result<(), Wrong> {
    let brought = request.contents.iter().find(|content| content.path == file.path);
    let content = match brought {
        Some(brought) => brought.content.0.clone(),
        None if !content_differs => tree.read(&file.path, FILE_LIMIT)?.unwrap_or_default(),
        None => {
            let message = format!(
                "{} is to be written, but the request did not bring its content: it was changed since the operator looked",
                file.path
            );
            return Err(Wrong::new(FailureCategory::HandEdited, message));
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
    tenant: &Tenant,
    baseline: &Baseline,
    all: &mut Changes,
) -> Result<(), Wrong> {
    let wanted = |path: &RelativePath| request.manifest.files.iter().any(|file| file.path == *path);
    // An adopted .env is the tenant's from now on, whoever wrote it before.
    let gone = baseline.files.iter().filter(|(path, _)| !wanted(path) && path.as_str() != ".env");
    for (path, written) in gone {
        let protected = request.manifest.protect.iter().any(|protected| protected.conflicts_with(path));
        match tree.inspect(path, &tenant.hashes)? {
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
) -> Result<(), Wrong> {
    if !edited.is_empty() {
        let message = format!(
            "edited by hand since they were last written: {}. Put them back, or bring the edits into the bundle",
            some(edited)
        );
        return Err(Wrong::new(FailureCategory::HandEdited, message));
    }
    if !strange.is_empty() {
        let message = format!(
            "already there with other content, and never written by us: {}. Set spec.adopt to Overwrite to replace them",
            some(strange)
        );
        return Err(Wrong::new(FailureCategory::AdoptionNeeded, message));
    }
    let managed: Vec<String> =
        all.set.changes.iter().map(|c| c.path().to_string()).filter(|path| path != ".env").collect();
    if request.approach == Approach::ImageOnly && !managed.is_empty() {
        let message = format!(
            "the release changes managed files ({}): use the approach Release or Auto",
            some(&managed)
        );
        return Err(Wrong::new(FailureCategory::ReleaseNeeded, message));
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

fn env(request: &OperateRequest, tree: &Tree, all: &mut Changes) -> Result<(), Wrong> {
    let EnvManifest::Adopted { patch: values } = &request.manifest.env else { return Ok(()) };
    if values.is_empty() {
        return Ok(());
    }
    let path = RelativePath::parse(".env")
        .map_err(|error| Wrong::new(FailureCategory::AgentFault, error.to_string()))?;
    protect(request, &path)?;
    let old = tree.read(&path, FILE_LIMIT)?;
    let patched = patch(old.as_deref().unwrap_or_default(), values)
        .map_err(|error| Wrong::new(FailureCategory::EnvUnrepresentable, error.to_string()))?;
    if old.as_deref() == Some(patched.bytes.as_slice()) {
        return Ok(());
    }
    all.env = true;
    let before = old.map_or(Before::Missing, |old| Before::Is(crate::files::sha256(&old)));
    all.set.changes.push(Change::Write { path, content: patched.bytes, mode: None, owner: None, before });
    Ok(())
}

/// What is asked of `.env`, if it is the tenant's own.
pub fn patched_values(manifest: &EnvManifest) -> BTreeMap<&str, &str> {
    match manifest {
        EnvManifest::Managed => BTreeMap::new(),
        EnvManifest::Adopted { patch } => {
            patch.iter().map(|value| (value.name.as_str(), value.value.as_str())).collect()
        }
    }
}
