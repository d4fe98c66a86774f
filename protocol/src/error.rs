//! A refusal, in the terms of the person who wrote the input.

use serde::{Deserialize, Serialize};

/// Why the agent refused a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiError {
    /// What kind of refusal it is.
    pub code: ErrorCode,
    /// The field that was refused, where there is one. Example: `manifest.files[3].path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What was wrong and what would be right. Never holds a secret value.
    pub message: String,
}

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorCode {
    /// The request does not decode or contradicts itself (400).
    Invalid,
    /// The host's local policy does not allow it (403).
    PolicyRefused,
    /// No such operation (404).
    NotFound,
    /// The operation id was used with another body (409).
    OperationMismatch,
    /// Another operation of this tenant is in flight (409).
    Busy,
    /// The host has seen a higher epoch (409).
    StaleEpoch,
    /// Directory or project belong to another Tenant (409).
    ClaimedByOther,
    /// The agent's own records of this tenant are damaged: a person must look, and then accept the host (409).
    RecordsDamaged,
    /// The agent carries out as many operations as it may; try again later (503).
    Overloaded,
    /// Docker or compose do not answer, or the disk failed (503).
    HostFault,
}

impl ErrorCode {
    /// The HTTP status code that carries it.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::PolicyRefused => 403,
            Self::NotFound => 404,
            Self::OperationMismatch
            | Self::Busy
            | Self::StaleEpoch
            | Self::ClaimedByOther
            | Self::RecordsDamaged => 409,
            Self::Overloaded | Self::HostFault => 503,
        }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{field}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for ApiError {}
