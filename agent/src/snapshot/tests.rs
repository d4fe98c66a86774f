//! Restore points of data, on a real file system.

// Made-up numbers that fit, and lines put together for comparing.
#![allow(clippy::cast_possible_truncation, clippy::format_push_string)]

mod crash;
mod hostile;
mod round_trip;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use tenantry_api::names::{OperationId, RelativePath, TenantUid};

use super::*;
use crate::files::tests::scratch;
use crate::files::{DiskIo, Effect, Hook, Tree};

pub struct Quiet;

impl ProgressSink for Quiet {
    fn progress(&self, _bytes: u64) {}

    fn called_off(&self) -> bool {
        false
    }
}

fn path(text: &str) -> RelativePath {
    RelativePath::parse(text).unwrap()
}

fn uid() -> TenantUid {
    TenantUid::parse("0a1b").unwrap()
}

fn operation() -> OperationId {
    OperationId::parse("op-1").unwrap()
}

/// Everything about a tree that a restore brings back, by path.
pub fn shown(top: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    look(top, top, &mut all, &mut inodes);
    all
}

fn look(top: &Path, at: &Path, all: &mut BTreeMap<PathBuf, String>, inodes: &mut BTreeMap<u64, PathBuf>) {
    let Ok(found) = at.symlink_metadata() else { return };
    let relative = at.strip_prefix(top).unwrap().to_owned();
    let mut text = format!(
        "{:o} {}:{} {}.{:09}",
        found.mode(),
        found.uid(),
        found.gid(),
        found.mtime(),
        found.mtime_nsec()
    );
    if found.is_symlink() {
        text += &format!(" -> {:?}", std::fs::read_link(at).unwrap());
    } else if found.is_file() {
        text += &format!(" {} {}", found.len(), crate::files::sha256(&std::fs::read(at).unwrap()));
        let first = inodes.entry(found.ino()).or_insert_with(|| relative.clone());
        if found.nlink() > 1 {
            text += &format!(" = {}", first.display());
        }
    }
    let mut value = [0_u8; 64];
    if !found.is_symlink()
        && let Ok(length) = rustix::fs::getxattr(at, "user.note", &mut value)
    {
        text += &format!(" note {:?}", &value[..length]);
    }
    all.insert(relative, text);
    if found.is_dir() {
        let mut entries: Vec<_> = std::fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for entry in entries {
            look(top, &entry, all, inodes);
        }
    }
}

fn set_time(at: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, at, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A file whose content is easy to tell from another's.
fn content(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

/// A tenant's directory whose `data` has one of everything.
fn sample() -> tempfile::TempDir {
    let directory = scratch();
    let data = directory.path().join("data");
    std::fs::create_dir_all(data.join("deep/er")).unwrap();
    let put = |at: &str, content: &[u8], mode: u32| {
        std::fs::write(data.join(at), content).unwrap();
        std::fs::set_permissions(data.join(at), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    put("a", b"alpha", 0o644);
    put("empty", b"", 0o600);
    put("deep/er/long", &content(pack::PIECE + 700, 3), 0o640);
    put("set", b"#!/bin/sh\n", 0o4755);
    std::fs::hard_link(data.join("a"), data.join("deep/also-a")).unwrap();
    symlink("/etc/passwd", data.join("out")).unwrap();
    symlink("../nowhere", data.join("deep/dangling")).unwrap();
    lchown(data.join("out"), Some(7), Some(8)).unwrap();
    chown(data.join("empty"), Some(1000), Some(3_000_000)).unwrap();
    std::fs::write(data.join(std::ffi::OsStr::from_bytes(b"na\xffme")), "not UTF-8").unwrap();
    std::fs::write(data.join("n".repeat(200)), "a long name").unwrap();
    rustix::fs::setxattr(data.join("a"), "user.note", b"\0\x01", XattrFlags::empty()).unwrap();
    set_time(&data.join("a"), -5, 500_000_000);
    set_time(&data.join("out"), 1_600_000_000, 1);
    std::fs::set_permissions(data.join("deep"), std::fs::Permissions::from_mode(0o555)).unwrap();
    chown(&data, Some(33), Some(34)).unwrap();
    for folder in ["deep/er", "deep", ""] {
        set_time(&data.join(folder), 1_700_000_000, 123_456_789);
    }
    directory
}

/// What happens to the data between keeping it and bringing it back.
fn spoil(directory: &Path) {
    let data = directory.join("data");
    std::fs::write(data.join("a"), "changed").unwrap();
    std::fs::remove_file(data.join("empty")).unwrap();
    std::fs::write(data.join("added"), "later").unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
}

fn keep_data(directory: &Path) -> Part {
    let tree = Tree::open(directory, DiskIo::default()).unwrap();
    let (uid, id) = (uid(), operation());
    ArchiveDir::open(&tree, &uid, &id).unwrap().keep(0, &path("data"), &Quiet).unwrap()
}

fn restore_data(directory: &Path, part: &Part, disk_io: DiskIo) -> Result<(), SnapshotError> {
    let tree = Tree::open(directory, disk_io)?;
    let (uid, id) = (uid(), operation());
    ArchiveDir::open(&tree, &uid, &id)?.restore(0, part, &Quiet)
}

/// What is left in the folder of ours in which data is unpacked.
fn left_over(directory: &Path) -> usize {
    std::fs::read_dir(directory.join(".tenantry/data")).map_or(0, Iterator::count)
}

/// Lets the n-th effect and all that follow fail, or that one alone.
struct Faulty {
    at: usize,
    only: Option<Errno>,
    seen: AtomicUsize,
}

impl Faulty {
    fn crash(at: usize) -> Arc<Self> {
        Arc::new(Self { at, only: None, seen: AtomicUsize::new(0) })
    }

    fn error(at: usize, errno: Errno) -> Arc<Self> {
        Arc::new(Self { at, only: Some(errno), seen: AtomicUsize::new(0) })
    }
}

impl Hook for Faulty {
    fn before(&self, _path: &Path, _effect: Effect<'_>) -> io::Result<()> {
        let now = self.seen.fetch_add(1, Ordering::SeqCst);
        match self.only {
            Some(errno) if now == self.at => Err(errno.into()),
            None if now >= self.at => Err(io::Error::other("crashed")),
            _ => Ok(()),
        }
    }
}
