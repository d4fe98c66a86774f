//! How what this host refuses is told to whoever asked.

use tenantry_protocol::{ApiError, ErrorCode};

use crate::store::{ClaimError, StoreError};

/// A refusal of a field.
pub fn refused(code: ErrorCode, field: &str, message: impl Into<String>) -> ApiError {
    let field = Some(field.to_owned()).filter(|field| !field.is_empty());
    ApiError { code, field, message: message.into() }
}

/// A fault of this host.
pub fn fault(problem: impl std::fmt::Display) -> ApiError {
    refused(ErrorCode::HostFault, "", problem.to_string())
}

/// How a refused claim is told.
pub fn claim_refused(error: &ClaimError) -> ApiError {
    match error {
        ClaimError::Stale { .. } => refused(ErrorCode::StaleEpoch, "epoch", error.to_string()),
        ClaimError::Held { .. } => refused(ErrorCode::ClaimedByOther, "place", error.to_string()),
        ClaimError::Moved { .. } => refused(ErrorCode::Invalid, "place", error.to_string()),
        ClaimError::Deleted { .. } => refused(ErrorCode::Invalid, "tenant.uid", error.to_string()),
        ClaimError::Store(problem) => store_refused(problem),
    }
}

/// How a store's error is told.
pub fn store_refused(error: &StoreError) -> ApiError {
    match error {
        StoreError::Busy { .. } => refused(ErrorCode::Busy, "", error.to_string()),
        StoreError::Damaged { .. } | StoreError::Doubtful { .. } => {
            refused(ErrorCode::RecordsDamaged, "", error.to_string())
        }
        other => fault(other),
    }
}
