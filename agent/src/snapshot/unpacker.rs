//! Unpacks an archive into a folder of ours: nothing leads into it and nothing leads out of it.
//!
//! Folders get their attributes last, for what is put into them changes them; names of the same file are made when
//! all files are there. Nothing is durable until [`Unpacker::finish`] has returned.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::archive_reader::{Lines, StoredArchive};
use super::entry::{Entry, Kind, Line, TreePath};
use super::error::SnapshotError;
use super::pack::size;
use super::source::is_data;
use crate::files::{DiskIo, Effect, Folder};

const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const NEW_FILE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// What is only opened to set its attributes.
const THERE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Unpacks into a folder, under the name in it that the top of the tree gets.
pub(crate) struct Unpacker<'a> {
    folder: &'a Folder,
    name: &'a str,
    disk_io: DiskIo,
}

impl<'a> Unpacker<'a> {
    /// There must be nothing of that name.
    pub fn new(folder: &'a Folder, name: &'a str) -> Self {
        Self { folder, name, disk_io: folder.disk_io().clone() }
    }

    fn full(&self, path: &TreePath) -> Vec<u8> {
        let mut full = self.name.as_bytes().to_vec();
        if !path.is_top() {
            full.push(b'/');
            full.extend_from_slice(path.bytes());
        }
        full
    }

    fn shown(&self, path: &TreePath) -> PathBuf {
        use std::os::unix::ffi::OsStrExt as _;
        self.folder.path().join(std::ffi::OsStr::from_bytes(&self.full(path)))
    }

    fn open(&self, full: &[u8], flags: OFlags, mode: u32) -> Result<OwnedFd, Errno> {
        let mode = Mode::from_raw_mode(mode);
        for _ in 0..8 {
            match rustix::fs::openat2(self.folder, full, flags, mode, INSIDE) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Makes a folder; its attributes come at the end.
    pub fn make(&self, entry: &Entry) -> Result<(), SnapshotError> {
        let (full, shown) = (self.full(&entry.path), self.shown(&entry.path));
        let (parent, name) = split(&full);
        let parent = self.parent(parent, &shown)?;
        let mode = Mode::from_raw_mode(0o700);
        self.disk_io
            .perform(&shown, Effect::MakeFolder, || rustix::fs::mkdirat(parent.as_fd(), name, mode))
            .map_err(|error| SnapshotError::io("make the folder", shown, error))
    }

    /// Makes a long file of full length, in which every piece is still missing.
    pub fn begin(&self, entry: &Entry) -> Result<File, SnapshotError> {
        let (full, shown) = (self.full(&entry.path), self.shown(&entry.path));
        let (parent, name) = split(&full);
        let file = self.create(&self.parent(parent, &shown)?, name, &shown)?;
        let length = size(entry);
        self.disk_io
            .perform(&shown, Effect::Truncate(length), || rustix::fs::ftruncate(&file, length))
            .map_err(|error| SnapshotError::io("make room for", shown, error))?;
        Ok(file)
    }

    fn create(&self, parent: &Parent<'_>, name: &[u8], shown: &Path) -> Result<File, SnapshotError> {
        let mode = Mode::from_raw_mode(0o600);
        self.disk_io
            .perform(shown, Effect::Create, || rustix::fs::openat(parent.as_fd(), name, NEW_FILE, mode))
            .map(File::from)
            .map_err(|error| SnapshotError::io("create", shown, error))
    }

    fn parent(&self, parent: &[u8], shown: &Path) -> Result<Parent<'_>, SnapshotError> {
        if parent.is_empty() {
            return Ok(Parent::Top(self.folder));
        }
        let opened = self.open(parent, FOLDER, 0);
        opened.map(Parent::Below).map_err(|error| SnapshotError::io("find the folder of", shown, error))
    }

    /// Owner, mode, attributes and time, in the order in which none undoes another.
    pub fn dress(&self, fd: impl AsFd, entry: &Entry, shown: &Path) -> Result<(), SnapshotError> {
        let fail = |doing| move |error| SnapshotError::io(doing, shown, error);
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        self.disk_io
            .perform(shown, Effect::SetOwner(entry.uid, entry.gid), || {
                rustix::fs::fchown(&fd, Some(uid), Some(gid))
            })
            .map_err(fail("set the owner of"))?;
        self.disk_io
            .perform(shown, Effect::SetMode(entry.mode), || {
                rustix::fs::fchmod(&fd, Mode::from_raw_mode(entry.mode))
            })
            .map_err(fail("set the mode of"))?;
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_data(name)) {
            self.disk_io
                .perform(shown, Effect::SetAttribute, || {
                    rustix::fs::fsetxattr(&fd, name.as_str(), &value.0, XattrFlags::empty())
                })
                .map_err(fail("set an attribute of"))?;
        }
        self.disk_io
            .perform(shown, Effect::SetTime, || rustix::fs::futimens(&fd, &times(entry)))
            .map_err(fail("set the time of"))
    }

