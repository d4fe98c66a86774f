//! A set of files that changes wholly or not at all (P6).
//!
//! ```text
//! DIR/.tenantry/restore/<op>/   index, files/…    what was there before: the restore point
//! DIR/.tenantry/tx/<op>.new/    plan, 0, 1, …     new content, with its mode and owner
//! DIR/.tenantry/tx/<op>.undo/   plan, 0, 1, …     the same for a restore, made from the restore point
//! ```
//!
//! `keep` writes the restore point, `stage` the new content, and both are durable then. `commit` renames `plan` to
//! `COMMIT` and makes that durable: this is the moment. Then every file is renamed into its place, the folders are
//! made durable, and `COMMIT` becomes `DONE`. A crash before the moment leaves the old set, for nothing of the
//! tenant's was touched; after it, [`Transactions::recover`] carries on: each step can be done again. A restore is
//! the same machinery with the restore point as the new content, and once committed it wins.

use std::collections::BTreeSet;

use tenantry_api::names::{OperationId, ProtectedPath, RelativePath, Sha256};
use tenantry_protocol::Owner;

use super::error::FilesError;
use super::folder::Folder;
use super::kept_files;
use super::prepare;
use super::record::{Plan, read_record};
use super::stat::Stat;
use super::survey;
use super::tree::Tree;

pub(super) const RESTORE: &str = "restore";
/// The record with which a restore point counts.
pub(crate) const POINT: &str = "point";
pub(super) const INDEX: &str = "index";
pub(super) const PLAN: &str = "plan";
pub(super) const BESIDE: &str = "beside";
pub(super) const COMMIT: &str = "COMMIT";
pub(super) const DONE: &str = "DONE";
pub(super) const TX: &str = "tx";

/// Changes that happen together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSet {
    /// Each path once.
    pub changes: Vec<Change>,
}

/// A change to one file.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// The file gets this content.
    Write {
        /// Which file.
        path: RelativePath,
        /// All its bytes.
        content: Vec<u8>,
        /// Its permission bits; `None`: the old file's, or 0600 for a new one.
        mode: Option<u32>,
        /// Its owner; `None`: the old file's, or our own for a new one.
        owner: Option<Owner>,
        /// What must be there now.
        before: Before,
    },
    /// The file is removed. One that is not there is fine.
    Delete {
        /// Which file.
        path: RelativePath,
        /// What must be there now.
        before: Before,
    },
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Write { path, content, mode, .. } => {
                write!(f, "Write({path}, {} bytes, {mode:?})", content.len())
            }
            Self::Delete { path, .. } => write!(f, "Delete({path})"),
        }
    }
}

impl Change {
    /// Which file.
    pub fn path(&self) -> &RelativePath {
        match self {
            Self::Write { path, .. } | Self::Delete { path, .. } => path,
        }
    }

    /// What must be there now.
    pub fn before(&self) -> &Before {
        match self {
            Self::Write { before, .. } | Self::Delete { before, .. } => before,
        }
    }
}

/// What must be at a path for its change to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    /// Whatever there is.
    Any,
    /// Nothing.
    Missing,
    /// A file with this content.
    Is(Sha256),
}

impl Before {
    /// The hash of the file that must be there, if one must.
    pub fn sha256(&self) -> Option<&Sha256> {
        match self {
            Self::Is(sha256) => Some(sha256),
            Self::Any | Self::Missing => None,
        }
    }
}

/// How far an operation's files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionState {
    /// Nothing was prepared, or it was discarded or finished.
    None,
    /// Prepared; nothing of the tenant's was touched.
    Prepared,
    /// Committed; it must be rolled forward.
    Committed,
    /// All files are new.
    Done,
    /// A restore was committed; it must be rolled forward.
    Restoring,
    /// All files are as before.
    Restored,
}

/// The transactions of one tenant's directory. The caller holds the tenant's lock.
#[derive(Clone, Debug)]
pub struct Transactions<'a> {
    pub(super) tree: &'a Tree,
}

impl<'a> Transactions<'a> {
    /// The transactions of a directory.
    pub fn new(tree: &'a Tree) -> Self {
        Self { tree }
    }

    /// Writes the restore point and the new content, durably. Nothing of the tenant's is touched. What an earlier
    /// attempt of the same operation left is discarded first; after an error everything is discarded.
    pub fn prepare(
        &self,
        operation: &OperationId,
        set: &FileSet,
        protect: &[ProtectedPath],
    ) -> Result<(), FilesError> {
        self.keep(operation, set, protect).and_then(|_| self.stage(operation, set, protect)).inspect_err(
            |_| {
                // The error that is given out says more than one of the cleaning.
                if self.refuse_committed(operation).is_ok() {
                    let _ = self.discard(operation);
                }
            },
        )
    }

