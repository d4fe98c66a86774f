//! What a managed file is like on disk, at the price of one look when nothing has changed.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use sha2::Digest;
use tenantry_api::names::{RelativePath, Sha256};

use super::FILE_LIMIT;
use super::error::FilesError;
use super::stat::{Stamp, Stat};
use super::tree::Tree;

/// How old a file's last change must be for its hash to be remembered: two changes within one tick of the kernel's
/// clock (at most 10 ms) bear the same time.
const SETTLED: Duration = Duration::from_millis(50);
/// How many hashes are remembered: above a tenant's number of managed files by far.
const REMEMBERED: usize = 4_096;
/// How often a file that changes while it is read is read again.
const ATTEMPTS: usize = 3;

/// What is at a managed file's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Missing,
    /// A regular file.
    File(Seen),
    /// Something that can't be a managed file; in a few words.
    Blocked(String),
}

/// A regular file as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its content's hash.
    pub sha256: Sha256,
    /// Its attributes when that was read.
    pub stamp: Stamp,
}

/// Remembered hashes of a tenant's files. A hash counts only while inode, size, times and attributes are the same.
#[derive(Debug, Default)]
pub struct HashCache(Mutex<HashMap<RelativePath, Seen>>);

impl HashCache {
    pub(super) fn get(&self, path: &RelativePath, stamp: &Stamp) -> Option<Seen> {
        let seen = self.0.lock();
        seen.get(path)
            .filter(|seen| seen.stamp == *stamp || tenantry_faults::Bug::TrustTheLastLook.is_seeded())
            .cloned()
    }

    pub(super) fn put(&self, path: &RelativePath, seen: &Seen) {
        let mut all = self.0.lock();
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(path.clone(), seen.clone());
    }
}

impl Tree {
    /// What is at a managed file's path, with its content's hash.
    pub fn inspect(&self, path: &RelativePath, cache: &HashCache) -> Result<Found, FilesError> {
        match self.stat(path)? {
            Stat::Missing => return Ok(Found::Missing),
            Stat::Folder(_) => return Ok(Found::Blocked("there is a folder".to_owned())),
            Stat::Other(found) => return Ok(Found::Blocked(found)),
            Stat::File(stamp) => {
                if let Some(seen) = cache.get(path, &stamp) {
                    return Ok(Found::File(seen));
                }
            }
        }
        self.inspect_anew(path, cache)
    }

    fn inspect_anew(&self, path: &RelativePath, cache: &HashCache) -> Result<Found, FilesError> {
        for _ in 0..ATTEMPTS {
            let now = now_ns();
            let found = match self.root.open_file(path.as_str()) {
                Ok(found) => found,
                Err(FilesError::Refused { found, .. }) => return Ok(Found::Blocked(found)),
                Err(error) => return Err(error),
            };
            let Some((mut file, stamp)) = found else {
                return Ok(Found::Missing);
            };
            if stamp.size > FILE_LIMIT {
                return Ok(Found::Blocked(format!("the file is longer than {FILE_LIMIT} bytes")));
            }
            let sha256 = hash(&mut file)
                .map_err(|error| FilesError::io("read", self.directory().join(path.as_str()), error))?;
            if self.stat(path)? != Stat::File(stamp) {
                continue;
            }
            let seen = Seen { sha256, stamp };
            if now - stamp.ctime_ns.max(stamp.mtime_ns) > SETTLED.as_nanos().cast_signed() {
                cache.put(path, &seen);
            }
            return Ok(Found::File(seen));
        }
        Ok(Found::Blocked("the file changes all the time".to_owned()))
    }
}

fn hash(file: &mut std::fs::File) -> std::io::Result<Sha256> {
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 32 * 1024];
    let mut limited = file.take(FILE_LIMIT + 1);
    loop {
        let read = limited.read(&mut buffer)?;
        if read == 0 {
            return Ok(to_name(hasher.finalize().as_slice()));
        }
        hasher.update(&buffer[..read]);
    }
}

/// A digest as text.
pub(crate) fn to_name(digest: &[u8]) -> Sha256 {
    let mut text = String::with_capacity(digest.len() * 2);
    for byte in digest {
        let _ = write!(text, "{byte:02x}");
    }
    #[allow(clippy::expect_used, reason = "the digits of a SHA-256 are always a SHA-256")]
    Sha256::parse(text).expect("64 hexadecimal digits")
}

fn now_ns() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().cast_signed()
}
