//! What the operator saw and did: a Tenant's status. Small and bounded, never file contents, never secret values.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::bounded;

/// How many ended upgrades `status.history` keeps.
pub const HISTORY_LIMIT: usize = 10;

/// What the operator saw and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantStatus {
    /// The generation of `spec` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The digest of the bundle that this status speaks of; absent where there is none, or none that can be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub observed_bundle_revision: Option<String>,
    /// `Ready`, `Reconciling`, `Stalled` (as kstatus reads them), `HostReachable` and `Drifted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The phase and, where there is one, its cause in a few words, for `kubectl get`. Example: `RolledBack: web unhealthy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub summary: Option<String>,
    /// One word for where the Tenant stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The compose files and profiles in use, and the command that a person would type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compose: Option<ComposeInUse>,
    /// The release that was last seen to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployed: Option<Deployed>,
    /// A target that failed: not tried again until it changes or `tenantry.dev/retry` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_target: Option<BlockedTarget>,
    /// What the project asks of its host that the host's own policy does not grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacking: Option<Lacking>,
    /// Digests that moved tags were found at when `tenantry.dev/reconcile` asked; they belong to the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,
    /// What the latest upgrade changes on the host, in numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanSummary>,
    /// The latest upgrade: in flight, or ended with an outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<UpgradeStatus>,
    /// The last 10 ended upgrades, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub history: Vec<HistoryEntry>,
    /// What can be gone back to with `tenantry rollback`, newest first. At most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]))]
    pub restore_points: Vec<RestorePoint>,
    /// The annotation values that have been handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled: Option<Handled>,
    /// While `Degraded`: since when every service is healthy again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_since: Option<Time>,
}

/// One word for what is happening.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr,
)]
pub enum Phase {
    /// Not looked at yet.
    Pending,
    /// First contact found a project that differs from the target.
    AdoptionNeeded,
    /// The change is being computed and checked on the host.
    Planning,
    /// Images are being pulled; nothing that runs has been touched.
    Pulling,
    /// Declared paths and volumes are being copied.
    Snapshotting,
    /// Files and `.env` are being written.
    Writing,
    /// Compose is starting what changed.
    Starting,
    /// The new release is being watched.
    Verifying,
    /// The previous release is being restored.
    RollingBack,
    /// At the target, and every service is healthy.
    Ready,
    /// The target failed before anything was changed.
    Aborted,
    /// The target failed; the previous release runs.
    RolledBack,
    /// The target failed and was left running on purpose.
    Held,
    /// The previous release could not be restored: a person is needed.
    RollbackFailed,
    /// `spec.suspend` is set.
    Suspended,
    /// At the target, but a service is not healthy.
    Degraded,
    /// No operation was begun: the Ready condition's reason says why.
    Refused,
    /// The host's agent does not answer as itself.
    HostUnreachable,
}

impl Phase {
    /// The phase's word, which is also a condition's reason.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How an operation ended. The five are never confused.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr,
)]
pub enum Outcome {
    /// The target runs and was seen healthy and stable.
    Succeeded,
    /// It failed before anything was changed.
    Aborted,
    /// It failed, and the previous release was restored and seen healthy.
    RolledBack,
    /// It failed, and was left running because `onFailure: Hold` asks for it.
    Held,
    /// It failed, and the previous release could not be seen healthy again: a person is needed.
    RollbackFailed,
}

impl Outcome {
    /// The outcome's word.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The compose files and profiles in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComposeInUse {
    /// Compose files beneath the directory, in merge order.
    #[schemars(length(max = 16), inner(length(max = 1024)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub files: Vec<String>,
    /// Profiles that are switched on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub profiles: Vec<String>,
    /// What a person types in the directory for the same result. Example: `docker compose up -d`.
    #[schemars(length(max = 4096))]
    pub command: String,
}

