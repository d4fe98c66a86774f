//! An operation: one journaled transaction that an agent carries out by itself.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tenantry_api::names::{EnvKey, OperationId, RelativePath, VolumeName};
use tenantry_api::tenant::{Approach, Consistency, OnFailure, RollbackData};
use tenantry_api::tenant_status::{Lacking, Outcome, PhaseState};

use crate::manifest::{FileContent, Manifest, Place, TenantRef};
use crate::observe::{ComposeUse, ResolvedReference};
use crate::verify::VerifyPolicy;

/// Brings a host to a target. The agent checks everything again: it does not trust what the operator checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OperateRequest {
    /// Who asks.
    pub tenant: TenantRef,
    /// Where.
    pub place: Place,
    /// Persisted before anything is done; lower ones are refused.
    pub epoch: u64,
    /// Hash of the target.
    pub target_hash: String,
    /// `ImageOnly` or `Release`; `Auto` is refused, for it is decided by now.
    pub approach: Approach,
    /// What should be there.
    pub manifest: Manifest,
    /// Content of every managed file that is to be written. A managed file that is already as wanted may be left out.
    pub contents: Vec<FileContent>,
    /// References whose digest was decided already; all others are resolved by the agent, once.
    pub pinned: Vec<ResolvedReference>,
    /// When the release counts as running.
    pub verify: VerifyPolicy,
    /// What to do when it does not.
    pub on_failure: OnFailure,
    /// Whether a project that is already there and was never claimed may be overwritten.
    pub overwrite: bool,
    /// What is to be done.
    #[serde(default)]
    pub action: Action,
    /// What people call the release. Kept on the host and told back with each restore point that leads to it.
    #[serde(default)]
    pub release: ReleaseLabel,
    /// What else than files and images belongs to the restore point.
    #[serde(default)]
    pub snapshot: SnapshotPolicy,
    /// Whether a rollback after a failure restores that data, too.
    #[serde(default)]
    pub rollback_data: RollbackData,
    /// Keys of `.env` by which the release is to reach an image: refused where none of them does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tag_keys: Vec<EnvKey>,
}

/// What an operation is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind", deny_unknown_fields)]
pub enum Action {
    /// Bring the host to the manifest.
    #[default]
    Upgrade,
    /// Bring the host back to a restore point: its files, `.env` and images, all of which are on the host. The
    /// request's manifest names no files; `targetHash` is that of the restore point's release.
    Rollback {
        /// The restore point's id.
        to: OperationId,
        /// Whether declared paths and volumes are restored, too: what was written since is lost.
        data: bool,
    },
}

/// What people call a release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReleaseLabel {
    /// Its image tag.
    pub image_tag: String,
    /// Its bundle's digest, where there is a bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_revision: Option<String>,
    /// Hash over its managed files.
    #[serde(default)]
    pub files_hash: String,
}

/// What else than files and images belongs to a restore point, and how many points are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SnapshotPolicy {
    /// Files and folders beneath the tenant's directory.
    pub paths: Vec<RelativePath>,
    /// Volumes, by their names in the compose file.
    pub volumes: Vec<VolumeName>,
    /// What happens to the services that mount them meanwhile.
    pub consistency: Consistency,
    /// How many restore points are kept, 1 to 20.
    pub retain: u32,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        let consistency = Consistency::default();
        Self {
            paths: Vec::new(),
            volumes: Vec::new(),
            consistency,
            retain: tenantry_api::tenant::DEFAULT_RETAIN,
        }
    }
}

/// How an operation stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationStatus {
    /// Its id.
    pub id: OperationId,
    /// Rises with every change of this status, over restarts of the agent too.
    pub seq: u64,
    /// The epoch that it runs under.
    pub epoch: u64,
    /// The target that it brings about.
    pub target_hash: String,
    /// In flight or ended.
    pub state: OperationState,
    /// The phases so far, in order.
    pub phases: Vec<PhaseRecord>,
    /// What it changes, as soon as that is known.
    pub plan: Option<PlanReport>,
    /// How far a pull is.
    pub progress: Option<Progress>,
    /// Services that the release no longer has and that were left running.
    pub left_running: Vec<String>,
    /// Managed files that the release no longer has and that were left, for they were edited by hand.
    pub left_files: Vec<String>,
    /// Every image that the services were seen to run at the end: service, reference, id, digest.
    pub images: Vec<RunImage>,
    /// The compose files in use.
    pub compose: Option<ComposeUse>,
    /// What people call the release that it brings about.
    #[serde(default)]
    pub release: ReleaseLabel,
    /// Whether data was restored, so that what was written since its restore point is lost (P9).
    #[serde(default)]
    pub data_restored: bool,
    /// Why it can't go on at present, though it is tried again and again: a full disk, mostly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
}

/// In flight or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum OperationState {
    /// In flight.
    Running,
    /// Ended.
    Ended {
        /// How.
        outcome: Outcome,
        /// Why it failed; absent when it succeeded.
        failure: Option<Failure>,
        /// When.
        at: Timestamp,
    },
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// In which phase.
    pub during: OperationPhase,
    /// What kind of failure.
    pub category: FailureCategory,
    /// What went wrong and what to do, in a sentence or two. Never holds a secret value.
    pub message: String,
    /// What the policy says, where that is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Box<PolicyRefusal>>,
    /// The services that did not come up, what failed first before what waited for it.
    #[serde(default, skip_serializing_if = "FailedServices::is_empty")]
    pub services: FailedServices,
}

