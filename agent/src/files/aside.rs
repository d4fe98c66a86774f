//! Deciding what is undecided, when a person takes the present state for the truth.

use std::path::PathBuf;

use tenantry_api::names::OperationId;

use super::error::FilesError;
use super::folder::Folder;
use super::look::Look;
use super::transaction::{TX, Transactions, new, undo};

/// Beneath our own folder: transactions whose records were damaged, numbered.
const ASIDE: &str = "aside";

impl Transactions<'_> {
    /// Carries what was committed to its end and discards what was not; what can't be read is moved aside and nothing
    /// of it is applied. Says where that is now.
    pub fn decide_all(&self) -> Result<Vec<PathBuf>, FilesError> {
        let mut moved = Vec::new();
        for operation in self.pending()? {
            match self.recover(&operation).and_then(|_| self.finish(&operation)) {
                Ok(()) => {}
                Err(FilesError::Damaged { .. }) => moved.extend(self.put_aside(&operation)?),
                Err(error) => return Err(error),
            }
        }
        Ok(moved)
    }

    fn put_aside(&self, operation: &OperationId) -> Result<Vec<PathBuf>, FilesError> {
        let Some(all) = self.tree.own(TX)? else { return Ok(Vec::new()) };
        let aside = self.tree.make_own(ASIDE)?;
        let mut moved = Vec::new();
        for name in [new(operation), undo(operation)] {
            if all.look(&name)? != Look::Missing {
                moved.push(put(&all, &aside, &name)?);
            }
        }
        aside.sync()?;
        all.sync()?;
        Ok(moved)
    }
}

fn put(all: &Folder, aside: &Folder, name: &str) -> Result<PathBuf, FilesError> {
    let mut number = 1;
    while aside.look(&format!("{name}-{number}"))? != Look::Missing {
        number += 1;
    }
    let target = format!("{name}-{number}");
    all.rename(name, aside, &target)?;
    Ok(aside.path().join(target))
}