    /// Writes the new content, durably, once the restore point is: refused where a file has been changed since. After
    /// an error nothing is staged; the restore point stays.
    pub fn stage(
        &self,
        operation: &OperationId,
        set: &FileSet,
        protect: &[ProtectedPath],
    ) -> Result<(), FilesError> {
        self.refuse_committed(operation)?;
        let targets = survey::survey(self.tree, set, protect)?;
        let point = self.kept_files(operation)?;
        let point = point.ok_or_else(|| FilesError::NoRestorePoint(operation.clone()))?;
        kept_files::still_so(&point, &targets)?;
        self.unstage(operation)?;
        prepare::write(self.tree, operation, &targets).inspect_err(|_| {
            let _ = self.unstage(operation);
        })
    }

    /// Makes the change. An error leaves it either `Prepared`, with nothing touched, or `Committed`:
    /// [`Self::state`] tells, and [`Self::recover`] or [`Self::restore`] goes on from there.
    pub fn commit(&self, operation: &OperationId) -> Result<(), FilesError> {
        match self.state(operation)? {
            TransactionState::Prepared => {}
            TransactionState::Committed => return self.roll_forward(&new(operation)),
            TransactionState::Done => return Ok(()),
            TransactionState::None => return Err(wrong(operation, "its files were not prepared")),
            TransactionState::Restoring | TransactionState::Restored => {
                return Err(wrong(operation, "its files were restored"));
            }
        }
        let folder = self.folder(&new(operation))?;
        let plan: Plan = read_plan(&folder, PLAN)?;
        for step in &plan.steps {
            let expected = step.expect.map_or(Stat::Missing, Stat::File);
            if self.tree.stat(&step.path)? != expected {
                return Err(FilesError::Moved { path: step.path.to_string() });
            }
        }
        if tenantry_faults::Bug::RenameBeforeCommit.is_seeded() {
            self.apply(&folder, &plan)?;
            return Ok(());
        }
        commit(&folder)?;
        self.apply(&folder, &plan)
    }

    /// How far an operation's files are.
    pub fn state(&self, operation: &OperationId) -> Result<TransactionState, FilesError> {
        let Some(all) = self.tree.own(TX)? else {
            return Ok(TransactionState::None);
        };
        let has = |folder: &str, record: &str| match all.stat(folder)? {
            Stat::Missing => Ok::<bool, FilesError>(false),
            _ => Ok(all.below(folder)?.stat(record)? != Stat::Missing),
        };
        let (new, undo) = (new(operation), undo(operation));
        Ok(if has(&undo, COMMIT)? {
            TransactionState::Restoring
        } else if has(&undo, DONE)? {
            TransactionState::Restored
        } else if has(&new, COMMIT)? {
            TransactionState::Committed
        } else if has(&new, DONE)? {
            TransactionState::Done
        } else if has(&new, PLAN)? {
            TransactionState::Prepared
        } else {
            TransactionState::None
        })
    }

    /// After a crash: what was committed is carried to its end, anything else is discarded. Ends as `None`, `Done`
    /// or `Restored`.
    pub fn recover(&self, operation: &OperationId) -> Result<TransactionState, FilesError> {
        match self.state(operation)? {
            TransactionState::Restoring => self.roll_forward(&undo(operation))?,
            TransactionState::Committed => self.roll_forward(&new(operation))?,
            TransactionState::Prepared | TransactionState::None => self.discard(operation)?,
            TransactionState::Done | TransactionState::Restored => {}
        }
        self.state(operation)
    }

    /// Puts every file back as `prepare` found it: content, mode, owner or absence; folders that were made are
    /// removed if they are empty. Also after a half-done commit, and again after a half-done restore.
    pub fn restore(&self, operation: &OperationId) -> Result<(), FilesError> {
        if self.state(operation)? == TransactionState::Restoring {
            return self.roll_forward(&undo(operation));
        }
        let point =
            self.kept_files(operation)?.ok_or_else(|| FilesError::NoRestorePoint(operation.clone()))?;
        self.remove_transaction(&undo(operation))?;
        prepare::write_restore(self.tree, operation, &point)?;
        let folder = self.folder(&undo(operation))?;
        let plan: Plan = read_plan(&folder, PLAN)?;
        commit(&folder)?;
        self.apply(&folder, &plan)
    }

    /// Removes what an operation staged. The restore point stays if files were changed. What was committed is in place
    /// by now, but a power cut may have taken the last record of it back: then it is carried out once more.
    pub fn finish(&self, operation: &OperationId) -> Result<(), FilesError> {
        let state = match self.state(operation)? {
            TransactionState::Committed | TransactionState::Restoring => self.recover(operation)?,
            state => state,
        };
        match state {
            TransactionState::Committed | TransactionState::Restoring => {
                return Err(wrong(operation, "its files are committed but not all in place"));
            }
            TransactionState::Prepared => self.discard(operation)?,
            TransactionState::None | TransactionState::Done | TransactionState::Restored => {
                // Durably, and the release before its restore: a power cut may bring back each commit whose folder is not
                // known to be gone, and a release's that comes back alone would be carried out once more.
                self.remove_transaction(&new(operation))?;
                if let Some(all) = self.tree.own(TX)? {
                    if all.stat(&undo(operation))? != Stat::Missing {
                        all.sync()?;
                        self.remove_transaction(&undo(operation))?;
                    }
                    all.sync()?;
                }
            }
        }
        Ok(())
    }

