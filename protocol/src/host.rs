//! What an agent says of itself and its machine.

use serde::{Deserialize, Serialize};
use tenantry_api::names::Identity;

/// What an agent says of itself and its machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostInfo {
    /// Who it is.
    pub identity: Identity,
    /// The agent's version.
    pub agent_version: String,
    /// What it can do. An operator asks for nothing else; unknown ones are kept as text by older operators.
    pub capabilities: Vec<Capability>,
    /// The engine's version; absent while the engine does not answer.
    pub docker_version: Option<String>,
    /// The compose plugin's version; absent when there is none that works.
    pub compose_version: Option<String>,
    /// Free bytes where the engine keeps its data.
    pub disk_free_bytes: u64,
    /// All bytes there.
    pub disk_total_bytes: u64,
    /// How many operations it carries out at once.
    pub max_operations: u32,
    /// Names what the agent's policy file allows; another one whenever that has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_revision: Option<String>,
    /// What keeps the host from working, in sentences. Empty when all is well.
    pub problems: Vec<String>,
}

/// Something that an agent can do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Capability {
    /// Upgrades by patching the image tag alone.
    ImageOnly,
    /// Upgrades that write files.
    Release,
    /// Restore points with data, and rolling back to them.
    Rollback,
    /// Probes of other kinds than HTTP.
    Probes,
    /// Image references that compose files of the tenant's own write out, and whether a release reaches any image.
    Images,
    /// How edits by hand differ from what is wanted, in lines.
    Edits,
    /// One that this version does not know.
    Other(String),
}

impl From<String> for Capability {
    fn from(word: String) -> Self {
        match word.as_str() {
            "ImageOnly" => Self::ImageOnly,
            "Release" => Self::Release,
            "Rollback" => Self::Rollback,
            "Probes" => Self::Probes,
            "Images" => Self::Images,
            "Edits" => Self::Edits,
            _ => Self::Other(word),
        }
    }
}

impl From<Capability> for String {
    fn from(capability: Capability) -> String {
        match capability {
            Capability::ImageOnly => "ImageOnly".to_owned(),
            Capability::Release => "Release".to_owned(),
            Capability::Rollback => "Rollback".to_owned(),
            Capability::Probes => "Probes".to_owned(),
            Capability::Images => "Images".to_owned(),
            Capability::Edits => "Edits".to_owned(),
            Capability::Other(word) => word,
        }
    }
}
