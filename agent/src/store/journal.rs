//! An operation's journal: a line a record, each durable before its effect begins.
//!
//! ```text
//! <length of the JSON in bytes> <checksum> <JSON>\n
//! ```
//!
//! The checksum covers the JSON and the checksum of the line before, so that no line can be lost, doubled or moved
//! unnoticed. The first line says whose journal it is. A last line that was cut short by a crash was not durable, so
//! nothing was done on it: it is dropped. Any other damage is an error.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tenantry_api::names::{OperationId, Sha256, TenantUid};
use tenantry_protocol::OperationPhase;

use super::Store;
use super::error::StoreError;
use crate::files::{FilesError, Folder, NewFile, Stat, sha256};

pub(super) const JOURNAL: &str = "journal";
const REQUESTS: &str = "requests";
const LAST_WORDS: &str = "last-words";
/// What is being written there.
const NEW_WORDS: &str = "new";
/// The most that is kept of what the services of one operation said.
const WORDS_LIMIT: usize = 4 * 1024 * 1024;
/// The longest journal, in bytes: some hundred times that of an ordinary operation.
const LIMIT: usize = 16 * 1024 * 1024;
/// How many digits of the checksum are written: 64 bits against damage, not against an enemy.
const SUM: usize = 16;
/// How many operations' journals are kept; the history in a Tenant's status is as long.
const KEPT: usize = 10;

/// An operation's journal, open for appending.
#[derive(Debug)]
pub struct Journal<T> {
    file: NewFile,
    head: Head,
    sum: String,
    length: usize,
    /// Whether a line that was cut short follows. It stays until there is something to write: whoever only reads must
    /// not cut off what another is writing just now.
    cut_short: bool,
    /// The folder that the journal is in, where its entry there may not be durable yet: an agent that was killed may have
    /// written to the journal and not synced the folder.
    unsynced: Option<Folder>,
    broken: bool,
    records: PhantomData<fn(&T)>,
}

/// A journal that was opened again, and all its records.
pub type Opened<T> = (Journal<T>, Vec<T>);

/// The first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Head {
    version: u32,
    tenant: TenantUid,
    operation: OperationId,
    /// Rises with every operation of the tenant: the order in which they were begun.
    number: u64,
    request_sha256: Sha256,
}

impl Store {
    /// Begins an operation: keeps the request, and a journal with nothing in it yet, durably.
    pub fn begin<T: Serialize>(
        &self,
        uid: &TenantUid,
        operation: &OperationId,
        request: &[u8],
    ) -> Result<Journal<T>, StoreError> {
        let journals = self.folder(uid, JOURNAL)?;
        if journals.stat(operation.as_str())? != Stat::Missing {
            if head(&journals, operation)?.is_some() {
                return Err(StoreError::Exists { operation: operation.clone() });
            }
            // Not even its first line became durable, so it was never begun.
            journals.remove(operation.as_str())?;
        }
        let requests = self.folder(uid, REQUESTS)?;
        requests.remove(operation.as_str())?;
        let mut kept = requests.create(operation.as_str())?;
        kept.append(request)?;
        kept.sync()?;
        requests.sync()?;
        let number = numbered(&journals)?.last().map_or(0, |(number, _)| number + 1);
        let head = Head {
            version: 1,
            tenant: uid.clone(),
            operation: operation.clone(),
            number,
            request_sha256: sha256(request),
        };
        let file = journals.create(operation.as_str())?;
        let mut journal = Journal {
            file,
            head: head.clone(),
            sum: String::new(),
            length: 0,
            cut_short: false,
            unsynced: None,
            broken: false,
            records: PhantomData,
        };
        journal.write(&head)?;
        journals.sync()?;
        Ok(journal)
    }

    /// Opens an operation's journal and reads all its records; `None` where there is no such operation. Changes nothing:
    /// also while another writes to it.
    pub fn open_journal<T: Serialize + DeserializeOwned>(
        &self,
        uid: &TenantUid,
        operation: &OperationId,
    ) -> Result<Option<Opened<T>>, StoreError> {
        let Some(journals) = self.existing(uid, Some(JOURNAL))? else { return Ok(None) };
        read(&journals, operation)?.map(|read| opened(uid, journals, read)).transpose()
    }

    /// The same of the operation that was begun last. All journals are read for it: it is an error where one can't be.
    pub fn latest_journal<T: Serialize + DeserializeOwned>(
        &self,
        uid: &TenantUid,
    ) -> Result<Option<Opened<T>>, StoreError> {
        let Some(journals) = self.existing(uid, Some(JOURNAL))? else { return Ok(None) };
        latest(&journals)?.map(|read| opened(uid, journals, read)).transpose()
    }

