//! Bounds and shapes of what a request says, whoever checked it before (P15): an operator that was taken over passes by
//! the API server's rules.

use std::collections::BTreeMap;

use tenantry_planner::bundle::path_conflict;
use tenantry_planner::env::EnvFile;
use tenantry_planner::images::{Change, Written, normal_name};
use tenantry_planner::verify::named_probes;
use tenantry_protocol::{
    ApiError, EnvManifest, ErrorCode, FileContent, ImageSetting, Manifest, OperateRequest, Place, Probe,
    ResolvedReference, SnapshotPolicy, TenantRef, VerifyPolicy,
};

use crate::engine::Reference;
use crate::host::refused;

const MAX_FILES: usize = 4_096;
const MAX_COMPOSE_FILES: usize = 64;
const MAX_PROTECTED: usize = 1_024;
const MAX_VARIABLES: usize = 1_024;
const MAX_IMAGES: usize = 64;
const MAX_SERVICES: usize = 1_000;
const MAX_RULES: usize = 256;
const MAX_DATA: usize = 64;
const MAX_RETAIN: u32 = 20;
const MAX_WORD: usize = 253;
/// The longest text that a probe looks for: as much of an answer as is read.
const MAX_CONTAINS: usize = 64 * 1024;
/// Signals by which programs read their files again.
const SIGNALS: [&str; 4] = ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH"];
/// Variables in a `.env` of the operator's that would steer compose, its helpers or the loader.
const STEERING: [&str; 14] = [
    "COMPOSE_DISABLE_ENV_FILE",
    "COMPOSE_ENV_FILES",
    "COMPOSE_EXPERIMENTAL",
    "COMPOSE_EXPERIMENTAL_GIT_REMOTE",
    "COMPOSE_EXPERIMENTAL_OCI_REMOTE",
    "COMPOSE_PROVIDER",
    "DOCKER_CERT_PATH",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_HOST",
    "DOCKER_TLS",
    "DOCKER_TLS_VERIFY",
    "HOME",
    "PATH",
];
const STEERING_PREFIXES: [&str; 3] = ["LD_", "GIT_", "SSH_"];

type Checked = Result<(), ApiError>;

/// Checks everything that an operation's request says of itself.
pub fn request(request: &OperateRequest) -> Checked {
    tenant(&request.tenant)?;
    place(&request.place)?;
    manifest(&request.manifest)?;
    managed_env(&request.manifest.env, &request.contents)?;
    pinned(&request.pinned)?;
    verify(&request.verify)?;
    snapshot(&request.snapshot)?;
    let label = &request.release;
    count("tagKeys", request.tag_keys.len(), MAX_VARIABLES)?;
    revision("release.imageTag", &label.image_tag)?;
    revision("release.filesHash", &label.files_hash)?;
    revision("release.bundleRevision", label.bundle_revision.as_deref().unwrap_or_default())
}

/// Who asks about what, and where.
pub fn about(who: &TenantRef, at: &Place, what: &Manifest) -> Checked {
    tenant(who)?;
    place(at)?;
    manifest(what)
}

/// An image that compose files write out: what is made of it is a reference.
fn image_setting(field: &str, image: &ImageSetting) -> Checked {
    count(&format!("{field}.services"), image.services.len(), MAX_SERVICES)?;
    let ImageSetting { name: own, new_name, new_tag, digest, services: _ } = image;
    if new_name.is_none() && new_tag.is_none() && digest.is_none() {
        return invalid(field, "says nothing of what becomes of the image");
    }
    let name = |member: &str, name: &str| {
        let problem = "is no image's name without tag and digest";
        normal_name(name)
            .map(|_| ())
            .ok_or_else(|| refused(ErrorCode::Invalid, &format!("{field}.{member}"), problem))
    };
    name("name", own)?;
    new_name.iter().try_for_each(|new| name("newName", new))?;
    let part = |member: &str, change: Change| {
        let made = Written::parse(own).with(&change).map(|_| ());
        made.map_err(|problem| refused(ErrorCode::Invalid, &format!("{field}.{member}"), problem.to_string()))
    };
    part("newTag", Change { new_tag: new_tag.clone(), ..Change::default() })?;
    part("digest", Change { digest: digest.clone(), ..Change::default() })
}

/// Who asks.
pub fn tenant(tenant: &TenantRef) -> Checked {
    word("tenant.namespace", &tenant.namespace)?;
    word("tenant.name", &tenant.name)
}

/// Where.
pub fn place(place: &Place) -> Checked {
    let Some(choice) = &place.compose else { return Ok(()) };
    count("place.compose.files", choice.files.len(), MAX_COMPOSE_FILES)?;
    count("place.compose.profiles", choice.profiles.len(), MAX_COMPOSE_FILES)?;
    for (at, profile) in choice.profiles.iter().enumerate() {
        word(&format!("place.compose.profiles[{at}]"), profile)?;
    }
    Ok(())
}

