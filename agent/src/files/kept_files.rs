//! The files that an operation changes, as they were before it, kept as a real tree: their part of a restore point.
//!
//! ```text
//! DIR/.tenantry/restore/<op>/index          every file that the operation changes, and what was there
//! DIR/.tenantry/restore/<op>/files/<path>   the files, with their modes and owners: `tar` alone puts them back
//! ```

use std::collections::{BTreeMap, BTreeSet};

use tenantry_api::names::{OperationId, ProtectedPath, RelativePath};

use super::error::FilesError;
use super::folder::Folder;
use super::record::{KeptFile, KeptFiles, Was, read_record, write_record};
use super::stat::Stat;
use super::survey::{self, Target};
use super::transaction::{FileSet, INDEX, RESTORE, TransactionState, Transactions};
use super::tree::Tree;
use super::{FILE_LIMIT, sha256};

const FILES: &str = "files";
/// An index that is about to take the other's place.
const NEXT_INDEX: &str = "index.next";

impl Transactions<'_> {
    /// Keeps every file that a set would change, durably, and reads it back. Nothing of the tenant's is touched. What
    /// an earlier attempt of the same operation left is discarded first. Gives the number of bytes that were kept.
    pub fn keep(
        &self,
        operation: &OperationId,
        set: &FileSet,
        protect: &[ProtectedPath],
    ) -> Result<u64, FilesError> {
        self.refuse_committed(operation)?;
        let targets = survey::survey(self.tree, set, protect)?;
        self.discard(operation)?;
        write(self.tree, operation, &targets)?;
        self.check(operation)
    }

    pub(super) fn refuse_committed(&self, operation: &OperationId) -> Result<(), FilesError> {
        if matches!(self.state(operation)?, TransactionState::None | TransactionState::Prepared) {
            return Ok(());
        }
        let problem = "its files were committed already".to_owned();
        Err(FilesError::Invalid { path: format!("operation {operation}"), problem })
    }

    /// The files that an operation changes, as it found them.
    pub fn kept_files(&self, operation: &OperationId) -> Result<Option<KeptFiles>, FilesError> {
        let Some(folder) = self.existing_point(operation)? else { return Ok(None) };
        let point: Option<KeptFiles> = read_record(&folder, INDEX)?;
        match point {
            Some(point) if point.operation != *operation => Err(FilesError::damaged(
                folder.path().join(INDEX),
                format!("it names operation {}", point.operation),
            )),
            other => Ok(other),
        }
    }

    /// Reads every kept file again; an error where one is not what was kept. Gives the number of bytes.
    pub fn check(&self, operation: &OperationId) -> Result<u64, FilesError> {
        let (Some(folder), Some(point)) = (self.existing_point(operation)?, self.kept_files(operation)?)
        else {
            return Err(FilesError::NoRestorePoint(operation.clone()));
        };
        let mut bytes = 0;
        for file in &point.files {
            bytes += read(&folder, file)?.map_or(0, |content| content.len() as u64);
        }
        Ok(bytes)
    }

    /// A kept file's content, which is what was kept; `None` where there was no file.
    pub fn kept_content(
        &self,
        operation: &OperationId,
        file: &KeptFile,
    ) -> Result<Option<Vec<u8>>, FilesError> {
        let folder = self.existing_point(operation)?;
        let folder = folder.ok_or_else(|| FilesError::NoRestorePoint(operation.clone()))?;
        read(&folder, file)
    }

    /// Every operation that has a restore point, whole or not, in no order.
    pub fn points(&self) -> Result<Vec<OperationId>, FilesError> {
        let names = self.tree.own(RESTORE)?.map_or(Ok(Vec::new()), |folder| folder.names())?;
        Ok(names.into_iter().filter_map(|name| OperationId::parse(name).ok()).collect())
    }

    /// Takes what another restore point, which was made later, keeps of files into this one, where this one keeps nothing of
    /// them: until then they were as they are there. What leads through the other one then leads through this one alone.
    pub fn fold_into(&self, into: &OperationId, other: &OperationId) -> Result<(), FilesError> {
        let (Some(folder), Some(mut own), Some(more)) =
            (self.existing_point(into)?, self.kept_files(into)?, self.kept_files(other)?)
        else {
            return Ok(());
        };
        let is_new = |file: &&KeptFile| own.files.iter().all(|known| known.path != file.path);
        let new: Vec<KeptFile> = more.files.iter().filter(is_new).cloned().collect();
        if new.is_empty() {
            return Ok(());
        }
        let mut folders = BTreeSet::new();
        for file in &new {
            let Was::File { mode, uid, gid, .. } = file.before else { continue };
            let content = self.kept_content(other, file)?.unwrap_or_default();
            let above = above(&folder, &file.path, &mut folders)?;
            // What an earlier attempt left.
            above.remove(file.path.file_name())?;
            let mut kept = above.create(file.path.file_name())?;
            kept.append(&content)?;
            kept.set_attributes(Some((uid, gid)), mode)?;
            kept.sync()?;
        }
        for name in folders {
            folder.below(&name)?.sync()?;
        }
        own.files.extend(new);
        folder.remove(NEXT_INDEX)?;
        write_record(&folder, NEXT_INDEX, &own)?.sync()?;
        folder.rename(NEXT_INDEX, &folder, INDEX)?;
        folder.sync()
    }

    /// An operation's restore point as a folder, made if need be.
    pub(crate) fn point_folder(&self, operation: &OperationId) -> Result<Folder, FilesError> {
        let all = self.tree.make_own(RESTORE)?;
        if all.make(operation.as_str(), 0o700)? {
            all.sync()?;
        }
        all.below(operation.as_str())
    }

    /// The same, if it is there.
    pub(crate) fn existing_point(&self, operation: &OperationId) -> Result<Option<Folder>, FilesError> {
        let Some(all) = self.tree.own(RESTORE)? else { return Ok(None) };
        match all.stat(operation.as_str())? {
            Stat::Missing => Ok(None),
            _ => all.below(operation.as_str()).map(Some),
        }
    }
}

