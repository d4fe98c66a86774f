//! Puts kept data into a folder that can't be exchanged, for it is a mount point: a volume, as a helper sees it.
//!
//! ```text
//! TOP/STAGE/new/     the kept data, unpacked
//! TOP/STAGE/old/     what was live
//! TOP/STAGE/ready    `new` is whole and durable: from here on the way leads forward only
//! TOP/STAGE/moved    everything that was live is in `old`: what is in TOP besides the stage is new
//! ```
//!
//! A crash before `ready` leaves the live data as it was. After it, the data is neither until this is called again
//! and carries on; whoever calls sees to it that nothing uses the volume until it has returned.

use rustix::fs::Dir;
use tenantry_api::names::Sha256;

use super::ProgressSink;
use super::archive_reader::{Lines, StoredArchive, read_archive};
use super::entry::Line;
use super::error::SnapshotError;
use super::exchange_restore::{NEW, has_room};
use super::remove::remove_tree;
use super::source::OURS;
use super::unpacker::Unpacker;
use crate::files::{Effect, Folder, Stat, read_record, write_record};

const OLD: &str = "old";
const READY: &str = "ready";
const MOVED: &str = "moved";

/// A folder whose content is replaced.
pub(crate) struct InPlaceRestore<'a> {
    pub top: &'a Folder,
    /// The stage's name in it, which begins as all of ours do.
    pub stage: &'a str,
}

impl InPlaceRestore<'_> {
    /// Brings the kept data back.
    pub fn restore(&self, stored: &StoredArchive<'_>, sink: &dyn ProgressSink) -> Result<(), SnapshotError> {
        let stage = self.unpacked(stored, sink)?;
        if stage.stat(MOVED)? == Stat::Missing {
            move_all(self.top, &stage.below(OLD)?, |name| !name.starts_with(OURS))?;
            write_record(&stage, MOVED, &())?.sync()?;
            stage.sync()?;
        }
        move_all(&stage.below(NEW)?, self.top, |_| true)?;
        remove_tree(&stage, OLD)?;
        // In this order: `ready` without `moved` would move the new data away.
        stage.remove(READY)?;
        stage.sync()?;
        remove_tree(self.top, self.stage)?;
        // Last, for all of the above changes the folder's time. After a crash just before, all is done once more.
        self.dress_top(stored)
    }

    fn unpacked(&self, stored: &StoredArchive<'_>, sink: &dyn ProgressSink) -> Result<Folder, SnapshotError> {
        if self.top.stat(self.stage)? != Stat::Missing {
            let stage = self.top.below(self.stage)?;
            // One that can't be read was not finished.
            let ready: Option<Sha256> = read_record(&stage, READY).ok().flatten();
            if ready.is_some_and(|ready| ready == stored.archive.manifest_sha256) {
                return Ok(stage);
            }
            remove_tree(self.top, self.stage)?;
        }
        has_room(self.top, stored)?;
        self.top.make(self.stage, 0o700)?;
        let stage = self.top.below(self.stage)?;
        let filled = || -> Result<(), SnapshotError> {
            stage.make(OLD, 0o700)?;
            let unpacker = Unpacker::new(&stage, NEW);
            read_archive(stored, Some(&unpacker), sink)?;
            unpacker.finish(stored)?;
            write_record(&stage, READY, &stored.archive.manifest_sha256)?.sync()?;
            stage.sync()?;
            Ok(self.top.sync()?)
        };
        filled().inspect_err(|_| {
            // Why it failed says more than why it could not be cleaned up.
            let _ = remove_tree(self.top, self.stage);
        })?;
        Ok(stage)
    }

    /// The folder itself belongs to the data, too.
    fn dress_top(&self, stored: &StoredArchive<'_>) -> Result<(), SnapshotError> {
        let mut lines = Lines::open(stored.folder, stored.archive)?;
        loop {
            match lines.next()? {
                Line::Entry(entry) => {
                    Unpacker::new(self.top, ".").dress(self.top, &entry, self.top.path())?;
                    return Ok(self.top.sync()?);
                }
                Line::Begin { .. } | Line::Frame { .. } => {}
                Line::Piece { .. } | Line::End {} => {
                    let path = stored.folder.path().join(&stored.archive.manifest);
                    return Err(SnapshotError::damaged(path, "it has no entry"));
                }
            }
        }
    }
}

/// Moves everything with such a name from one folder to another, durably.
fn move_all(from: &Folder, to: &Folder, which: impl Fn(&[u8]) -> bool) -> Result<(), SnapshotError> {
    use std::os::unix::ffi::OsStrExt as _;
    let fail = |error| SnapshotError::io("list", from.path(), error);
    let mut names = Vec::new();
    for entry in Dir::read_from(from).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." && which(name) {
            names.push(name.to_vec());
        }
    }
    names.sort();
    for name in &names {
        let shown = std::ffi::OsStr::from_bytes(name);
        let (path, target) = (from.path().join(shown), to.path().join(shown));
        let rename = || rustix::fs::renameat(from, name.as_slice(), to, name.as_slice());
        from.disk_io()
            .perform(&path, Effect::Rename(&target), rename)
            .map_err(|error| SnapshotError::io("move", &path, error))?;
    }
    to.sync()?;
    Ok(from.sync()?)
}
