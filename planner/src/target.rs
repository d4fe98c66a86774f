//! What a Tenant should be at: its spec parsed once into validated types, and the hash that names the target.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use sha2::{Digest as _, Sha256 as Hasher};
use tenantry_api::names::{
    Argv, Directory, Identity, ImageTag, LoopbackAddress, LoopbackUrl, NameError, OperationId, ProjectName,
    ProtectedPath, RelativePath, ServiceName, TenantUid,
};
use tenantry_api::tenant::{
    Adopt, Approach, DEFAULT_HTTP_STATUS, OnFailure, RollbackData, TenantSpec, Verify, parse_duration,
};
use tenantry_api::tenant_status::{Resolved, ResolvedImage};
use tenantry_protocol::{
    Action, ComposeChoice, EnvManifest, FileContent, FileManifest, ImageSetting, Manifest, OperateRequest,
    Place, Probe, ProbeExec, ProbeHttp, ProbeTcp, ReleaseLabel, ResolvedReference, SnapshotPolicy, TenantRef,
    VerifyPolicy,
};

use crate::bundle::{Bundle, BundleIdentity};

mod env;
mod images;
mod refusal;
mod snapshot;
mod tag_use;

pub use env::expand;
pub use refusal::{Refusal, RefusalReason};
pub use tag_use::TagUse;

/// The name of the file that a managed `.env` is.
pub const ENV_FILE: &str = ".env";

/// A spec whose strings have been parsed. What is rendered from a bundle is not in it yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// The Tenant that asks.
    pub tenant: TenantRef,
    /// The ComposeHost's name.
    pub host: Identity,
    /// Where on the host.
    pub place: Place,
    /// The bundle's name.
    pub bundle: Option<String>,
    /// The release, as people call it: the image tag, or the tags that `images` says.
    pub image_tag: ImageTag,
    /// What to do on first contact.
    pub adopt: Adopt,
    /// How a release reaches the host.
    pub approach: Approach,
    /// Whose `.env` is.
    pub env: EnvManifest,
    /// Images that the compose files write out.
    pub images: Vec<ImageSetting>,
    /// By what the image tag is to reach an image.
    pub tag_use: TagUse,
    /// The tenant's own paths.
    pub protect: Vec<ProtectedPath>,
    /// Services that run once and end, as the spec says.
    pub jobs: Vec<ServiceName>,
    /// When a release counts as running.
    pub verify: VerifyPolicy,
    /// What to do when the release does not come up.
    pub on_failure: OnFailure,
    /// What else than files and images belongs to a restore point.
    pub snapshot: SnapshotPolicy,
    /// Whether a rollback after a failure restores that data, too.
    pub rollback_data: RollbackData,
}

/// Reads a name of the spec; the message names the field.
fn field<T>(name: impl fmt::Display, result: Result<T, NameError>) -> Result<T, Refusal> {
    result.map_err(|error| Refusal::new(RefusalReason::InvalidSpec, format!("spec.{name}: {error}.")))
}

impl Intent {
    /// Parses a spec. The API server has checked the same; this is what makes the rest of the program able to rely on it.
    pub fn parse(uid: &str, namespace: &str, name: &str, spec: &TenantSpec) -> Result<Self, Refusal> {
        let uid = TenantUid::parse(uid)
            .map_err(|error| Refusal::new(RefusalReason::InvalidSpec, format!("metadata.uid: {error}.")))?;
        let tag_use = TagUse::of(spec);
        tag_use.is_said(spec)?;
        let image_tag = field("imageTag", ImageTag::parse(spec.release()))?;
        let env = env::parse(spec, &image_tag)?;
        let images = images::parse(spec, &image_tag)?;
        let (protect, snapshot) = (protect(spec)?, snapshot::parse(&spec.upgrade)?);
        snapshot::check_overlap(&snapshot, &[])?;
        snapshot::check_rollback_data(spec.upgrade.rollback_data, &snapshot, &protect)?;
        Ok(Self {
            tenant: TenantRef { uid, namespace: namespace.to_owned(), name: name.to_owned() },
            host: field("host", Identity::parse(&spec.host))?,
            place: place(spec)?,
            bundle: spec.bundle.clone(),
            image_tag,
            adopt: spec.adopt,
            approach: spec.upgrade.approach,
            env,
            images,
            tag_use,
            protect,
            jobs: jobs(spec)?,
            verify: verify(&spec.upgrade.verify)?,
            on_failure: spec.upgrade.on_failure,
            snapshot,
            rollback_data: spec.upgrade.rollback_data,
        })
    }
}

