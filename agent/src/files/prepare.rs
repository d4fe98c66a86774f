//! The part of a transaction before its moment: look at everything, then write restore point and new content.

use std::collections::BTreeSet;

use tenantry_api::names::{OperationId, ProtectedPath, RelativePath};
use tenantry_protocol::Owner;

use super::error::FilesError;
use super::folder::{Folder, Look, NewFile, Stamp};
use super::record::{Kept, Plan, RestorePoint, Staged, Step, Was, write_record};
use super::transaction::{
    BESIDE, Before, Change, FileSet, INDEX, PLAN, RESTORE, make_transaction, new, undo,
};
use super::tree::Tree;
use super::{FILE_LIMIT, sha256};

/// The permission bits of a new file whose mode nobody gave: it may hold secrets.
const NEW_FILE_MODE: u32 = 0o600;
/// What the system calls take for "leave it as it is", so no owner can be called so.
const NOBODY: u32 = u32::MAX;

/// A file that changes, and what is there now.
pub(super) struct Target<'a> {
    path: &'a RelativePath,
    /// The new content with its mode and owner; `None`: it is removed.
    put: Option<Put<'a>>,
    now: Option<(Vec<u8>, Stamp)>,
    /// Folders above it that are not there yet, parents first.
    missing: Vec<RelativePath>,
    ground: Ground,
}

struct Put<'a> {
    content: &'a [u8],
    mode: u32,
    owner: Option<(u32, u32)>,
}

/// The nearest folder above a file that is there, and its mount.
struct Ground {
    folder: Option<RelativePath>,
    mount: u64,
}

/// Looks at everything that would change and refuses what must not; writes nothing.
pub(super) fn survey<'a>(
    tree: &Tree,
    set: &'a FileSet,
    protect: &[ProtectedPath],
) -> Result<Vec<Target<'a>>, FilesError> {
    check_paths(set, protect)?;
    let mut targets = Vec::new();
    for change in &set.changes {
        let path = change.path();
        let (ground, missing) = ground(tree, path)?;
        let now = current(tree, path, &ground, missing.is_empty())?;
        let as_said = match (change.before(), &now) {
            (Before::Any, _) | (Before::Missing, None) => true,
            (Before::Is(hash), Some((content, _))) => sha256(content) == *hash,
            (Before::Missing, Some(_)) | (Before::Is(_), None) => false,
        };
        if !as_said {
            return Err(FilesError::Moved {
                path: path.to_string(),
            });
        }
        let put = wanted(change, now.as_ref().map(|(_, stamp)| stamp))?;
        let same = match (&put, &now) {
            (None, None) => true,
            (Some(put), Some((content, stamp))) => {
                let owner = put.owner.is_none_or(|owner| owner == (stamp.uid, stamp.gid));
                put.content == content && put.mode == stamp.mode && owner
            }
            _ => false,
        };
        if !same {
            let missing = if put.is_some() { missing } else { Vec::new() };
            targets.push(Target {
                path,
                put,
                now,
                missing,
                ground,
            });
        }
    }
    Ok(targets)
}

fn check_paths(set: &FileSet, protect: &[ProtectedPath]) -> Result<(), FilesError> {
    let mut paths: Vec<&RelativePath> = set.changes.iter().map(Change::path).collect();
    for path in &paths {
        if let Some(protect) = protect.iter().find(|protect| protect.conflicts_with(path)) {
            return Err(FilesError::Protected {
                path: path.to_string(),
                protect: protect.clone(),
            });
        }
    }
    // Sorted by components, a path comes directly before those below it.
    paths.sort_by(|a, b| a.as_str().split('/').cmp(b.as_str().split('/')));
    for pair in paths.windows(2) {
        let problem = if pair[0] == pair[1] {
            "it is named twice".to_owned()
        } else if pair[1].is_at_or_below(pair[0]) {
            format!("it is also the folder of {}", pair[1])
        } else {
            continue;
        };
        return Err(FilesError::Invalid {
            path: pair[0].to_string(),
            problem,
        });
    }
    Ok(())
}

