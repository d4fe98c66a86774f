//! What can go wrong with a snapshot.

use std::io;
use std::path::PathBuf;

use tenantry_protocol::FailureCategory;

use crate::files::{FilesError, is_full};

/// Why data could not be kept or brought back.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is something that is never kept, or a path that is never written.
    #[error("{}: {problem}", .path.display())]
    Refused {
        /// Where.
        path: PathBuf,
        /// What is there, and what to do.
        problem: String,
    },
    /// What is on the disk is not what was kept.
    #[error("{} can't be restored: {problem}", .path.display())]
    Damaged {
        /// The archive or its manifest.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// There is not enough space.
    #[error("{} MiB are free on the disk of {}, {} MiB are needed for the data", .free >> 20, .path.display(), .needed >> 20)]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// The work was called off.
    #[error("it was called off")]
    CalledOff,
    /// A system call failed.
    #[error("can't {doing} {}: {source}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Our own folder could not be used.
    #[error(transparent)]
    Files(#[from] FilesError),
}

impl SnapshotError {
    /// The kind of failure that an operation reports.
    pub fn category(&self) -> FailureCategory {
        match self {
            Self::Refused { .. } => FailureCategory::PathRefused,
            Self::Damaged { .. } => FailureCategory::RestorePointUnusable,
            Self::CalledOff => FailureCategory::SnapshotFailed,
            Self::NoRoom { .. } => FailureCategory::DiskFull,
            Self::Io { source, .. } if is_full(source) => FailureCategory::DiskFull,
            Self::Io { .. } => FailureCategory::WriteFailed,
            Self::Files(error) => error.category(),
        }
    }

    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Io { doing, path: path.into(), source: source.into() }
    }

    pub(crate) fn refused(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Refused { path: path.into(), problem: problem.into() }
    }

    pub(crate) fn damaged(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), problem: problem.into() }
    }
}
