//! An open folder, and what can be done beneath it.
//!
//! Every path is resolved by the kernel beneath the open folder, without following a symlink, a magic link or `..`:
//! what was checked is what is used, however the tree is changed meanwhile.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::disk_io::{DiskIo, Effect};
use super::error::FilesError;
use super::new_file::NewFile;
use super::stat::{Placed, Stamp, Stat, placed, statx};

const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    disk_io: DiskIo,
}

impl Folder {
    /// Opens a folder by its absolute path, none of whose components may be a symlink.
    pub fn open(path: &Path, disk_io: DiskIo) -> Result<Self, FilesError> {
        let root = Self::root(disk_io)?;
        let relative = path.strip_prefix("/").unwrap_or(path);
        if relative.as_os_str().is_empty() {
            return Err(FilesError::refused("/", "this is the root of the file system"));
        }
        let relative =
            relative.to_str().ok_or_else(|| FilesError::refused("directory", "its name is not UTF-8"))?;
        match root.below(relative) {
            Err(FilesError::Io { source, .. }) if is(&source, Errno::NOENT) => {
                Err(FilesError::NoDirectory(path.to_owned()))
            }
            Err(FilesError::Refused { found, .. }) => {
                let problem =
                    format!("{found}, seen from /; give the directory's real path, without symlinks");
                Err(FilesError::Invalid { path: path.display().to_string(), problem })
            }
            other => other,
        }
    }

    /// The file system's root.
    pub fn root(disk_io: DiskIo) -> Result<Self, FilesError> {
        let fd = rustix::fs::openat(CWD, "/", FOLDER, Mode::empty())
            .map_err(|error| FilesError::io("open", "/", error))?;
        Ok(Self { fd, path: PathBuf::from("/"), disk_io })
    }

    /// Its absolute path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The layer that its changes go through.
    pub fn disk_io(&self) -> &DiskIo {
        &self.disk_io
    }

    /// Opens a folder beneath.
    pub fn below(&self, relative: &str) -> Result<Self, FilesError> {
        let fd = self
            .open_at(relative, FOLDER)
            .map_err(|error| self.explain("open the folder", relative, error))?;
        Ok(Self { fd, path: self.path.join(relative), disk_io: self.disk_io.clone() })
    }

    /// The same folder once more.
    pub fn again(&self) -> Result<Self, FilesError> {
        self.below(".")
    }

    /// What is at a path beneath; nothing is followed.
    pub fn stat(&self, relative: &str) -> Result<Stat, FilesError> {
        self.placed(relative).map(|placed| placed.stat)
    }

