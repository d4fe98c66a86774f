//! Removes a whole tree of ours, whatever its names are; nothing is followed, and no mount is left or entered.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::entry::DEPTH_LIMIT;
use super::error::SnapshotError;
use crate::files::{DiskIo, Effect, Folder};

const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Removes what is called `name` in a folder, with everything in it. That there is nothing is fine.
pub(crate) fn remove_tree(folder: &Folder, name: &str) -> Result<(), SnapshotError> {
    let at = folder.path().join(name);
    let removing = Removing { disk_io: folder.disk_io() };
    match removing.unlink(folder, name.as_bytes(), &at) {
        Err(error) if is(&error, &[Errno::ISDIR, Errno::PERM]) => {
            removing.folder(folder, name.as_bytes(), &at, 0)
        }
        other => other.map_err(|error| SnapshotError::io("remove", at, error)),
    }
}

struct Removing<'a> {
    disk_io: &'a DiskIo,
}

impl Removing<'_> {
    fn folder(
        &self,
        parent: impl std::os::fd::AsFd,
        name: &[u8],
        at: &PathBuf,
        depth: usize,
    ) -> Result<(), SnapshotError> {
        let fail = |error: Errno| SnapshotError::io("remove the folder", at, error);
        if depth > 2 * DEPTH_LIMIT {
            return Err(SnapshotError::refused(at, "folders are nested too deep here to be removed"));
        }
        let fd = match rustix::fs::openat2(&parent, name, FOLDER, Mode::empty(), INSIDE) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(fail(error)),
        };
        for entry in Dir::read_from(&fd).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let below = join(at, name);
            let removed = match entry.file_type() {
                FileType::Directory => Err(Errno::ISDIR.into()),
                _ => self.unlink(&fd, name, &below),
            };
            match removed {
                Err(error) if is(&error, &[Errno::ISDIR, Errno::PERM]) => {
                    self.folder(&fd, name, &below, depth + 1)?;
                }
                other => other.map_err(|error| SnapshotError::io("remove", below, error))?,
            }
        }
        drop(fd);
        let gone = self
            .disk_io
            .perform(at, Effect::RemoveFolder, || rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR));
        match gone {
            Err(error) if !is(&error, &[Errno::NOENT]) => {
                Err(SnapshotError::io("remove the folder", at, error))
            }
            _ => Ok(()),
        }
    }

    fn unlink(&self, parent: impl std::os::fd::AsFd, name: &[u8], at: &Path) -> std::io::Result<()> {
        let gone = self
            .disk_io
            .perform(at, Effect::Remove, || rustix::fs::unlinkat(&parent, name, AtFlags::empty()));
        match gone {
            Err(error) if is(&error, &[Errno::NOENT]) => Ok(()),
            other => other,
        }
    }
}

fn is(error: &std::io::Error, any: &[Errno]) -> bool {
    any.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn join(at: &Path, name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    at.join(std::ffi::OsStr::from_bytes(name))
}