/// The folder that a file stands on, and the folders above it that are not there.
fn ground(tree: &Tree, path: &RelativePath) -> Result<(Ground, Vec<RelativePath>), FilesError> {
    let mut missing = Vec::new();
    let mut at = path.parent();
    while let Some(folder) = at {
        let placed = tree.root.placed(folder.as_str())?;
        match placed.look {
            Look::Folder(_) => {
                missing.reverse();
                return Ok((
                    Ground {
                        folder: Some(folder),
                        mount: placed.mount,
                    },
                    missing,
                ));
            }
            Look::Missing => {
                at = folder.parent();
                missing.push(folder);
            }
            Look::File(_) => {
                let found = format!("there is a file at {folder}, where a folder is needed");
                return Err(FilesError::refused(path.as_str(), found));
            }
            Look::Other(found) => {
                return Err(FilesError::refused(path.as_str(), format!("{found} at {folder}")));
            }
        }
    }
    missing.reverse();
    Ok((
        Ground {
            folder: None,
            mount: tree.root.mount()?,
        },
        missing,
    ))
}

/// The file that is there now.
fn current(
    tree: &Tree,
    path: &RelativePath,
    ground: &Ground,
    folder_is_there: bool,
) -> Result<Option<(Vec<u8>, Stamp)>, FilesError> {
    if !folder_is_there {
        return Ok(None);
    }
    let placed = tree.root.placed(path.as_str())?;
    let stamp = match placed.look {
        Look::Missing => return Ok(None),
        Look::File(stamp) => stamp,
        Look::Folder(_) => return Err(FilesError::refused(path.as_str(), "there is a folder")),
        Look::Other(found) => return Err(FilesError::refused(path.as_str(), found)),
    };
    if placed.mount != ground.mount {
        return Err(FilesError::refused(path.as_str(), "there is a mount point"));
    }
    if stamp.links > 1 {
        let found = format!(
            "there is a file with {} hard links, which a new one would part from the others",
            stamp.links
        );
        return Err(FilesError::refused(path.as_str(), found));
    }
    match tree.root.read(path.as_str(), FILE_LIMIT)? {
        Some((content, read)) if read == stamp && content.len() as u64 == stamp.size => {
            Ok(Some((content, stamp)))
        }
        _ => Err(FilesError::Moved {
            path: path.to_string(),
        }),
    }
}

fn wanted<'a>(change: &'a Change, now: Option<&Stamp>) -> Result<Option<Put<'a>>, FilesError> {
    let Change::Write {
        path,
        content,
        mode,
        owner,
        ..
    } = change
    else {
        return Ok(None);
    };
    let invalid = |problem: &str| FilesError::Invalid {
        path: path.to_string(),
        problem: problem.to_owned(),
    };
    if mode.is_some_and(|mode| mode > 0o777) {
        return Err(invalid("its mode is above 0777"));
    }
    if owner.is_some_and(|Owner { uid, gid }| uid == NOBODY || gid == NOBODY) {
        return Err(invalid("4294967295 is no user or group"));
    }
    if content.len() as u64 > FILE_LIMIT {
        return Err(invalid(&format!("its content is longer than {FILE_LIMIT} bytes")));
    }
    Ok(Some(Put {
        content,
        mode: mode.or(now.map(|stamp| stamp.mode)).unwrap_or(NEW_FILE_MODE),
        owner: owner
            .map(|owner| (owner.uid, owner.gid))
            .or(now.map(|stamp| (stamp.uid, stamp.gid))),
    }))
}

