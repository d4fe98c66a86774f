//! The part of a transaction after its moment: put everything in its place. Each step can be done again.

use std::collections::BTreeSet;

use tenantry_api::names::RelativePath;

use super::error::FilesError;
use super::folder::Folder;
use super::record::{Plan, Staged, Step};
use super::stat::Stat;
use super::transaction::{COMMIT, DONE, Transactions};

impl Transactions<'_> {
    /// Carries out a committed plan; each part can be done again.
    pub(super) fn apply(&self, folder: &Folder, plan: &Plan) -> Result<(), FilesError> {
        let mut touched: BTreeSet<Option<RelativePath>> = BTreeSet::new();
        for step in plan.steps.iter().filter(|step| step.put.is_none()) {
            if let Some(parent) = self.parent(&step.path)? {
                parent.remove(step.path.file_name())?;
                touched.insert(step.path.parent());
            }
        }
        for path in &plan.make {
            let parent = self.existing_parent(path)?;
            parent.make(path.file_name(), 0o755)?;
            touched.insert(path.parent());
        }
        for step in &plan.steps {
            if let Some(staged) = &step.put {
                self.put(folder, staged, step)?;
                touched.insert(step.path.parent());
            }
        }
        self.sync(&touched)?;
        let mut emptied = BTreeSet::new();
        for path in &plan.remove {
            if let Some(parent) = self.parent(path)? {
                parent.remove_folder(path.file_name())?;
                emptied.insert(path.parent());
            }
        }
        self.sync(&emptied)?;
        folder.rename(COMMIT, folder, DONE)
    }

    fn put(&self, folder: &Folder, staged: &Staged, step: &Step) -> Result<(), FilesError> {
        let (source, name) = match staged {
            Staged::Here(name) => (folder.again()?, name.as_str()),
            Staged::Beside(path) => (self.existing_parent(path)?, path.file_name()),
        };
        let target = self.existing_parent(&step.path)?;
        if source.stat(name)? != Stat::Missing {
            return source.rename(name, &target, step.path.file_name());
        }
        // It was put in place before the crash.
        match target.stat(step.path.file_name())? {
            Stat::File(_) => Ok(()),
            _ => Err(FilesError::damaged(
                source.path().join(name),
                format!("the new content of {} is gone", step.path),
            )),
        }
    }

    fn sync(&self, folders: &BTreeSet<Option<RelativePath>>) -> Result<(), FilesError> {
        for path in folders {
            match path {
                None => self.tree.root.sync()?,
                Some(path) if self.tree.stat(path)? == Stat::Missing => {}
                Some(path) => self.tree.root.below(path.as_str())?.sync()?,
            }
        }
        Ok(())
    }

    pub(super) fn parent(&self, path: &RelativePath) -> Result<Option<Folder>, FilesError> {
        match path.parent() {
            None => self.tree.root.again().map(Some),
            Some(parent) if self.tree.stat(&parent)? == Stat::Missing => Ok(None),
            Some(parent) => self.tree.root.below(parent.as_str()).map(Some),
        }
    }

    fn existing_parent(&self, path: &RelativePath) -> Result<Folder, FilesError> {
        path.parent().map_or_else(|| self.tree.root.again(), |parent| self.tree.root.below(parent.as_str()))
    }
}
