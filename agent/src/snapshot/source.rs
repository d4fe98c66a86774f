//! The tree that is kept: read without following a link, without leaving its mount, and without leaving a trace.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::entry::{DEPTH_LIMIT, Entry, Kind, Text, TreePath};
use super::error::SnapshotError;
use crate::files::{DiskIo, Folder};

const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
/// How many files with several names are remembered.
const LINKS_LIMIT: usize = 1_000_000;
/// The most bytes that a file's extended attributes may have together.
const XATTRS_LIMIT: usize = 64 * 1024;
/// What restore points leave in a folder until they are done; never part of the data.
pub(crate) const OURS: &[u8] = b".tenantry-";

/// A file or folder that is to be kept.
pub(crate) struct Source {
    base: OwnedFd,
    name: Vec<u8>,
    path: PathBuf,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    size: u64,
    inode: u64,
    mtime: (i64, u32),
    ctime: (i64, u32),
}

impl Source {
    /// What is called `name` in a folder.
    pub fn new(folder: &Folder, name: &str) -> Result<Self, SnapshotError> {
        let path = folder.path().join(name);
        let base = folder
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| SnapshotError::io("open", folder.path(), error))?;
        Ok(Self { base, name: name.as_bytes().to_vec(), path })
    }

    /// A whole folder, which may be a mount point.
    pub fn whole(directory: &Path) -> Result<Self, SnapshotError> {
        let folder = Folder::open(directory, DiskIo::default())?;
        Ok(Self { path: directory.to_owned(), ..Self::new(&folder, ".")? })
    }

    /// Where something of the tree is, for messages.
    pub fn shown(&self, path: &TreePath) -> PathBuf {
        use std::os::unix::ffi::OsStrExt as _;
        if path.is_top() {
            return self.path.clone();
        }
        self.path.join(std::ffi::OsStr::from_bytes(path.bytes()))
    }

    fn open(&self, path: &TreePath, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut full = self.name.clone();
        if !path.is_top() {
            full.push(b'/');
            full.extend_from_slice(path.bytes());
        }
        let open = |flags| {
            for _ in 0..8 {
                match rustix::fs::openat2(&self.base, full.as_slice(), flags, Mode::empty(), INSIDE) {
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    other => return other,
                }
            }
            Err(Errno::AGAIN)
        };
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Only a file's owner may read it without leaving a time of access.
        let quiet = if flags.contains(OFlags::PATH) { flags } else { flags | OFlags::NOATIME };
        match open(quiet) {
            Err(Errno::PERM) => open(flags),
            other => other,
        }
    }

    /// Opens a file; `None` where it has gone or become something else.
    pub fn open_file(&self, path: &TreePath) -> Result<Option<File>, SnapshotError> {
        match self.open(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) => {
                let found = stat(&fd).map_err(|error| self.fail("look at", path, error))?;
                Ok(Some(File::from(fd)).filter(|_| kind(&found) == FileType::RegularFile))
            }
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => Ok(None),
            Err(error) => Err(self.fail("read", path, error)),
        }
    }

    fn fail(&self, doing: &'static str, path: &TreePath, error: Errno) -> SnapshotError {
        if error == Errno::XDEV {
            return self.mounted(path);
        }
        SnapshotError::io(doing, self.shown(path), error)
    }

    fn mounted(&self, path: &TreePath) -> SnapshotError {
        let problem =
            "another file system is mounted here: a restore could not put it back. Leave this path out";
        SnapshotError::refused(self.shown(path), problem)
    }

    /// Everything in the tree, folders before what is in them; `None` where there is nothing at all.
    pub fn walk(&self, hold: bool) -> Result<Option<Walk<'_>>, SnapshotError> {
        let top = TreePath::top();
        let fd = match self.open(&top, OFlags::PATH) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.fail("look at", &top, error)),
        };
        let found = stat(&fd).map_err(|error| self.fail("look at", &top, error))?;
        Ok(Some(Walk {
            source: self,
            hold,
            mount: mount(&found),
            first: Some(found),
            open: Vec::new(),
            links: HashMap::new(),
            sockets: Vec::new(),
        }))
    }
}

/// Something that was found.
pub(crate) struct Item {
    pub entry: Entry,
    /// A file that has several names is held open: the others count on it.
    pub held: Option<File>,
}

/// A walk through a tree.
pub(crate) struct Walk<'a> {
    source: &'a Source,
    hold: bool,
    mount: u64,
    first: Option<Statx>,
    open: Vec<Level>,
    links: HashMap<(u32, u32, u64), (TreePath, u32)>,
    /// Sockets that were passed by: they are nothing without the process that listens.
    pub sockets: Vec<TreePath>,
}

