//! The tenant's directory, and the folder in it that is ours.

use std::path::Path;

use tenantry_api::names::{AGENT_FOLDER, RelativePath};

use super::disk_io::DiskIo;
use super::error::FilesError;
use super::folder::Folder;
use super::stat::Stat;

/// What `.gitignore` in our own folder says.
const IGNORE_ALL: &[u8] = b"*\n";

/// The tenant's directory as a capability: whoever has it can look and write beneath it and nowhere else.
#[derive(Debug)]
pub struct Tree {
    pub(crate) root: Folder,
}

impl Tree {
    /// Opens a directory. No component of its path may be a symlink: the local policy allows paths, and a symlink
    /// would make them mean something else.
    pub fn open(directory: &Path, disk_io: DiskIo) -> Result<Self, FilesError> {
        Ok(Self { root: Folder::open(directory, disk_io)? })
    }

    /// Opens a directory; what is missing of it is made first (0755).
    pub fn create(directory: &Path, disk_io: DiskIo) -> Result<Self, FilesError> {
        match Self::open(directory, disk_io.clone()) {
            Err(FilesError::NoDirectory(_)) => {}
            other => return other,
        }
        let (Some(parent), Some(name)) =
            (directory.parent(), directory.file_name().and_then(|name| name.to_str()))
        else {
            return Err(FilesError::NoDirectory(directory.to_owned()));
        };
        let parent = if parent == Path::new("/") {
            Folder::root(disk_io.clone())?
        } else {
            Self::create(parent, disk_io.clone())?.root
        };
        parent.make(name, 0o755)?;
        parent.sync()?;
        Self::open(directory, disk_io)
    }

    /// Its absolute path.
    pub fn directory(&self) -> &Path {
        self.root.path()
    }

    /// What is at a path, without reading it.
    pub fn stat(&self, path: &RelativePath) -> Result<Stat, FilesError> {
        self.root.stat(path.as_str())
    }

    /// Reads a regular file of at most `limit` bytes; `None` where there is nothing.
    pub fn read(&self, path: &RelativePath, limit: u64) -> Result<Option<Vec<u8>>, FilesError> {
        Ok(self.root.read(path.as_str(), limit)?.map(|(content, _)| content))
    }

    /// Free bytes on its file system.
    pub fn free_bytes(&self) -> Result<u64, FilesError> {
        self.root.free_bytes()
    }

    /// Our own folder in it, if it was made already.
    pub(super) fn own_folder(&self) -> Result<Option<Folder>, FilesError> {
        match self.root.stat(AGENT_FOLDER)? {
            Stat::Missing => Ok(None),
            Stat::Folder(stamp) if stamp.uid == rustix::process::geteuid().as_raw() => {
                let folder = self.root.below(AGENT_FOLDER)?;
                if stamp.mode != 0o700 {
                    folder.set_mode(0o700)?;
                }
                Ok(Some(folder))
            }
            Stat::Folder(stamp) => Err(FilesError::refused(
                AGENT_FOLDER,
                format!(
                    "the folder belongs to user {}, not to the agent's: give it to the agent's user, or move it away",
                    stamp.uid
                ),
            )),
            Stat::File(_) => Err(FilesError::refused(AGENT_FOLDER, "there is a file")),
            Stat::Other(found) => Err(FilesError::refused(AGENT_FOLDER, found)),
        }
    }

    /// Our own folder in it, for our eyes only and invisible to git.
    pub(super) fn make_own_folder(&self) -> Result<Folder, FilesError> {
        let folder = if let Some(folder) = self.own_folder()? {
            folder
        } else {
            self.root.make(AGENT_FOLDER, 0o700)?;
            self.root.sync()?;
            self.root.below(AGENT_FOLDER)?
        };
        // `.gitignore` is not synced: after a power cut it may be empty.
        if !matches!(folder.stat(".gitignore")?, Stat::File(stamp) if stamp.size == IGNORE_ALL.len() as u64) {
            folder.remove_all(".gitignore")?;
            let mut ignore = folder.create(".gitignore")?;
            ignore.append(IGNORE_ALL)?;
        }
        Ok(folder)
    }

    /// A folder in our own folder; where it has to be made, it is durable when this returns.
    pub(crate) fn make_own(&self, name: &str) -> Result<Folder, FilesError> {
        let own = self.make_own_folder()?;
        if own.make(name, 0o700)? {
            own.sync()?;
        }
        own.below(name)
    }

    /// A folder in our own folder, if there is one.
    pub(super) fn own(&self, name: &str) -> Result<Option<Folder>, FilesError> {
        let Some(own) = self.own_folder()? else {
            return Ok(None);
        };
        match own.stat(name)? {
            Stat::Missing => Ok(None),
            _ => own.below(name).map(Some),
        }
    }
}
