//! What can go wrong with the tenant's files.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use tenantry_api::names::{OperationId, ProtectedPath};
use tenantry_protocol::FailureCategory;

/// Why a file of the tenant's directory, or of our own state, could not be looked at or changed.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The tenant's directory is missing.
    #[error("there is no directory {}", .0.display())]
    NoDirectory(PathBuf),
    /// Something is where a plain file or folder should be.
    #[error("{path}: {found}; only plain files in plain folders beneath the tenant's directory are written")]
    Refused {
        /// Where.
        path: String,
        /// What is there.
        found: String,
    },
    /// The request contradicts itself or asks for something that is never done.
    #[error("{path}: {problem}")]
    Invalid {
        /// Where.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A write would touch what is the tenant's own.
    #[error("{path} is protected by '{protect}' in spec.protect; nothing of ours is written there")]
    Protected {
        /// What would be written.
        path: String,
        /// The protected path.
        protect: ProtectedPath,
    },
    /// A file is no longer what it was when the change was planned.
    #[error("{path} was changed by somebody else in the meantime; nothing was written")]
    Moved {
        /// Which file.
        path: String,
    },
    /// There is no restore point for the operation.
    #[error("operation {0} has no restore point")]
    NoRestorePoint(OperationId),
    /// One of our own records is not as we wrote it.
    #[error("{} is damaged: {problem}", .path.display())]
    Damaged {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
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
}

impl FilesError {
    /// The kind of failure that an operation reports.
    pub fn category(&self) -> FailureCategory {
        match self {
            Self::Refused { .. } | Self::Protected { .. } | Self::Invalid { .. } => {
                FailureCategory::PathRefused
            }
            Self::Moved { .. } => FailureCategory::HandEdited,
            Self::NoRestorePoint(_) | Self::Damaged { .. } => FailureCategory::AgentFault,
            Self::Io { source, .. } if is_full(source) => FailureCategory::DiskFull,
            Self::NoDirectory(_) | Self::Io { .. } => FailureCategory::WriteFailed,
        }
    }

    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Io { doing, path: path.into(), source: source.into() }
    }

    pub(crate) fn damaged(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), problem: problem.into() }
    }

    pub(crate) fn refused(path: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Refused { path: path.into(), found: found.into() }
    }
}

/// Whether an error says that there is no space.
pub(crate) fn is_full(error: &io::Error) -> bool {
    [Errno::NOSPC, Errno::DQUOT].iter().any(|full| error.raw_os_error() == Some(full.raw_os_error()))
}
