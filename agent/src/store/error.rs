//! What can go wrong with the agent's own records.

use std::path::PathBuf;

use tenantry_api::names::{OperationId, TenantUid};

use crate::files::FilesError;

/// Why the agent's own records can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another agent has the state directory open.
    #[error("the state directory {} is in use by another agent", .path.display())]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// Somebody else changes this tenant right now.
    #[error("another operation of tenant {uid} is under way")]
    Busy {
        /// Which tenant.
        uid: TenantUid,
    },
    /// The operation has a journal already.
    #[error("operation {operation} was begun already")]
    Exists {
        /// Which operation.
        operation: OperationId,
    },
    /// A record is not as it was written. Nothing is done on a guess.
    #[error("{} is damaged: {problem}. Nothing is done for this tenant until a person has looked at the host and accepted it (tenantry accept-host)", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Another Tenant's claim is not as it was written, so that nobody knows what is free.
    #[error(
        "{} is damaged: {problem}. It says which directory and project another Tenant holds, so nothing new is taken on \
         this host until a person has accepted that Tenant's host (tenantry accept-host) or, where there is no such \
         Tenant any more, has moved the file away and started the agent again", .path.display()
    )]
    Doubtful {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A record does not fit.
    #[error("{} would hold {size} bytes; at most {limit} are kept", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How much it would hold.
        size: usize,
        /// How much it may hold.
        limit: usize,
    },
    /// An earlier write of this journal failed, so that nobody knows what is on disk.
    #[error("an earlier write to {} failed; it takes nothing more until it is opened again", .path.display())]
    Broken {
        /// The file.
        path: PathBuf,
    },
    /// The disk failed.
    #[error(transparent)]
    Files(FilesError),
}

impl From<FilesError> for StoreError {
    fn from(error: FilesError) -> Self {
        match error {
            FilesError::Damaged { path, problem } => Self::Damaged { path, problem },
            other => Self::Files(other),
        }
    }
}

/// Why a claim was refused.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The host has seen this epoch, or a higher one, for something else.
    #[error(
        "epoch {wanted} is not above {seen}, the highest that this host has seen for the tenant: \
         another operator has taken over, or this operation came late"
    )]
    Stale {
        /// The epoch that was asked for.
        wanted: u64,
        /// The highest that was seen.
        seen: u64,
    },
    /// Another Tenant has it.
    #[error(
        "the {holds} belongs to Tenant {owner} (UID {uid}); a person can release it by deleting that Tenant, or take it \
         over with tenantry claim"
    )]
    Held {
        /// Namespace and name.
        owner: String,
        /// UID.
        uid: TenantUid,
        /// What it has: `directory`, `project` or `directory and project`.
        holds: String,
    },
    /// The Tenant has claimed another place, and places can't be changed.
    #[error("this Tenant has claimed project {project} in {directory}; make a new Tenant for another place")]
    Moved {
        /// The project that it has.
        project: String,
        /// The directory that it has.
        directory: String,
    },
    /// It gave its claim back, as a Tenant does that is deleted.
    #[error("Tenant {uid} gave its claim back when it was deleted; nothing is done for it any more")]
    Deleted {
        /// Which Tenant.
        uid: TenantUid,
    },
    /// The record could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<FilesError> for ClaimError {
    fn from(error: FilesError) -> Self {
        Self::Store(error.into())
    }
}
