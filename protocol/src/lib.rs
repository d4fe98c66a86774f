//! What operator and agent say to each other: small typed request and response pairs, JSON over HTTP with mutual TLS.
//!
//! | call | request | answer |
//! |---|---|---|
//! | `GET /v1/host` | | [`HostInfo`] |
//! | `GET /v1/changes?after=MARK&waitSeconds=N` | | [`Changes`], as soon as there are any after `after` |
//! | `POST /v1/observe` | [`ObserveRequest`] | [`ObserveResponse`] |
//! | `POST /v1/resolve` | [`ResolveRequest`] | [`ResolveResponse`] |
//! | `PUT /v1/claim` | [`ClaimRequest`] | [`ClaimResponse`] |
//! | `PUT /v1/accept` | [`AcceptRequest`] | [`ClaimResponse`] |
//! | `DELETE /v1/claim` | [`ReleaseRequest`] | 204, also when there is no such claim |
//! | `PUT /v1/operations/{id}` | [`OperateRequest`] | [`OperationStatus`]; the same id and body again: what was recorded; another body: 409 |
//! | `GET /v1/operations/{id}?after=SEQ&waitSeconds=N` | | [`OperationStatus`], as soon as its `seq` is above `after` |
//!
//! Every refusal is an [`ApiError`] with a status code of its own. Names are decoded into validated types, so that a
//! request with a path that could leave the tenant's directory does not even decode.

mod changes;
mod error;
mod host;
mod manifest;
mod observe;
mod operate;
mod verify;

pub use changes::{Changed, Changes};
pub use error::{ApiError, ErrorCode};
pub use host::{Capability, HostInfo};
pub use manifest::{
    Bytes, ChangeRule, ComposeChoice, EnvManifest, EnvValue, FileContent, FileManifest, ImageSetting,
    Manifest, Owner, Place, TenantRef,
};
pub use observe::{
    AcceptRequest, ClaimRequest, ClaimResponse, ClaimState, ComposeUse, EnvKeyState, EnvObservation,
    FileObservation, FileState, ForeignContainer, Health, ImageRun, ImageState, LineCounts, MountFreshness,
    Observation, ObserveRequest, ObserveResponse, OperationBrief, OtherProject, Pending, ReleaseRequest,
    ResolveRequest, ResolveResponse, ResolvedReference, RestorePointBrief, ServiceHealth, ServiceObservation,
    ServiceState, StaleFile, TARGET_OF_ADOPTED, UnreadFile,
};
pub use operate::{
    Action, FailedService, FailedServices, Failure, FailureCategory, FileCounts, OperateRequest,
    OperationPhase, OperationState, OperationStatus, PhaseRecord, PlanReport, PolicyRefusal, Progress,
    Recreate, ReleaseLabel, RunImage, SnapshotPolicy,
};
pub use verify::{Probe, ProbeExec, ProbeHttp, ProbeTcp, VerifyPolicy};

/// The version of these messages; part of every path.
pub const PROTOCOL: &str = "v1";
/// The longest request body that an agent reads, in bytes.
pub const BODY_LIMIT: usize = 32 * 1024 * 1024;
/// The longest that a call waits for a change, in seconds.
pub const MAX_WAIT_SECONDS: u64 = 60;
/// What an agent's certificate name ends with, after its identity.
pub const AGENT_DOMAIN: &str = "agent.tenantry.internal";
/// What an operator's certificate name ends with, after its name.
pub const OPERATOR_DOMAIN: &str = "operator.tenantry.internal";
