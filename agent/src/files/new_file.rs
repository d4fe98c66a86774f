//! A file of ours that is being written.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;

use super::disk_io::{DiskIo, Effect};
use super::error::FilesError;

/// A file of ours that is being written.
#[derive(Debug)]
pub(crate) struct NewFile {
    pub file: File,
    pub(super) path: PathBuf,
    pub(super) disk_io: DiskIo,
}

impl NewFile {
    /// Its absolute path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds bytes at the end.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), FilesError> {
        let mut rest = bytes;
        self.disk_io
            .perform(&self.path, Effect::Append(bytes), || {
                while !rest.is_empty() {
                    match rustix::io::write(&self.file, rest) {
                        Ok(0) => return Err(Errno::IO),
                        Ok(written) => rest = &rest[written..],
                        Err(Errno::INTR) => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            })
            .map_err(|error| FilesError::io("write", &self.path, error))
    }

    /// Cuts the file.
    pub fn truncate(&self, length: u64) -> Result<(), FilesError> {
        self.disk_io
            .perform(&self.path, Effect::Truncate(length), || rustix::fs::ftruncate(&self.file, length))
            .map_err(|error| FilesError::io("cut", &self.path, error))
    }

    /// Sets owner and permission bits, in this order, for a change of owner takes bits away.
    pub fn set_attributes(&self, owner: Option<(u32, u32)>, mode: u32) -> Result<(), FilesError> {
        if let Some((uid, gid)) = owner.filter(|_| !tenantry_faults::Bug::ForgetOwner.is_seeded()) {
            self.disk_io
                .perform(&self.path, Effect::SetOwner(uid, gid), || {
                    rustix::fs::fchown(&self.file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                })
                .map_err(|error| FilesError::io("set the owner of", &self.path, error))?;
        }
        self.disk_io
            .perform(&self.path, Effect::SetMode(mode), || {
                rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode))
            })
            .map_err(|error| FilesError::io("set the mode of", &self.path, error))
    }

    /// Makes content durable, and of the attributes only what reading it needs.
    pub fn sync_data(&self) -> Result<(), FilesError> {
        self.disk_io
            .sync(&self.path, Effect::SyncFile, || rustix::fs::fdatasync(&self.file))
            .map_err(|error| FilesError::io("make durable", &self.path, error))
    }

    /// Makes content and attributes durable.
    pub fn sync(&self) -> Result<(), FilesError> {
        if tenantry_faults::Bug::ContentUnsynced.is_seeded() {
            return Ok(());
        }
        self.disk_io
            .sync(&self.path, Effect::SyncFile, || rustix::fs::fsync(&self.file))
            .map_err(|error| FilesError::io("make durable", &self.path, error))
    }
}
