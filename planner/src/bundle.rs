//! A bundle: its files, and the `bundle.yaml` that says where they go.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256 as Hasher};
use tenantry_api::names::{RelativePath, ServiceName};
use tenantry_protocol::{ChangeRule, Owner};

use crate::render;
use crate::target::hex;

mod document;
mod paths;

pub use paths::path_conflict;

use document::{Document, files, jobs, rules, yaml_error};

/// The file of a bundle that describes the others.
pub const BUNDLE_FILE: &str = "bundle.yaml";
/// What a template's name ends with.
pub const TEMPLATE_SUFFIX: &str = ".tera";
/// How a `/` is written in a ConfigMap's key.
pub const KEY_SEPARATOR: &str = "__";
/// The most files that a bundle may have.
pub const FILE_LIMIT: usize = 512;
/// The most bytes that a bundle's files may have together.
pub const SIZE_LIMIT: usize = 8 * 1024 * 1024;

/// Why a bundle can't be used, with the file and the place in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct BundleError {
    /// The file.
    pub file: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl BundleError {
    fn new(file: &str, problem: impl Into<String>) -> Self {
        Self { file: file.to_owned(), problem: problem.into() }
    }

    fn yaml(problem: impl Into<String>) -> Self {
        Self::new(BUNDLE_FILE, problem)
    }
}

/// A bundle's files as they came from its source: path in the bundle, and bytes.
pub type Sources = BTreeMap<String, Arc<[u8]>>;

/// Which bundle, and which of its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleIdentity {
    /// The TemplateBundle's name.
    pub name: String,
    /// SHA-256 over all paths and contents.
    pub digest: String,
}

/// A bundle that has been understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Which bundle, and which of its versions.
    pub identity: BundleIdentity,
    /// What is put on the host, sorted by destination.
    pub files: Vec<BundleFile>,
    /// Every file's bytes; those that no entry names can still be included by templates.
    pub sources: Sources,
    /// Services that run once, even if nothing depends on them.
    pub jobs: Vec<ServiceName>,
    /// What is done with services when files of a mounted directory change.
    pub on_change: Vec<ChangeRule>,
}

/// One file that a bundle puts on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleFile {
    /// The file's path in the bundle.
    pub source: String,
    /// Where the file goes.
    pub destination: RelativePath,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub owner: Option<Owner>,
    /// Whether content and diffs are never shown.
    pub sensitive: bool,
    /// Whether the file is rendered; otherwise it is copied byte for byte.
    pub template: bool,
}

impl Bundle {
    /// Understands a bundle's files.
    pub fn parse(name: &str, sources: Sources) -> Result<Self, BundleError> {
        check_size(&sources)?;
        let Some(text) = sources.get(BUNDLE_FILE) else {
            return Err(BundleError::yaml("is missing; a bundle needs it to say which files go where"));
        };
        let text = std::str::from_utf8(text).map_err(|_| BundleError::yaml("is not UTF-8 text"))?;
        let document: Document = serde_saphyr::from_str(text).map_err(|error| yaml_error(&error))?;
        let files = files(document.files, &sources)?;
        render::check(&sources).map_err(|(place, problem)| BundleError::new(&place, problem))?;
        let jobs = jobs(document.services)?;
        let on_change = rules(document.on_change)?;
        let identity = BundleIdentity { name: name.to_owned(), digest: digest(&sources) };
        Ok(Self { identity, files, sources, jobs, on_change })
    }
}

/// Maps a ConfigMap's key to a path of the bundle: `nginx__site.conf` is `nginx/site.conf`.
pub fn path_of_key(key: &str) -> String {
    key.replace(KEY_SEPARATOR, "/")
}

/// SHA-256 over all paths and contents, each with its length, so that no two bundles can be confused.
pub fn digest(sources: &Sources) -> String {
    let mut hasher = Hasher::new();
    for (path, content) in sources {
        for part in [path.as_bytes(), content] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
    }
    format!("sha256:{}", hex(&hasher.finalize()))
}

fn check_size(sources: &Sources) -> Result<(), BundleError> {
    if sources.len() > FILE_LIMIT {
        let problem = format!("the bundle has {} files; at most {FILE_LIMIT} are allowed", sources.len());
        return Err(BundleError::yaml(problem));
    }
    let size: usize = sources.values().map(|content| content.len()).sum();
    if size > SIZE_LIMIT {
        let problem =
            format!("the bundle's files have {size} bytes together; at most {SIZE_LIMIT} are allowed");
        return Err(BundleError::yaml(problem));
    }
    for path in sources.keys() {
        RelativePath::parse(path).map_err(|error| BundleError::new(path, error.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