/// Writes restore point and new content, and makes both durable.
pub(super) fn write(tree: &Tree, operation: &OperationId, targets: &[Target<'_>]) -> Result<(), FilesError> {
    let all = tree.make_own(RESTORE)?;
    all.make(operation.as_str(), 0o700)?;
    let restore = all.below(operation.as_str())?;
    let mut unsynced = Vec::new();
    let mut files = Vec::new();
    for (at, target) in targets.iter().enumerate() {
        let before = match &target.now {
            None => Was::Absent,
            Some((content, stamp)) => {
                let mut file = restore.create(&at.to_string())?;
                file.append(content)?;
                unsynced.push(file);
                let (sha256, size) = (sha256(content), content.len() as u64);
                Was::File {
                    sha256,
                    size,
                    mode: stamp.mode,
                    uid: stamp.uid,
                    gid: stamp.gid,
                }
            }
        };
        files.push(Kept {
            path: target.path.clone(),
            before,
        });
    }
    let new_folders = folders(targets);
    let point = RestorePoint {
        operation: operation.clone(),
        files,
        new_folders: new_folders.clone(),
    };
    unsynced.push(write_record(&restore, INDEX, &point)?);
    stage(tree, operation, &new(operation), targets, Vec::new(), unsynced)?;
    restore.sync()?;
    all.sync()
}

/// Stages what a restore point holds as the new content, durably.
pub(super) fn write_restore(
    tree: &Tree,
    operation: &OperationId,
    point: &RestorePoint,
) -> Result<(), FilesError> {
    let restore = tree.make_own(RESTORE)?.below(operation.as_str())?;
    let mut kept = Vec::new();
    for (at, file) in point.files.iter().enumerate() {
        kept.push(match &file.before {
            Was::Absent => None,
            Was::File { sha256: hash, .. } => {
                let content = restore
                    .read(&at.to_string(), FILE_LIMIT)?
                    .map(|(content, _)| content);
                let content = content.filter(|content| sha256(content) == *hash);
                let damaged =
                    || FilesError::damaged(restore.path().join(at.to_string()), "it is not what was kept");
                Some(content.ok_or_else(damaged)?)
            }
        });
    }
    let mut targets = Vec::new();
    for (file, content) in point.files.iter().zip(&kept) {
        let (ground, missing) = ground(tree, &file.path)?;
        let look = tree.look(&file.path)?;
        let put = match (&file.before, content) {
            (Was::File { mode, uid, gid, .. }, Some(content)) => Some(Put {
                content,
                mode: *mode,
                owner: Some((*uid, *gid)),
            }),
            _ => None,
        };
        let same = match (&put, look) {
            (None, Look::Missing) => true,
            (Some(put), Look::File(stamp)) => {
                let now = tree.read(&file.path, FILE_LIMIT).ok().flatten();
                let attributes = (put.mode, put.owner) == (stamp.mode, Some((stamp.uid, stamp.gid)));
                attributes && now.as_deref() == Some(put.content)
            }
            (_, Look::Missing | Look::File(_)) => false,
            (_, Look::Folder(_)) => return Err(FilesError::refused(file.path.as_str(), "there is a folder")),
            (_, Look::Other(found)) => return Err(FilesError::refused(file.path.as_str(), found)),
        };
        if !same {
            let missing = if put.is_some() { missing } else { Vec::new() };
            targets.push(Target {
                path: &file.path,
                put,
                now: None,
                missing,
                ground,
            });
        }
    }
    let remove = point.new_folders.iter().rev().cloned().collect();
    stage(tree, operation, &undo(operation), &targets, remove, Vec::new())
}

/// Folders that have to be made, parents first.
fn folders(targets: &[Target<'_>]) -> Vec<RelativePath> {
    let all: BTreeSet<&RelativePath> = targets.iter().flat_map(|target| &target.missing).collect();
    all.into_iter().cloned().collect()
}

/// Writes the new content and the plan, and makes them and `unsynced` durable.
fn stage(
    tree: &Tree,
    operation: &OperationId,
    name: &str,
    targets: &[Target<'_>],
    remove: Vec<RelativePath>,
    mut unsynced: Vec<NewFile>,
) -> Result<(), FilesError> {
    let (all, folder) = make_transaction(tree, name)?;
    let places = places(&folder, operation, name, targets)?;
    note_beside(&all, &folder, &places)?;
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
        steps.push(Step {
            path: target.path.clone(),
            put,
            expect,
        });
    }
    let plan = Plan {
        operation: operation.clone(),
        make: folders(targets),
        steps,
        remove,
    };
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
        if target.ground.mount == own_mount {
            return Ok(Staged::Here(at.to_string()));
        }
        let name = format!(".tenantry-{operation}-{kind}-{at}");
        let path = target
            .ground
            .folder
            .as_ref()
            .map_or(name.clone(), |folder| format!("{folder}/{name}"));
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
