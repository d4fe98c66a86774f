//! What is on the host, as the agent sees it on disk and in the engine.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tenantry_api::names::{EnvKey, OperationId, RelativePath, ServiceName, Sha256, TenantUid};
use tenantry_api::tenant_status::{Lacking, Outcome};

use crate::manifest::{FileContent, Manifest, Place, TenantRef};
use crate::operate::ReleaseLabel;

/// The target of a release that was there before us: nobody knows what was asked for.
pub const TARGET_OF_ADOPTED: &str = "adopted";

/// Asks what is on the host, seen against what should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObserveRequest {
    /// Who asks.
    pub tenant: TenantRef,
    /// Where to look.
    pub place: Place,
    /// What should be there.
    pub manifest: Manifest,
    /// The hash of the observation that the operator already has for this very request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<String>,
    /// What files are to hold of which it is to be counted how somebody's edits differ from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<FileContent>,
}

/// What is on the host, or that nothing has changed since.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "answer")]
pub enum ObserveResponse {
    /// The observation with the hash that was asked about still holds.
    Same,
    /// What was seen.
    Seen {
        /// Hash of the observation, to be sent as `known` next time.
        hash: String,
        /// What was seen.
        observation: Box<Observation>,
    },
}

/// What is on the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// Whose the directory and the project are.
    pub claim: ClaimState,
    /// The highest epoch that the host has seen for this tenant; 0 when none.
    pub epoch: u64,
    /// This tenant's operation in flight, or its last one.
    pub operation: Option<OperationBrief>,
    /// Whether the directory is there.
    pub directory_exists: bool,
    /// Each managed file of the request, in its order.
    pub files: Vec<FileObservation>,
    /// Files that we wrote and that the request no longer has.
    pub leftover_files: Vec<FileObservation>,
    /// The patched keys.
    pub env: EnvObservation,
    /// Each image of the request, in its order; empty where there is no model.
    #[serde(default)]
    pub images: Vec<ImageState>,
    /// The compose files in use; absent when there is no compose file yet.
    pub compose: Option<ComposeUse>,
    /// Why the compose files could not be read, mapped to file, line and category.
    pub compose_problem: Option<String>,
    /// Every service of the resolved model in the selected profiles, sorted by name.
    pub services: Vec<ServiceObservation>,
    /// Services that have containers of this project and directory, but are no longer in the model.
    pub removed_services: Vec<String>,
    /// Containers of this project that were made from another directory.
    pub foreign_containers: Vec<ForeignContainer>,
    /// Other compose projects of the same directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_projects: Vec<OtherProject>,
    /// Managed compose files that compose would not read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread_files: Vec<UnreadFile>,
    /// Whether promise P10's conditions hold at this moment.
    pub health: Health,
    /// Resolved image references that differ from what containers were made from; for first contact.
    pub image_differences: Vec<String>,
    /// Networks, ports and volumes that are otherwise than the compose files say, a clause each.
    #[serde(default)]
    pub resource_differences: Vec<String>,
    /// What can be gone back to, newest first.
    #[serde(default)]
    pub restore_points: Vec<RestorePointBrief>,
    /// Names what the agent's policy file allows; another one whenever that has changed.
    #[serde(default)]
    pub policy_revision: Option<String>,
    /// By what else than a look from outside that file lets releases be verified. Absent where an older agent does not say.
    #[serde(default)]
    pub granted_verifications: Option<Vec<String>>,
    /// Where that file is.
    #[serde(default)]
    pub policy_file: String,
    /// What the project, as it is on the disk, asks of the host that the policy file does not grant.
    #[serde(default)]
    pub lacking: Option<Lacking>,
    /// Why the agent does nothing for this tenant until a person has looked: which of its own records is damaged.
    #[serde(default)]
    pub damage: Option<String>,
}

/// A restore point, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestorePointBrief {
    /// Its id: that of the operation before which it was made.
    pub id: OperationId,
    /// When it was made.
    pub at: Timestamp,
    /// The release that it leads back to.
    pub release: ReleaseLabel,
    /// That release's target.
    pub target_hash: String,
    /// Declared paths and volumes that it holds. Example: `path uploads`, `volume db-data`.
    pub data: Vec<String>,
    /// Its size on disk in bytes.
    pub bytes: u64,
}

/// Whose a directory and a project are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum ClaimState {
    /// Nobody's.
    Free,
    /// The asking Tenant's.
    Ours,
    /// Another Tenant's.
    Other {
        /// Its namespace and name, as it said.
        owner: String,
        /// Its UID.
        uid: TenantUid,
        /// Which of the two it holds: `directory`, `project` or `directory and project`.
        holds: String,
    },
}

