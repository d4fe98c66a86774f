//! The tenant's files: a directory as a capability, and changes to it that happen wholly or not at all (P6).
//!
//! Guarantees: nothing outside the directory is reached, whatever symlinks are put in the way, even while we work;
//! what was changed is durable when a call returns; after a crash at any moment, [`Transactions::recover`] makes the
//! set of files wholly old or wholly new. Assumption: the tenant's file system keeps what was fsynced, and renames
//! within it are atomic. Caveat: extended attributes and ACLs of a replaced file are not carried over.

mod apply;
mod crash_points;
mod disk_io;
mod error;
mod folder;
mod follow;
mod inspect;
mod kept_files;
mod new_file;
mod outside;
mod prepare;
mod quarantine;
mod record;
mod stage;
mod stamps;
mod stat;
mod survey;
mod transaction;
mod tree;

pub use disk_io::{DiskIo, Effect, Hook, Seconds};
pub use error::FilesError;
pub use inspect::{Found, HashCache, Seen};
pub use kept_files::earliest_states;
pub use outside::{read_real, real};
pub use record::{KeptFile, KeptFiles, Was};
pub use stage::{Layout, Stage};
pub use stamps::Stamps;
pub use stat::{Stamp, Stat};
pub use transaction::{Before, Change, FileSet, TransactionState, Transactions};
pub use tree::Tree;

pub(crate) use error::is_full;
pub(crate) use folder::Folder;
pub(crate) use inspect::to_name;
pub(crate) use new_file::NewFile;
pub(crate) use record::{read_record, write_record};
pub(crate) use transaction::POINT;

/// The longest managed file that is read, in bytes: as long as the longest request that could bring one.
pub const FILE_LIMIT: u64 = tenantry_protocol::BODY_LIMIT as u64;

/// The SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> tenantry_api::names::Sha256 {
    use sha2::Digest as _;
    inspect::to_name(sha2::Sha256::digest(bytes).as_slice())
}

#[cfg(test)]
pub(crate) mod tests;