    /// What was asked, while it is kept.
    pub fn request(&self, uid: &TenantUid, operation: &OperationId) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(folder) = self.existing(uid, Some(REQUESTS))? else { return Ok(None) };
        let limit = 2 * tenantry_protocol::BODY_LIMIT as u64;
        let Some((request, _)) = folder.read(operation.as_str(), limit)? else {
            return Ok(None);
        };
        let journals = self.folder(uid, JOURNAL)?;
        match head(&journals, operation)? {
            Some(head) if head.request_sha256 != sha256(&request) => {
                Err(damaged(&folder, operation, "it is not the request that the journal was begun with"))
            }
            _ => Ok(Some(request)),
        }
    }

    /// Removes what was asked, once the operation has ended: it may hold secrets.
    pub fn forget_request(&self, uid: &TenantUid, operation: &OperationId) -> Result<(), StoreError> {
        if let Some(folder) = self.existing(uid, Some(REQUESTS))? {
            folder.remove(operation.as_str())?;
        }
        Ok(())
    }

    /// A tenant's operations in the order in which they were begun.
    pub fn operations(&self, uid: &TenantUid) -> Result<Vec<OperationId>, StoreError> {
        let Some(journals) = self.existing(uid, Some(JOURNAL))? else { return Ok(Vec::new()) };
        Ok(numbered(&journals)?.into_iter().map(|(_, operation)| operation).collect())
    }

    /// Removes old journals: the youngest ten stay, and these.
    pub fn prune_operations(&self, uid: &TenantUid, keep: &[OperationId]) -> Result<(), StoreError> {
        let journals = self.folder(uid, JOURNAL)?;
        let requests = self.folder(uid, REQUESTS)?;
        let words = self.existing(uid, Some(LAST_WORDS))?;
        let all = self.operations(uid)?;
        for operation in &all[..all.len().saturating_sub(KEPT)] {
            if !keep.contains(operation) {
                journals.remove(operation.as_str())?;
                requests.remove(operation.as_str())?;
                if let Some(words) = &words {
                    words.remove_all(operation.as_str())?;
                }
            }
        }
        Ok(())
    }

    /// Keeps what services that did not come up said, beside the operation's journal and for as long, a file for
    /// each phase that is replaced where a step is done once more. For our eyes only.
    pub fn keep_last_words(
        &self,
        uid: &TenantUid,
        operation: &OperationId,
        phase: OperationPhase,
        text: &str,
    ) -> Result<(), StoreError> {
        let words = self.folder(uid, LAST_WORDS)?;
        words.make(operation.as_str(), 0o700)?;
        let own = words.below(operation.as_str())?;
        own.remove(NEW_WORDS)?;
        own.create(NEW_WORDS)?.append(tenantry_api::conditions::bounded(text, WORDS_LIMIT).as_bytes())?;
        Ok(own.rename(NEW_WORDS, &own, &format!("{phase:?}"))?)
    }

    fn folder(&self, uid: &TenantUid, name: &str) -> Result<Folder, FilesError> {
        let tenant = self.tenant(uid)?;
        if tenant.make(name, 0o700)? {
            tenant.sync()?;
        }
        tenant.below(name)
    }
}

impl<T> Journal<T> {
    /// Which operation.
    pub fn operation(&self) -> &OperationId {
        &self.head.operation
    }

    /// The hash of the request that it was begun with.
    pub fn request_sha256(&self) -> &Sha256 {
        &self.head.request_sha256
    }

    /// Makes durable what was read: an agent that was killed may have written its last record and not yet seen to that.
    pub fn make_durable(&mut self) -> Result<(), StoreError> {
        self.make_entry_durable()?;
        Ok(self.file.sync_data()?)
    }

    fn make_entry_durable(&mut self) -> Result<(), StoreError> {
        if let Some(journals) = &self.unsynced {
            journals.sync()?;
            self.unsynced = None;
        }
        Ok(())
    }

