//! Which files a request changes, worked out from what is on disk now.

use std::fmt::Write as _;

use tenantry_api::names::{OperationId, RelativePath};
use tenantry_api::tenant::Approach;
use tenantry_planner::env::patch;
use tenantry_planner::steps::{FileChange, ImageEdit, Plan};
use tenantry_protocol::{EnvManifest, FailureCategory, FileManifest, FileState, OperateRequest};

use super::changes::{Changes, protect};
use super::error::StepError;
use super::way_back;
use crate::files::{Before, Change, FILE_LIMIT, Found, Tree, sha256};
use crate::host::TenantCache;
use crate::host::restore_points::Line;
use crate::observe::{Texts, edited, file_state, with_images};
use crate::store::{Baseline, Store};

/// What a request changes, whatever it asks for. `own` is the operation that has begun on it, where one has.
pub fn file_changes(
    request: &OperateRequest,
    own: Option<&OperationId>,
    tree: &Tree,
    cache: &TenantCache,
    store: &Store,
) -> Result<Changes, StepError> {
    let line = Line::of(store, &request.tenant.uid, &request.place);
    match way_back::chosen(request, tree, &line)? {
        Some(point) => way_back::changes(request, own, &point, tree, &line, cache),
        None => changes(request, tree, cache, &store.baseline(&request.tenant.uid)?),
    }
}

