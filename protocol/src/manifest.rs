//! What should be on the host.

use std::fmt;

use serde::{Deserialize, Serialize};
use tenantry_api::names::{
    Directory, EnvKey, ProjectName, ProtectedPath, RelativePath, ServiceName, Sha256, TenantUid,
};

/// Which Tenant a request is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantRef {
    /// Its UID: a Tenant that was deleted and made again under the same name is another one.
    pub uid: TenantUid,
    /// Its namespace, for messages.
    pub namespace: String,
    /// Its name, for messages.
    pub name: String,
}

/// Where on the host a tenant lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Place {
    /// The compose project.
    pub project: ProjectName,
    /// The directory that it is installed in.
    pub directory: Directory,
    /// Compose files and profiles; absent: compose's own discovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compose: Option<ComposeChoice>,
}

/// Compose files and profiles, as `spec.compose` gives them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ComposeChoice {
    /// Compose files in merge order; empty: compose's own discovery.
    pub files: Vec<RelativePath>,
    /// Profiles; empty: those of `COMPOSE_PROFILES` in `.env`.
    pub profiles: Vec<String>,
}

/// What should be on the host, without file contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// Every managed file, a managed `.env` included, sorted by path.
    pub files: Vec<FileManifest>,
    /// What `.env` should hold.
    pub env: EnvManifest,
    /// Images that compose files of the tenant's own write out, and what they become.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageSetting>,
    /// The tenant's own paths.
    pub protect: Vec<ProtectedPath>,
    /// Services that the bundle or the spec calls jobs.
    pub jobs: Vec<ServiceName>,
    /// What to do with services when files of a mounted directory change.
    pub on_change: Vec<ChangeRule>,
}

/// A managed file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileManifest {
    /// Where it goes.
    pub path: RelativePath,
    /// Hash of its content.
    pub sha256: Sha256,
    /// Length of its content in bytes.
    pub size: u64,
    /// Permission bits, at most 0o777.
    pub mode: u32,
    /// Owner; absent: left as it is, or the agent's own for a new file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Whether its content is never to be shown.
    pub sensitive: bool,
}

/// A numeric owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What `.env` should hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "ownership", deny_unknown_fields)]
pub enum EnvManifest {
    /// The file is the tenant's; these keys are set in it.
    Adopted {
        /// The keys, each once.
        patch: Vec<EnvValue>,
    },
    /// The file is among the managed files.
    Managed,
}

impl EnvManifest {
    /// What is set in it where it is the tenant's.
    pub fn patch(&self) -> &[EnvValue] {
        match self {
            Self::Adopted { patch } => patch,
            Self::Managed => &[],
        }
    }
}

/// A variable and the value that compose must read for it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvValue {
    /// The variable.
    pub name: EnvKey,
    /// The exact string.
    pub value: String,
}

impl fmt::Debug for EnvValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnvValue({}, {} bytes)", self.name, self.value.len())
    }
}

/// An image that compose files of the tenant's own write out, and what it becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageSetting {
    /// Its name, as the engine completes names.
    pub name: String,
    /// The name that it gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_name: Option<String>,
    /// The tag that it gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_tag: Option<String>,
    /// The digest that it gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Only in these services; empty: in all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceName>,
}

/// What to do with services when files of a mounted directory change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeRule {
    /// Managed files at or below these paths.
    pub paths: Vec<RelativePath>,
    /// The services that are told.
    pub services: Vec<ServiceName>,
    /// The signal that they get, for example `SIGHUP`; absent: they are restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
}

/// A managed file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileContent {
    /// Which file.
    pub path: RelativePath,
    /// Its bytes.
    pub content: Bytes,
}

/// Bytes that travel as base64 and are never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.0.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        let text = String::deserialize(deserializer)?;
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .map(Self)
            .map_err(|_| serde::de::Error::custom("content is not base64"))
    }
}