    fn write(&mut self, record: &impl Serialize) -> Result<(), StoreError> {
        let path = || self.file.path().to_owned();
        if self.broken {
            return Err(StoreError::Broken { path: path() });
        }
        let json = serde_json::to_string(record)
            .map_err(|error| StoreError::Damaged { path: path(), problem: error.to_string() })?;
        let sum = chained(&self.sum, &json);
        let line = format!("{} {sum} {json}\n", json.len());
        let size = self.length + line.len();
        if size > LIMIT {
            return Err(StoreError::TooLarge { path: path(), size, limit: LIMIT });
        }
        self.broken = true;
        self.make_entry_durable()?;
        if self.cut_short {
            self.file.truncate(self.length as u64)?;
            self.file.sync()?;
            self.cut_short = false;
        }
        tenantry_faults::point_named(|| point_name(&json, "before"));
        self.file.append(line.as_bytes())?;
        tenantry_faults::point_named(|| point_name(&json, "unsynced"));
        if !tenantry_faults::Bug::JournalUnsynced.is_seeded() {
            self.file.sync_data()?;
        }
        tenantry_faults::point_named(|| point_name(&json, "after"));
        self.broken = false;
        self.length = size;
        self.sum = sum;
        Ok(())
    }
}

impl<T: Serialize> Journal<T> {
    /// Adds a record; durable when it returns. After an error nothing more is taken: nobody knows what is on disk.
    pub fn append(&mut self, record: &T) -> Result<(), StoreError> {
        self.write(record)
    }
}

/// Where a test kills the agent: by the kind of the record and its step.
fn point_name(json: &str, when: &str) -> String {
    let record: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let word = |name: &str| record.get(name).and_then(serde_json::Value::as_str);
    let step = word("step").map(|step| format!(".{step}")).unwrap_or_default();
    format!("journal.{}{step}.{when}", word("record").unwrap_or("head"))
}

/// Every journal that has a whole first line, in no order.
fn all(journals: &Folder) -> Result<impl Iterator<Item = Result<Read, StoreError>>, StoreError> {
    let operations = journals.names()?.into_iter().filter_map(|name| OperationId::parse(name).ok());
    Ok(operations.filter_map(|operation| read(journals, &operation).transpose()))
}

/// Every operation with its number, in order.
fn numbered(journals: &Folder) -> Result<Vec<(u64, OperationId)>, StoreError> {
    let numbers = all(journals)?.map(|read| read.map(|read| (read.head.number, read.head.operation)));
    let mut numbered = numbers.collect::<Result<Vec<_>, _>>()?;
    numbered.sort();
    Ok(numbered)
}

/// The journal of the operation that was begun last.
fn latest(journals: &Folder) -> Result<Option<Read>, StoreError> {
    let mut latest: Option<Read> = None;
    for read in all(journals)? {
        let read = read?;
        let head = &read.head;
        let is_later =
            |other: &Read| (head.number, &head.operation) > (other.head.number, &other.head.operation);
        if latest.as_ref().is_none_or(is_later) {
            latest = Some(read);
        }
    }
    Ok(latest)
}

/// A journal that was read, with its records, for appending.
fn opened<T: Serialize + DeserializeOwned>(
    uid: &TenantUid,
    journals: Folder,
    read: Read,
) -> Result<Opened<T>, StoreError> {
    let Read { head, lines, sum, length, cut_short } = read;
    if head.tenant != *uid {
        return Err(damaged(&journals, &head.operation, "it is another Tenant's"));
    }
    let records = decoded(&journals, &head.operation, &lines)?;
    let file = journals.open_own(head.operation.as_str())?;
    let unsynced = Some(journals);
    let journal =
        Journal { file, head, sum, length, cut_short, unsynced, broken: false, records: PhantomData };
    Ok((journal, records))
}

/// A journal's text, taken apart.
struct Read {
    head: Head,
    lines: Vec<String>,
    sum: String,
    /// Of the whole lines.
    length: usize,
    cut_short: bool,
}

/// The records of a journal that another may be writing to.
pub(super) fn records<T: DeserializeOwned>(
    store: &Store,
    uid: &TenantUid,
    operation: &OperationId,
) -> Result<Option<Vec<T>>, StoreError> {
    let Some(journals) = store.existing(uid, Some(JOURNAL))? else { return Ok(None) };
    match read(&journals, operation)? {
        Some(read) => decoded(&journals, operation, &read.lines).map(Some),
        None => Ok(None),
    }
}

fn decoded<T: DeserializeOwned>(
    journals: &Folder,
    operation: &OperationId,
    lines: &[String],
) -> Result<Vec<T>, StoreError> {
    let numbered = lines.iter().enumerate();
    let record = |(at, line): (usize, &String)| {
        serde_json::from_str(line).map_err(|error| {
            damaged(journals, operation, &format!("record {} does not decode: {error}", at + 1))
        })
    };
    numbered.map(record).collect()
}