/// The same while a plan is carried out: refused where a file is no longer as the plan found it, for what was not planned
/// is not written. A tenant's own `.env` may change: what is set in it is set in whatever it is.
pub fn planned_changes(
    request: &OperateRequest,
    own: &OperationId,
    tree: &Tree,
    cache: &TenantCache,
    store: &Store,
    plan: &Plan,
) -> Result<Changes, StepError> {
    let mut changes = file_changes(request, Some(own), tree, cache, store)?;
    edit_images(request, tree, &plan.image_edits, &mut changes)?;
    let adopted = matches!(request.manifest.env, EnvManifest::Adopted { .. });
    let own_env = tree.followed(&RelativePath::env_file())?;
    let is_meant = |change: &FileChange| {
        let content_stays = change.before == change.after;
        content_stays || plan.files.contains(change) || (adopted && change.path == own_env)
    };
    let others = changes.list().into_iter().filter(|change| !is_meant(change));
    let others: Vec<String> = others.map(|change| change.path.to_string()).collect();
    // The journal of an earlier agent has no list of files.
    if others.is_empty() || plan.files.is_empty() {
        return Ok(changes);
    }
    let message =
        format!("changed by somebody else since they were looked at: {}. Nothing was written", some(&others));
    Err(StepError::new(FailureCategory::HandEdited, message))
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
        // What we never wrote is a person's own.
        if differs.content && now.is_some() && !request.overwrite && !baseline.files.contains_key(&file.path)
        {
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

/// Adds what is set in compose files of the tenant's own. Behind a symlink it is the file there that changes.
pub fn edit_images(
    request: &OperateRequest,
    tree: &Tree,
    edits: &[ImageEdit],
    all: &mut Changes,
) -> Result<(), StepError> {
    let (mut texts, mut there) = (Texts::new(), Vec::new());
    for edit in edits {
        let path = tree.followed(&edit.path)?;
        protect(request, &path)?;
        texts.insert(path.clone(), tree.read(&path, FILE_LIMIT)?.unwrap_or_default());
        let edit = ImageEdit { path, ..edit.clone() };
        // One file may be read by two names.
        if !there.contains(&edit) {
            there.push(edit);
        }
    }
    let edited = with_images(&there, |path| texts.get(path).cloned().unwrap_or_default())?;
    for (path, content) in edited {
        let old = &texts[&path];
        if *old == content {
            continue;
        }
        let before = Before::Is(sha256(old));
        all.set.changes.push(Change::Write { path, content, mode: None, owner: None, before });
    }
    Ok(())
}

fn env(request: &OperateRequest, tree: &Tree, all: &mut Changes) -> Result<(), StepError> {
    let values = request.manifest.env.patch();
    if values.is_empty() {
        return Ok(());
    }
    let named = RelativePath::env_file();
    protect(request, &named)?;
    // A symlink stays: what is behind it is written.
    let path = tree.followed(&named)?;
    protect(request, &path)?;
    let old = tree.read(&path, FILE_LIMIT)?;
    let patched = patch(old.as_deref().unwrap_or_default(), values)
        .map_err(|error| StepError::new(FailureCategory::EnvUnrepresentable, error.to_string()))?;
    if old.as_deref() == Some(patched.bytes.as_slice()) {
        return Ok(());
    }
    all.env = true;
    let before = old.map_or(Before::Missing, |old| Before::Is(sha256(&old)));
    all.set.changes.push(Change::Write { path, content: patched.bytes, mode: None, owner: None, before });
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::files::DiskIo;

    const ID: &str = "1a2b3c4d-1";

    /// A host where a person's project lies that is to be overwritten: `a.conf` changes, `b.conf` is as the release has it.
    struct Host {
        folder: tempfile::TempDir,
        request: OperateRequest,
        tree: Tree,
        store: Store,
    }

    impl Host {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let place = folder.path().join("acme");
            std::fs::create_dir(&place).unwrap();
            let file = |path: &str| json!({"path": path, "sha256": sha256(b"new\n"), "size": 4, "mode": 0o644, "sensitive": false});
            let content = |path: &str| json!({"path": path, "content": "bmV3Cg=="});
            let request = serde_json::from_value(json!({
                "tenant": {"uid": "0b0b0b0b-0000-4000-8000-0000000000cc", "namespace": "default", "name": "acme"},
                "place": {"project": "acme", "directory": place},
                "epoch": 1, "targetHash": "sha256:1", "approach": "Release",
                "manifest": {
                    "files": [file("a.conf"), file("b.conf")], "protect": [], "jobs": [], "onChange": [],
                    "env": {"ownership": "adopted", "patch": [{"name": "TAG", "value": "v2"}]},
                },
                "contents": [content("a.conf"), content("b.conf")], "pinned": [], "onFailure": "Rollback",
                "overwrite": true, "verify": {"timeoutMs": 20_000, "stableForMs": 200, "http": []},
            }))
            .unwrap();
            let tree = Tree::open(&place, DiskIo::default()).unwrap();
            let store = Store::open(&folder.path().join("state"), DiskIo::default()).unwrap();
            let host = Self { folder, request, tree, store };
            host.write("a.conf", "old\n");
            host.write("b.conf", "new\n");
            host.write(".env", "TAG=v1\n");
            host
        }

        fn write(&self, path: &str, content: &str) {
            std::fs::write(self.folder.path().join("acme").join(path), content).unwrap();
        }

        fn plan(&self) -> Plan {
            let changes = file_changes(&self.request, None, &self.tree, &TenantCache::default(), &self.store);
            let plan = json!({
                "report": {"hash": "", "files": {"created": 0, "modified": 0, "deleted": 0, "unchanged": 0}, "recreates": []},
                "compose": {"files": [], "profiles": [], "command": ""}, "previousCompose": null, "writes": true,
                "first": true, "changed": [], "files": changes.unwrap().list(), "containers": [], "references": [],
                "previousImages": [], "leftRunning": [], "leftFiles": [],
            });
            serde_json::from_value(plan).unwrap()
        }

        /// The files that are written by a plan, or why none is.
        fn planned(&self, plan: &Plan) -> Result<Vec<String>, String> {
            let (id, cache) = (OperationId::parse(ID).unwrap(), TenantCache::default());
            let changes = planned_changes(&self.request, &id, &self.tree, &cache, &self.store, plan);
            let changes = changes.map_err(|error| format!("{:?}: {}", error.category, error.message))?;
            Ok(changes.list().into_iter().map(|change| change.path.to_string()).collect())
        }
    }

    #[test]
    fn what_was_planned_is_written_and_a_tenants_own_env_may_have_changed() {
        let host = Host::new();
        let plan = host.plan();
        let written = [".env", "a.conf"].map(str::to_owned);
        assert_eq!(host.planned(&plan), Ok(written.to_vec()));
        host.write(".env", "TAG=v1\nMINE=1\n");
        assert_eq!(host.planned(&plan), Ok(written.to_vec()));
    }

    #[test]
    fn behind_a_link_the_file_is_written_and_the_link_stays() {
        let host = Host::new();
        let at = |path: &str| host.folder.path().join("acme").join(path);
        std::fs::rename(at(".env"), at("app.conf")).unwrap();
        std::os::unix::fs::symlink("app.conf", at(".env")).unwrap();
        let plan = host.plan();
        assert_eq!(host.planned(&plan), Ok(["a.conf", "app.conf"].map(str::to_owned).to_vec()));
        host.write("app.conf", "TAG=v1\nMINE=1\n");
        assert!(host.planned(&plan).is_ok(), "it is the tenant's own, and may change");

        let mut request = host.request.clone();
        request.manifest.protect = serde_json::from_value(json!(["app.conf"])).unwrap();
        let changes = file_changes(&request, None, &host.tree, &TenantCache::default(), &host.store);
        assert!(changes.unwrap_err().message.contains("protected"), "P1");
        std::fs::remove_file(at(".env")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", at(".env")).unwrap();
        let changes = file_changes(&host.request, None, &host.tree, &TenantCache::default(), &host.store);
        assert!(changes.unwrap_err().message.contains("not in the tenant's directory"));
    }

    #[test]
    fn p6_a_file_that_somebody_has_changed_since_it_was_planned_is_not_written() {
        for edited in ["a.conf", "b.conf"] {
            let host = Host::new();
            let plan = host.plan();
            host.write(edited, "mine\n");
            let refused = format!(
                "HandEdited: changed by somebody else since they were looked at: {edited}. Nothing was written"
            );
            assert_eq!(host.planned(&plan), Err(refused));
            let earlier = Plan { files: Vec::new(), ..plan };
            assert!(host.planned(&earlier).is_ok(), "a journal of an earlier agent has no list");
        }
    }
}