fn place(spec: &TenantSpec) -> Result<Place, Refusal> {
    let compose = match &spec.compose {
        None => None,
        Some(selection) => {
            let parse = |(index, file): (usize, &String)| {
                field(format!("compose.files[{index}]"), RelativePath::parse(file))
            };
            let files = selection.files.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
            let chosen = !files.is_empty() || !selection.profiles.is_empty();
            chosen.then(|| ComposeChoice { files, profiles: selection.profiles.clone() })
        }
    };
    Ok(Place {
        project: field("project", ProjectName::parse(&spec.project))?,
        directory: field("directory", Directory::parse(&spec.directory))?,
        compose,
    })
}

fn protect(spec: &TenantSpec) -> Result<Vec<ProtectedPath>, Refusal> {
    let parse =
        |(index, path): (usize, &String)| field(format!("protect[{index}]"), ProtectedPath::parse(path));
    let mut paths = spec.protect.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    paths.dedup();
    Ok(paths)
}

fn jobs(spec: &TenantSpec) -> Result<Vec<ServiceName>, Refusal> {
    let parse = |(index, name): (usize, &String)| field(format!("jobs[{index}]"), ServiceName::parse(name));
    let mut names = spec.jobs.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
    names.sort();
    names.dedup();
    Ok(names)
}

fn verify(spec: &Verify) -> Result<VerifyPolicy, Refusal> {
    let timeout = duration("verify.timeout", &spec.timeout, Duration::from_secs(1), Duration::from_hours(1))?;
    let stable = duration("verify.stableFor", &spec.stable_for, Duration::ZERO, Duration::from_mins(10))?;
    Ok(VerifyPolicy { timeout_ms: timeout, stable_for_ms: stable, probes: probes(spec)? })
}

/// The probes in the order HTTP, TCP, commands.
fn probes(spec: &Verify) -> Result<Vec<Probe>, Refusal> {
    let http = spec.http.iter().enumerate().map(|(index, probe)| {
        let at = format!("upgrade.verify.http[{index}]");
        let said = probe.status.unwrap_or(DEFAULT_HTTP_STATUS);
        let status = u16::try_from(said).ok().filter(|status| (100..=599).contains(status));
        let status = status.ok_or_else(|| {
            let message = format!("spec.{at}.status: {said} is not from 100 to 599.");
            Refusal::new(RefusalReason::InvalidSpec, message)
        })?;
        let url = field(format!("{at}.url"), LoopbackUrl::parse(&probe.url))?;
        Ok(Probe::Http(ProbeHttp { url, status, contains: probe.contains.clone() }))
    });
    let tcp = spec.tcp.iter().enumerate().map(|(index, probe)| {
        let name = format!("upgrade.verify.tcp[{index}].address");
        Ok(Probe::Tcp(ProbeTcp { address: field(name, LoopbackAddress::parse(&probe.address))? }))
    });
    let exec = spec.exec.iter().enumerate().map(|(index, probe)| {
        let at = format!("upgrade.verify.exec[{index}]");
        let service = field(format!("{at}.service"), ServiceName::parse(&probe.service))?;
        let command = field(format!("{at}.command"), Argv::parse(probe.command.clone()))?;
        Ok(Probe::Exec(ProbeExec { service, command }))
    });
    http.chain(tcp).chain(exec).collect()
}

fn duration(name: &str, text: &str, least: Duration, most: Duration) -> Result<u64, Refusal> {
    let in_range = parse_duration(text).filter(|value| (least..=most).contains(value));
    let millis = in_range.and_then(|value| u64::try_from(value.as_millis()).ok());
    millis.ok_or_else(|| {
        let message = format!(
            "spec.upgrade.{name}: {text:?} is not a duration from {}s to {}s; write a whole number and ms, s, m or h.",
            least.as_secs(),
            most.as_secs()
        );
        Refusal::new(RefusalReason::InvalidSpec, message)
    })
}

/// What a bundle was rendered to for one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Every file, sorted by path.
    pub files: Vec<FileManifest>,
    /// The content of every file, in the same order.
    pub contents: Vec<FileContent>,
}

impl Rendered {
    /// Whether any file holds a text.
    fn mention(&self, text: &ImageTag) -> bool {
        let text = text.as_str().as_bytes();
        let mut contents = self.contents.iter().map(|file| &file.content.0);
        contents.any(|content| content.windows(text.len()).any(|part| part == text))
    }
}

/// What should be on the host, complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The parsed spec.
    pub intent: Intent,
    /// The bundle's digest.
    pub bundle_revision: Option<String>,
    /// Files, `.env`, protected paths, jobs, rules.
    pub manifest: Manifest,
    /// Hash over path, content, mode and owner of every managed file.
    pub files_hash: String,
    /// The target's hash before moved tags enter it.
    pub base_hash: String,
}