/// Reads a journal; `None` where there is none, or its first line never became durable.
fn read(journals: &Folder, operation: &OperationId) -> Result<Option<Read>, StoreError> {
    let Some((bytes, _)) = journals.read(operation.as_str(), LIMIT as u64)? else {
        return Ok(None);
    };
    let Decoded { mut lines, sum, length } =
        decode(&bytes).map_err(|problem| damaged(journals, operation, &problem))?;
    if lines.is_empty() {
        return Ok(None);
    }
    let head: Head = serde_json::from_str(&lines.remove(0))
        .map_err(|error| damaged(journals, operation, &format!("its first line does not decode: {error}")))?;
    if head.operation != *operation {
        return Err(damaged(journals, operation, "it is another operation's"));
    }
    if head.version != 1 {
        return Err(damaged(
            journals,
            operation,
            &format!("it has version {}; this agent knows 1", head.version),
        ));
    }
    Ok(Some(Read { head, lines, sum, length, cut_short: length < bytes.len() }))
}

fn head(journals: &Folder, operation: &OperationId) -> Result<Option<Head>, StoreError> {
    Ok(read(journals, operation)?.map(|read| read.head))
}

/// The whole lines of a journal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    pub lines: Vec<String>,
    pub sum: String,
    pub length: usize,
}

/// Takes a journal's bytes apart. Pure, and total over any bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, String> {
    let mut decoded = Decoded { lines: Vec::new(), sum: String::new(), length: 0 };
    while decoded.length < bytes.len() {
        let rest = &bytes[decoded.length..];
        let number = decoded.lines.len() + 1;
        match line(rest, &decoded.sum).map_err(|problem| format!("line {number} {problem}")) {
            Err(_) if tenantry_faults::Bug::DropDamagedRecords.is_seeded() => break,
            Err(problem) => return Err(problem),
            Ok(None) => break,
            Ok(Some((json, sum, length))) => {
                decoded.lines.push(json);
                decoded.sum = sum;
                decoded.length += length;
            }
        }
    }
    Ok(decoded)
}

/// For fuzzers: whole lines are read again as they are, and nothing beyond them.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    if let Ok(decoded) = decode(bytes) {
        let whole = decode(&bytes[..decoded.length]);
        assert_eq!(whole.as_ref(), Ok(&decoded));
        // A line that is cut short is not one yet.
        if decoded.length > 0 {
            let cut = decode(&bytes[..decoded.length - 1]);
            assert!(cut.is_ok_and(|cut| cut.lines.len() + 1 == decoded.lines.len()));
        }
    }
}

/// The first line of some bytes: its JSON, checksum and length; `None` if the bytes are only the beginning of one.
fn line(bytes: &[u8], before: &str) -> Result<Option<(String, String, usize)>, &'static str> {
    const FOREIGN: &str = "is not a record of ours";
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits > 8 || bytes.first() == Some(&b'0') {
        return Err(FOREIGN);
    }
    let Some(after) = bytes.get(digits) else {
        return Ok(None);
    };
    if digits == 0 || *after != b' ' {
        return Err(FOREIGN);
    }
    let text =
        |range: std::ops::Range<usize>| bytes.get(range).and_then(|part| std::str::from_utf8(part).ok());
    let size: usize = text(0..digits).and_then(|text| text.parse().ok()).ok_or(FOREIGN)?;
    let json_at = digits + 1 + SUM + 1;
    let end = json_at + size;
    if bytes.len() <= end {
        // Cut short: as far as it goes it must look like a record.
        let sum = &bytes[digits + 1..bytes.len().min(json_at - 1)];
        let hex = sum.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let json = bytes.get(json_at..).unwrap_or_default();
        let cut = hex && bytes.get(json_at - 1).is_none_or(|byte| *byte == b' ') && !json.contains(&b'\n');
        return if cut { Ok(None) } else { Err(FOREIGN) };
    }
    let (Some(sum), Some(json)) = (text(digits + 1..json_at - 1), text(json_at..end)) else {
        return Err(FOREIGN);
    };
    if bytes[json_at - 1] != b' ' || bytes[end] != b'\n' {
        return Err(FOREIGN);
    }
    if sum != chained(before, json) {
        return Err("does not match its checksum");
    }
    Ok(Some((json.to_owned(), sum.to_owned(), end + 1)))
}

/// The checksum of a line, over the one before it.
pub(super) fn chained(before: &str, json: &str) -> String {
    let mut sum = String::from(sha256(format!("{before} {json}").as_bytes()));
    sum.truncate(SUM);
    sum
}

fn damaged(folder: &Folder, operation: &OperationId, problem: &str) -> StoreError {
    StoreError::Damaged { path: folder.path().join(operation.as_str()), problem: problem.to_owned() }
}
