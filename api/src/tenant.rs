//! `Tenant`: one compose project, in one directory, on one host, and the release that it should be at.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tenant_status::TenantStatus;

/// One compose project on one host, and the release that it should be at. No controller writes it.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "tenantry.dev",
    version = "v1alpha1",
    kind = "Tenant",
    plural = "tenants",
    shortname = "tnt",
    category = "tenantry",
    namespaced,
    status = "TenantStatus",
    selectable = ".spec.host",
    doc = "One compose project on one host, and the release that it should be at.",
    printcolumn = r#"{"name":"HOST","type":"string","jsonPath":".spec.host"}"#,
    printcolumn = r#"{"name":"TAG","type":"string","jsonPath":".spec.imageTag"}"#,
    printcolumn = r#"{"name":"STATUS","type":"string","jsonPath":".status.summary"}"#,
    printcolumn = r#"{"name":"AGE","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"READY","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status","priority":1}"#,
    printcolumn = r#"{"name":"DEPLOYED","type":"string","jsonPath":".status.deployed.imageTag","priority":1}"#,
    printcolumn = r#"{"name":"PROJECT","type":"string","jsonPath":".spec.project","priority":1}"#,
    printcolumn = r#"{"name":"DIRECTORY","type":"string","jsonPath":".spec.directory","priority":1}"#,
    printcolumn = r#"{"name":"BUNDLE","type":"string","jsonPath":".spec.bundle","priority":1}"#,
    printcolumn = r#"{"name":"APPROACH","type":"string","jsonPath":".status.plan.approach","priority":1}"#,
    printcolumn = r#"{"name":"OUTCOME","type":"string","jsonPath":".status.upgrade.outcome","priority":1}"#,
    printcolumn = r#"{"name":"DRIFTED","type":"string","jsonPath":".status.conditions[?(@.type==\"Drifted\")].status","priority":1}"#,
    printcolumn = r#"{"name":"MESSAGE","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message","priority":1}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.bundle) || self.env.ownership == 'Adopted'")
        .message("env.ownership Managed needs a bundle that renders .env: set spec.bundle or use Adopted"),
    validation = Rule::new("has(self.bundle) || self.upgrade.approach != 'Release'")
        .message("upgrade.approach Release needs a bundle: set spec.bundle or use ImageOnly"),
    validation = Rule::new("has(self.bundle) || size(self.env.patch) > 0 || (has(self.images) && size(self.images) > 0)")
        .message("without a bundle a release reaches the host only through env.patch or images: name the variable, for example IMAGE_TAG, or the images that the compose files write out"),
    validation = Rule::new("has(self.imageTag) || (!has(self.bundle) && has(self.images) && size(self.images) > 0 && self.images.all(i, !has(i.newTag) || !i.newTag.contains('$(imageTag)')) && self.env.patch.all(p, !p.value.replace('$$(', '').contains('$(imageTag)')))")
        .message("imageTag may be left out only without a bundle, where images says every tag itself: set imageTag, or write out each newTag and env.patch value that uses $(imageTag)"),
)]
pub struct TenantSpec {
    /// The ComposeHost, in this namespace, that the project runs on. Cannot be changed. Example: `n5`.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("host cannot be changed: make a new Tenant for another host"))]
    pub host: String,
    /// The compose project's name on the host. Cannot be changed. Example: `changemakerlite`.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9][a-z0-9_-]*$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("project cannot be changed: make a new Tenant for another project"))]
    pub project: String,
    /// The directory on the host where the project is installed: absolute, without `..`, no trailing `/`. Cannot be
    /// changed. Example: `/srv/changemaker.lite`.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))]
    #[x_kube(
        validation = Rule::new("self.startsWith('/') && !self.endsWith('/') && !self.contains('//')")
            .message("directory must be absolute, without doubled or closing '/', for example /srv/acme"),
        validation = Rule::new("self == oldSelf").message("directory cannot be changed: make a new Tenant for another directory"),
        validation = Rule::new("!self.contains('/../') && !self.endsWith('/..') && !self.contains('/./') && !self.endsWith('/.')")
            .message("directory must not have '.' or '..' components: write the plain path"),
    )]
    pub directory: String,
    /// Which compose files and profiles are used. Default: what plain `docker compose` in that directory would use;
    /// what that was is recorded in `status.compose`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compose: Option<ComposeSelection>,
    /// The TemplateBundle, in this namespace, that renders the project's files. Default: none; then only images are
    /// changed, through `env.patch` or `images`. Example: `changemaker`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub bundle: Option<String>,
    /// The release: the image tag that templates see as `imageTag`, patches and `images` as `$(imageTag)`. May be left
    /// out where `images` says every tag itself. Example: `v2.10.3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"))]
    pub image_tag: Option<String>,
    /// Images that the compose files write out, and what they become, in kustomize's words. The files stay the tenant's
    /// own: exactly these image references are changed in them, every other byte is kept. Default: none.
    /// Example: `[{name: ghcr.io/acme/app, newTag: $(imageTag)}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub images: Vec<ImageSetting>,
    /// What to do on first contact with a project that is already there and differs: `IfIdentical` stops and lists the
    /// differences, `Overwrite` goes on. Default: `IfIdentical`.
    #[serde(default)]
    pub adopt: Adopt,
    /// What the bundle's templates see as `values`: any object. Default: empty. Example: `{domain: acme.example}`.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[schemars(schema_with = "free_form")]
    pub values: serde_json::Map<String, serde_json::Value>,
    /// Whose the `.env` file is, and what of it is set. Default: `Adopted`, nothing patched.
    #[serde(default)]
    pub env: Env,
    /// Files and folders beneath the directory that are the tenant's own: nothing of ours ever touches them, nor
    /// anything below. Default: none. Example: `[mkdocs/, configs/code-server/data/]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 1024), regex(pattern = r"^[^/\x00-\x1f\x7f]+(/[^/\x00-\x1f\x7f]+)*/?$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = Rule::new("self.all(p, !p.startsWith('../') && !p.contains('/../') && !p.endsWith('/..') && p != '..' && p != '.' && !p.startsWith('./') && !p.contains('/./'))")
        .message("a protected path must not have '.' or '..' components: write the plain path beneath the directory"))]
    pub protect: Vec<String>,
    /// Services that run once and end: they count as well once they have ended with 0, and as not well before. Those that
    /// others wait for (`service_completed_successfully`) and those that the bundle calls jobs are known without it; and
    /// whatever has `restart: no` or `on-failure`, no `ports` and no `healthcheck` may run or have ended with 0 as it
    /// likes. Default: none. Example: `[createbuckets]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 63), regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub jobs: Vec<String>,
    /// How an upgrade is done, verified, and answered when it fails.
    #[serde(default)]
    pub upgrade: Upgrade,
    /// Do nothing on the host until this is false again. An operation in flight is not cancelled. Default: false.
    #[serde(default)]
    pub suspend: bool,
}