struct Level {
    fd: OwnedFd,
    path: TreePath,
    /// Last ones first.
    names: Vec<Vec<u8>>,
}

impl Walk<'_> {
    /// The next one; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Item>, SnapshotError> {
        if let Some(found) = self.first.take() {
            return self.item(TreePath::top(), &found, None);
        }
        loop {
            let Some(level) = self.open.last_mut() else { return Ok(None) };
            let Some(name) = level.names.pop() else {
                self.open.pop();
                continue;
            };
            let path = level
                .path
                .join(&name)
                .map_err(|problem| SnapshotError::refused(self.source.shown(&level.path), problem))?;
            let Some(found) = self.look(&path, &name)? else { continue };
            if let Some(item) = self.item(path, &found, Some(&name))? {
                return Ok(Some(item));
            }
        }
    }

    /// What is called so in the folder that is being read; `None` where it has gone.
    fn look(&self, path: &TreePath, name: &[u8]) -> Result<Option<Statx>, SnapshotError> {
        let Some(level) = self.open.last() else { return Ok(None) };
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        match rustix::fs::statx(&level.fd, name, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID) {
            Ok(found) if mount(&found) != self.mount => Err(self.source.mounted(path)),
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.source.fail("look at", path, error)),
        }
    }

    fn item(
        &mut self,
        path: TreePath,
        found: &Statx,
        name: Option<&[u8]>,
    ) -> Result<Option<Item>, SnapshotError> {
        let kind = match kind(found) {
            FileType::Directory => return self.folder(path),
            FileType::RegularFile if found.stx_nlink > 1 => return self.linked(path, found),
            FileType::RegularFile => Kind::File { size: found.stx_size, sha256: None },
            FileType::Symlink => match (self.open.last(), name) {
                (Some(level), Some(name)) => match rustix::fs::readlinkat(&level.fd, name, Vec::new()) {
                    Ok(target) => Kind::Symlink { target: Text(target.into_bytes()) },
                    // It has gone, or is none any more.
                    Err(Errno::NOENT | Errno::INVAL) => return Ok(None),
                    Err(error) => return Err(self.source.fail("read the link", &path, error)),
                },
                _ => return Err(self.refuse(&path, "there is a symlink: name the real path instead")),
            },
            FileType::Socket => {
                self.sockets.push(path);
                return Ok(None);
            }
            FileType::Fifo => {
                return Err(self.refuse(&path, "a FIFO can't be kept: remove it, or leave this path out"));
            }
            _ => return Err(self.refuse(&path, "a device can't be kept: remove it, or leave this path out")),
        };
        Ok(Some(Item { entry: entry(path, kind, found, Vec::new()), held: None }))
    }

    fn refuse(&self, path: &TreePath, problem: &str) -> SnapshotError {
        SnapshotError::refused(self.source.shown(path), problem)
    }

    fn folder(&mut self, path: TreePath) -> Result<Option<Item>, SnapshotError> {
        if self.open.len() >= DEPTH_LIMIT {
            return Err(self.refuse(&path, "folders are nested more than 256 deep here"));
        }
        let fd = match self.source.open(&path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(self.source.fail("open the folder", &path, error)),
        };
        let fail = |error| self.source.fail("list", &path, error);
        let found = stat(&fd).map_err(fail)?;
        let xattrs = self.source.xattrs(fd.as_fd(), &path)?;
        let mut names = Vec::new();
        for one in Dir::read_from(&fd).map_err(fail)? {
            let one = one.map_err(fail)?;
            let name = one.file_name().to_bytes();
            let ours = path.is_top() && name.starts_with(OURS);
            if name != b"." && name != b".." && !ours {
                names.push((one.ino(), name.to_vec()));
            }
        }
        // Most file systems lay files out in the order of their inodes.
        names.sort_unstable_by(|a, b| b.cmp(a));
        let names = names.into_iter().map(|(_, name)| name).collect();
        self.open.push(Level { fd, path: path.clone(), names });
        Ok(Some(Item { entry: entry(path, Kind::Folder {}, &found, xattrs), held: None }))
    }

    fn linked(&mut self, path: TreePath, found: &Statx) -> Result<Option<Item>, SnapshotError> {
        let inode = (found.stx_dev_major, found.stx_dev_minor, found.stx_ino);
        if let Some((to, left)) = self.links.get_mut(&inode) {
            let kind = Kind::Link { to: to.clone() };
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.links.remove(&inode);
            }
            return Ok(Some(Item { entry: entry(path, kind, found, Vec::new()), held: None }));
        }
        if self.links.len() >= LINKS_LIMIT {
            return Err(self.refuse(&path, "there are more than 1000000 files with several names"));
        }
        let mut item = Item {
            entry: entry(path, Kind::File { size: found.stx_size, sha256: None }, found, Vec::new()),
            held: None,
        };
        if self.hold {
            let Some(file) = self.source.open_file(&item.entry.path)? else { return Ok(None) };
            let now = stat(&file).map_err(|error| self.source.fail("look at", &item.entry.path, error))?;
            if now.stx_ino != found.stx_ino {
                return Ok(Some(item));
            }
            item.held = Some(file);
        }
        self.links.insert(inode, (item.entry.path.clone(), found.stx_nlink - 1));
        Ok(Some(item))
    }
}