/// The release that was last seen to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deployed {
    /// The image tag.
    #[schemars(length(max = 128))]
    pub image_tag: String,
    /// The bundle's digest, where there is a bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub bundle_revision: Option<String>,
    /// The target's hash.
    #[schemars(length(max = 128))]
    pub target_hash: String,
    /// Hash over path, content, mode and owner of every managed file.
    #[schemars(length(max = 128))]
    pub files_hash: String,
    /// What every service was seen to run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["service"]))]
    pub images: Vec<DeployedImage>,
    /// When it was seen.
    pub at: Time,
}

/// The image that a service was seen to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeployedImage {
    /// The service.
    #[schemars(length(max = 128))]
    pub service: String,
    /// The reference in the compose file.
    #[serde(rename = "ref")]
    #[schemars(length(max = 512))]
    pub reference: String,
    /// The id that the engine reports.
    #[serde(rename = "imageID")]
    #[schemars(length(max = 128))]
    pub image_id: String,
    /// The registry's digest, where the image came from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub repo_digest: Option<String>,
}

/// A target that is not tried again by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockedTarget {
    /// The target's hash.
    #[schemars(length(max = 128))]
    pub target_hash: String,
    /// Its image tag.
    #[schemars(length(max = 128))]
    pub image_tag: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, in a sentence.
    #[schemars(length(max = 2048))]
    pub reason: String,
    /// What kind of failure it was, a word of the runbook. Example: `Crashed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub category: Option<String>,
    /// Whether a person accepted the host as it is instead: the target is applied only when that is asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accepted: bool,
    /// The revision of the host's policy that refused it, where that was the reason: tried again by itself once the policy is
    /// another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub policy_revision: Option<String>,
    /// When.
    pub at: Time,
}

/// The most lines of a policy file that are told.
pub const GRANT_LIMIT: usize = 64;
/// The most sentences on what no line grants.
pub const UNGRANTABLE_LIMIT: usize = 16;

/// What a project asks of its host that the host's own policy does not grant. Only a person on the host can change that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lacking {
    /// The policy file on the host.
    #[schemars(length(max = 4096))]
    pub file: String,
    /// The lines of `allow` that would grant it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub grants: Vec<Grant>,
    /// What no line grants, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 512)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub ungrantable: Vec<String>,
    /// How many of both are not listed.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub more: i32,
}

/// A line of a policy file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// The list of `allow` that it belongs to: `registries`, `compose`, `mounts` or `verify`.
    #[schemars(length(max = 32))]
    pub list: String,
    /// The line itself. Example: `DockerSocket`, `/mnt/media:ro`.
    #[schemars(length(max = 1100))]
    pub item: String,
    /// What asks for it. Example: `services.web.volumes[0].source`.
    #[schemars(length(max = 256))]
    pub at: String,
    /// What granting it means for the host's safety.
    #[schemars(length(max = 256))]
    pub means: String,
}

impl Lacking {
    /// Whether nothing is lacking.
    pub fn is_empty(&self) -> bool {
        self.grants.is_empty() && self.ungrantable.is_empty() && self.more <= 0
    }

    /// The same within the bounds of a status. An agent may say anything.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let left_out = self.grants.len().saturating_sub(GRANT_LIMIT)
            + self.ungrantable.len().saturating_sub(UNGRANTABLE_LIMIT);
        self.grants.truncate(GRANT_LIMIT);
        self.ungrantable.truncate(UNGRANTABLE_LIMIT);
        self.more = self.more.max(0).saturating_add(i32::try_from(left_out).unwrap_or(i32::MAX));
        self.file = bounded(&self.file, 4_096);
        for grant in &mut self.grants {
            grant.list = bounded(&grant.list, 32);
            grant.item = bounded(&grant.item, 1_100);
            grant.at = bounded(&grant.at, 256);
            grant.means = bounded(&grant.means, 256);
        }
        for text in &mut self.ungrantable {
            *text = bounded(text, 512);
        }
        self
    }
}

