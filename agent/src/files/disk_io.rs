//! The one layer through which every change to a disk goes.
//!
//! Each effect is announced to a hook before it is carried out. Without a hook, as in every real agent, nothing is
//! announced. A test's hook can refuse an effect (an error of the disk), refuse it and all that follow (a crash), or
//! record it (to replay what a power cut would have left).

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use prometheus_client::metrics::counter::Counter;

use super::crash_points;

/// A change that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<'a> {
    /// A folder is made.
    MakeFolder,
    /// An empty file is made; it must not exist.
    Create,
    /// Bytes are added at a file's end.
    Append(&'a [u8]),
    /// A file is cut to a length.
    Truncate(u64),
    /// A file's or folder's owner is set.
    SetOwner(u32, u32),
    /// A file's or folder's permission bits are set.
    SetMode(u32),
    /// A file's content is made durable.
    SyncFile,
    /// A file is renamed to this path, which it replaces.
    Rename(&'a Path),
    /// A file is removed.
    Remove,
    /// An empty folder is removed.
    RemoveFolder,
    /// A folder's entries are made durable.
    SyncFolder,
    /// A symlink to this target is made.
    Symlink(&'a [u8]),
    /// One more name is given to the file at this path.
    Link(&'a Path),
    /// The time of the last change of content is set.
    SetTime,
    /// An extended attribute is set.
    SetAttribute,
    /// Bytes are written at an offset.
    WriteAt(u64, &'a [u8]),
    /// Two paths, of whatever kinds, change places.
    Exchange(&'a Path),
    /// Everything on the path's file system is made durable.
    SyncAll,
}

/// What a test puts below every change.
pub trait Hook: Send + Sync {
    /// Called before each effect on `path`; an error is given out instead of carrying the effect out.
    fn before(&self, path: &Path, effect: Effect<'_>) -> io::Result<()>;

    /// Whether the system is to make durable what is synced. A disk that keeps account of that itself has no need of it.
    fn syncs(&self) -> bool {
        true
    }
}

/// Seconds, added up.
pub type Seconds = Counter<f64, AtomicU64>;

/// The layer; its default is the real thing.
#[derive(Clone, Default)]
pub struct DiskIo {
    hook: Option<Arc<dyn Hook>>,
    spent: Seconds,
}

impl DiskIo {
    /// A layer with a hook.
    pub fn with(hook: Arc<dyn Hook>) -> Self {
        Self { hook: Some(hook), spent: Seconds::default() }
    }

    /// The same layer; the time that its effects take is added to `spent`.
    #[must_use]
    pub fn counted_by(self, spent: Seconds) -> Self {
        Self { spent, ..self }
    }

    /// Makes something durable.
    pub(crate) fn sync(
        &self,
        path: &Path,
        effect: Effect<'_>,
        call: impl FnOnce() -> rustix::io::Result<()>,
    ) -> io::Result<()> {
        let syncs = self.hook.as_ref().is_none_or(|hook| hook.syncs());
        self.perform(path, effect, || if syncs { call() } else { Ok(()) })
    }

    /// Carries an effect out.
    pub(crate) fn perform<T>(
        &self,
        path: &Path,
        effect: Effect<'_>,
        call: impl FnOnce() -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        if let Some(hook) = &self.hook {
            hook.before(path, effect)?;
        }
        tenantry_faults::point_named(|| crash_points::name(path, effect, "before"));
        tenantry_faults::effect(|| line(path, effect));
        let began = Instant::now();
        let done = call().map_err(io::Error::from);
        self.spent.inc_by(began.elapsed().as_secs_f64());
        tenantry_faults::point_named(|| crash_points::name(path, effect, "after"));
        done
    }
}

/// An effect as a test reads it beside the system calls that were seen: kind and path, and a second path for a rename.
fn line(path: &Path, effect: Effect<'_>) -> String {
    let kind = match effect {
        Effect::MakeFolder => "mkdir",
        Effect::Create => "create",
        Effect::Append(_) => "write",
        Effect::Truncate(_) => "truncate",
        Effect::SetOwner(..) => "chown",
        Effect::SetMode(_) => "chmod",
        Effect::SyncFile | Effect::SyncFolder => "fsync",
        Effect::Rename(to) => return format!("rename\t{}\t{}", path.display(), to.display()),
        Effect::Remove => "unlink",
        Effect::RemoveFolder => "rmdir",
        Effect::Symlink(_) => "symlink",
        Effect::Link(to) => return format!("link\t{}\t{}", to.display(), path.display()),
        Effect::SetTime => "utimens",
        Effect::SetAttribute => "setxattr",
        Effect::WriteAt(..) => "pwrite",
        Effect::Exchange(with) => return format!("exchange\t{}\t{}", path.display(), with.display()),
        Effect::SyncAll => "syncfs",
    };
    format!("{kind}\t{}", path.display())
}

impl fmt::Debug for DiskIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.hook.is_some() { "DiskIo(hooked)" } else { "DiskIo" })
    }
}