impl Desired {
    /// A target without a bundle: only patched variables.
    pub fn without_bundle(intent: Intent) -> Self {
        let manifest = Manifest {
            files: Vec::new(),
            env: intent.env.clone(),
            images: intent.images.clone(),
            protect: intent.protect.clone(),
            jobs: intent.jobs.clone(),
            on_change: Vec::new(),
        };
        Self::assemble(intent, None, manifest)
    }

    /// What a person goes back with where the spec can be read but not rendered: everything that is restored is on
    /// the host already.
    pub fn to_go_back(intent: Intent) -> Self {
        let env = EnvManifest::Adopted { patch: Vec::new() };
        Self::without_bundle(Intent { env, images: Vec::new(), tag_use: TagUse::default(), ..intent })
    }

    /// A target with what its bundle was rendered to.
    pub fn with_bundle(mut intent: Intent, bundle: &Bundle, rendered: &Rendered) -> Result<Self, Refusal> {
        intent.tag_use.is_rendered(rendered.mention(&intent.image_tag));
        let files = rendered.files.clone();
        let BundleIdentity { name, digest } = &bundle.identity;
        let renders_env = files.iter().any(|file| file.path.as_str() == ENV_FILE);
        match (&intent.env, renders_env) {
            (EnvManifest::Managed, false) => {
                let message = format!(
                    "spec.env.ownership is Managed, but TemplateBundle {name} renders no .env; add it to the bundle or use Adopted."
                );
                return Err(Refusal::new(RefusalReason::BundleInvalid, message));
            }
            (EnvManifest::Adopted { .. }, true) => {
                let message = format!(
                    "TemplateBundle {name} renders .env, but spec.env.ownership is Adopted; set it to Managed, \
                     or take .env out of the bundle."
                );
                return Err(Refusal::new(RefusalReason::BundleInvalid, message));
            }
            _ => {}
        }
        check_protected(&intent.protect, &files, name)?;
        snapshot::check_overlap(&intent.snapshot, &files)?;
        let manifest = Manifest {
            files,
            env: intent.env.clone(),
            images: intent.images.clone(),
            protect: intent.protect.clone(),
            jobs: all_jobs(&bundle.jobs, &intent.jobs),
            on_change: bundle.on_change.clone(),
        };
        let digest = digest.clone();
        Ok(Self::assemble(intent, Some(digest), manifest))
    }

    fn assemble(intent: Intent, bundle_revision: Option<String>, manifest: Manifest) -> Self {
        let files_hash = files_hash(&manifest.files);
        let base_hash = base_hash(&intent, bundle_revision.as_deref(), &manifest);
        Self { intent, bundle_revision, manifest, files_hash, base_hash }
    }

    /// The target's hash: digests of moved tags enter it while they were found for this very target.
    pub fn target_hash(&self, resolved: Option<&Resolved>) -> String {
        match self.pinned(resolved) {
            [] => self.base_hash.clone(),
            images => {
                let mut hasher = Hasher::new();
                hasher.update(self.base_hash.as_bytes());
                for image in images {
                    hasher.update([0]);
                    hasher.update(image.reference.as_bytes());
                    hasher.update([b'@']);
                    hasher.update(image.digest.as_bytes());
                }
                format!("sha256:{}", hex(&hasher.finalize()))
            }
        }
    }

