//! Frames: pieces of an archive that are read, hashed and compressed on their own, several side by side.
//!
//! Each frame is a zstd frame of its own, so that an archive is what `zstd` writes and reads, and so that it can be
//! checked and unpacked side by side, too. A file of up to [`PIECE`] bytes is wholly in one frame; a longer one is
//! cut into pieces.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tenantry_api::names::Sha256;

use super::entry::{Entry, Kind, Line, Text, TreePath};
use super::error::SnapshotError;
use super::source::{Item, Source, State};
use super::tar::{padding, write_head};
use crate::files::sha256;

/// The most content that one frame holds, in bytes. Tests with a crash at each step have no time for long files.
pub(crate) const PIECE: usize = if cfg!(test) { 64 << 10 } else { 2 << 20 };
/// The longest head that an entry can have: a path, a link's target and 64 KiB of attributes.
const HEAD_LIMIT: usize = 128 * 1024;
/// The longest frame when it is unpacked.
pub(crate) const RAW_LIMIT: usize = PIECE + 4 * HEAD_LIMIT;
/// What `zstd` itself takes when it is told nothing.
const LEVEL: i32 = 3;
/// How often a file is read anew that changes while it is read.
const TRIES: usize = 3;

/// Work that results in one or more frames.
pub(crate) enum Job {
    /// Whole entries.
    Span(Vec<Item>),
    /// A piece of a long file.
    Piece { file: Arc<Long>, offset: u64 },
    /// These very bytes.
    Raw(Vec<u8>),
}

/// A file that is longer than a piece.
pub(crate) struct Long {
    file: File,
    entry: Entry,
    size: u64,
    state: State,
    left: AtomicUsize,
    short: AtomicBool,
}

impl Long {
    /// Takes the file as it is now; `None` where it is short after all.
    pub fn new(source: &Source, path: &TreePath, file: File) -> Result<Option<Self>, SnapshotError> {
        let (entry, state) = source.now(&file, path)?;
        let size = size(&entry);
        let pieces = usize::try_from(size.div_ceil(PIECE as u64)).unwrap_or(usize::MAX);
        let (left, short) = (AtomicUsize::new(pieces), AtomicBool::new(false));
        Ok((size > PIECE as u64).then_some(Self { file, entry, size, state, left, short }))
    }

    /// Where its pieces begin.
    pub fn offsets(&self) -> impl Iterator<Item = u64> + use<> {
        (0..self.size).step_by(PIECE)
    }
}

/// A frame, and the lines of the manifest that say what is in it.
pub(crate) struct Frame {
    pub packed: Vec<u8>,
    pub lines: String,
}

/// What came of a job.
#[derive(Default)]
pub(crate) struct Packed {
    pub frames: Vec<Frame>,
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Files that were changed while they were read.
    pub torn: Vec<TreePath>,
    /// Files that had gone before they were read.
    pub gone: Vec<TreePath>,
}

/// Makes frames. Each of the threads has one.
pub(crate) struct Packer<'a> {
    source: &'a Source,
    prefix: &'a Text,
    zstd: zstd::bulk::Compressor<'static>,
    raw: Vec<u8>,
    lines: Vec<Line>,
    done: Packed,
}

impl<'a> Packer<'a> {
    pub fn new(source: &'a Source, prefix: &'a Text) -> Result<Self, SnapshotError> {
        let fail = |error| SnapshotError::io("compress", source.shown(&TreePath::top()), error);
        let mut zstd = zstd::bulk::Compressor::new(LEVEL).map_err(fail)?;
        zstd.include_checksum(true).map_err(fail)?;
        let (raw, lines) = (Vec::with_capacity(RAW_LIMIT), Vec::new());
        Ok(Self { source, prefix, zstd, raw, lines, done: Packed::default() })
    }

    /// Does a job.
    pub fn pack(&mut self, job: Job) -> Result<Packed, SnapshotError> {
        match job {
            Job::Span(items) => {
                for item in items {
                    self.item(item)?;
                }
            }
            Job::Piece { file, offset } => self.piece(&file, offset)?,
            Job::Raw(bytes) => self.raw.extend_from_slice(&bytes),
        }
        self.finish_frame()?;
        Ok(std::mem::take(&mut self.done))
    }

    fn item(&mut self, item: Item) -> Result<(), SnapshotError> {
        let Item { entry, held } = item;
        if !matches!(entry.kind, Kind::File { .. }) {
            self.make_room(0)?;
            write_head(&mut self.raw, self.prefix, &entry);
            return self.add(entry);
        }
        let opened = match held {
            Some(file) => Some(file),
            None => self.source.open_file(&entry.path)?,
        };
        if let Some(file) = opened {
            self.file(&file, &entry.path)
        } else {
            self.done.gone.push(entry.path);
            Ok(())
        }
    }

