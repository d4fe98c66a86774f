//! Transactions that are undecided when a person takes the present state for the truth: each is finished or discarded,
//! and one whose records are damaged is moved aside.

use std::path::PathBuf;

use tenantry_api::names::OperationId;

use super::error::FilesError;
use super::folder::Folder;
use super::stat::Stat;
use super::transaction::{TX, Transactions, new, undo};

/// Beneath our own folder: transactions whose records were damaged, numbered.
const QUARANTINE: &str = "aside";

impl Transactions<'_> {
    /// Carries what was committed to its end and discards what was not; what can't be read is moved aside and nothing
    /// of it is applied. Says where that is now.
    pub fn decide_all(&self) -> Result<Vec<PathBuf>, FilesError> {
        let mut moved = Vec::new();
        for operation in self.pending()? {
            match self.recover(&operation).and_then(|_| self.finish(&operation)) {
                Ok(()) => {}
                Err(FilesError::Damaged { .. }) => moved.extend(self.quarantine(&operation)?),
                Err(error) => return Err(error),
            }
        }
        Ok(moved)
    }

    fn quarantine(&self, operation: &OperationId) -> Result<Vec<PathBuf>, FilesError> {
        let Some(all) = self.tree.own(TX)? else { return Ok(Vec::new()) };
        let quarantine = self.tree.make_own(QUARANTINE)?;
        let mut moved = Vec::new();
        for name in [new(operation), undo(operation)] {
            if all.stat(&name)? != Stat::Missing {
                moved.push(move_to(&all, &quarantine, &name)?);
            }
        }
        quarantine.sync()?;
        all.sync()?;
        Ok(moved)
    }
}

fn move_to(all: &Folder, quarantine: &Folder, name: &str) -> Result<PathBuf, FilesError> {
    let mut number = 1;
    while quarantine.stat(&format!("{name}-{number}"))? != Stat::Missing {
        number += 1;
    }
    let target = format!("{name}-{number}");
    all.rename(name, quarantine, &target)?;
    Ok(quarantine.path().join(target))
}
