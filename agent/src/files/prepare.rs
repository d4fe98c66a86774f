//! The part of a transaction before its moment: the new content waits where a rename can put it in place.

use std::collections::BTreeSet;

use tenantry_api::names::{OperationId, RelativePath};

use super::FILE_LIMIT;
use super::error::FilesError;
use super::folder::Folder;
use super::kept_files::{self, missing_folders};
use super::record::{KeptFiles, Plan, Staged, Step, Was, write_record};
use super::stat::Stat;
use super::survey::{Put, Target, existing_parent};
use super::transaction::{BESIDE, PLAN, RESTORE, make_transaction, new, undo};
use super::tree::Tree;

/// Writes the new content and makes it durable.
pub(super) fn write(tree: &Tree, operation: &OperationId, targets: &[Target<'_>]) -> Result<(), FilesError> {
    stage(tree, operation, &new(operation), targets, Vec::new())
}

/// Stages what a restore point holds as the new content, durably.
pub(super) fn write_restore(
    tree: &Tree,
    operation: &OperationId,
    point: &KeptFiles,
) -> Result<(), FilesError> {
    let restore = tree.make_own(RESTORE)?.below(operation.as_str())?;
    let kept: Vec<Option<Vec<u8>>> =
        point.files.iter().map(|file| kept_files::read(&restore, file)).collect::<Result<_, _>>()?;
    let mut targets = Vec::new();
    for (file, content) in point.files.iter().zip(&kept) {
        let (parent, missing) = existing_parent(tree, &file.path)?;
        let stat = tree.stat(&file.path)?;
        let put = match (&file.before, content) {
            (Was::File { mode, uid, gid, .. }, Some(content)) => {
                Some(Put { content, mode: *mode, owner: Some((*uid, *gid)) })
            }
            _ => None,
        };
        let same = match (&put, stat) {
            (None, Stat::Missing) => true,
            (Some(put), Stat::File(stamp)) => {
                let now = tree.read(&file.path, FILE_LIMIT).ok().flatten();
                let attributes = (put.mode, put.owner) == (stamp.mode, Some((stamp.uid, stamp.gid)));
                attributes && now.as_deref() == Some(put.content)
            }
            (_, Stat::Missing | Stat::File(_)) => false,
            (_, Stat::Folder(_)) => return Err(FilesError::refused(file.path.as_str(), "there is a folder")),
            (_, Stat::Other(found)) => return Err(FilesError::refused(file.path.as_str(), found)),
        };
        if !same {
            let missing = if put.is_some() { missing } else { Vec::new() };
            targets.push(Target { path: &file.path, put, now: None, missing, parent });
        }
    }
    let remove = point.new_folders.iter().rev().cloned().collect();
    stage(tree, operation, &undo(operation), &targets, remove)
}

/// Writes the new content and the plan, and makes them durable.
fn stage(
    tree: &Tree,
    operation: &OperationId,
    name: &str,
    targets: &[Target<'_>],
    remove: Vec<RelativePath>,
) -> Result<(), FilesError> {
    let (all, folder) = make_transaction(tree, name)?;
    let places = places(&folder, operation, name, targets)?;
    note_beside(&all, &folder, &places)?;
    let mut unsynced = Vec::new();
    let mut steps = Vec::new();
    let mut elsewhere = BTreeSet::new();
    for (target, place) in targets.iter().zip(&places) {
        if let Some(put) = &target.put {
            let mut file = match place {
                Staged::Here(name) => folder.create(name)?,
                Staged::Beside(path) => {
                    elsewhere.insert(path.parent());
                    match path.parent() {
                        None => tree.root.create(path.file_name())?,
                        Some(parent) => tree.root.below(parent.as_str())?.create(path.file_name())?,
                    }
                }
            };
            file.append(put.content)?;
            file.set_attributes(put.owner, put.mode)?;
            unsynced.push(file);
        }
        let put = target.put.as_ref().map(|_| place.clone());
        let expect = target.now.as_ref().map(|(_, stamp)| *stamp);
        steps.push(Step { path: target.path.clone(), put, expect });
    }
    let plan = Plan { operation: operation.clone(), make: missing_folders(targets), steps, remove };
    unsynced.push(write_record(&folder, PLAN, &plan)?);
    for file in &unsynced {
        file.sync()?;
    }
    for parent in elsewhere {
        match parent {
            None => tree.root.sync()?,
            Some(parent) => tree.root.below(parent.as_str())?.sync()?,
        }
    }
    folder.sync()?;
    all.sync()
}

/// Where each file's new content waits: in our own folder, or beside its target if that is on another mount.
fn places(
    folder: &Folder,
    operation: &OperationId,
    name: &str,
    targets: &[Target<'_>],
) -> Result<Vec<Staged>, FilesError> {
    let own_mount = folder.mount()?;
    let kind = name.rsplit('.').next().unwrap_or_default();
    let place = |(at, target): (usize, &Target<'_>)| {
        if target.parent.mount == own_mount {
            return Ok(Staged::Here(at.to_string()));
        }
        let name = format!(".tenantry-{operation}-{kind}-{at}");
        let path = target.parent.folder.as_ref().map_or(name.clone(), |folder| format!("{folder}/{name}"));
        let long = |_| FilesError::Invalid {
            path: target.path.to_string(),
            problem: "its path is too long to stage beside it, on its own mount".to_owned(),
        };
        RelativePath::parse(path).map(Staged::Beside).map_err(long)
    };
    targets.iter().enumerate().map(place).collect()
}

/// Records, durably, what will be staged outside our own folder, so that it is found and removed after a crash.
fn note_beside(all: &Folder, folder: &Folder, places: &[Staged]) -> Result<(), FilesError> {
    let beside: Vec<&RelativePath> = places
        .iter()
        .filter_map(|place| match place {
            Staged::Beside(path) => Some(path),
            Staged::Here(_) => None,
        })
        .collect();
    if beside.is_empty() {
        return Ok(());
    }
    write_record(folder, BESIDE, &beside)?.sync()?;
    folder.sync()?;
    all.sync()
}
