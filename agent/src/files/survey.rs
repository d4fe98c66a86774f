//! Looking at everything that a transaction would change, before anything is written.

use tenantry_api::names::{ProtectedPath, RelativePath};
use tenantry_protocol::Owner;

use super::error::FilesError;
use super::stat::{Stamp, Stat};
use super::transaction::{Before, Change, FileSet};
use super::tree::Tree;
use super::{FILE_LIMIT, sha256};

/// The permission bits of a new file whose mode nobody gave: it may hold secrets.
const NEW_FILE_MODE: u32 = 0o600;
/// To `chown` this id means "leave the owner as it is", so nothing can be given to it.
const UNCHANGED_ID: u32 = u32::MAX;

/// A file that changes, and what is there now.
pub(super) struct Target<'a> {
    pub path: &'a RelativePath,
    /// The new content with its mode and owner; `None`: it is removed.
    pub put: Option<Put<'a>>,
    pub now: Option<(Vec<u8>, Stamp)>,
    /// Folders above it that have to be made, parents first.
    pub missing: Vec<RelativePath>,
    pub parent: ExistingParent,
}

pub(super) struct Put<'a> {
    pub content: &'a [u8],
    pub mode: u32,
    pub owner: Option<(u32, u32)>,
}

/// The nearest folder above a file that exists, and the mount that this folder is on.
pub(super) struct ExistingParent {
    /// `None`: the tenant's directory itself.
    pub folder: Option<RelativePath>,
    pub mount: u64,
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
        let (parent, missing) = existing_parent(tree, path)?;
        let now = current(tree, path, &parent, missing.is_empty())?;
        let as_said = match (change.before(), &now) {
            (Before::Any, _) | (Before::Missing, None) => true,
            (Before::Is(hash), Some((content, _))) => sha256(content) == *hash,
            (Before::Missing, Some(_)) | (Before::Is(_), None) => false,
        };
        if !as_said {
            return Err(FilesError::Moved { path: path.to_string() });
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
            targets.push(Target { path, put, now, missing, parent });
        }
    }
    Ok(targets)
}

fn check_paths(set: &FileSet, protect: &[ProtectedPath]) -> Result<(), FilesError> {
    let mut paths: Vec<&RelativePath> = set.changes.iter().map(Change::path).collect();
    for path in &paths {
        if tenantry_faults::Bug::SkipProtectCheck.is_seeded() {
            break;
        }
        if let Some(protect) = protect.iter().find(|protect| protect.conflicts_with(path)) {
            return Err(FilesError::Protected { path: path.to_string(), protect: protect.clone() });
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
        return Err(FilesError::Invalid { path: pair[0].to_string(), problem });
    }
    Ok(())
}

/// The nearest folder above a file that exists, and those between the two that have to be made.
pub(super) fn existing_parent(
    tree: &Tree,
    path: &RelativePath,
) -> Result<(ExistingParent, Vec<RelativePath>), FilesError> {
    let mut missing = Vec::new();
    let mut at = path.parent();
    while let Some(folder) = at {
        let placed = tree.root.placed(folder.as_str())?;
        match placed.stat {
            Stat::Folder(_) => {
                missing.reverse();
                return Ok((ExistingParent { folder: Some(folder), mount: placed.mount }, missing));
            }
            Stat::Missing => {
                at = folder.parent();
                missing.push(folder);
            }
            Stat::File(_) => {
                let found = format!("there is a file at {folder}, where a folder is needed");
                return Err(FilesError::refused(path.as_str(), found));
            }
            Stat::Other(found) => {
                return Err(FilesError::refused(path.as_str(), format!("{found} at {folder}")));
            }
        }
    }
    missing.reverse();
    Ok((ExistingParent { folder: None, mount: tree.root.mount()? }, missing))
}

/// The file that is there now.
fn current(
    tree: &Tree,
    path: &RelativePath,
    parent: &ExistingParent,
    folder_is_there: bool,
) -> Result<Option<(Vec<u8>, Stamp)>, FilesError> {
    if !folder_is_there {
        return Ok(None);
    }
    let placed = tree.root.placed(path.as_str())?;
    let stamp = match placed.stat {
        Stat::Missing => return Ok(None),
        Stat::File(stamp) => stamp,
        Stat::Folder(_) => return Err(FilesError::refused(path.as_str(), "there is a folder")),
        Stat::Other(found) => return Err(FilesError::refused(path.as_str(), found)),
    };
    if placed.mount != parent.mount {
        return Err(FilesError::refused(path.as_str(), "there is a mount point"));
    }
    if stamp.links > 1 {
        let found = format!(
            "there is a file with {} hard links: it would be replaced under this name alone. Make it a file of its own (cp, then mv)",
            stamp.links
        );
        return Err(FilesError::refused(path.as_str(), found));
    }
    match tree.root.read(path.as_str(), FILE_LIMIT)? {
        Some((content, read)) if read == stamp && content.len() as u64 == stamp.size => {
            Ok(Some((content, stamp)))
        }
        _ => Err(FilesError::Moved { path: path.to_string() }),
    }
}

fn wanted<'a>(change: &'a Change, now: Option<&Stamp>) -> Result<Option<Put<'a>>, FilesError> {
    let Change::Write { path, content, mode, owner, .. } = change else {
        return Ok(None);
    };
    let invalid = |problem: &str| FilesError::Invalid { path: path.to_string(), problem: problem.to_owned() };
    if mode.is_some_and(|mode| mode > 0o777) {
        return Err(invalid("its mode is above 0777"));
    }
    if owner.is_some_and(|Owner { uid, gid }| uid == UNCHANGED_ID || gid == UNCHANGED_ID) {
        return Err(invalid("4294967295 is no user or group: to chown it means 'unchanged'"));
    }
    if content.len() as u64 > FILE_LIMIT {
        return Err(invalid(&format!("its content is longer than {FILE_LIMIT} bytes")));
    }
    Ok(Some(Put {
        content,
        mode: mode.or(now.map(|stamp| stamp.mode)).unwrap_or(NEW_FILE_MODE),
        owner: owner.map(|owner| (owner.uid, owner.gid)).or(now.map(|stamp| (stamp.uid, stamp.gid))),
    }))
}
