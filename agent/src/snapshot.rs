//! Restore points of data: declared paths beneath the tenant's directory, and named volumes.
//!
//! A tree is kept as `N.tar.zst`, which `zstd -dc N.tar.zst | tar -x` unpacks without us, and `N.manifest`, which says
//! line by line what is in it, with a hash of everything. Keeping never follows a link, never leaves the tree's mount
//! and never changes it; what was written is read back and compared before it counts. Bringing back unpacks beside
//! the live data what the manifest says and nothing else, makes it durable, and then exchanges the two in one step:
//! a crash at any moment leaves the old data or the kept data, whole.
//!
//! Kept: content, modes with setuid, owners by number, times of change to the nanosecond, symlinks as they are, hard
//! links within the tree, extended attributes of users, access control lists and file capabilities. Holes of sparse
//! files are kept as zeros. Sockets are passed by; a FIFO, a device or a mount point in the tree refuses it all.
//! A file that is written while it is read is read again a few times; then it is kept as it was read and named.

mod archive_dir;
mod archive_reader;
mod entry;
mod error;
mod exchange_restore;
pub mod helper;
mod in_place_restore;
mod pack;
mod pool;
mod remove;
mod source;
mod take;
mod tar;
mod unpacker;

use serde::{Deserialize, Serialize};
use tenantry_api::names::{RelativePath, Sha256, VolumeName};

pub use archive_dir::ArchiveDir;
pub use error::SnapshotError;

pub(crate) use tar::{END as TAR_END, padding as tar_padding};

use entry::TreePath;

/// How many paths are named in notes.
const NAMED: usize = 5;

/// Is told how far the work is, and may call it off.
pub trait ProgressSink: Sync {
    /// So many bytes more were read.
    fn progress(&self, bytes: u64);
    /// Whether to stop.
    fn called_off(&self) -> bool;
}

/// How much there is to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Estimate {
    /// Bytes of content.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}

impl Estimate {
    /// The space that keeping it may take, in bytes: what can't be compressed, and what is written about each entry.
    pub fn space(&self) -> u64 {
        self.bytes + self.bytes / 1024 + self.entries * 2048 + (1 << 20)
    }
}

/// One path or volume of a restore point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Part {
    /// What was kept.
    pub what: What,
    /// The archive; absent where there was nothing at the path.
    pub archive: Option<Archive>,
}

/// What a part is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum What {
    /// A path beneath the tenant's directory.
    Path(RelativePath),
    /// A volume.
    #[serde(rename_all = "camelCase")]
    Volume {
        /// Its name in the compose file.
        key: VolumeName,
        /// The engine's name for it.
        name: String,
    },
}

/// An archive and its manifest, as they were written and read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Archive {
    /// The archive's name in the restore point's `data`.
    pub archive: String,
    /// Its hash.
    pub sha256: Sha256,
    /// Its length.
    pub archive_bytes: u64,
    /// The manifest's name.
    pub manifest: String,
    /// The manifest's hash.
    pub manifest_sha256: Sha256,
    /// Its length.
    pub manifest_bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// What could not be kept as it was.
    #[serde(default)]
    pub notes: Notes,
}

/// What could not be kept as it was; a few of each are named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Notes {
    /// Files that were changed while they were read.
    pub torn: Named,
    /// Files that were removed after they had been listed.
    pub gone: Named,
    /// Sockets, which are nothing without the process that listens.
    pub sockets: Named,
}

/// How many, and the first ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Named {
    /// How many.
    pub count: u64,
    /// The first few.
    pub first: Vec<String>,
}

impl Notes {
    fn torn(&mut self, paths: &[TreePath]) {
        self.torn.add(paths);
    }

    fn gone(&mut self, paths: &[TreePath]) {
        self.gone.add(paths);
    }

    fn sockets(&mut self, paths: &[TreePath]) {
        self.sockets.add(paths);
    }
}

impl Named {
    fn add(&mut self, paths: &[TreePath]) {
        self.count += paths.len() as u64;
        let room = NAMED.saturating_sub(self.first.len());
        self.first.extend(paths.iter().take(room).map(ToString::to_string));
    }
}

/// How many threads a machine's processors are worth. Each costs some 8 MiB.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(4)
}

/// What stands before the content of one plain file in a `tar`, without owner and time.
pub(crate) fn head_of_file(name: &str, mode: u32, size: u64) -> Vec<u8> {
    let kind = entry::Kind::File { size, sha256: None };
    let entry =
        entry::Entry { path: TreePath::top(), kind, mode, uid: 0, gid: 0, mtime: (0, 0), xattrs: Vec::new() };
    let mut head = Vec::new();
    tar::write_head(&mut head, &entry::Text(name.as_bytes().to_vec()), &entry);
    head
}

fn archive_name(name: &str) -> String {
    format!("{name}.tar.zst")
}

fn manifest_name(name: &str) -> String {
    format!("{name}.manifest")
}

#[cfg(test)]
mod tests;
