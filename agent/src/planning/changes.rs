//! What changes on disk, as a value.

use std::collections::BTreeMap;

use tenantry_api::names::RelativePath;
use tenantry_planner::steps::FileChange;
use tenantry_protocol::{EnvManifest, FailureCategory, FileCounts, OperateRequest};

use super::error::StepError;
use crate::files::{Change, FileSet, sha256};

/// What changes on disk.
#[derive(Debug, Default)]
pub struct Changes {
    /// All of it, to be committed together.
    pub set: FileSet,
    /// In numbers.
    pub counts: FileCounts,
    /// Managed files whose content changes, `.env` aside.
    pub changed: Vec<RelativePath>,
    /// Files that the release no longer has and that were edited by hand.
    pub left: Vec<RelativePath>,
    /// Whether `.env` changes.
    pub env: bool,
}

/// What becomes of a file's content.
pub enum Becomes<'a> {
    /// It stays.
    AsItIs,
    /// It is replaced.
    Written(&'a [u8]),
    /// The file is deleted.
    Gone,
}

impl Changes {
    /// What becomes of a path's content.
    pub fn content(&self, path: &RelativePath) -> Becomes<'_> {
        match self.set.changes.iter().find(|change| change.path() == path) {
            None => Becomes::AsItIs,
            Some(Change::Write { content, .. }) => Becomes::Written(content),
            Some(Change::Delete { .. }) => Becomes::Gone,
        }
    }

    /// Every file that changes, in the order of their paths.
    pub fn list(&self) -> Vec<FileChange> {
        let list = self.set.changes.iter().map(|change| match change {
            Change::Write { path, content, mode, before, .. } => FileChange {
                path: path.clone(),
                before: before.sha256().cloned(),
                after: Some(sha256(content)),
                mode: *mode,
            },
            Change::Delete { path, before } => {
                FileChange { path: path.clone(), before: before.sha256().cloned(), after: None, mode: None }
            }
        });
        let mut list: Vec<FileChange> = list.collect();
        list.sort_by(|a, b| a.path.cmp(&b.path));
        list
    }

    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.set.changes.is_empty()
    }
}

/// Refuses what is the tenant's own.
pub fn protect(request: &OperateRequest, path: &RelativePath) -> Result<(), StepError> {
    match request.manifest.protect.iter().find(|protected| protected.conflicts_with(path)) {
        None => Ok(()),
        Some(protected) => {
            let message = format!(
                "{path} is protected by '{protected}' in spec.protect; nothing of ours is written there"
            );
            Err(StepError::new(FailureCategory::PathRefused, message))
        }
    }
}

/// What is asked of `.env`, if it is the tenant's own.
pub fn patched_values(manifest: &EnvManifest) -> BTreeMap<&str, &str> {
    manifest.patch().iter().map(|value| (value.name.as_str(), value.value.as_str())).collect()
}
