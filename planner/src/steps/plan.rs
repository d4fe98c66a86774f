//! What Preflight decides, as far as later steps need it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tenantry_api::names::{RelativePath, Sha256};
use tenantry_api::tenant::Consistency;
use tenantry_protocol::{ComposeUse, OperateRequest, PlanReport, RunImage};

use crate::before::Before;
use crate::model::Copied;
use crate::target::hash_json;

/// What Preflight decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
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
    /// Every file that changes, `.env` among them, in the order of their paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileChange>,
    /// What is written in the tenant's own compose files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_edits: Vec<ImageEdit>,
    /// The keys of an adopted `.env` that are set, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_keys: Vec<String>,
    /// Ids of the containers that were there before.
    pub containers: Vec<String>,
    /// How every service was that had containers.
    #[serde(default, skip_serializing_if = "Before::is_empty")]
    pub before: Before,
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
    /// Which image each reference of an upgrade stands for; Pull makes it local. Absent where a restore point is gone back
    /// to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<Vec<ImageChoice>>,
    /// Every reference's image, where the release is gone back to: an upgrade has them once they are pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<PlannedImage>,
    /// The service that the agent itself runs as, where its container is one of the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside: Option<String>,
    /// What compose reads for the release, as it was checked.
    #[serde(default, skip_serializing_if = "Checked::is_empty")]
    pub checked: Checked,
    /// What compose had copied into each container that was there before, as far as that is known, by their ids.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub copied: BTreeMap<String, Copied>,
    /// What compose copies into containers of the release, by their services.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub copied_next: BTreeMap<String, Copied>,
    /// What compose read for what ran before, as it was found.
    #[serde(default, skip_serializing_if = "Checked::is_empty")]
    pub previous_checked: Checked,
}

impl Plan {
    /// The same plan with its hash: the one hash of a plan, which a person could approve.
    ///
    /// It covers what was asked for (target, approach, whether it goes back to a restore point), every file before and
    /// after, the keys of `.env` that are set, the image of every reference, and the services that are removed. Values of
    /// `.env` and contents of files enter as hashes of whole files only.
    #[must_use]
    pub fn hashed(mut self, request: &OperateRequest) -> Self {
        let removed: Vec<&str> = self.removed.iter().map(|one| one.service.as_str()).collect();
        self.report.hash = hash_json(&serde_json::json!({
            "target": request.target_hash,
            "approach": request.approach,
            "action": request.action,
            "files": self.files,
            "envKeys": self.env_keys,
            "choices": self.choices,
            "images": self.images,
            "removed": removed,
        }));
        self
    }
}

/// One file that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileChange {
    /// Which file.
    pub path: RelativePath,
    /// The hash of its content before; absent where there is no file.
    pub before: Option<Sha256>,
    /// The hash of its content after; absent where the file is deleted.
    pub after: Option<Sha256>,
    /// The permission bits that it gets; absent where they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// An image reference in a compose file of the tenant's own that becomes another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageEdit {
    /// The file.
    pub path: RelativePath,
    /// The number of the scalar among those of the file that are images.
    pub scalar: usize,
    /// What is written there.
    pub text: String,
}

/// Which image a reference stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageChoice {
    /// The reference.
    pub reference: String,
    /// Where its image comes from.
    pub from: ImageSource,
}

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ImageSource {
    /// The host has it: it was built or loaded there, or the deployed release runs it.
    Host {
        /// Its id.
        image_id: String,
    },
    /// The reference's registry has it.
    Registry {
        /// Its digest there.
        digest: String,
    },
}

/// The files that compose reads, each with the hash of its content; `None` where there is none but one would count. Those of
/// the tenant's directory are named as seen from there, others from `/`.
pub type Checked = BTreeMap<String, Option<Sha256>>;

/// A service that the release no longer has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemovedService {
    /// The service's name.
    pub service: String,
    /// Ids of the service's containers.
    pub containers: Vec<String>,
    /// Whether the service goes before the release is started, because it holds a port or a name that the release needs.
    #[serde(default)]
    pub first: bool,
    /// How long a container may take to stop, in milliseconds, where the compose file says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
}

/// What is done about declared paths and volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataPlan {
    /// What happens to the containers that mount the data while it is copied.
    pub consistency: Consistency,
    /// What is copied, for people. Example: `path uploads`, `volume db-data`.
    pub parts: Vec<String>,
    /// Ids of the running containers that are stopped or paused meanwhile.
    pub containers: Vec<String>,
    /// How much data there is, estimated, in bytes.
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
    /// The image; absent where the reference pointed nowhere.
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
    /// The registry's digest, where the image came from a registry.
    pub repo_digest: Option<String>,
}

#[cfg(test)]
mod tests;
