//! Whether a request for an operation makes sense at all: its bounds and shapes, then itself against itself. What depends on
//! the host is for the plan to say.

use std::collections::BTreeSet;

use tenantry_api::names::RelativePath;
use tenantry_api::tenant::{Approach, RollbackData};
use tenantry_planner::verify::named_probes;
use tenantry_protocol::{Action, ApiError, EnvManifest, ErrorCode, Manifest, OperateRequest, VerifyPolicy};

use crate::files::sha256;
use crate::host::refused;

pub mod bounds;

const MAX_PROBES: usize = 16;
const MAX_HASH: usize = 128;

/// Checks a request against itself.
pub fn validate(request: &OperateRequest) -> Result<(), ApiError> {
    bounds::request(request)?;
    if request.approach == Approach::Auto {
        return invalid("approach", "Auto is decided by the operator: ask for ImageOnly or Release");
    }
    if request.target_hash.is_empty() || request.target_hash.len() > MAX_HASH {
        return invalid("targetHash", "must be 1 to 128 characters long");
    }
    if request.epoch == 0 {
        return invalid("epoch", "begins at 1");
    }
    match &request.action {
        Action::Upgrade => {
            manifest(&request.manifest)?;
            contents(request)?;
        }
        Action::Rollback { .. } => going_back(request)?,
    }
    untouched(request)?;
    verify(&request.verify)
}

/// What is gone back to is on the host: nothing is brought along.
fn going_back(request: &OperateRequest) -> Result<(), ApiError> {
    if !request.manifest.files.is_empty() || !request.contents.is_empty() {
        return invalid(
            "manifest.files",
            "must be empty where the action is Rollback: the files are on the host",
        );
    }
    if !request.manifest.images.is_empty() {
        return invalid(
            "manifest.images",
            "must be empty where the action is Rollback: the files are on the host",
        );
    }
    match &request.manifest.env {
        EnvManifest::Adopted { patch } if !patch.is_empty() => {
            invalid("manifest.env.patch", "must be empty where the action is Rollback: .env is on the host")
        }
        _ => Ok(()),
    }
}

/// Data below a protected path is replaced only where a person says so, never by itself (P1).
fn untouched(request: &OperateRequest) -> Result<(), ApiError> {
    if request.rollback_data == RollbackData::Never {
        return Ok(());
    }
    for (at, path) in request.snapshot.paths.iter().enumerate() {
        if let Some(protected) = request.manifest.protect.iter().find(|one| one.conflicts_with(path)) {
            let problem = format!(
                "{path} overlaps '{protected}' of spec.protect, which a rollback must not touch: set rollbackData to \
                 Never, or take it out of one of the two"
            );
            return invalid(&format!("snapshot.paths[{at}]"), &problem);
        }
    }
    Ok(())
}

fn manifest(manifest: &Manifest) -> Result<(), ApiError> {
    let mut paths = BTreeSet::new();
    for (at, file) in manifest.files.iter().enumerate() {
        let field = format!("manifest.files[{at}]");
        if !paths.insert(&file.path) {
            return invalid(&field, &format!("{} is there twice", file.path));
        }
        if file.mode > 0o777 {
            return invalid(&format!("{field}.mode"), "has more than the nine permission bits");
        }
    }
    let env = paths.iter().any(|path| path.as_str() == ".env");
    match (&manifest.env, env) {
        (EnvManifest::Managed, false) => {
            invalid("manifest.env", "is Managed, but .env is not among the files")
        }
        (EnvManifest::Adopted { .. }, true) => {
            invalid("manifest.env", "is Adopted, but .env is among the files: let the bundle leave it out")
        }
        _ => Ok(()),
    }
}

fn contents(request: &OperateRequest) -> Result<(), ApiError> {
    let mut seen: BTreeSet<&RelativePath> = BTreeSet::new();
    for (at, content) in request.contents.iter().enumerate() {
        let field = format!("contents[{at}]");
        let Some(file) = request.manifest.files.iter().find(|file| file.path == content.path) else {
            return invalid(&field, &format!("{} is not in manifest.files", content.path));
        };
        if !seen.insert(&content.path) {
            return invalid(&field, &format!("{} is there twice", content.path));
        }
        if content.content.0.len() as u64 != file.size || sha256(&content.content.0) != file.sha256 {
            return invalid(
                &field,
                &format!("{} is not what manifest.files says of its size and hash", content.path),
            );
        }
    }
    Ok(())
}

fn verify(policy: &VerifyPolicy) -> Result<(), ApiError> {
    if !(1_000..=3_600_000).contains(&policy.timeout_ms) {
        return invalid("verify.timeoutMs", "must be 1,000 to 3,600,000");
    }
    if policy.stable_for_ms > 600_000 {
        return invalid("verify.stableForMs", "must be at most 600,000");
    }
    // Probes are named by their kind and their number among it.
    let beyond = format!("[{MAX_PROBES}]");
    let named = named_probes(&policy.probes);
    match named.iter().find_map(|(field, _)| field.strip_suffix(&beyond)) {
        Some(list) => invalid(list, &format!("are more than {MAX_PROBES}")),
        None => Ok(()),
    }
}

fn invalid(field: &str, problem: &str) -> Result<(), ApiError> {
    Err(refused(ErrorCode::Invalid, field, problem))
}