/// Which compose files and profiles are used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ComposeSelection {
    /// Compose files beneath the directory, in the order in which compose merges them. Default: compose's own
    /// discovery. Example: `[docker-compose.yml, docker-compose.prod.yml]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(
            length(min = 1, max = 1024),
            regex(pattern = r"^[^/\x00-\x1f\x7f-][^/\x00-\x1f\x7f]*(/[^/\x00-\x1f\x7f]+)*$")
        )
    )]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub files: Vec<String>,
    /// Profiles that are switched on. Default: those that `COMPOSE_PROFILES` in `.env` names. Example: `[monitoring]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 64), regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub profiles: Vec<String>,
}

/// An image that the compose files write out, and what it becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.newName) || has(self.newTag) || has(self.digest)")
    .message("an entry of images must say what becomes of the image: set newTag, digest or newName"))]
pub struct ImageSetting {
    /// The image's name without tag and digest. Names match as the engine completes them: `redis` is
    /// `docker.io/library/redis`. Example: `ghcr.io/acme/app`.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-z0-9][a-zA-Z0-9._:/-]*$"))]
    pub name: String,
    /// Another name for it. Default: the name stays. Example: `registry.example.com/acme/app`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-z0-9][a-zA-Z0-9._:/-]*$"))]
    pub new_name: Option<String>,
    /// The tag that it gets; a digest that stands there goes, for it would win. `$(imageTag)` is replaced by
    /// `spec.imageTag`. Default: the tag stays. Example: `$(imageTag)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9_.$()-]+$"))]
    #[x_kube(validation = Rule::new("self.replace('$(imageTag)', 'x').matches('^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$')")
        .message("newTag must be a tag, which may use $(imageTag), for example v$(imageTag)"))]
    pub new_tag: Option<String>,
    /// The digest that it gets; it wins over a tag. Default: none.
    /// Example: `sha256:` and 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 71, max = 71), regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub digest: Option<String>,
    /// Only in these services. Default: in every service that has the image. Example: `[cache]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub services: Vec<String>,
}

