//! `ComposeHost`: a machine that runs Docker and one agent.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A machine that runs Docker and one Tenantry agent, and how the operator reaches that agent.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "tenantry.dev",
    version = "v1alpha1",
    kind = "ComposeHost",
    plural = "composehosts",
    shortname = "chost",
    category = "tenantry",
    namespaced,
    status = "ComposeHostStatus",
    doc = "A machine that runs Docker and one Tenantry agent.",
    printcolumn = r#"{"name":"ADDRESS","type":"string","jsonPath":".spec.connection.dial.address"}"#,
    printcolumn = r#"{"name":"READY","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"DOCKER","type":"string","jsonPath":".status.dockerVersion"}"#,
    printcolumn = r#"{"name":"COMPOSE","type":"string","jsonPath":".status.composeVersion","priority":1}"#,
    printcolumn = r#"{"name":"AGENT","type":"string","jsonPath":".status.agentVersion","priority":1}"#,
    printcolumn = r#"{"name":"REASON","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"AGE","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"MESSAGE","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message","priority":1}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ComposeHostSpec {
    /// How the operator reaches the host's agent. Exactly one way.
    pub connection: Connection,
    /// The agent's exact identity: its certificate must be for `<identity>.agent.tenantry.internal`, and for nothing
    /// else. Example: `n5`.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub identity: String,
}

/// How the operator reaches an agent: a union with one member for each way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Connection {
    /// The operator connects to the agent.
    pub dial: Dial,
}

/// The operator connects to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dial {
    /// Host name or IP address and port of the agent. An IPv6 address stands in brackets. Example: `10.0.0.5:7443`.
    #[schemars(
        length(min = 3, max = 261),
        regex(pattern = r"^([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$")
    )]
    pub address: String,
}

/// What the agent said of its host. Written when something changes and at most every 5 minutes, never as a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComposeHostStatus {
    /// The generation of `spec` that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` (the agent answered as itself), `Reconciling` and `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The agent's version. Example: `0.1.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub agent_version: Option<String>,
    /// What the agent can do, by name. An operator never asks for what is not listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 64)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub capabilities: Vec<String>,
    /// The Docker engine's version. Example: `28.2.2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub docker_version: Option<String>,
    /// The version of the compose plugin on the host. Example: `v5.0.2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub compose_version: Option<String>,
    /// Free and whole space of the disk that holds the engine's data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
    /// How many operations the agent carries out at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub max_operations: Option<i32>,
    /// Which policy file the agent goes by; another one whenever what it allows has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub policy_revision: Option<String>,
    /// When the agent last answered, as known at the last write of this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_contact: Option<Time>,
}

/// Space on a disk, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// Bytes that are free for the agent.
    #[schemars(range(min = 0))]
    pub free_bytes: i64,
    /// Bytes in all.
    #[schemars(range(min = 0))]
    pub total_bytes: i64,
}