/// Digests that moved tags were found at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resolved {
    /// Hash of the target without these digests; they count only while it is still that target.
    #[schemars(length(max = 128))]
    pub base_hash: String,
    /// Reference and digest.
    #[schemars(length(max = 256))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["ref"]))]
    pub images: Vec<ResolvedImage>,
}

/// A reference and the digest that it was found at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedImage {
    /// The reference in the compose file.
    #[serde(rename = "ref")]
    #[schemars(length(max = 512))]
    pub reference: String,
    /// The registry's digest. Example: `sha256:1f…`.
    #[schemars(length(max = 128))]
    pub digest: String,
}

/// What an upgrade changes on the host, in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanSummary {
    /// Hash of everything that the plan would change, as the host's agent has computed it; absent until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub hash: Option<String>,
    /// The approach that is used; `Auto` is decided by now.
    pub approach: crate::tenant::Approach,
    /// Managed files by what happens to them.
    pub files: FileCounts,
    /// Services that compose recreates or that are restarted, and why. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["service"]))]
    pub recreates: Vec<Recreate>,
}

/// Managed files by what happens to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileCounts {
    /// Files that are not there yet.
    #[schemars(range(min = 0))]
    pub created: i32,
    /// Files whose content, mode or owner changes.
    #[schemars(range(min = 0))]
    pub modified: i32,
    /// Files that the release no longer has.
    #[schemars(range(min = 0))]
    pub deleted: i32,
    /// Files that stay as they are.
    #[schemars(range(min = 0))]
    pub unchanged: i32,
}

/// A service that is recreated or restarted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recreate {
    /// The service.
    #[schemars(length(max = 128))]
    pub service: String,
    /// Why, in a few words. Example: `image changed`, `reads .env`.
    #[schemars(length(max = 256))]
    pub cause: String,
}

/// The latest upgrade.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeStatus {
    /// The operation's id, written here before the operation is submitted to the agent.
    #[schemars(length(max = 64))]
    pub id: String,
    /// Only rises; the agent refuses an operator with a lower one.
    #[schemars(range(min = 1))]
    pub epoch: i64,
    /// The image tag before; absent for a first installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub from: Option<String>,
    /// The image tag that is being deployed.
    #[schemars(length(max = 128))]
    pub to: String,
    /// The hash of the target that is being deployed.
    #[schemars(length(max = 128))]
    pub target_hash: String,
    /// The bundle's digest in that target, where there is a bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub bundle_revision: Option<String>,
    /// Hash over the managed files of that target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub files_hash: Option<String>,
    /// The restore point that a person asked to go back to; absent for an upgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub rollback_to: Option<String>,
    /// The target that a person gives up by going back; it is blocked when that has succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gives_up: Option<GivenUp>,
    /// Whether what is deployed did not run any more when this began: an earlier upgrade was `Held`, or its rollback
    /// failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsettled: bool,
    /// Whether a person has accepted the host since as this left it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accepted: bool,
    /// Whether data was restored, so that what was written since its restore point is lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub data_restored: bool,
    /// How often this target has been tried, this time included.
    #[schemars(range(min = 1))]
    pub attempt: i32,
    /// When the operation was begun.
    pub started_at: Time,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// How it ended; absent while in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// What kind of failure it ended with, a word of the runbook. Example: `RegistryUnreachable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub category: Option<String>,
    /// The services that did not come up, with their last words; what failed first comes first. At most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub failures: Vec<ServiceFailure>,
    /// How many more services did not come up than `failures` lists.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub more_failures: i32,
    /// Since when this target has failed for a fault that passes (registry or network away, engine restarting).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Time>,
    /// When the same target is tried again by itself, after such a fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Time>,
    /// The phases so far, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub phases: Vec<PhaseStatus>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(count: &i32) -> bool {
    *count == 0
}