    /// Operations that have something staged.
    pub fn pending(&self) -> Result<Vec<OperationId>, FilesError> {
        let names = self.tree.own(TX)?.map_or(Ok(Vec::new()), |folder| folder.names())?;
        let all = names.iter().filter_map(|name| OperationId::parse(name.rsplit_once('.')?.0).ok());
        Ok(all.collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// Removes an operation's restore point: first its record, so that half of it never counts as one.
    pub fn forget(&self, operation: &OperationId) -> Result<(), FilesError> {
        self.tree.own(RESTORE)?.map_or(Ok(()), |folder| forget(&folder, operation.as_str()))
    }

    /// Removes all restore points but these.
    pub fn prune(&self, keep: &[OperationId]) -> Result<(), FilesError> {
        let Some(folder) = self.tree.own(RESTORE)? else {
            return Ok(());
        };
        for name in folder.names()? {
            if !keep.iter().any(|operation| operation.as_str() == name)
                || tenantry_faults::Bug::PruneWhatIsNeeded.is_seeded()
            {
                forget(&folder, &name)?;
            }
        }
        Ok(())
    }

    fn unstage(&self, operation: &OperationId) -> Result<(), FilesError> {
        self.remove_transaction(&undo(operation))?;
        self.remove_transaction(&new(operation))
    }

    pub(super) fn discard(&self, operation: &OperationId) -> Result<(), FilesError> {
        self.unstage(operation)?;
        self.forget(operation)
    }

    /// Removes a transaction's folder, its records first: without its plan nobody takes it for a whole one.
    fn remove_transaction(&self, name: &str) -> Result<(), FilesError> {
        let Some(all) = self.tree.own(TX)? else {
            return Ok(());
        };
        if all.stat(name)? == Stat::Missing {
            return Ok(());
        }
        let folder = all.below(name)?;
        for record in [PLAN, COMMIT, DONE] {
            folder.remove(record)?;
        }
        // A torn list was never used: it is durable before the first file is staged beside its target.
        let beside: Option<Vec<RelativePath>> = read_record(&folder, BESIDE).ok().flatten();
        for path in beside.unwrap_or_default() {
            if let Some(parent) = self.parent(&path)? {
                parent.remove(path.file_name())?;
            }
        }
        all.remove_all(name)
    }

    fn folder(&self, name: &str) -> Result<Folder, FilesError> {
        self.tree.make_own(TX)?.below(name)
    }

    /// Goes on after a commit. Whoever made it may have ended before its record was durable: a power cut that took the
    /// record back, but not all of the renames below, would leave half of each.
    fn roll_forward(&self, name: &str) -> Result<(), FilesError> {
        let folder = self.folder(name)?;
        folder.sync()?;
        let plan = read_plan(&folder, COMMIT)?;
        self.apply(&folder, &plan)
    }
}

fn read_plan(folder: &Folder, record: &str) -> Result<Plan, FilesError> {
    read_record(folder, record)?
        .ok_or_else(|| FilesError::damaged(folder.path().join(record), "it is missing"))
}

fn forget(all: &Folder, name: &str) -> Result<(), FilesError> {
    if matches!(all.stat(name)?, Stat::Folder(_)) {
        let point = all.below(name)?;
        if point.remove(POINT)? {
            point.sync()?;
        }
    }
    all.remove_all(name)
}

/// The moment: from here on the change happens.
fn commit(folder: &Folder) -> Result<(), FilesError> {
    folder.rename(PLAN, folder, COMMIT)?;
    folder.sync().inspect_err(|_| {
        // Not known to be durable, so it must not count. If this fails too, the state stays committed.
        let _ = folder.rename(COMMIT, folder, PLAN);
    })
}

pub(super) fn make_transaction(tree: &Tree, name: &str) -> Result<(Folder, Folder), FilesError> {
    let all = tree.make_own(TX)?;
    all.make(name, 0o700)?;
    let folder = all.below(name)?;
    Ok((all, folder))
}

pub(super) fn new(operation: &OperationId) -> String {
    format!("{operation}.new")
}

pub(super) fn undo(operation: &OperationId) -> String {
    format!("{operation}.undo")
}

fn wrong(operation: &OperationId, problem: &str) -> FilesError {
    FilesError::Invalid { path: format!("operation {operation}"), problem: problem.to_owned() }
}