/// An operation, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationBrief {
    /// Its id.
    pub id: OperationId,
    /// The target that it brings about.
    pub target_hash: String,
    /// How it ended; absent while in flight.
    pub outcome: Option<Outcome>,
}

/// A managed file as it is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileObservation {
    /// Which file.
    pub path: RelativePath,
    /// How it stands to the request.
    pub state: FileState,
    /// Its content's hash; absent when it is missing or not a regular file.
    pub sha256: Option<Sha256>,
    /// Whether its content is neither what is wanted nor what we last wrote, though we once wrote it.
    pub hand_edited: bool,
    /// Whether it has other content than is wanted and was never written by us: it is the tenant's own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmanaged: bool,
    /// How one that was edited by hand differs from what is wanted, where that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<LineCounts>,
}

/// Lines that a file has and is not to have, and the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LineCounts {
    /// Lines that are not wanted.
    pub added: u32,
    /// Lines that are missing.
    pub removed: u32,
}

/// How a managed file stands to what is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum FileState {
    /// Content, mode and, where given, owner are as wanted.
    Same,
    /// The content is as wanted; mode or owner are not.
    Attributes,
    /// The content differs.
    Differs,
    /// Not there.
    Missing,
    /// Something else is there: a symlink, a folder, a device. The text says what.
    Blocked {
        /// What is there, in a few words.
        found: String,
    },
}

impl FileState {
    /// Whether the content is as wanted.
    pub fn has_wanted_content(&self) -> bool {
        matches!(self, Self::Same | Self::Attributes)
    }
}

/// The patched keys of `.env` as they are on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvObservation {
    /// Whether there is a `.env`.
    pub exists: bool,
    /// Each asked key.
    pub keys: Vec<EnvKeyState>,
}

/// One key of `.env`. The value itself never leaves the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvKeyState {
    /// The key.
    pub name: EnvKey,
    /// Whether it is defined.
    pub present: bool,
    /// Whether compose reads exactly the wanted value for it.
    pub as_wanted: bool,
    /// Whether it is absent, and the model is what it would be with the wanted value all the same: a default is right.
    #[serde(default)]
    pub by_default: bool,
    /// Services whose image depends on its value; absent where that was not found out.
    #[serde(default)]
    pub reaches: Option<Vec<ServiceName>>,
}

impl EnvKeyState {
    /// Whether the project is as it would be with the wanted value: it is there, or is the default.
    pub fn is_right(&self) -> bool {
        self.as_wanted || self.by_default
    }
}

/// How an image that compose files write out stands to what is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageState {
    /// Services that have it.
    pub services: Vec<ServiceName>,
    /// Those whose image is not as wanted yet.
    pub pending: Vec<Pending>,
    /// Why it can't be set in the compose files: which file and line, and what would be right.
    pub problem: Option<String>,
}

/// A service whose image is not as wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// The service.
    pub service: ServiceName,
    /// The reference in the resolved model.
    pub now: String,
    /// What it is to be.
    pub wanted: String,
}

/// The compose files and profiles in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComposeUse {
    /// Compose files beneath the directory, in merge order.
    pub files: Vec<String>,
    /// Profiles that are switched on.
    pub profiles: Vec<String>,
    /// What a person types in the directory for the same result.
    pub command: String,
}

/// A service of the resolved model and what runs of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceObservation {
    /// Its name.
    pub name: ServiceName,
    /// The reference in the resolved model.
    pub image_ref: String,
    /// Whether it runs once and ends (DESIGN §1).
    pub one_shot: bool,
    /// Whether its image is never pulled (`build:` or `pull_policy: never`).
    pub local_image: bool,
    /// The image that its containers run; absent when there is no container.
    pub running: Option<ImageRun>,
    /// How it is.
    pub state: ServiceState,
    /// Its health.
    pub health: ServiceHealth,
    /// How often the engine has restarted its containers.
    pub restart_count: u64,
    /// When its youngest container was started.
    pub started_at: Option<Timestamp>,
    /// Whether its containers have read the managed files that are mounted into them as they are now.
    pub mounts: MountFreshness,
    /// Inline configs and secrets of which its containers have another content than is meant now, as it was when they were
    /// made. Example: `config app`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outdated: Vec<String>,
}