/// The most services of which status keeps the last words.
pub const FAILURE_LIMIT: usize = 8;
/// The most lines of a service's log that status keeps.
pub const LOG_LINES: usize = 20;
/// The most bytes that those lines may have together; the oldest go first.
pub const LOG_BYTES: usize = 4_096;
/// The longest line of them.
const LOG_LINE: usize = 512;
/// The most that is kept of what a healthcheck printed.
const HEALTHCHECK_LIMIT: usize = 1_024;

/// A service that did not come up, with its own words. Values of `.env` and of secrets are masked in them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceFailure {
    /// The service.
    #[schemars(length(max = 128))]
    pub service: String,
    /// In which phase: `RollingBack` is about the release before.
    pub during: Phase,
    /// What is wrong with it. Example: `web ended with code 1`.
    #[schemars(length(max = 512))]
    pub problem: String,
    /// The last lines of its log, oldest first. At most 20, and 4,096 bytes together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 512)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub log: Vec<String>,
    /// What its healthcheck printed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub healthcheck: Option<String>,
}

impl ServiceFailure {
    /// The same within the bounds of a status. An agent may say anything.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.service = bounded(&self.service, 128);
        self.problem = bounded(&self.problem, 512);
        self.log = last_lines(&self.log);
        self.healthcheck = self.healthcheck.map(|text| bounded(&text, HEALTHCHECK_LIMIT));
        self
    }
}

/// As many of the last lines as status keeps.
fn last_lines(lines: &[String]) -> Vec<String> {
    let mut room = LOG_BYTES;
    let mut kept: Vec<String> = Vec::new();
    for line in lines.iter().rev().take(LOG_LINES) {
        let line = bounded(line, LOG_LINE);
        let Some(left) = room.checked_sub(line.len()) else { break };
        room = left;
        kept.push(line);
    }
    kept.reverse();
    kept
}

/// A target that a person gives up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GivenUp {
    /// The target's hash.
    #[schemars(length(max = 128))]
    pub target_hash: String,
    /// Its image tag.
    #[schemars(length(max = 128))]
    pub image_tag: String,
}

/// Something that can be gone back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestorePoint {
    /// Its id: that of the operation before which it was made.
    #[schemars(length(max = 64))]
    pub id: String,
    /// When it was made.
    pub at: Time,
    /// The image tag of the release that it leads back to.
    #[schemars(length(max = 128))]
    pub image_tag: String,
    /// Declared paths and volumes that it holds. Example: `volume db-data`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 1040)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub data: Vec<String>,
    /// Its size on disk in bytes.
    #[schemars(range(min = 0))]
    pub bytes: i64,
}

/// One phase of an upgrade.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PhaseStatus {
    /// The phase.
    pub name: Phase,
    /// How it stands.
    pub state: PhaseState,
    /// When it began.
    pub started_at: Time,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// What happened, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

/// How a phase stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PhaseState {
    /// Under way.
    Running,
    /// Done.
    Succeeded,
    /// Failed; the message says why.
    Failed,
}

/// One ended upgrade.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// The operation's id.
    #[schemars(length(max = 64))]
    pub id: String,
    /// The image tag before; absent for a first installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub from: Option<String>,
    /// The image tag that was to be deployed.
    #[schemars(length(max = 128))]
    pub to: String,
    /// The restore point that a person went back to; absent for an upgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub rollback_to: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// When it began.
    pub started_at: Time,
    /// When it ended.
    pub finished_at: Time,
    /// What happened, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub message: String,
}

/// The annotation values that have been handled; an empty one: the annotation was taken away since, so that the same value
/// asks anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Handled {
    /// The value of `tenantry.dev/reconcile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub reconcile: Option<String>,
    /// The value of `tenantry.dev/retry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub retry: Option<String>,
    /// The value of `tenantry.dev/rollback-to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub rollback_to: Option<String>,
    /// The value of `tenantry.dev/accept-host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub accept_host: Option<String>,
    /// The value of `tenantry.dev/claim`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub claim: Option<String>,
}