    /// A whole file. What is read of it is of one moment, or it is called torn.
    fn file(&mut self, file: &File, path: &TreePath) -> Result<(), SnapshotError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (mut entry, state) = self.source.now(file, path)?;
            let grown = size(&entry) > PIECE as u64;
            let length = if grown { PIECE } else { to_usize(size(&entry)) };
            entry.kind = Kind::File { size: length as u64, sha256: None };
            self.make_room(length)?;
            let start = self.raw.len();
            write_head(&mut self.raw, self.prefix, &entry);
            let content = self.raw.len();
            let whole = self.read(file, path, 0, length)?;
            let calm = whole && !grown && self.source.unchanged(file, path, state)?;
            if !calm && tries < TRIES {
                self.raw.truncate(start);
                continue;
            }
            if !calm {
                self.done.torn.push(path.clone());
            }
            let hash = sha256(&self.raw[content..]);
            self.pad(length as u64);
            entry.kind = Kind::File { size: length as u64, sha256: Some(hash) };
            self.done.bytes += length as u64;
            return self.add(entry);
        }
    }

    fn piece(&mut self, long: &Long, offset: u64) -> Result<(), SnapshotError> {
        let path = &long.entry.path;
        if offset == 0 {
            write_head(&mut self.raw, self.prefix, &long.entry);
            self.add(long.entry.clone())?;
        }
        let length = to_usize((long.size - offset).min(PIECE as u64));
        let content = self.raw.len();
        if !self.read(&long.file, path, offset, length)? {
            long.short.store(true, Ordering::Relaxed);
        }
        let sha256: Sha256 = sha256(&self.raw[content..]);
        if offset + length as u64 == long.size {
            self.pad(long.size);
        }
        self.lines.push(Line::Piece { offset, bytes: length, sha256 });
        self.done.bytes += length as u64;
        let last = long.left.fetch_sub(1, Ordering::AcqRel) == 1;
        if last {
            let calm = self.source.unchanged(&long.file, path, long.state)?;
            if !calm || long.short.load(Ordering::Relaxed) {
                self.done.torn.push(path.clone());
            }
        }
        Ok(())
    }

    /// Reads exactly so many bytes; what the file does not have any more is zero, and the answer false.
    fn read(
        &mut self,
        file: &File,
        path: &TreePath,
        offset: u64,
        length: usize,
    ) -> Result<bool, SnapshotError> {
        let start = self.raw.len();
        self.raw.resize(start + length, 0);
        let mut done = 0;
        while done < length {
            match file.read_at(&mut self.raw[start + done..], offset + done as u64) {
                Ok(0) => return Ok(false),
                Ok(read) => done += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SnapshotError::io("read", self.source.shown(path), error)),
            }
        }
        Ok(true)
    }

    fn pad(&mut self, size: u64) {
        self.raw.resize(self.raw.len() + padding(size), 0);
    }

    fn add(&mut self, entry: Entry) -> Result<(), SnapshotError> {
        self.done.entries += 1;
        self.lines.push(Line::Entry(entry));
        self.make_room(0)
    }

    /// Begins a new frame where this one has no room for an entry with so much content.
    fn make_room(&mut self, content: usize) -> Result<(), SnapshotError> {
        let full = self.raw.len() + HEAD_LIMIT + content > RAW_LIMIT;
        if full && !self.raw.is_empty() { self.finish_frame() } else { Ok(()) }
    }

    fn finish_frame(&mut self) -> Result<(), SnapshotError> {
        if self.raw.is_empty() {
            return Ok(());
        }
        let fail = |error| SnapshotError::io("compress", self.source.shown(&TreePath::top()), error);
        let mut packed = Vec::with_capacity(zstd::zstd_safe::compress_bound(self.raw.len()));
        self.zstd.compress_to_buffer(&self.raw, &mut packed).map_err(fail)?;
        packed.shrink_to_fit();
        let head = Line::Frame { packed: packed.len(), raw: self.raw.len(), lines: self.lines.len() };
        let mut lines = String::new();
        for line in std::iter::once(&head).chain(&self.lines) {
            lines.push_str(&serde_json::to_string(line).map_err(|error| fail(error.into()))?);
            lines.push('\n');
        }
        self.raw.clear();
        self.lines.clear();
        self.done.frames.push(Frame { packed, lines });
        Ok(())
    }
}

/// The length of a file; 0 for anything else.
pub(crate) fn size(entry: &Entry) -> u64 {
    match entry.kind {
        Kind::File { size, .. } => size,
        _ => 0,
    }
}

fn to_usize(length: u64) -> usize {
    // At most a piece.
    usize::try_from(length).unwrap_or(PIECE)
}
