//! The tree that compose reads for the staged model, beneath our own folder.

use std::path::Path;

use tenantry_api::names::{OperationId, RelativePath};

use super::FILE_LIMIT;
use super::error::FilesError;
use super::folder::Folder;
use super::look::Look;
use super::tree::Tree;

const STAGE: &str = "stage";

/// `DIR/.tenantry/stage/<operation>/<name of DIR>/`: for our eyes only, not durable, gone when the operation ends.
#[derive(Debug)]
pub struct Stage {
    root: Folder,
}

impl Stage {
    /// Makes the tree afresh.
    pub fn create(tree: &Tree, operation: &OperationId) -> Result<Self, FilesError> {
        let name = tree.directory().file_name().and_then(|name| name.to_str()).unwrap_or("stage");
        let stage = tree.make_own(STAGE)?;
        stage.remove_all(operation.as_str())?;
        stage.make(operation.as_str(), 0o700)?;
        let own = stage.below(operation.as_str())?;
        own.make(name, 0o700)?;
        Ok(Self { root: own.below(name)? })
    }

    /// Makes a second tree beside the first, one folder deeper: what is read from both is the same unless it climbs out.
    pub fn deeper(tree: &Tree, operation: &OperationId) -> Result<Self, FilesError> {
        let name = tree.directory().file_name().and_then(|name| name.to_str()).unwrap_or("stage");
        let own = tree.make_own(STAGE)?.below(operation.as_str())?;
        // A name that the first tree, which is called as the directory is, can't have.
        let above = format!("{name}.deeper");
        own.remove_all(&above)?;
        own.make(&above, 0o700)?;
        let above = own.below(&above)?;
        above.make(name, 0o700)?;
        Ok(Self { root: above.below(name)? })
    }

    /// Makes a folder of its own beside the tree, for a question to compose. `kind` keeps their names apart.
    pub fn aside(tree: &Tree, operation: &OperationId, kind: &str) -> Result<Self, FilesError> {
        let name = tree.directory().file_name().and_then(|name| name.to_str()).unwrap_or("stage");
        let own = tree.make_own(STAGE)?.below(operation.as_str())?;
        let aside = format!("{name}.{kind}");
        own.remove_all(&aside)?;
        own.make(&aside, 0o700)?;
        Ok(Self { root: own.below(&aside)? })
    }

    /// Removes the tree of an operation.
    pub fn remove(tree: &Tree, operation: &OperationId) -> Result<(), FilesError> {
        tree.own(STAGE)?.map_or(Ok(()), |stage| stage.remove_all(operation.as_str()))
    }

    /// Operations that have a tree.
    pub fn all(tree: &Tree) -> Result<Vec<OperationId>, FilesError> {
        let names = tree.own(STAGE)?.map_or(Ok(Vec::new()), |stage| stage.names())?;
        Ok(names.into_iter().filter_map(|name| OperationId::parse(name).ok()).collect())
    }

    /// The tree's absolute path.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Writes a file, with the folders above it.
    pub fn write(&self, path: &RelativePath, content: &[u8]) -> Result<(), FilesError> {
        let above = path.parent();
        let folder = match &above {
            None => self.root.again()?,
            Some(parent) => {
                for (at, _) in parent.as_str().match_indices('/').chain([(parent.as_str().len(), "")]) {
                    self.root.make(&parent.as_str()[..at], 0o700)?;
                }
                self.root.below(parent.as_str())?
            }
        };
        folder.remove(path.file_name())?;
        folder.create(path.file_name())?.append(content)
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
        Ok(self.root.look(path.as_str())? != Look::Missing)
    }
}