impl Source {
    /// The extended attributes that belong to the data; those of the system's own bookkeeping do not.
    pub fn xattrs(&self, fd: BorrowedFd<'_>, path: &TreePath) -> Result<Vec<(String, Text)>, SnapshotError> {
        let length = match rustix::fs::flistxattr_query(fd) {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Ok(length) => length,
            Err(error) => return Err(self.fail("list the attributes of", path, error)),
        };
        let mut list = vec![0_u8; length.min(XATTRS_LIMIT)];
        let length = rustix::fs::flistxattr(fd, list.as_mut_slice())
            .map_err(|error| self.fail("list the attributes of", path, error))?;
        let (mut all, mut room) = (Vec::new(), XATTRS_LIMIT);
        for name in list[..length].split(|byte| *byte == 0) {
            let Some(name) = std::str::from_utf8(name).ok().filter(|name| is_data(name)) else { continue };
            let mut value = vec![0_u8; room];
            match rustix::fs::fgetxattr(fd, name, value.as_mut_slice()) {
                Ok(length) => value.truncate(length),
                Err(Errno::NODATA) => continue,
                Err(Errno::RANGE) => {
                    let problem = "its extended attributes are longer than 64 KiB together";
                    return Err(SnapshotError::refused(self.shown(path), problem));
                }
                Err(error) => return Err(self.fail("read the attributes of", path, error)),
            }
            room -= value.len();
            all.push((name.to_owned(), Text(value)));
        }
        all.sort();
        Ok(all)
    }

    /// What a file is now.
    pub fn now(&self, file: &File, path: &TreePath) -> Result<(Entry, State), SnapshotError> {
        let found = stat(file).map_err(|error| self.fail("look at", path, error))?;
        let xattrs = self.xattrs(file.as_fd(), path)?;
        let kind = Kind::File { size: found.stx_size, sha256: None };
        Ok((entry(path.clone(), kind, &found, xattrs), state(&found)))
    }

    /// Whether a file is still as it was.
    pub fn unchanged(&self, file: &File, path: &TreePath, before: State) -> Result<bool, SnapshotError> {
        let found = stat(file).map_err(|error| self.fail("look at", path, error))?;
        Ok(state(&found) == before)
    }
}

/// Whether an attribute is part of the data.
pub(crate) fn is_data(name: &str) -> bool {
    name.starts_with("user.") || name.starts_with("system.posix_acl_") || name == "security.capability"
}

fn entry(path: TreePath, kind: Kind, found: &Statx, xattrs: Vec<(String, Text)>) -> Entry {
    let mtime = (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec);
    let mode = u32::from(found.stx_mode) & 0o7777;
    Entry { path, kind, mode, uid: found.stx_uid, gid: found.stx_gid, mtime, xattrs }
}

fn state(found: &Statx) -> State {
    State {
        size: found.stx_size,
        inode: found.stx_ino,
        mtime: (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec),
        ctime: (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
    }
}

pub(crate) fn stat(fd: impl AsFd) -> Result<Statx, Errno> {
    rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)
}

pub(crate) fn kind(found: &Statx) -> FileType {
    FileType::from_raw_mode(u32::from(found.stx_mode))
}

/// The mount. Kernels before 5.8 do not tell it; the device is the next best thing.
pub(crate) fn mount(found: &Statx) -> u64 {
    if found.stx_mask & StatxFlags::MNT_ID.bits() != 0 {
        return found.stx_mnt_id;
    }
    (u64::from(found.stx_dev_major) << 32) | u64::from(found.stx_dev_minor)
}