/// The image that a container runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageRun {
    /// The id that the engine reports.
    pub image_id: String,
    /// The registry's digest of it, where it came from one.
    pub repo_digest: Option<String>,
    /// Whether it is the image that the service's reference points to on this host now.
    pub current: bool,
}

/// How a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum ServiceState {
    /// It has no container.
    Absent,
    /// Some of its containers are made but were not started.
    Created,
    /// All its containers run.
    Running,
    /// The engine is restarting it.
    Restarting,
    /// Paused by a person.
    Paused,
    /// It ended.
    Exited {
        /// With this code.
        code: i64,
    },
}

/// What the healthcheck says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceHealth {
    /// It has no healthcheck.
    None,
    /// Not known yet.
    Starting,
    /// Healthy.
    Healthy,
    /// Unhealthy.
    Unhealthy,
}

/// Whether containers have read mounted managed files as they are now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum MountFreshness {
    /// All of them, or none are mounted.
    Current,
    /// These were changed since.
    Stale {
        /// The files.
        files: Vec<StaleFile>,
    },
    /// Nobody recorded it, and the files' times don't tell.
    Unknown {
        /// The files.
        files: Vec<StaleFile>,
    },
}

/// A mounted managed file that a container may not have read as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StaleFile {
    /// Which file.
    pub path: RelativePath,
    /// Mounted by itself (a restart is needed), or within a mounted directory (a signal can do).
    pub mounted_singly: bool,
}

/// A container of this project that was made from another directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForeignContainer {
    /// Its name.
    pub name: String,
    /// The directory that it was made from.
    pub directory: String,
}

/// A compose project that the Tenant's directory belongs to as well, under another name than the Tenant's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OtherProject {
    /// The project's name.
    pub name: String,
    /// Containers of it that were made from the directory, running or not; some of them, where there are many.
    pub containers: Vec<String>,
    /// Where the directory itself says that name, while no container of the Tenant's own project is there. Example:
    /// `COMPOSE_PROJECT_NAME in .env`.
    pub named_by: Option<String>,
}

/// A managed compose file that compose would not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnreadFile {
    /// The file.
    pub path: RelativePath,
    /// What compose reads instead.
    pub read: Vec<RelativePath>,
    /// What says so, where that is not compose's own order of names. Example: `COMPOSE_FILE in .env`.
    pub named_by: Option<String>,
}

/// Whether P10's conditions hold at this moment: every service healthy, one-shots exited 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// What is wrong, a sentence for each service; empty when all is well.
    pub problems: Vec<String>,
    /// Services that have no healthcheck: that they run is all that is known.
    pub without_healthcheck: Vec<String>,
    /// Services that have ended with 0 and are done by that, though nobody waits for them and nobody names them as jobs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<String>,
}

/// Takes a directory and project that are already as wanted, without changing anything on the host but our own records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimRequest {
    /// Who takes it.
    pub tenant: TenantRef,
    /// What is taken.
    pub place: Place,
    /// What was found there; refused with `Invalid` if it no longer is.
    pub manifest: Manifest,
    /// Above every epoch that the host has seen for this tenant.
    pub epoch: u64,
    /// Whether another Tenant's claim, which was never given back, is taken over: a person asked for it. Refused while
    /// an operation of that Tenant is in flight. The manifest is not compared then.
    #[serde(default)]
    pub take_over: bool,
}

/// Takes the host's present state for the truth: damaged records and undecided operations are put aside, and what is on
/// disk now is what was last written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AcceptRequest {
    /// Who asks.
    pub tenant: TenantRef,
    /// Where.
    pub place: Place,
    /// What is looked at: files that are there are taken as ours, as they are.
    pub manifest: Manifest,
    /// Above every epoch that the host is known to have seen for this tenant.
    pub epoch: u64,
}

/// The claim was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimResponse {
    /// The epoch that was persisted.
    pub epoch: u64,
}

/// Gives a claim back. Nothing is stopped or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReleaseRequest {
    /// Who gives it back.
    pub tenant: TenantRef,
}

/// Asks a registry for the digests that references point to now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResolveRequest {
    /// At most 256 references.
    pub references: Vec<String>,
}

/// The digests that references point to now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolveResponse {
    /// In the request's order.
    pub references: Vec<ResolvedReference>,
}

/// A reference and its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedReference {
    /// The reference that was asked about.
    pub reference: String,
    /// Its digest; absent when the registry did not say.
    pub digest: Option<String>,
    /// Why not.
    pub problem: Option<String>,
}