/// Writes the tree and its index, durably.
pub(super) fn write(tree: &Tree, operation: &OperationId, targets: &[Target<'_>]) -> Result<(), FilesError> {
    let all = tree.make_own(RESTORE)?;
    all.make(operation.as_str(), 0o700)?;
    let restore = all.below(operation.as_str())?;
    let mut unsynced = Vec::new();
    let mut folders = BTreeSet::new();
    let mut files = Vec::new();
    for target in targets {
        let before = match &target.now {
            None => Was::Absent,
            Some((content, stamp)) => {
                let mut file = above(&restore, target.path, &mut folders)?.create(target.path.file_name())?;
                file.append(content)?;
                file.set_attributes(Some((stamp.uid, stamp.gid)), stamp.mode)?;
                unsynced.push(file);
                let (sha256, size) = (sha256(content), content.len() as u64);
                Was::File { sha256, size, mode: stamp.mode, uid: stamp.uid, gid: stamp.gid }
            }
        };
        files.push(KeptFile { path: target.path.clone(), before });
    }
    let new_folders = missing_folders(targets);
    let point = KeptFiles { operation: operation.clone(), files, new_folders };
    unsynced.push(write_record(&restore, INDEX, &point)?);
    for file in &unsynced {
        file.sync()?;
    }
    for folder in folders {
        restore.below(&folder)?.sync()?;
    }
    restore.sync()?;
    all.sync()
}

/// The folder of a kept file, made with those above it. All of them are noted.
fn above(restore: &Folder, path: &RelativePath, noted: &mut BTreeSet<String>) -> Result<Folder, FilesError> {
    let folder = path.parent().map_or_else(|| FILES.to_owned(), |parent| format!("{FILES}/{parent}"));
    for (end, _) in folder.match_indices('/').chain([(folder.len(), "")]) {
        if noted.insert(folder[..end].to_owned()) {
            restore.make(&folder[..end], 0o700)?;
        }
    }
    restore.below(&folder)
}

/// Reads a kept file and compares it with what the index says.
pub(super) fn read(restore: &Folder, file: &KeptFile) -> Result<Option<Vec<u8>>, FilesError> {
    let Was::File { sha256: hash, .. } = &file.before else { return Ok(None) };
    let name = format!("{FILES}/{}", file.path);
    let content = restore.read(&name, FILE_LIMIT)?.map(|(content, _)| content);
    let unverified = tenantry_faults::Bug::RestoreUnverified.is_seeded();
    let content = content.filter(|content| sha256(content) == *hash || unverified);
    content.map(Some).ok_or_else(|| {
        FilesError::damaged(
            restore.path().join(name),
            "it is not what was kept: its SHA-256 is not the one in the index",
        )
    })
}

/// Refuses where what was kept is not what is there now: somebody changed a file after it was kept.
pub(super) fn still_so(point: &KeptFiles, targets: &[Target<'_>]) -> Result<(), FilesError> {
    let kept: BTreeMap<&RelativePath, &Was> =
        point.files.iter().map(|file| (&file.path, &file.before)).collect();
    for target in targets {
        let same = match (kept.get(target.path), &target.now) {
            (Some(Was::Absent), None) => true,
            (Some(Was::File { sha256: hash, mode, uid, gid, .. }), Some((content, stamp))) => {
                sha256(content) == *hash && (*mode, *uid, *gid) == (stamp.mode, stamp.uid, stamp.gid)
            }
            _ => false,
        };
        if !same {
            return Err(FilesError::Moved { path: target.path.to_string() });
        }
    }
    match point.files.iter().find(|file| !targets.iter().any(|target| *target.path == file.path)) {
        Some(file) => Err(FilesError::Moved { path: file.path.to_string() }),
        None => Ok(()),
    }
}

/// Folders that have to be made, parents first.
pub(super) fn missing_folders(targets: &[Target<'_>]) -> Vec<RelativePath> {
    let all: BTreeSet<&RelativePath> = targets.iter().flat_map(|target| &target.missing).collect();
    all.into_iter().cloned().collect()
}

/// For each path its state before the earliest of these operations, and the operation whose restore point holds that
/// content. The restore points must come in the order in which they were made.
pub fn earliest_states<'a>(
    points: impl IntoIterator<Item = &'a KeptFiles>,
) -> BTreeMap<&'a RelativePath, (&'a OperationId, &'a KeptFile)> {
    let mut all = BTreeMap::new();
    for point in points {
        for file in &point.files {
            all.entry(&file.path).or_insert((&point.operation, file));
        }
    }
    all
}