/// What to do on first contact with a project that is already there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Adopt {
    /// Take the project over only if it is what would be deployed; otherwise stop and list the differences.
    #[default]
    IfIdentical,
    /// Take the project over and bring it to the target. Does not cover containers made from another path.
    Overwrite,
}

/// Whose the `.env` file is, and what of it is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self.ownership == 'Adopted' || size(self.patch) == 0")
    .message("env.patch is for an Adopted .env only: a Managed one is rendered whole by the bundle"))]
pub struct Env {
    /// `Adopted`: the file is the tenant's, single keys are patched and every other byte is kept. `Managed`: the bundle
    /// renders it. Default: `Adopted`.
    #[serde(default)]
    pub ownership: EnvOwnership,
    /// Variables to set in an adopted `.env`; one that is absent is appended. Default: none.
    /// Example: `[{name: IMAGE_TAG, value: $(imageTag)}]`.
    #[serde(default)]
    #[schemars(length(max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub patch: Vec<EnvPatch>,
}

/// Whose the `.env` file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EnvOwnership {
    /// The tenant's own: it may hold secrets that nobody else knows. Keys are patched in place.
    #[default]
    Adopted,
    /// The bundle renders it.
    Managed,
}

/// One variable of an adopted `.env`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvPatch {
    /// The variable. `COMPOSE_*`, `DOCKER_*`, `LD_*`, `PATH` and `HOME` are refused. Example: `IMAGE_TAG`.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    #[x_kube(validation = Rule::new("!self.startsWith('COMPOSE_') && !self.startsWith('DOCKER_') && !self.startsWith('LD_') && self != 'PATH' && self != 'HOME'")
        .message("this variable steers compose, Docker or the loader itself, so it is never patched"))]
    pub name: String,
    /// Its value. `$(imageTag)` is replaced by `spec.imageTag`; `$$(` is a literal `$(`. One line, at most 4,096
    /// characters. Example: `$(imageTag)`.
    #[schemars(length(max = 4096), regex(pattern = r"^[^\x00\r\n]*$"))]
    #[x_kube(validation = Rule::new("!self.replace('$$(', '').replace('$(imageTag)', '').contains('$(')")
        .message("only $(imageTag) can be used in a value; write $$( for a literal $("))]
    pub value: String,
}

/// How an upgrade is done, verified, and answered when it fails.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Upgrade {
    /// `ImageOnly`: patch, pull, up. `Release`: files are written too. `Auto`: `ImageOnly` when no managed file but
    /// `.env` would change, else `Release`. Default: `Auto`.
    #[serde(default)]
    pub approach: Approach,
    /// When a release counts as running.
    #[serde(default)]
    pub verify: Verify,
    /// What to do when verification fails: `Rollback` restores the previous release, `Hold` leaves the failed one
    /// running to be looked at. Default: `Rollback`.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// What else than files and images a restore point keeps, and how. Default: nothing.
    #[serde(default)]
    pub snapshot: Snapshot,
    /// Whether a rollback after a failed upgrade restores the snapshot, too: `Always` gives up what was written since.
    /// Refused where a path of the snapshot overlaps `protect`. Default: `Never`.
    #[serde(default)]
    pub rollback_data: RollbackData,
}