impl Failure {
    /// A failure of which no service has anything to say.
    pub fn new(during: OperationPhase, category: FailureCategory, message: impl Into<String>) -> Self {
        Self { during, category, message: message.into(), policy: None, services: FailedServices::default() }
    }
}

/// Services that did not come up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedServices {
    /// The first of them.
    pub first: Vec<FailedService>,
    /// How many more there are.
    pub more: u32,
}

impl FailedServices {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty() && self.more == 0
    }
}

/// A service that did not come up, with its own words, in which secret values are masked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedService {
    /// The service.
    pub service: String,
    /// In which phase: of a rollback it is the release before.
    pub during: OperationPhase,
    /// What is wrong with it.
    pub problem: String,
    /// The last lines of its log, oldest first.
    pub log: Vec<String>,
    /// What its healthcheck printed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<String>,
}

/// What of a release the host's policy does not grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRefusal {
    /// Names what the policy file allowed when the release was judged: under another one it is judged anew.
    pub revision: String,
    /// What is lacking, where it can be told as lines of the policy file.
    #[serde(default)]
    pub lacking: Lacking,
}

/// The kinds of failure; bounded, so that it can label events and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, strum::IntoStaticStr)]
pub enum FailureCategory {
    /// The local policy does not allow it.
    PolicyRefused,
    /// A managed file was edited by hand since we last wrote it.
    HandEdited,
    /// The plan changes managed files, but the approach is `ImageOnly`.
    ReleaseNeeded,
    /// A path is protected, or not a plain file beneath the directory.
    PathRefused,
    /// The host differs from what first contact allows.
    AdoptionNeeded,
    /// A service is paused, dead, unhealthy or keeps ending already, and the release changes nothing of it.
    UnhealthyBefore,
    /// A compose file that the release writes is one that compose would not read.
    ComposeFileUnread,
    /// Plain `docker compose` would see another project or model.
    HandRunDiffers,
    /// The compose files can't be read.
    ComposeInvalid,
    /// What is wanted reaches no service's image.
    ReachesNothing,
    /// A value can't be written to `.env` so that compose reads it back.
    EnvUnrepresentable,
    /// Not enough space.
    DiskFull,
    /// The registry has no such image.
    ImageNotFound,
    /// The registry refused.
    RegistryRefused,
    /// The registry did not answer, or broke off.
    RegistryUnreachable,
    /// The restore point could not be made.
    SnapshotFailed,
    /// There is no such restore point, or it is damaged.
    RestorePointUnusable,
    /// A file could not be written.
    WriteFailed,
    /// A port that the release publishes is taken by something else.
    PortInUse,
    /// A network that is somebody else's is not there.
    NetworkUnusable,
    /// A volume is not there, or is otherwise than the release says; compose never changes one.
    VolumeUnusable,
    /// `docker compose up` failed.
    StartFailed,
    /// A service did not become healthy in time.
    Unhealthy,
    /// A service ended or restarted.
    Crashed,
    /// A probe did not pass, or can't.
    ProbeFailed,
    /// A service runs another image than planned.
    WrongImage,
    /// Docker or compose did not answer.
    EngineFault,
    /// The agent found its own records damaged or met a fault of its own.
    AgentFault,
}

impl FailureCategory {
    /// The category's word, which is also an event's reason and a metric's label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// One phase of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseRecord {
    /// Which.
    pub name: OperationPhase,
    /// How it stands.
    pub state: PhaseState,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// What happened, in a sentence.
    pub message: Option<String>,
}

/// The phases of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OperationPhase {
    /// Policy, space, names, the staged model.
    Preflight,
    /// Images.
    Pull,
    /// Declared paths and volumes.
    Snapshot,
    /// Files and `.env`.
    Write,
    /// `docker compose up`.
    Start,
    /// Watching.
    Verify,
    /// Restoring the previous release.
    Rollback,
    /// Keeping what a rollback could need.
    Finish,
}

/// What an operation changes on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanReport {
    /// Hash of everything that changes.
    pub hash: String,
    /// Managed files by what happens to them.
    pub files: FileCounts,
    /// Services that compose recreates or that are restarted, and why.
    pub recreates: Vec<Recreate>,
}

/// Managed files by what happens to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileCounts {
    /// Not there yet.
    pub created: u32,
    /// Content, mode or owner changes.
    pub modified: u32,
    /// No longer in the release.
    pub deleted: u32,
    /// As they are.
    pub unchanged: u32,
}

/// A service that is recreated or restarted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recreate {
    /// The service.
    pub service: String,
    /// Why, in a few words.
    pub cause: String,
}

/// How far a pull is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Images that are local by now.
    pub images_done: u32,
    /// Images in all.
    pub images_total: u32,
    /// Bytes that have come.
    pub bytes_done: u64,
    /// Bytes in all, as far as the registry has said.
    pub bytes_total: u64,
}

/// The image that a service was seen to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunImage {
    /// The service.
    pub service: String,
    /// The reference in the resolved model.
    pub reference: String,
    /// The id that the engine reports.
    pub image_id: String,
    /// The registry's digest, where it came from one.
    pub repo_digest: Option<String>,
}
