//! What Preflight decides, as far as later steps need it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tenantry_api::names::{RelativePath, Sha256};
use tenantry_api::tenant::Consistency;
use tenantry_protocol::{ComposeUse, PlanReport, RunImage};

/// What Preflight decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanRecord {
    /// What changes, for people.
    pub report: PlanReport,
    /// The compose files of the release.
    pub compose: ComposeUse,
    /// The compose files of what ran before; absent where there was none.
    pub previous_compose: Option<ComposeUse>,
    /// Whether any file changes.
    pub writes: bool,
    /// Whether nothing ran here before.
    pub first: bool,
    /// Managed files whose content changes, `.env` aside.
    pub changed: Vec<RelativePath>,
    /// Ids of the containers that were there before.
    pub containers: Vec<String>,
    /// What each reference of both releases pointed to before.
    pub references: Vec<PreviousReference>,
    /// What each service ran before.
    pub previous_images: Vec<RunImage>,
    /// Services that the release no longer has.
    pub left_running: Vec<String>,
    /// Managed files that the release no longer has and that were edited by hand.
    pub left_files: Vec<String>,
    /// Services of the previous release that this one no longer has: their containers are removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<RemovedService>,
    /// What is done about declared data; absent where none is declared, or none is there yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataPlan>,
    /// Every reference's image, where the release is gone back to: an upgrade learns them by Pull.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<PlannedImage>,
    /// The service that the agent itself runs as, where its container is one of the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside: Option<String>,
    /// What compose reads for the release, as it was checked.
    #[serde(default, skip_serializing_if = "Checked::is_empty")]
    pub checked: Checked,
    /// What compose read for what ran before, as it was found.
    #[serde(default, skip_serializing_if = "Checked::is_empty")]
    pub previous_checked: Checked,
}

/// The files that compose reads, each with the hash of its content; `None` where there is none but one would count.
pub type Checked = BTreeMap<RelativePath, Option<Sha256>>;

/// A service that the release no longer has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemovedService {
    /// Its name.
    pub service: String,
    /// Ids of its containers.
    pub containers: Vec<String>,
    /// Whether it has to go before the release is started, for it holds what the release needs: a port or a name.
    #[serde(default)]
    pub first: bool,
    /// How long it may take to stop, in milliseconds, where the compose file says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
}

/// What is done about declared paths and volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataPlan {
    /// What happens to the containers that mount them while they are copied.
    pub consistency: Consistency,
    /// What is copied, for people. Example: `path uploads`, `volume db-data`.
    pub parts: Vec<String>,
    /// Ids of the running containers that are stopped or paused meanwhile.
    pub containers: Vec<String>,
    /// How much it is, estimated, in bytes.
    pub bytes: u64,
}

impl DataPlan {
    /// Whether anything is stopped or paused for the copy.
    pub fn quiesces(&self) -> bool {
        self.consistency != Consistency::Live && !self.containers.is_empty()
    }
}

/// What a reference pointed to before the operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviousReference {
    /// The reference.
    pub reference: String,
    /// The image; absent where it pointed nowhere.
    pub image_id: Option<String>,
}

/// The image that a reference is to point to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedImage {
    /// The reference.
    pub reference: String,
    /// The image.
    pub image_id: String,
    /// The registry's digest, where it has one.
    pub repo_digest: Option<String>,
}
