//! Whether there is room on the tenant's disk for what is written.

use tenantry_protocol::FailureCategory;

use crate::files::{Change, Tree};
use crate::planning::changes::Changes;
use crate::planning::error::StepError;

/// Space that must be free on the tenant's disk besides what is written, in bytes.
const SPARE: u64 = 64 * 1024 * 1024;

/// Refuses changes for which there is no room.
pub fn check(tree: &Tree, changes: &Changes) -> Result<(), StepError> {
    let length = |change: &Change| match change {
        Change::Write { content, .. } => content.len(),
        Change::Delete { .. } => 0,
    };
    let written: usize = changes.set.changes.iter().map(length).sum();
    // Once as new content, once as the restore point of as much.
    let (needed, free) = (written as u64 * 2 + SPARE, tree.free_bytes()?);
    if free >= needed {
        return Ok(());
    }
    let (free, needed) = (free >> 20, needed >> 20);
    let message = format!(
        "{free} MiB are free on the disk of the tenant's directory, {needed} MiB are needed: make room"
    );
    Err(StepError::new(FailureCategory::DiskFull, message))
}
