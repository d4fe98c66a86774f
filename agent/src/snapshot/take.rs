//! Keeps a tree: walks it, packs it side by side, writes archive and manifest, and makes them durable.

use std::sync::Arc;

use sha2::{Digest as _, Sha256 as Hasher};

use super::entry::{Kind, Line, Text};
use super::error::SnapshotError;
use super::pack::{Job, Long, PIECE, Packed, Packer, size};
use super::pool::{self, Feed};
use super::source::{Source, Walk};
use super::tar::END;
use super::{Archive, Notes, ProgressSink, archive_name, manifest_name};
use crate::files::{Folder, NewFile, to_name};

/// The version of the manifest's format.
pub(crate) const VERSION: u32 = 1;
/// The most entries of one job.
const SPAN_ENTRIES: usize = 512;
/// The most files that one job holds open.
const SPAN_HELD: usize = 32;
/// What an entry adds to a span besides its content.
const ENTRY: u64 = 1024;
/// After so many bytes they are made durable, so that the end of it all does not wait for everything.
const SYNC_EVERY: usize = 64 << 20;

/// What is to be kept, and where.
pub(crate) struct Taking<'a> {
    pub source: &'a Source,
    /// What stands before each path in the archive.
    pub prefix: Text,
    /// Whose data it is.
    pub of: &'a str,
    pub folder: &'a Folder,
    /// The name of archive and manifest, less their endings.
    pub name: &'a str,
    pub threads: usize,
}

/// Keeps a tree; `None` where there is none. What an earlier attempt left is replaced. Nothing is verified yet.
pub(crate) fn take(taking: &Taking<'_>, sink: &dyn ProgressSink) -> Result<Option<Archive>, SnapshotError> {
    let (archive, manifest) = (archive_name(taking.name), manifest_name(taking.name));
    taking.folder.remove(&archive)?;
    taking.folder.remove(&manifest)?;
    let Some(mut walk) = taking.source.walk(true)? else { return Ok(None) };
    let mut writer = Writer {
        archive: Sum::new(taking.folder.create(&archive)?),
        manifest: Sum::new(taking.folder.create(&manifest)?),
        notes: Notes::default(),
        entries: 0,
        bytes: 0,
        sink,
    };
    writer.line(&Line::Begin {
        version: VERSION,
        of: taking.of.to_owned(),
        prefix: taking.prefix.clone(),
    })?;
    pool::run(
        taking.threads,
        || {
            let mut packer = Packer::new(taking.source, &taking.prefix)?;
            Ok(move |job: Job| packer.pack(job))
        },
        |feed| submit(taking.source, &mut walk, feed, sink),
        |packed| writer.write(&packed),
    )?;
    writer.notes.sockets(&walk.sockets);
    writer.finish(taking.folder, archive, manifest).map(Some)
}

/// Walks and hands out work.
fn submit(
    source: &Source,
    walk: &mut Walk<'_>,
    feed: &mut Feed<Job>,
    sink: &dyn ProgressSink,
) -> Result<(), SnapshotError> {
    let (mut span, mut bytes, mut held) = (Vec::new(), 0, 0);
    while let Some(mut item) = walk.next()? {
        if sink.called_off() {
            return Err(SnapshotError::CalledOff);
        }
        let content = size(&item.entry);
        if content > PIECE as u64 {
            let opened = match item.held.take() {
                Some(file) => Some(file),
                None => source.open_file(&item.entry.path)?,
            };
            let long = match opened {
                Some(file) => Long::new(source, &item.entry.path, file)?,
                None => None,
            };
            if let Some(long) = long {
                feed.send(Job::Span(std::mem::take(&mut span)))?;
                (bytes, held) = (0, 0);
                let file = Arc::new(long);
                for offset in file.offsets() {
                    feed.send(Job::Piece { file: file.clone(), offset })?;
                }
                continue;
            }
        }
        bytes += content + ENTRY;
        held += usize::from(item.held.is_some());
        span.push(item);
        if bytes >= PIECE as u64 || span.len() >= SPAN_ENTRIES || held >= SPAN_HELD {
            feed.send(Job::Span(std::mem::take(&mut span)))?;
            (bytes, held) = (0, 0);
        }
    }
    feed.send(Job::Span(span))?;
    feed.send(Job::Raw(END.to_vec()))
}

/// A file that is written, and the hash of what was written.
struct Sum {
    file: NewFile,
    hash: Hasher,
    bytes: u64,
    unsynced: usize,
}

impl Sum {
    fn new(file: NewFile) -> Self {
        Self { file, hash: Hasher::new(), bytes: 0, unsynced: 0 }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.hash.update(bytes);
        self.file.append(bytes)?;
        self.bytes += bytes.len() as u64;
        self.unsynced += bytes.len();
        if self.unsynced > SYNC_EVERY {
            self.unsynced = 0;
            self.file.sync_data()?;
        }
        Ok(())
    }
}

struct Writer<'a> {
    archive: Sum,
    manifest: Sum,
    notes: Notes,
    entries: u64,
    bytes: u64,
    sink: &'a dyn ProgressSink,
}

impl Writer<'_> {
    fn line(&mut self, line: &Line) -> Result<(), SnapshotError> {
        let json = serde_json::to_string(line)
            .map_err(|error| SnapshotError::io("write", self.manifest.file.path(), error))?;
        self.manifest.append(format!("{json}\n").as_bytes())
    }

    fn write(&mut self, packed: &Packed) -> Result<(), SnapshotError> {
        for frame in &packed.frames {
            self.archive.append(&frame.packed)?;
            self.manifest.append(frame.lines.as_bytes())?;
        }
        self.entries += packed.entries;
        self.bytes += packed.bytes;
        self.notes.torn(&packed.torn);
        self.notes.gone(&packed.gone);
        self.sink.progress(packed.bytes);
        Ok(())
    }

    fn finish(
        mut self,
        folder: &Folder,
        archive: String,
        manifest: String,
    ) -> Result<Archive, SnapshotError> {
        self.line(&Line::End {})?;
        self.archive.file.sync()?;
        self.manifest.file.sync()?;
        folder.sync()?;
        Ok(Archive {
            archive,
            sha256: to_name(self.archive.hash.finalize().as_slice()),
            archive_bytes: self.archive.bytes,
            manifest,
            manifest_sha256: to_name(self.manifest.hash.finalize().as_slice()),
            manifest_bytes: self.manifest.bytes,
            entries: self.entries,
            bytes: self.bytes,
            notes: self.notes,
        })
    }
}

/// Whether there is a file or folder to keep at all, and how much it is.
pub(crate) fn estimate(source: &Source) -> Result<Option<super::Estimate>, SnapshotError> {
    let Some(mut walk) = source.walk(false)? else { return Ok(None) };
    let mut estimate = super::Estimate::default();
    while let Some(item) = walk.next()? {
        estimate.entries += 1;
        if let Kind::File { size, .. } = item.entry.kind {
            estimate.bytes += size;
        }
    }
    Ok(Some(estimate))
}
