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
///
/// Where compose files outside of the directory are read, it is `DIR/.tenantry/stage/<plan>/<name of DIR>.root/<DIR>/`: what
/// climbs out of the tree by `..` is in the staged root then, as it is on the host.
#[derive(Debug)]
pub struct Stage {
    root: Folder,
    /// The folder that stands for `/`; absent where nothing outside of the directory is read.
    top: Option<Folder>,
}

/// Whether a staged tree holds files from outside of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The directory's own files alone.
    Directory,
    /// Others, too, each where it is on the host.
    Root,
}

impl Stage {
    /// Makes the tree afresh.
    pub fn create(tree: &Tree, plan: &str, layout: Layout) -> Result<Self, FilesError> {
        let name = tree.directory().file_name().and_then(|name| name.to_str()).unwrap_or("stage");
        let stage = tree.make_own(STAGE)?;
        stage.remove_all(plan)?;
        stage.make(plan, 0o700)?;
        let own = stage.below(plan)?;
        Self::within(tree, &own, layout, [name, &format!("{name}.root")])
    }

    /// A tree in a folder of its own, by the name that it has with this layout.
    fn within(tree: &Tree, own: &Folder, layout: Layout, names: [&str; 2]) -> Result<Self, FilesError> {
        let [name, top] = names;
        if layout == Layout::Directory {
            own.make(name, 0o700)?;
            return Ok(Self { root: own.below(name)?, top: None });
        }
        own.make(top, 0o700)?;
        let top = own.below(top)?;
        let directory = tree.directory().to_str().unwrap_or("/stage").trim_start_matches('/');
        make_folder(&top, directory)?;
        Ok(Self { root: top.below(directory)?, top: Some(top) })
    }

    /// Makes a second tree beside the first, one folder deeper: what is read from both is the same unless it climbs out.
    pub fn deeper(tree: &Tree, plan: &str, layout: Layout) -> Result<Self, FilesError> {
        let name = tree.directory().file_name().and_then(|name| name.to_str()).unwrap_or("stage");
        let own = tree.make_own(STAGE)?.below(plan)?;
        // A name that the first tree, which is called as the directory is, can't have.
        let above = format!("{name}.deeper");
        own.remove_all(&above)?;
        own.make(&above, 0o700)?;
        // What stands for `/` is called otherwise than in the first tree: no folder of both may look as if it were the same.
        Self::within(tree, &own.below(&above)?, layout, [name, "root"])
    }

    /// Makes a folder of its own beside the tree, for a question to compose. `kind` keeps their names apart.
    pub fn aside(tree: &Tree, plan: &str, kind: &str) -> Result<Self, FilesError> {
        let name = tree.directory().file_name().and_then(|name| name.to_str()).unwrap_or("stage");
        let own = tree.make_own(STAGE)?.below(plan)?;
        let aside = format!("{name}.{kind}");
        own.remove_all(&aside)?;
        own.make(&aside, 0o700)?;
        Ok(Self { root: own.below(&aside)?, top: None })
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
        write(&self.root, path.as_str(), content)
    }

    /// Makes a folder, with those above it.
    pub fn make_folder(&self, path: &RelativePath) -> Result<(), FilesError> {
        make_folder(&self.root, path.as_str())
    }

    /// Writes the copy of a file outside of the directory.
    pub fn write_outside(&self, path: &str, content: &[u8]) -> Result<(), FilesError> {
        self.top.as_ref().map_or(Ok(()), |top| write(top, path.trim_start_matches('/'), content))
    }

    /// Makes a folder outside of the directory.
    pub fn make_folder_outside(&self, path: &str) -> Result<(), FilesError> {
        let path = path.trim_start_matches('/');
        self.top.as_ref().filter(|_| !path.is_empty()).map_or(Ok(()), |top| make_folder(top, path))
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

fn write(root: &Folder, path: &str, content: &[u8]) -> Result<(), FilesError> {
    let (folder, name) = match path.rsplit_once('/') {
        None => (root.again()?, path),
        Some((parent, name)) => {
            make_folder(root, parent)?;
            (root.below(parent)?, name)
        }
    };
    folder.remove(name)?;
    folder.create(name)?.append(content)
}

fn make_folder(root: &Folder, path: &str) -> Result<(), FilesError> {
    for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
        root.make(&path[..at], 0o700)?;
    }
    Ok(())
}