    /// What can only be done when every file is there; then makes everything durable.
    pub fn finish(&self, stored: &StoredArchive<'_>) -> Result<(), SnapshotError> {
        Self::each(stored, |entry| match &entry.kind {
            Kind::Link { to } => self.link(entry, to),
            Kind::File { sha256: None, .. } => self.dress_again(entry),
            _ => Ok(()),
        })?;
        Self::each(stored, |entry| match entry.kind {
            Kind::Folder {} => self.dress_again(entry),
            _ => Ok(()),
        })?;
        self.disk_io
            .sync(self.folder.path(), Effect::SyncAll, || rustix::fs::syncfs(self.folder))
            .map_err(|error| SnapshotError::io("make durable", self.folder.path(), error))
    }

    fn each(
        stored: &StoredArchive<'_>,
        mut act: impl FnMut(&Entry) -> Result<(), SnapshotError>,
    ) -> Result<(), SnapshotError> {
        let mut lines = Lines::open(stored.folder, stored.archive)?;
        loop {
            match lines.next()? {
                Line::Entry(entry) => act(&entry)?,
                Line::End {} => return lines.end(stored.archive),
                Line::Begin { .. } | Line::Frame { .. } | Line::Piece { .. } => {}
            }
        }
    }

    fn link(&self, entry: &Entry, to: &TreePath) -> Result<(), SnapshotError> {
        let (full, shown) = (self.full(&entry.path), self.shown(&entry.path));
        let (target, existing) = (self.full(to), self.shown(to));
        let fail = |error| SnapshotError::io("link", &shown, error);
        let ((new_parent, new_name), (old_parent, old_name)) = (split(&full), split(&target));
        let (new_parent, old_parent) =
            (self.parent(new_parent, &shown)?, self.parent(old_parent, &existing)?);
        // Only a file has more than one name; a symlink's own name would be one for what it leads to.
        let found = rustix::fs::statat(old_parent.as_fd(), old_name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| fail(error.into()))?;
        if rustix::fs::FileType::from_raw_mode(found.st_mode) != rustix::fs::FileType::RegularFile {
            return Err(SnapshotError::refused(shown.clone(), "it is to be a name of what is no file"));
        }
        self.disk_io
            .perform(&existing, Effect::Link(&shown), || {
                let flags = AtFlags::empty();
                rustix::fs::linkat(old_parent.as_fd(), old_name, new_parent.as_fd(), new_name, flags)
            })
            .map_err(fail)
    }

    fn dress_again(&self, entry: &Entry) -> Result<(), SnapshotError> {
        let shown = self.shown(&entry.path);
        let opened = self.open(&self.full(&entry.path), THERE, 0);
        let opened = opened.map_err(|error| SnapshotError::io("open", &shown, error))?;
        self.dress(opened, entry, &shown)
    }
}

