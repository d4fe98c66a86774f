//! What we last wrote and started. Plans compare with it; it is never taken for what is on the host now.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tenantry_api::names::ServiceName;
use tenantry_api::names::{OperationId, RelativePath, Sha256, TenantUid};
use tenantry_planner::model::{Copied, Service};
use tenantry_protocol::{ChangeRule, OperateRequest, ReleaseLabel, RunImage, VerifyPolicy};

use super::error::StoreError;
use super::{Store, load, save};

pub(super) const BASELINE: &str = "baseline";
pub(super) const STARTS: &str = "starts";

/// What the last operation that succeeded left on the host, as it was seen there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Baseline {
    /// The target that was reached.
    pub target_hash: Option<String>,
    /// Every managed file, as we last wrote or found it.
    pub files: BTreeMap<RelativePath, Written>,
    /// What every service ran.
    pub images: Vec<RunImage>,
    /// The operation whose restore point leads back from here.
    pub restore_point: Option<OperationId>,
    /// What people call the release.
    #[serde(default)]
    pub release: ReleaseLabel,
    /// How the release is judged; absent where it was there before us.
    #[serde(default)]
    pub terms: Option<Terms>,
}

/// How a release is judged, and who is told when its files change: kept, so that a rollback to it is judged the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Terms {
    /// Services that its bundle calls Jobs.
    pub jobs: Vec<ServiceName>,
    /// What to do with services when files of a mounted directory change.
    pub on_change: Vec<ChangeRule>,
    /// When it counts as running.
    pub verify: VerifyPolicy,
}

impl Terms {
    /// Those of the release that a request brings.
    pub fn of(request: &OperateRequest) -> Self {
        Self {
            jobs: request.manifest.jobs.clone(),
            on_change: request.manifest.on_change.clone(),
            verify: request.verify.clone(),
        }
    }
}

/// A managed file as we last wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    /// Its content's hash.
    pub sha256: Sha256,
    /// Its permission bits.
    pub mode: u32,
}

/// What each container had before it when it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Starts {
    /// By container id.
    pub containers: BTreeMap<String, Start>,
}

/// One start of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Start {
    /// `State.StartedAt`, as the engine writes it: another one means another start.
    pub started_at: String,
    /// Every managed file that is mounted into it, and the hash of its content then.
    pub files: BTreeMap<RelativePath, Sha256>,
    /// What of the tenant's directory is mounted into it, with what was behind symlinks then; absent where none was followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mounted: Option<BTreeSet<RelativePath>>,
    /// The inline configs and secrets that compose copied into it; absent where nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<Copied>,
}

impl Starts {
    /// What is recorded of this very start of a container.
    pub fn of(&self, container: &str, started_at: &str) -> Option<&Start> {
        self.containers.get(container).filter(|start| start.started_at == started_at)
    }
}

impl Start {
    /// Those of these paths that were not mounted then. Compose makes a container anew when its mounts change, so that it is
    /// where symlinks lead that has changed.
    pub fn not_mounted(&self, mounts: &BTreeSet<RelativePath>) -> Vec<RelativePath> {
        self.mounted.iter().flat_map(|then| mounts.difference(then)).cloned().collect()
    }

    /// Whether a symlink of the service's mounts leads somewhere else now.
    pub fn is_led_elsewhere(&self, service: &Service, directory: &str) -> bool {
        !self.not_mounted(&service.mounted(directory)).is_empty()
    }
}

impl Store {
    /// What the last operation left; empty where there was none.
    pub fn baseline(&self, uid: &TenantUid) -> Result<Baseline, StoreError> {
        self.record(uid, BASELINE)
    }

    /// Keeps what an operation left.
    pub fn save_baseline(&self, uid: &TenantUid, baseline: &Baseline) -> Result<(), StoreError> {
        Ok(save(&self.tenant(uid)?, BASELINE, baseline)?)
    }

    /// What containers had before them when they were started.
    pub fn starts(&self, uid: &TenantUid) -> Result<Starts, StoreError> {
        self.record(uid, STARTS)
    }

    /// Keeps what containers had before them.
    pub fn save_starts(&self, uid: &TenantUid, starts: &Starts) -> Result<(), StoreError> {
        Ok(save(&self.tenant(uid)?, STARTS, starts)?)
    }

    fn record<T: DeserializeOwned + Default>(&self, uid: &TenantUid, name: &str) -> Result<T, StoreError> {
        let Some(folder) = self.existing(uid, None)? else { return Ok(T::default()) };
        Ok(load(&folder, name)?.unwrap_or_default())
    }
}