/// How many restore points are kept where the spec does not say.
pub const DEFAULT_RETAIN: u32 = 5;

/// What else than files and images a restore point keeps, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    /// Files and folders beneath the directory that are kept with each restore point. Default: none. Example:
    /// `[uploads]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 1024), regex(pattern = r"^[^/\x00-\x1f\x7f]+(/[^/\x00-\x1f\x7f]+)*$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = Rule::new("self.all(p, !p.startsWith('../') && !p.contains('/../') && !p.endsWith('/..') && p != '..' && p != '.' && !p.startsWith('./') && !p.contains('/./'))")
        .message("a path of the snapshot must not have '.' or '..' components: write the plain path beneath the directory"))]
    pub paths: Vec<String>,
    /// Volumes that are kept, by their names in the compose file. Default: none. Example: `[db-data]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub volumes: Vec<String>,
    /// What happens meanwhile to the services that mount these: `Live` nothing, `Pause` they are paused, `Stop` they
    /// are stopped, after every image is local. Default: `Stop`.
    #[serde(default)]
    pub consistency: Consistency,
    /// How many restore points are kept. 1 to 20. Default: 5.
    #[serde(default = "default_retain")]
    #[schemars(range(min = 1, max = 20))]
    pub retain: u32,
}

fn default_retain() -> u32 {
    DEFAULT_RETAIN
}

impl Default for Snapshot {
    fn default() -> Self {
        let consistency = Consistency::default();
        Self { paths: Vec::new(), volumes: Vec::new(), consistency, retain: DEFAULT_RETAIN }
    }
}

/// What happens to services while the data that they mount is copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Consistency {
    /// Nothing: the copy is of files that may change meanwhile.
    Live,
    /// They are paused: the copy is as after a power cut.
    Pause,
    /// They are stopped: the copy is as after a clean end.
    #[default]
    Stop,
}

/// Whether a rollback after a failed upgrade restores data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RollbackData {
    /// Data stays as it is.
    #[default]
    Never,
    /// Declared paths and volumes are restored; what was written since is lost.
    Always,
}

/// How a release reaches the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Approach {
    /// `ImageOnly` when the plan changes no managed file but `.env`, `Release` when it does.
    #[default]
    Auto,
    /// Patching the tag, pull and up is the whole upgrade. Refused when another managed file would change.
    ImageOnly,
    /// Render, write, patch, pull, up.
    Release,
}

/// What to do when verification fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// Restore files, `.env` and images, start the previous release and verify it.
    #[default]
    Rollback,
    /// Leave the failed release running.
    Hold,
}

/// When a release counts as running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verify {
    /// How long services may take to become healthy after the start, before the upgrade has failed. `1s` to `1h`.
    /// Default: `120s`.
    #[serde(default = "default_timeout")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]{1,6}(ms|s|m|h)$') && duration(self) >= duration('1s') && duration(self) <= duration('1h')")
        .message("verify.timeout must be from 1s to 1h, for example 120s"))]
    pub timeout: String,
    /// How long all services must then stay healthy without a restart. `0s` to `10m`. Default: `15s`.
    #[serde(default = "default_stable_for")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]{1,6}(ms|s|m|h)$') && duration(self) >= duration('0s') && duration(self) <= duration('10m')")
        .message("verify.stableFor must be from 0s to 10m, for example 15s"))]
    pub stable_for: String,
    /// Requests that the agent makes from the host and that must be answered as said. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["url"]))]
    pub http: Vec<HttpProbe>,
    /// Ports that must take a connection, tried from the host. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["address"]))]
    pub tcp: Vec<TcpProbe>,
    /// Commands that the agent runs in services' containers and that must end with 0. The host's policy must allow
    /// them: `Exec` in `allow.verify`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub exec: Vec<ExecProbe>,
}

impl Default for Verify {
    fn default() -> Self {
        Self {
            timeout: default_timeout(),
            stable_for: default_stable_for(),
            http: Vec::new(),
            tcp: Vec::new(),
            exec: Vec::new(),
        }
    }
}

