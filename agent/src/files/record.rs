//! Our own records on disk: a line of JSON behind the SHA-256 of it, so that damage is noticed.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tenantry_api::names::{OperationId, RelativePath, Sha256};

use super::error::FilesError;
use super::folder::Folder;
use super::new_file::NewFile;
use super::sha256;
use super::stat::Stamp;

/// The longest record that is read, in bytes: several thousand files.
const RECORD_LIMIT: u64 = 16 * 1024 * 1024;

/// What was at a path before an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "was")]
pub enum Was {
    /// Nothing.
    Absent,
    /// A regular file, whose content is kept.
    File {
        /// Its content's hash.
        sha256: Sha256,
        /// Its length in bytes.
        size: u64,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// The files that an operation changes, as it found them: their part of its restore point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeptFiles {
    /// Which operation.
    pub operation: OperationId,
    /// Every file that it changes, and what was there; the content is in the tree beside the index.
    pub files: Vec<KeptFile>,
    /// Folders that were not there, parents first.
    pub new_folders: Vec<RelativePath>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeptFile {
    /// Which file.
    pub path: RelativePath,
    /// What was there.
    pub before: Was,
}

/// What a transaction does once it is committed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Plan {
    pub operation: OperationId,
    /// Folders to make, parents first.
    pub make: Vec<RelativePath>,
    pub steps: Vec<Step>,
    /// Folders to remove if they are empty, children first.
    pub remove: Vec<RelativePath>,
}

/// What is done to one file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Step {
    pub path: RelativePath,
    /// The staged content: a name in the transaction's folder, or a path on the target's own mount; none: it is removed.
    pub put: Option<Staged>,
    /// What was there when it was planned; checked just before the commit. `None`: nothing. Not checked by a restore.
    pub expect: Option<Stamp>,
}

/// Where new content waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Staged {
    /// In the transaction's folder.
    Here(String),
    /// On the target's own mount.
    Beside(RelativePath),
}

/// Writes a new record and gives the file back, not yet durable.
pub(crate) fn write_record(
    folder: &Folder,
    name: &str,
    record: &impl Serialize,
) -> Result<NewFile, FilesError> {
    let damaged = |error: serde_json::Error| FilesError::damaged(folder.path().join(name), error.to_string());
    let json = serde_json::to_string(record).map_err(damaged)?;
    let mut file = folder.create(name)?;
    file.append(format!("{} {json}\n", sha256(json.as_bytes())).as_bytes())?;
    Ok(file)
}

/// Reads a record; `None` where there is none.
pub(crate) fn read_record<T: DeserializeOwned>(folder: &Folder, name: &str) -> Result<Option<T>, FilesError> {
    let Some((bytes, _)) = folder.read(name, RECORD_LIMIT)? else {
        return Ok(None);
    };
    let damaged = |problem: &str| FilesError::damaged(folder.path().join(name), problem);
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged("it is not text"))?;
    let (sum, json) = text
        .strip_suffix('\n')
        .and_then(|line| line.split_once(' '))
        .ok_or_else(|| damaged("it is incomplete"))?;
    if sum != sha256(json.as_bytes()).as_str() {
        return Err(damaged("its content does not match its checksum"));
    }
    serde_json::from_str(json).map(Some).map_err(|error| damaged(&format!("it does not decode: {error}")))
}
