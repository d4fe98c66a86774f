//! Puts kept data in the place of the live, in one step.
//!
//! ```text
//! STAGE/new      the kept data, unpacked; after the exchange, the data that was live
//! STAGE/ready    that it is whole and durable, and which inode it is
//! ```
//!
//! The live data is touched once: by the exchange of two names, which is atomic on disk too. After a crash before it,
//! the live data is what it was; after it, it is what was kept. Called again, it goes on where it was: the inodes in
//! `ready` tell on which side of the exchange that is.

use std::path::PathBuf;

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tenantry_api::names::Sha256;

use super::ProgressSink;
use super::archive_reader::{StoredArchive, read_archive};
use super::error::SnapshotError;
use super::remove::remove_tree;
use super::source::{mount, stat};
use super::unpacker::Unpacker;
use crate::files::{Effect, Folder, read_record, write_record};

pub(crate) const NEW: &str = "new";
const READY: &str = "ready";
/// Space that stays free when data is unpacked, in bytes.
const SPARE: u64 = 64 << 20;

/// Live data, and where the kept data is unpacked: on the same file system.
pub(crate) struct ExchangeRestore {
    /// The folder that the live data is in.
    pub parent: Folder,
    /// Its name there.
    pub name: String,
    /// The folder that the stage is made in.
    pub beside: Folder,
    /// The stage's name.
    pub stage: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Ready {
    /// Which data it is.
    manifest: Sha256,
    /// The inode of what was unpacked.
    inode: u64,
}

impl ExchangeRestore {
    /// Brings the kept data back.
    pub fn restore(&self, stored: &StoredArchive<'_>, sink: &dyn ProgressSink) -> Result<(), SnapshotError> {
        self.not_mounted()?;
        let stage = self.unpacked(stored, sink)?;
        self.exchange(&stage)?;
        self.clean_up()
    }

    /// There was nothing when it was kept, so there is to be nothing.
    pub fn remove(&self) -> Result<(), SnapshotError> {
        self.not_mounted()?;
        if inode(&self.parent, &self.name)?.is_some() {
            remove_tree(&self.beside, &self.stage)?;
            self.beside.make(&self.stage, 0o700)?;
            self.beside.sync()?;
            let stage = self.beside.below(&self.stage)?;
            self.parent.rename(&self.name, &stage, NEW)?;
            self.parent.sync()?;
            stage.sync()?;
        }
        self.clean_up()
    }

    /// Removes what an attempt left that is not to be gone on with; the live data stays as it is.
    pub fn clean_up(&self) -> Result<(), SnapshotError> {
        if inode(&self.beside, &self.stage)?.is_some() {
            let stage = self.beside.below(&self.stage)?;
            // `ready` last: as long as there is something to remove, it says what it is.
            remove_tree(&stage, NEW)?;
            remove_tree(&self.beside, &self.stage)?;
            self.beside.sync()?;
        }
        Ok(())
    }

    /// The stage with data that is whole and durable, from before a crash or made now.
    fn unpacked(&self, stored: &StoredArchive<'_>, sink: &dyn ProgressSink) -> Result<Folder, SnapshotError> {
        if inode(&self.beside, &self.stage)?.is_some() {
            let stage = self.beside.below(&self.stage)?;
            // One that can't be read was not finished.
            let ready: Option<Ready> = read_record(&stage, READY).ok().flatten();
            let there = [inode(&stage, NEW)?, inode(&self.parent, &self.name)?];
            if ready.is_some_and(|ready| {
                ready.manifest == stored.archive.manifest_sha256 && there.contains(&Some(ready.inode))
            }) {
                return Ok(stage);
            }
            remove_tree(&self.beside, &self.stage)?;
        }
        has_room(&self.beside, stored)?;
        self.beside.make(&self.stage, 0o700)?;
        let stage = self.beside.below(&self.stage)?;
        self.fill(&stage, stored, sink).inspect_err(|_| {
            // Why it failed says more than why it could not be cleaned up.
            let _ = remove_tree(&self.beside, &self.stage);
        })?;
        Ok(stage)
    }

    fn fill(
        &self,
        stage: &Folder,
        stored: &StoredArchive<'_>,
        sink: &dyn ProgressSink,
    ) -> Result<(), SnapshotError> {
        let unpacker = Unpacker::new(stage, NEW);
        read_archive(stored, Some(&unpacker), sink)?;
        unpacker.finish(stored)?;
        let missing = || SnapshotError::io("look at", stage.path().join(NEW), Errno::NOENT);
        let ready = Ready {
            manifest: stored.archive.manifest_sha256.clone(),
            inode: inode(stage, NEW)?.ok_or_else(missing)?,
        };
        write_record(stage, READY, &ready)?.sync()?;
        stage.sync()?;
        Ok(self.beside.sync()?)
    }

    fn exchange(&self, stage: &Folder) -> Result<(), SnapshotError> {
        let damaged = || SnapshotError::damaged(stage.path().join(READY), "it is missing");
        let ready: Ready = read_record(stage, READY)?.ok_or_else(damaged)?;
        let live = inode(&self.parent, &self.name)?;
        if live != Some(ready.inode) {
            let (path, with) = (stage.path().join(NEW), self.live());
            if live.is_some() {
                self.parent
                    .disk_io()
                    .perform(&path, Effect::Exchange(&with), || {
                        let flags = RenameFlags::EXCHANGE;
                        rustix::fs::renameat_with(stage, NEW, &self.parent, self.name.as_str(), flags)
                    })
                    .map_err(|error| SnapshotError::io("exchange", with, error))?;
            } else {
                stage.rename(NEW, &self.parent, &self.name)?;
            }
        }
        self.parent.sync()?;
        Ok(stage.sync()?)
    }

    fn live(&self) -> PathBuf {
        self.parent.path().join(&self.name)
    }

    /// A mount point can't be exchanged.
    fn not_mounted(&self) -> Result<(), SnapshotError> {
        let fail = |error| SnapshotError::io("look at", self.live(), error);
        let around = stat(&self.parent).map_err(fail)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let wanted = rustix::fs::StatxFlags::BASIC_STATS | rustix::fs::StatxFlags::MNT_ID;
        match rustix::fs::statx(&self.parent, self.name.as_str(), flags, wanted) {
            Ok(found) if mount(&found) != mount(&around) => Err(SnapshotError::refused(
                self.live(),
                "another file system is mounted here: it can't be replaced",
            )),
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(fail(error)),
        }
    }
}

/// Refuses to unpack what there is no room for, before it fills the disk.
pub(crate) fn has_room(folder: &Folder, stored: &StoredArchive<'_>) -> Result<(), SnapshotError> {
    let needed = stored.archive.bytes + stored.archive.entries * 4096 + SPARE;
    let free = folder.free_bytes()?;
    if free >= needed {
        return Ok(());
    }
    Err(SnapshotError::NoRoom { path: folder.path().to_owned(), free, needed })
}

/// The inode of what is called so; nothing is followed.
fn inode(folder: &Folder, name: &str) -> Result<Option<u64>, SnapshotError> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found.st_ino)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(SnapshotError::io("look at", folder.path().join(name), error)),
    }
}