/// A GET request that must be answered as said, once a second until it is or `verify.timeout` has passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpProbe {
    /// Where, seen from the host. Loopback only. Example: `http://localhost:4000/api/health`.
    #[schemars(
        length(min = 8, max = 1024),
        regex(pattern = r"^http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?(/[^\s\x00-\x1f]*)?$")
    )]
    pub url: String,
    /// The status code of a good answer. Default: 200.
    // No default in the schema: `kubectl apply` compares lists whole, so that one would differ from what was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 599))]
    pub status: Option<i32>,
    /// A text that the first 64 KiB of a good answer's body hold. Default: none. Example: `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub contains: Option<String>,
}

/// A port that must take a connection, and not end it at once, within 5 s; tried again until it does or
/// `verify.timeout` has passed. Nothing is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpProbe {
    /// Host and port, seen from the host. Loopback only. Example: `127.0.0.1:5432`.
    #[schemars(
        length(min = 7, max = 32),
        regex(pattern = r"^(localhost|127\.0\.0\.1|\[::1\]):[1-9][0-9]{0,4}$")
    )]
    pub address: String,
}

/// A command that must end with 0 within 10 s, run about once a second until it does or `verify.timeout` has passed.
/// What it prints stays in a log on the host. A command that is still running by then is left to its container, and
/// waited for before it is run again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecProbe {
    /// The service, as the compose file calls it, in whose running containers it is run, as their own user. Not one
    /// that runs once and ends. Example: `db`.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$"))]
    pub service: String,
    /// The program and its arguments, 1 to 32 words of at most 1,024 characters. No shell reads them. Example:
    /// `[pg_isready, -q]`.
    #[schemars(length(min = 1, max = 32), inner(length(max = 1024), regex(pattern = r"^[^\x00]*$")))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    #[x_kube(validation = Rule::new("self[0] != ''").message("verify.exec.command must name a program first, for example [pg_isready, -q]"))]
    pub command: Vec<String>,
}

fn default_timeout() -> String {
    "120s".to_owned()
}

fn default_stable_for() -> String {
    "15s".to_owned()
}

/// The status code of a good answer where the probe does not say one.
pub const DEFAULT_HTTP_STATUS: i32 = 200;

impl TenantSpec {
    /// What people call the release: the image tag, or, where it is left out, the tags that `images` says, joined by `_`.
    pub fn release(&self) -> String {
        if let Some(tag) = &self.image_tag {
            return tag.clone();
        }
        let mut label: Vec<&str> = Vec::new();
        for image in &self.images {
            let digest = image.digest.as_deref().and_then(|digest| digest.get(7..19));
            let said = digest.or(image.new_tag.as_deref()).or(image.new_name.as_deref());
            label.extend(said.filter(|said| !label.contains(said)));
        }
        let allowed = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
        let label: String = label.join("_").chars().map(allowed).take(128).collect();
        label.trim_start_matches(['.', '-']).to_owned()
    }
}

fn free_form(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "maxProperties": 256,
    })
}

/// Reads a duration as specs write it: a whole number and `ms`, `s`, `m` or `h`.
pub fn parse_duration(text: &str) -> Option<std::time::Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok().filter(|_| number.len() <= 6)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(std::time::Duration::from_millis(number * millis))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn durations_are_read_with_their_unit() {
        assert_eq!(parse_duration("120s"), Some(Duration::from_mins(2)));
        assert_eq!(parse_duration("1500ms"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2h"), Some(Duration::from_hours(2)));
        for bad in ["", "s", "10", "1.5s", "-1s", "1d", "1234567s"] {
            assert_eq!(parse_duration(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_empty_upgrade_has_the_documented_defaults() {
        let upgrade: Upgrade = serde_json::from_str("{}").unwrap();
        assert_eq!(upgrade.approach, Approach::Auto);
        assert_eq!((upgrade.verify.timeout.as_str(), upgrade.verify.stable_for.as_str()), ("120s", "15s"));
        assert_eq!(upgrade.on_failure, OnFailure::Rollback);
    }
}
