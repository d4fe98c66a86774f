//! Whose `.env` is, and the values that are patched in it.

use tenantry_api::names::{EnvKey, ImageTag};
use tenantry_api::tenant::{EnvOwnership, TenantSpec};
use tenantry_protocol::{EnvManifest, EnvValue};

use super::{Refusal, RefusalReason, field};

pub(super) fn parse(spec: &TenantSpec, tag: &ImageTag) -> Result<EnvManifest, Refusal> {
    if spec.env.ownership == EnvOwnership::Managed {
        if spec.bundle.is_none() {
            let message = "spec.env.ownership: Managed needs a bundle that renders .env; set spec.bundle or use Adopted.";
            return Err(Refusal::new(RefusalReason::InvalidSpec, message));
        }
        return Ok(EnvManifest::Managed);
    }
    let mut patch: Vec<EnvValue> = Vec::with_capacity(spec.env.patch.len());
    for (index, entry) in spec.env.patch.iter().enumerate() {
        let name = field(format!("env.patch[{index}].name"), EnvKey::parse(&entry.name))?;
        let value = expand(&entry.value, tag).map_err(|problem| {
            let message = format!("spec.env.patch[{index}].value (variable {name}): {problem}.");
            Refusal::new(RefusalReason::InvalidSpec, message)
        })?;
        if patch.iter().any(|earlier| earlier.name == name) {
            let message =
                format!("spec.env.patch[{index}].name: {name} is patched twice; name each variable once.");
            return Err(Refusal::new(RefusalReason::InvalidSpec, message));
        }
        patch.push(EnvValue { name, value });
    }
    if spec.bundle.is_none() && patch.is_empty() && spec.images.is_empty() {
        let message = "spec.env.patch: is empty, and without a bundle a release reaches the host only through it or \
                       through spec.images; name the variable, for example IMAGE_TAG, or the images.";
        return Err(Refusal::new(RefusalReason::InvalidSpec, message));
    }
    patch.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(EnvManifest::Adopted { patch })
}

/// Expands `$(imageTag)`; `$$(` is a literal `$(`.
pub fn expand(value: &str, tag: &ImageTag) -> Result<String, &'static str> {
    const KNOWN: &str = "$(imageTag)";
    if value.chars().any(|c| matches!(c, '\0' | '\n' | '\r')) {
        return Err("holds a line break or a NUL; a value is one line");
    }
    let mut expanded = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$(") {
            expanded.push_str("$(");
            rest = after;
        } else if let Some(after) = rest.strip_prefix(KNOWN) {
            expanded.push_str(tag.as_str());
            rest = after;
        } else if rest.starts_with("$(") {
            return Err("only $(imageTag) can be used in a value; write $$( for a literal $(");
        } else {
            expanded.push('$');
            rest = &rest[1..];
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}