    pub(super) fn placed(&self, relative: &str) -> Result<Placed, FilesError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match self.open_at(relative, flags) {
            Ok(fd) => statx(&fd)
                .map(placed)
                .map_err(|error| FilesError::io("look at", self.path.join(relative), error)),
            Err(Errno::NOENT) => Ok(Placed { stat: Stat::Missing, mount: 0 }),
            Err(error) => match self.explain("look at", relative, error) {
                FilesError::Refused { found, .. } => Ok(Placed { stat: Stat::Other(found), mount: 0 }),
                other => Err(other),
            },
        }
    }

    /// Where a symlink beneath leads, as it says; `None` where there is none.
    pub fn link(&self, relative: &str) -> Result<Option<String>, FilesError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(fd) = self.open_at(relative, flags) else { return Ok(None) };
        match rustix::fs::readlinkat(&fd, "", Vec::new()) {
            Ok(target) => target
                .into_string()
                .map(Some)
                .map_err(|_| FilesError::refused(relative, "there is a symlink to a path that is not UTF-8")),
            Err(Errno::INVAL | Errno::NOENT) => Ok(None),
            Err(error) => Err(FilesError::io("read the symlink", self.path.join(relative), error)),
        }
    }

    /// The mount that the folder itself is on.
    pub fn mount(&self) -> Result<u64, FilesError> {
        let found = statx(&self.fd).map_err(|error| FilesError::io("look at", &self.path, error))?;
        Ok(placed(found).mount)
    }

    /// Opens a regular file beneath for reading; `None` where there is nothing.
    pub fn open_file(&self, relative: &str) -> Result<Option<(File, Stamp)>, FilesError> {
        // Without O_NONBLOCK a FIFO would keep us waiting for somebody to write to it.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match self.open_at(relative, flags) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.explain("read", relative, error)),
        };
        let found = statx(&fd).map_err(|error| FilesError::io("look at", self.path.join(relative), error))?;
        match placed(found).stat {
            Stat::File(stamp) => Ok(Some((File::from(fd), stamp))),
            Stat::Folder(_) => Err(FilesError::refused(relative, "there is a folder")),
            Stat::Other(found) => Err(FilesError::refused(relative, found)),
            Stat::Missing => Ok(None),
        }
    }

    /// Reads a regular file beneath, of at most `limit` bytes; `None` where there is nothing.
    pub fn read(&self, relative: &str, limit: u64) -> Result<Option<(Vec<u8>, Stamp)>, FilesError> {
        let Some((file, stamp)) = self.open_file(relative)? else {
            return Ok(None);
        };
        let mut content = Vec::with_capacity(usize::try_from(stamp.size.min(limit)).unwrap_or(0) + 1);
        file.take(limit + 1)
            .read_to_end(&mut content)
            .map_err(|error| FilesError::io("read", self.path.join(relative), error))?;
        if content.len() as u64 > limit {
            return Err(FilesError::refused(relative, format!("the file is longer than {limit} bytes")));
        }
        Ok(Some((content, stamp)))
    }

    /// The names in the folder, sorted.
    pub fn names(&self) -> Result<Vec<String>, FilesError> {
        let fail = |error: Errno| FilesError::io("list", &self.path, error);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_string_lossy();
            if name != "." && name != ".." {
                names.push(name.into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Makes a folder; false where there is one already.
    pub fn make(&self, name: &str, mode: u32) -> Result<bool, FilesError> {
        let path = self.path.join(name);
        let result = self.disk_io.perform(&path, Effect::MakeFolder, || {
            rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode))
        });
        match result {
            Ok(()) => {
                // The process's umask may have taken bits away.
                let folder = self.below(name)?;
                if statx(&folder.fd).is_ok_and(|found| u32::from(found.stx_mode) & 0o7777 != mode) {
                    folder.set_mode(mode)?;
                }
                Ok(true)
            }
            Err(error) if is(&error, Errno::EXIST) => Ok(false),
            Err(error) => Err(FilesError::io("make the folder", path, error)),
        }
    }

    /// Makes an empty file for our eyes only; there must be none.
    pub fn create(&self, name: &str) -> Result<NewFile, FilesError> {
        let path = self.path.join(name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self
            .disk_io
            .perform(&path, Effect::Create, || {
                rustix::fs::openat2(&self.fd, name, flags, Mode::from_raw_mode(0o600), BENEATH)
            })
            .map_err(|error| FilesError::io("create", &path, error))?;
        Ok(NewFile { file: File::from(fd), path, disk_io: self.disk_io.clone() })
    }

    /// Opens one of our own files, made if need be, for appending and locking.
    pub fn open_own(&self, name: &str) -> Result<NewFile, FilesError> {
        let path = self.path.join(name);
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat2(&self.fd, name, flags, Mode::empty(), BENEATH) {
            Ok(fd) => Ok(NewFile { file: File::from(fd), path, disk_io: self.disk_io.clone() }),
            Err(Errno::NOENT) => {
                drop(self.create(name)?);
                self.open_own(name)
            }
            Err(error) => Err(FilesError::io("open", path, error)),
        }
    }

    /// Renames a file beneath to a path beneath `to`, replacing what is there.
    pub fn rename(&self, from: &str, to: &Self, name: &str) -> Result<(), FilesError> {
        let (path, target) = (self.path.join(from), to.path.join(name));
        self.disk_io
            .perform(&path, Effect::Rename(&target), || rustix::fs::renameat(&self.fd, from, &to.fd, name))
            .map_err(|error| FilesError::io("put in place", target, error))
    }

    /// Removes a file; false where there is none.
    pub fn remove(&self, name: &str) -> Result<bool, FilesError> {
        let path = self.path.join(name);
        let removed = self
            .disk_io
            .perform(&path, Effect::Remove, || rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()));
        match removed {
            Ok(()) => Ok(true),
            Err(error) if is(&error, Errno::NOENT) => Ok(false),
            Err(error) => Err(FilesError::io("remove", path, error)),
        }
    }

    /// Removes an empty folder; false where there is none or it is not empty.
    pub fn remove_folder(&self, name: &str) -> Result<bool, FilesError> {
        let path = self.path.join(name);
        let removed = self.disk_io.perform(&path, Effect::RemoveFolder, || {
            rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)
        });
        let there = [Errno::NOENT, Errno::NOTEMPTY, Errno::EXIST, Errno::BUSY, Errno::NOTDIR];
        match removed {
            Ok(()) => Ok(true),
            Err(error) if there.iter().any(|errno| is(&error, *errno)) => Ok(false),
            Err(error) => Err(FilesError::io("remove the folder", path, error)),
        }
    }

    /// Removes a folder of our own with everything in it; nothing is followed.
    pub fn remove_all(&self, name: &str) -> Result<(), FilesError> {
        match self.stat(name)? {
            Stat::Missing => return Ok(()),
            Stat::Folder(_) => {
                let folder = self.below(name)?;
                for entry in folder.names()? {
                    folder.remove_all(&entry)?;
                }
                self.remove_folder(name)?;
            }
            Stat::File(_) | Stat::Other(_) => {
                self.remove(name)?;
            }
        }
        Ok(())
    }

    /// Sets the folder's permission bits.
    pub fn set_mode(&self, mode: u32) -> Result<(), FilesError> {
        self.disk_io
            .perform(&self.path, Effect::SetMode(mode), || {
                rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode))
            })
            .map_err(|error| FilesError::io("set the mode of", &self.path, error))
    }

    /// Makes the folder's entries durable.
    pub fn sync(&self) -> Result<(), FilesError> {
        if tenantry_faults::Bug::FoldersUnsynced.is_seeded() {
            return Ok(());
        }
        self.disk_io
            .sync(&self.path, Effect::SyncFolder, || rustix::fs::fsync(&self.fd))
            .map_err(|error| FilesError::io("make durable", &self.path, error))
    }

    /// Free bytes for us on its file system.
    pub fn free_bytes(&self) -> Result<u64, FilesError> {
        let space =
            rustix::fs::fstatvfs(&self.fd).map_err(|error| FilesError::io("look at", &self.path, error))?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn open_at(&self, relative: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        // The kernel asks to try again when the tree was renamed during the walk; that can't go on for long.
        for _ in 0..8 {
            let how = if tenantry_faults::Bug::FollowSymlinks.is_seeded() {
                ResolveFlags::empty()
            } else {
                BENEATH
            };
            match rustix::fs::openat2(&self.fd, relative, flags, Mode::empty(), how) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Says which component of a path is in the way, if one is.
    fn explain(&self, doing: &'static str, relative: &str, error: Errno) -> FilesError {
        if error == Errno::NOSYS {
            let problem = "the kernel has no openat2, or does not let us use it: Linux 5.6 or newer is needed, \
                           and in a container a seccomp profile that knows openat2";
            return FilesError::Invalid {
                path: self.path.join(relative).display().to_string(),
                problem: problem.to_owned(),
            };
        }
        let in_the_way = matches!(error, Errno::LOOP | Errno::NOTDIR | Errno::XDEV | Errno::NXIO);
        if !in_the_way {
            return FilesError::io(doing, self.path.join(relative), error);
        }
        let ends = relative.match_indices('/').map(|(at, _)| at).chain([relative.len()]);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for part in ends.map(|end| &relative[..end]) {
            let Some(found) = self.open_at(part, flags).ok().and_then(|fd| statx(&fd).ok()) else {
                break;
            };
            match placed(found).stat {
                Stat::Other(found) if part == relative => return FilesError::refused(relative, found),
                Stat::Other(found) => return FilesError::refused(relative, format!("{found} at {part}")),
                Stat::File(_) if part == relative => return FilesError::refused(relative, "there is a file"),
                Stat::File(_) => {
                    let found = format!("there is a file at {part}, where a folder is needed");
                    return FilesError::refused(relative, found);
                }
                Stat::Missing | Stat::Folder(_) => {}
            }
        }
        FilesError::refused(relative, "there is something other than a folder or file on the way to it")
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether an error is this one of the system's.
pub(super) fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
