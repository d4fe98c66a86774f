//! What compose says a request would mean to a project: which images its variables reach, which defaults are right already,
//! and what keeps `spec.images` from being written.
//!
//! An answer holds for the very texts that it was asked about. The values of patched variables are not among them: they are
//! marked for the question, so an upgrade that sets a tag asks nothing anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tenantry_api::names::{EnvKey, RelativePath};
use tenantry_planner::env::EnvFile;
use tenantry_planner::images::meaning::Meanings;
use tenantry_protocol::{Manifest, Place};

use super::copies::{Copies, Texts};
use super::env_meaning::{env_meaning, marked};
use super::images::problems;
use crate::compose::{Compose, Discovered};
use crate::host::{Host, TenantCache};

/// What the manifest would mean to the project that these texts are.
pub async fn meanings(
    host: &Host,
    cache: &TenantCache,
    compose: &Compose,
    (place, manifest): (&Place, &Manifest),
    discovered: &Discovered,
    texts: Texts,
) -> Arc<Meanings> {
    let patch = manifest.env.patch();
    let of = digest(manifest, discovered, &texts);
    if let Some(known) = of.and_then(|of| cache.meanings.get(&of)) {
        return known;
    }
    let copies = Copies::of(host, compose, place, discovered, texts);
    let env = env_meaning(&copies, patch).await;
    let problems =
        if manifest.images.is_empty() { BTreeMap::new() } else { problems(&copies, manifest).await };
    let found = Arc::new(Meanings { env, problems });
    if let Some(of) = of {
        cache.meanings.put(of, found.clone());
    }
    found
}

/// Whether there is anything to be asked about.
pub fn asks(manifest: &Manifest) -> bool {
    !manifest.env.patch().is_empty() || !manifest.images.is_empty()
}

/// Of all that an answer depends on.
fn digest(manifest: &Manifest, discovered: &Discovered, texts: &Texts) -> Option<[u8; 32]> {
    let (env, patch) = (RelativePath::env_file(), manifest.env.patch());
    let text = texts.get(&env).map_or(&[][..], |text| text);
    let parsed = EnvFile::parse(text).ok()?;
    let all_there = patch.iter().all(|value| parsed.key_state(value).present);
    let mut hasher = Sha256::new();
    let mut add = |part: &[u8]| {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    };
    let managed: Vec<&RelativePath> = manifest.files.iter().map(|file| &file.path).collect();
    let names: Vec<&EnvKey> = patch.iter().map(|value| &value.name).collect();
    let asked = (&names, (!all_there).then_some(patch), &manifest.images, managed, &discovered.profiles);
    add(&serde_json::to_vec(&asked).ok()?);
    let marked = if all_there { marked(text, patch)? } else { text.to_vec() };
    for (path, text) in texts {
        add(path.as_str().as_bytes());
        add(if *path == env { &marked } else { text });
    }
    for file in &discovered.outside.files {
        add(file.path.as_bytes());
        add(file.text.as_deref().unwrap_or_default());
    }
    Some(hasher.finalize().into())
}