    /// The digests of moved tags that belong to this target.
    pub fn pinned<'a>(&self, resolved: Option<&'a Resolved>) -> &'a [ResolvedImage] {
        resolved
            .filter(|resolved| resolved.base_hash == self.base_hash)
            .map_or(&[], |resolved| &resolved.images)
    }

    /// The request that brings a host to this target.
    pub fn operate_request(&self, terms: &OperationTerms, contents: Vec<FileContent>) -> OperateRequest {
        let pin = |image: &ResolvedImage| ResolvedReference {
            reference: image.reference.clone(),
            digest: Some(image.digest.clone()),
            problem: None,
        };
        let upgrade = OperateRequest {
            tenant: self.intent.tenant.clone(),
            place: self.intent.place.clone(),
            epoch: terms.epoch,
            target_hash: terms.target_hash.clone(),
            approach: terms.approach,
            manifest: self.manifest.clone(),
            contents,
            pinned: terms.pinned.iter().map(pin).collect(),
            verify: self.intent.verify.clone(),
            on_failure: self.intent.on_failure,
            overwrite: self.intent.adopt == Adopt::Overwrite,
            action: Action::Upgrade,
            release: ReleaseLabel {
                image_tag: self.intent.image_tag.to_string(),
                bundle_revision: self.bundle_revision.clone(),
                files_hash: self.files_hash.clone(),
            },
            snapshot: self.intent.snapshot.clone(),
            rollback_data: self.intent.rollback_data,
            tag_keys: if terms.checks_reach { self.intent.tag_use.only_keys().to_vec() } else { Vec::new() },
        };
        let Some(Rollback { to, data, release }) = terms.rollback.clone() else { return upgrade };
        // What is restored is all on the host: of what is wanted only how to watch it counts.
        let manifest = Manifest {
            files: Vec::new(),
            env: EnvManifest::Adopted { patch: Vec::new() },
            images: Vec::new(),
            on_change: Vec::new(),
            ..upgrade.manifest
        };
        // The release that is gone back to is judged by its own probes: an agent that does not know the target's can do it.
        let verify = VerifyPolicy { probes: Vec::new(), ..upgrade.verify };
        let action = Action::Rollback { to, data };
        OperateRequest {
            manifest,
            contents: Vec::new(),
            pinned: Vec::new(),
            tag_keys: Vec::new(),
            verify,
            action,
            release,
            ..upgrade
        }
    }
}

/// Going back to a restore point, as a person asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollback {
    /// The restore point's id.
    pub to: OperationId,
    /// Whether declared paths and volumes are restored, too.
    pub data: bool,
    /// The release that the restore point leads back to.
    pub release: ReleaseLabel,
}

/// What an operation is to do, besides what the target says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationTerms {
    /// Above every epoch before.
    pub epoch: u64,
    /// The target's hash, moved tags included.
    pub target_hash: String,
    /// `ImageOnly` or `Release`.
    pub approach: Approach,
    /// Digests of moved tags.
    pub pinned: Vec<ResolvedImage>,
    /// Whether the agent looks whether the release reaches an image.
    pub checks_reach: bool,
    /// Set where a person goes back to a restore point.
    pub rollback: Option<Rollback>,
}

fn check_protected(protect: &[ProtectedPath], files: &[FileManifest], bundle: &str) -> Result<(), Refusal> {
    for file in files {
        if let Some(own) = protect.iter().find(|own| own.conflicts_with(&file.path)) {
            let message = format!(
                "TemplateBundle {bundle} would write {}, which spec.protect ({own}) keeps as the tenant's own; \
                 take the file out of the bundle or the path out of spec.protect.",
                file.path
            );
            return Err(Refusal::new(RefusalReason::PathRefused, message));
        }
        let env = RelativePath::env_file();
        if file.path != env && file.path.is_at_or_below(&env) {
            let message = format!("TemplateBundle {bundle} would write {} beneath the file .env.", file.path);
            return Err(Refusal::new(RefusalReason::PathRefused, message));
        }
    }
    Ok(())
}

/// The jobs of a bundle, in its order, and those that the spec names besides.
fn all_jobs(bundle: &[ServiceName], spec: &[ServiceName]) -> Vec<ServiceName> {
    bundle.iter().chain(spec.iter().filter(|name| !bundle.contains(name))).cloned().collect()
}

/// Everything that a target's hash speaks of, in a fixed order: structures only, so that it is canonical.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TargetParts<'a> {
    version: u32,
    image_tag: &'a ImageTag,
    bundle: Option<&'a str>,
    place: &'a Place,
    files: &'a [FileManifest],
    env: &'a EnvManifest,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    images: &'a [ImageSetting],
    jobs: &'a [ServiceName],
    on_change: &'a [tenantry_protocol::ChangeRule],
    verify: &'a VerifyPolicy,
}

fn base_hash(intent: &Intent, bundle: Option<&str>, manifest: &Manifest) -> String {
    hash_json(&TargetParts {
        version: 1,
        image_tag: &intent.image_tag,
        bundle,
        place: &intent.place,
        files: &manifest.files,
        env: &manifest.env,
        images: &manifest.images,
        jobs: &manifest.jobs,
        on_change: &manifest.on_change,
        verify: &intent.verify,
    })
}

/// Hash over path, content, mode and owner of every managed file.
pub fn files_hash(files: &[FileManifest]) -> String {
    hash_json(&files)
}

/// SHA-256 over the JSON of a structure, which holds no map.
pub fn hash_json(value: &impl Serialize) -> String {
    // Serialising plain structures to memory cannot fail; an empty text would only make one more hash.
    let text = serde_json::to_vec(value).unwrap_or_default();
    format!("sha256:{}", hex(&Hasher::digest(&text)))
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
