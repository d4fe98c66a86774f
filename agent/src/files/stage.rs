//! The tree that compose reads for the staged model, beneath our own folder.
//!
//! A plan has a tree of its own, and any number of plans can be made at once. Nothing of a tree has to last: what a plan
//! found out is in the plan.

use std::path::Path;

use tenantry_api::names::RelativePath;

use super::FILE_LIMIT;
use super::error::FilesError;
use super::folder::Folder;
use super::stat::Stat;
use super::tree::Tree;

const STAGE: &str = "stage";

/// `DIR/.tenantry/stage/<plan>/<name of DIR>/`: for our eyes only, not durable, gone once the plan is made.
#[derive(Debug)]
pub struct Stage {
    root: Folder,
}

impl Stage {
    /// Makes the tree afresh.
    pub fn create(tree: &Tree, plan: &str) -> Result<Self, FilesError> {
        let name = tree.directory().file_name().and_then(|name| name.to_str()).unwrap_or("stage");
        let stage = tree.make_own(STAGE)?;
        stage.remove_all(plan)?;
        stage.make(plan, 0o700)?;
        let own = stage.below(plan)?;
        own.make(name, 0o700)?;
        Ok(Self { root: own.below(name)? })
    }

    /// Makes a second tree beside the first, one folder deeper: what is read from both is the same unless it climbs out.
    pub fn deeper(tree: &Tree, plan: &str) -> Result<Self, FilesError> {
        let name = tree.directory().file_name().and_then(|name| name.to_str()).unwrap_or("stage");
        let own = tree.make_own(STAGE)?.below(plan)?;
        // A name that the first tree, which is called as the directory is, can't have.
        let above = format!("{name}.deeper");
        own.remove_all(&above)?;
        own.make(&above, 0o700)?;
        let above = own.below(&above)?;
        above.make(name, 0o700)?;
        Ok(Self { root: above.below(name)? })
    }

    /// Makes a folder of its own beside the tree, for a question to compose. `kind` keeps their names apart.
    pub fn aside(tree: &Tree, plan: &str, kind: &str) -> Result<Self, FilesError> {
        let name = tree.directory().file_name().and_then(|name| name.to_str()).unwrap_or("stage");
        let own = tree.make_own(STAGE)?.below(plan)?;
        let aside = format!("{name}.{kind}");
        own.remove_all(&aside)?;
        own.make(&aside, 0o700)?;
        Ok(Self { root: own.below(&aside)? })
    }

    /// Removes the tree of a plan.
    pub fn remove(tree: &Tree, plan: &str) -> Result<(), FilesError> {
        tree.own(STAGE)?.map_or(Ok(()), |stage| stage.remove_all(plan))
    }

    /// Removes the trees of plans that nobody makes any more: an agent was killed while it planned.
    pub fn remove_abandoned(tree: &Tree, is_made: impl Fn(&str) -> bool) -> Result<(), FilesError> {
        let Some(stage) = tree.own(STAGE)? else { return Ok(()) };
        // A plan has its name before it has a tree: whether it is made is asked once its tree was seen.
        for name in stage.names()?.into_iter().filter(|name| !is_made(name)) {
            stage.remove_all(&name)?;
        }
        Ok(())
    }

    /// The tree's absolute path.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Writes a file, with the folders above it.
    pub fn write(&self, path: &RelativePath, content: &[u8]) -> Result<(), FilesError> {
        let folder = match &path.parent() {
            None => self.root.again()?,
            Some(parent) => {
                self.make_folder(parent)?;
                self.root.below(parent.as_str())?
            }
        };
        folder.remove(path.file_name())?;
        folder.create(path.file_name())?.append(content)
    }

    /// Makes a folder, with those above it.
    pub fn make_folder(&self, path: &RelativePath) -> Result<(), FilesError> {
        let path = path.as_str();
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            self.root.make(&path[..at], 0o700)?;
        }
        Ok(())
    }

    /// Copies a file of the tenant's directory as it is; false where there is none.
    pub fn copy(&self, tree: &Tree, path: &RelativePath) -> Result<bool, FilesError> {
        match tree.read(path, FILE_LIMIT)? {
            None => Ok(false),
            Some(content) => self.write(path, &content).map(|()| true),
        }
    }

    /// Whether the tree has something at a path.
    pub fn has(&self, path: &RelativePath) -> Result<bool, FilesError> {
        Ok(self.root.stat(path.as_str())? != Stat::Missing)
    }
}