/// What should be on the host.
pub fn manifest(manifest: &Manifest) -> Checked {
    count("manifest.files", manifest.files.len(), MAX_FILES)?;
    count("manifest.protect", manifest.protect.len(), MAX_PROTECTED)?;
    count("manifest.jobs", manifest.jobs.len(), MAX_SERVICES)?;
    count("manifest.onChange", manifest.on_change.len(), MAX_RULES)?;
    count("manifest.env.patch", manifest.env.patch().len(), MAX_VARIABLES)?;
    count("manifest.images", manifest.images.len(), MAX_IMAGES)?;
    for (at, image) in manifest.images.iter().enumerate() {
        image_setting(&format!("manifest.images[{at}]"), image)?;
    }
    if let Some((at, problem)) = path_conflict(manifest.files.iter().map(|file| &file.path)) {
        return invalid(&format!("manifest.files[{at}].path"), &problem);
    }
    for (at, rule) in manifest.on_change.iter().enumerate() {
        count(&format!("manifest.onChange[{at}].paths"), rule.paths.len(), MAX_RULES)?;
        count(&format!("manifest.onChange[{at}].services"), rule.services.len(), MAX_SERVICES)?;
        if rule.signal.as_deref().is_some_and(|signal| !SIGNALS.contains(&signal)) {
            let problem = format!("is not one of {}", SIGNALS.join(", "));
            return invalid(&format!("manifest.onChange[{at}].signal"), &problem);
        }
    }
    Ok(())
}

/// A `.env` that the operator brings whole may not do what its patches may not.
fn managed_env(env: &EnvManifest, contents: &[FileContent]) -> Checked {
    if !matches!(env, EnvManifest::Managed) {
        return Ok(());
    }
    for (at, file) in contents.iter().enumerate().filter(|(_, file)| file.path.as_str() == ".env") {
        let field = format!("contents[{at}]");
        let Ok(read) = EnvFile::parse(&file.content.0) else {
            return invalid(&field, "is a .env that compose can't read: check its quotes");
        };
        let steers = |key: &&str| {
            STEERING.contains(key) || STEERING_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
        };
        if let Some(key) = read.keys().find(steers) {
            let problem = format!(
                "sets {key}, which steers compose, Docker or the loader itself: leave it out of the bundle's .env"
            );
            return Err(refused(ErrorCode::PolicyRefused, &field, problem));
        }
    }
    Ok(())
}

fn pinned(all: &[ResolvedReference]) -> Checked {
    count("pinned", all.len(), MAX_SERVICES)?;
    let mut digests = BTreeMap::new();
    for (at, one) in all.iter().enumerate() {
        if Reference::parse(&one.reference).is_none() {
            return invalid(&format!("pinned[{at}].reference"), "is no image reference");
        }
        let hex = one.digest.as_deref().map(|digest| digest.strip_prefix("sha256:").unwrap_or_default());
        if hex.is_some_and(|hex| tenantry_api::names::Sha256::parse(hex).is_err()) {
            return invalid(
                &format!("pinned[{at}].digest"),
                "is not sha256: and 64 lower-case hexadecimal digits",
            );
        }
        if digests.insert(&one.reference, at).is_some() {
            return invalid(&format!("pinned[{at}].reference"), "is there twice");
        }
    }
    Ok(())
}

fn verify(policy: &VerifyPolicy) -> Checked {
    for (field, probe) in named_probes(&policy.probes) {
        let Probe::Http(probe) = probe else { continue };
        if !(100..600).contains(&probe.status) {
            return invalid(&format!("{field}.status"), "is no status of HTTP: 100 to 599");
        }
        if probe.contains.as_ref().is_some_and(|text| text.len() > MAX_CONTAINS) {
            return invalid(
                &format!("{field}.contains"),
                "is longer than the part of an answer that is read, 64 KiB",
            );
        }
    }
    Ok(())
}

fn snapshot(policy: &SnapshotPolicy) -> Checked {
    count("snapshot.paths", policy.paths.len(), MAX_DATA)?;
    count("snapshot.volumes", policy.volumes.len(), MAX_DATA)?;
    if !(1..=MAX_RETAIN).contains(&policy.retain) {
        return invalid("snapshot.retain", &format!("must be 1 to {MAX_RETAIN}"));
    }
    Ok(())
}

/// A name that stands in messages, logs and arguments.
fn word(field: &str, text: &str) -> Checked {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.is_empty() || text.len() > MAX_WORD || text.starts_with('-') || !text.chars().all(plain) {
        let problem =
            format!("must be 1 to {MAX_WORD} letters, digits, '.', '_' and '-', not beginning with '-'");
        return invalid(field, &problem);
    }
    Ok(())
}

/// A tag, hash or revision, which may be empty.
fn revision(field: &str, text: &str) -> Checked {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:@+/".contains(c);
    if text.len() > MAX_WORD || !text.chars().all(plain) {
        return invalid(
            field,
            &format!("must be at most {MAX_WORD} characters, as tags and hashes have them"),
        );
    }
    Ok(())
}

fn count(field: &str, there: usize, most: usize) -> Checked {
    if there <= most { Ok(()) } else { invalid(field, &format!("are {there}; at most {most} are taken")) }
}

fn invalid(field: &str, problem: &str) -> Checked {
    Err(refused(ErrorCode::Invalid, field, problem))
}