/// The folder that something is put in.
enum Parent<'a> {
    Top(&'a Folder),
    Below(OwnedFd),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Top(folder) => folder.as_fd(),
            Self::Below(fd) => fd.as_fd(),
        }
    }
}

/// Writes files and symlinks. Each of the threads has one.
pub(crate) struct FileWriter<'a> {
    unpacker: &'a Unpacker<'a>,
    /// Files of the same folder come together.
    last: Option<(Vec<u8>, Parent<'a>)>,
}

impl<'a> FileWriter<'a> {
    pub fn new(unpacker: &'a Unpacker<'a>) -> Self {
        Self { unpacker, last: None }
    }

    /// A whole file or a symlink; folders are there already, further names of a file come later.
    pub fn put(&mut self, entry: &Entry, content: &[u8]) -> Result<(), SnapshotError> {
        let unpacker = self.unpacker;
        let (full, shown) = (unpacker.full(&entry.path), unpacker.shown(&entry.path));
        let (parent, name) = split(&full);
        match &entry.kind {
            Kind::Folder {} | Kind::Link { .. } => Ok(()),
            Kind::File { .. } => {
                let mut file = unpacker.create(self.parent(parent, &shown)?, name, &shown)?;
                if !content.is_empty() {
                    unpacker
                        .disk_io
                        .perform(&shown, Effect::Append(content), || write_all(&mut file, content))
                        .map_err(|error| SnapshotError::io("write", &shown, error))?;
                }
                unpacker.dress(&file, entry, &shown)
            }
            Kind::Symlink { target } => {
                let parent = self.parent(parent, &shown)?.as_fd();
                let fail = |error| SnapshotError::io("make the symlink", &shown, error);
                unpacker
                    .disk_io
                    .perform(&shown, Effect::Symlink(&target.0), || {
                        rustix::fs::symlinkat(target.0.as_slice(), parent, name)
                    })
                    .map_err(fail)?;
                let (uid, gid) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                unpacker
                    .disk_io
                    .perform(&shown, Effect::SetOwner(entry.uid, entry.gid), || {
                        rustix::fs::chownat(parent, name, uid, gid, flags)
                    })
                    .map_err(fail)?;
                unpacker
                    .disk_io
                    .perform(&shown, Effect::SetTime, || {
                        rustix::fs::utimensat(parent, name, &times(entry), flags)
                    })
                    .map_err(fail)
            }
        }
    }

    /// A piece of a long file. One that is all zeros is there already, as a hole.
    pub fn put_piece(
        &self,
        entry: &Entry,
        file: Option<&File>,
        offset: u64,
        content: &[u8],
    ) -> Result<(), SnapshotError> {
        let Some(file) = file.filter(|_| content.iter().any(|byte| *byte != 0)) else { return Ok(()) };
        let shown = self.unpacker.shown(&entry.path);
        self.unpacker
            .disk_io
            .perform(&shown, Effect::WriteAt(offset, content), || {
                file.write_all_at(content, offset).map_err(|error| errno(&error))
            })
            .map_err(|error| SnapshotError::io("write", shown, error))
    }

    fn parent(&mut self, parent: &[u8], shown: &Path) -> Result<&Parent<'a>, SnapshotError> {
        let known = self.last.as_ref().is_some_and(|(path, _)| path == parent);
        if !known {
            self.last = Some((parent.to_vec(), self.unpacker.parent(parent, shown)?));
        }
        match &self.last {
            Some((_, parent)) => Ok(parent),
            None => Err(SnapshotError::CalledOff),
        }
    }
}

fn write_all(file: &mut File, content: &[u8]) -> rustix::io::Result<()> {
    use std::io::Write as _;
    file.write_all(content).map_err(|error| errno(&error))
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn times(entry: &Entry) -> Timestamps {
    let (seconds, nanoseconds) = entry.mtime;
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) },
    }
}

/// The path of the folder, and the name in it.
fn split(full: &[u8]) -> (&[u8], &[u8]) {
    match full.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&full[..at], &full[at + 1..]),
        None => (&[], full),
    }
}
