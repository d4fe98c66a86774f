//! Goes through an archive along its manifest: every byte is compared with what the manifest says or hashes to what
//! it says. With an unpacker, what was found right is unpacked.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _};
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest as _, Sha256 as Hasher};
use tenantry_api::names::Sha256;

use super::entry::{Entry, Kind, Line, Text};
use super::error::SnapshotError;
use super::pack::{PIECE, RAW_LIMIT, size};
use super::pool::{self, Feed};
use super::take::VERSION;
use super::tar::{END, padding, write_head};
use super::unpacker::{FileWriter, Unpacker};
use super::{Archive, ProgressSink};
use crate::files::{Folder, sha256, to_name};

/// The longest line of a manifest, in bytes: a path, a link's target and 64 KiB of attributes in hexadecimal digits.
const LINE_LIMIT: u64 = 256 * 1024;
/// More lines than any frame has.
const LINES_LIMIT: usize = RAW_LIMIT / super::tar::BLOCK + 1;

/// An archive that was kept, and where it is.
pub(crate) struct StoredArchive<'a> {
    pub archive: &'a Archive,
    /// Where archive and manifest are.
    pub folder: &'a Folder,
    /// What stands before each path in the archive.
    pub prefix: &'a Text,
    /// Whose data it is.
    pub of: &'a str,
    pub threads: usize,
}

/// A frame on its way.
struct Job {
    packed: Vec<u8>,
    raw: usize,
    parts: Vec<Part>,
}

enum Part {
    /// An entry with all its content, if it has any.
    Whole(Entry),
    /// The head of a long file.
    Head(Entry),
    Piece(Piece),
}

struct Piece {
    of: Arc<Opened>,
    offset: u64,
    bytes: usize,
    sha256: Sha256,
}

/// Reads an archive and compares all of it. What is right is unpacked by `unpacker`, whose work is not
/// complete before this has returned and [`Unpacker::finish`] has.
pub(crate) fn read_archive(
    stored: &StoredArchive<'_>,
    unpacker: Option<&Unpacker<'_>>,
    sink: &dyn ProgressSink,
) -> Result<(), SnapshotError> {
    let mut reader = Reader::open(stored, unpacker)?;
    pool::run(
        stored.threads,
        || {
            let mut checker = Checker::new(stored, unpacker)?;
            Ok(move |job: Job| checker.check(&job))
        },
        |feed| reader.feed(feed, sink),
        |bytes| {
            sink.progress(bytes);
            Ok(())
        },
    )
}

/// Whether archive and manifest are where they should be: the one by its length, the other by its hash. What is in the
/// archive is compared by [`read_archive`].
pub(crate) fn is_there(stored: &StoredArchive<'_>) -> Result<(), SnapshotError> {
    Reader::open(stored, None).map(|_| ())
}

/// The lines of a manifest, each with a bound on its length.
pub(crate) struct Lines {
    file: BufReader<File>,
    hash: Hasher,
    bytes: u64,
    line: Vec<u8>,
    path: PathBuf,
}

impl Lines {
    pub fn open(folder: &Folder, archive: &Archive) -> Result<Self, SnapshotError> {
        let path = folder.path().join(&archive.manifest);
        let missing = || SnapshotError::damaged(&path, "it is missing");
        let (file, _) = folder.open_file(&archive.manifest)?.ok_or_else(missing)?;
        let mut lines =
            Self { file: BufReader::new(file), hash: Hasher::new(), bytes: 0, line: Vec::new(), path };
        lines.is_whole(archive)?;
        Ok(lines)
    }

    /// Nothing is done on the word of a manifest that is not the one that was kept.
    fn is_whole(&mut self, archive: &Archive) -> Result<(), SnapshotError> {
        let fail = |error| SnapshotError::io("read", &self.path, error);
        let mut hash = Hasher::new();
        std::io::copy(&mut (&mut self.file).take(archive.manifest_bytes + 1), &mut hash).map_err(fail)?;
        self.file.rewind().map_err(fail)?;
        if to_name(hash.finalize().as_slice()) == archive.manifest_sha256 {
            return Ok(());
        }
        Err(self.damaged("it is not the manifest that was kept"))
    }

    fn damaged(&self, problem: impl Into<String>) -> SnapshotError {
        SnapshotError::damaged(&self.path, problem)
    }

    /// The next line.
    pub fn next(&mut self) -> Result<Line, SnapshotError> {
        self.line.clear();
        let read = (&mut self.file).take(LINE_LIMIT).read_until(b'\n', &mut self.line);
        read.map_err(|error| SnapshotError::io("read", &self.path, error))?;
        if self.line.last() != Some(&b'\n') {
            return Err(self.damaged("it is cut off, or has a line that is too long"));
        }
        self.hash.update(&self.line);
        self.bytes += self.line.len() as u64;
        serde_json::from_slice(&self.line)
            .map_err(|error| self.damaged(format!("a line does not decode: {error}")))
    }

    /// Checks that there is no more, and that all of it was what was kept.
    pub fn end(self, archive: &Archive) -> Result<(), SnapshotError> {
        let Self { mut file, hash, bytes, path, .. } = self;
        let rest = file.fill_buf().map_err(|error| SnapshotError::io("read", &path, error))?;
        let same = rest.is_empty()
            && bytes == archive.manifest_bytes
            && to_name(hash.finalize().as_slice()) == archive.manifest_sha256;
        if same { Ok(()) } else { Err(SnapshotError::damaged(path, "it is not the manifest that was kept")) }
    }
}

/// An entry, and the file that it is unpacked to, where it is.
type Opened = (Entry, Option<File>);

/// Reads manifest and archive in step and hands frames out.
struct Reader<'a> {
    stored: &'a StoredArchive<'a>,
    unpacker: Option<&'a Unpacker<'a>>,
    lines: Lines,
    file: File,
    path: PathBuf,
    hash: Hasher,
    read: u64,
    entries: u64,
    bytes: u64,
    long: Option<(Arc<Opened>, u64)>,
}

impl<'a> Reader<'a> {
    fn open(
        stored: &'a StoredArchive<'a>,
        unpacker: Option<&'a Unpacker<'a>>,
    ) -> Result<Self, SnapshotError> {
        let name = &stored.archive.archive;
        let path = stored.folder.path().join(name);
        let missing = || SnapshotError::damaged(&path, "it is missing");
        let (file, stamp) = stored.folder.open_file(name)?.ok_or_else(missing)?;
        if stamp.size != stored.archive.archive_bytes {
            let problem = format!(
                "it has {} bytes and not {}, as when it was kept",
                stamp.size, stored.archive.archive_bytes
            );
            return Err(SnapshotError::damaged(path, problem));
        }
        let lines = Lines::open(stored.folder, stored.archive)?;
        let hash = Hasher::new();
        Ok(Self { stored, unpacker, lines, file, path, hash, read: 0, entries: 0, bytes: 0, long: None })
    }

    fn feed(&mut self, feed: &mut Feed<Job>, sink: &dyn ProgressSink) -> Result<(), SnapshotError> {
        self.begin()?;
        loop {
            if sink.called_off() {
                return Err(SnapshotError::CalledOff);
            }
            match self.lines.next()? {
                Line::Frame { packed, raw, lines } => {
                    let job = self.frame(packed, raw, lines)?;
                    let last = job.parts.is_empty();
                    feed.send(job)?;
                    if last {
                        break;
                    }
                }
                _ => return Err(self.lines.damaged("a line is not where it belongs")),
            }
        }
        self.end()
    }

    fn begin(&mut self) -> Result<(), SnapshotError> {
        match self.lines.next()? {
            Line::Begin { version, .. } if version != VERSION => {
                Err(self.lines.damaged(format!("its version is {version}; this agent knows {VERSION}")))
            }
            Line::Begin { of, prefix, .. } if of != self.stored.of || prefix != *self.stored.prefix => {
                Err(self.lines.damaged(format!("it is of {prefix} of {of}")))
            }
            Line::Begin { .. } => Ok(()),
            _ => Err(self.lines.damaged("it does not begin as a manifest")),
        }
    }

    fn frame(&mut self, packed: usize, raw: usize, lines: usize) -> Result<Job, SnapshotError> {
        let bound = zstd::zstd_safe::compress_bound(RAW_LIMIT);
        if packed > bound || raw > RAW_LIMIT || lines > LINES_LIMIT {
            return Err(self.lines.damaged("a frame is larger than any"));
        }
        let mut parts = Vec::with_capacity(lines);
        for _ in 0..lines {
            let part = match self.lines.next()? {
                Line::Entry(entry) => self.entry(entry)?,
                Line::Piece { offset, bytes, sha256 } => self.piece(offset, bytes, sha256)?,
                _ => return Err(self.lines.damaged("a line is not where it belongs")),
            };
            parts.push(part);
        }
        let mut bytes = vec![0; packed];
        self.file.read_exact(&mut bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => SnapshotError::damaged(&self.path, "it is cut off"),
            _ => SnapshotError::io("read", &self.path, error),
        })?;
        self.hash.update(&bytes);
        self.read += packed as u64;
        Ok(Job { packed: bytes, raw, parts })
    }

    fn entry(&mut self, entry: Entry) -> Result<Part, SnapshotError> {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(size(&entry));
        let archive = self.stored.archive;
        if self.entries > archive.entries || self.bytes > archive.bytes {
            return Err(self.lines.damaged("it says more than was kept"));
        }
        if entry.path.is_top() != (self.entries == 1) || self.long.is_some() {
            return Err(self.lines.damaged(format!("{} is not where it belongs", entry.path)));
        }
        let long = match &entry.kind {
            Kind::File { size, sha256 } if sha256.is_some() == (*size > PIECE as u64) => {
                return Err(self.lines.damaged(format!("{} has a wrong length", entry.path)));
            }
            Kind::File { sha256: None, .. } => true,
            Kind::Link { .. } | Kind::Symlink { .. } if entry.path.is_top() => {
                return Err(self.lines.damaged("its top is a link"));
            }
            Kind::Folder {} | Kind::File { .. } | Kind::Symlink { .. } | Kind::Link { .. } => false,
        };
        if let (Kind::Folder {}, Some(unpacker)) = (&entry.kind, self.unpacker) {
            unpacker.make(&entry)?;
        }
        if long {
            let file = self.unpacker.map(|unpacker| unpacker.begin(&entry)).transpose()?;
            self.long = Some((Arc::new((entry.clone(), file)), 0));
            return Ok(Part::Head(entry));
        }
        Ok(Part::Whole(entry))
    }

    fn piece(&mut self, offset: u64, bytes: usize, sha256: Sha256) -> Result<Part, SnapshotError> {
        let Some((of, expected)) = self.long.take() else {
            return Err(self.lines.damaged("a piece belongs to no file"));
        };
        let rest = size(&of.0).saturating_sub(expected);
        if offset != expected || bytes as u64 != rest.min(PIECE as u64) {
            return Err(self.lines.damaged(format!("a piece of {} is missing", of.0.path)));
        }
        if rest > bytes as u64 {
            self.long = Some((of.clone(), offset + bytes as u64));
        }
        Ok(Part::Piece(Piece { of, offset, bytes, sha256 }))
    }

    fn end(&mut self) -> Result<(), SnapshotError> {
        let archive = self.stored.archive;
        let whole = self.entries == archive.entries && self.bytes == archive.bytes && self.long.is_none();
        if !whole || self.lines.next()? != (Line::End {}) {
            return Err(self.lines.damaged("it says less than was kept"));
        }
        let hash = std::mem::take(&mut self.hash);
        if self.read != archive.archive_bytes || to_name(hash.finalize().as_slice()) != archive.sha256 {
            return Err(SnapshotError::damaged(&self.path, "it is not the archive that was kept"));
        }
        let fresh = Lines::open(self.stored.folder, archive)?;
        std::mem::replace(&mut self.lines, fresh).end(archive)
    }
}

/// Unpacks frames and compares them. Each of the threads has one.
struct Checker<'a> {
    stored: &'a StoredArchive<'a>,
    writer: Option<FileWriter<'a>>,
    zstd: zstd::bulk::Decompressor<'static>,
    raw: Vec<u8>,
    head: Vec<u8>,
    path: PathBuf,
}

impl<'a> Checker<'a> {
    fn new(stored: &'a StoredArchive<'a>, unpacker: Option<&'a Unpacker<'a>>) -> Result<Self, SnapshotError> {
        let path = stored.folder.path().join(&stored.archive.archive);
        let zstd =
            zstd::bulk::Decompressor::new().map_err(|error| SnapshotError::io("decompress", &path, error))?;
        let writer = unpacker.map(FileWriter::new);
        Ok(Self { stored, writer, zstd, raw: Vec::with_capacity(RAW_LIMIT), head: Vec::new(), path })
    }

    /// How many bytes of content there were.
    fn check(&mut self, job: &Job) -> Result<u64, SnapshotError> {
        self.raw.clear();
        let unpacked = self.zstd.decompress_to_buffer(&job.packed, &mut self.raw);
        let damaged = |problem: String| SnapshotError::damaged(&self.path, problem);
        match unpacked {
            Ok(length) if length == job.raw => {}
            Ok(_) => return Err(damaged("a frame has another length than the manifest says".to_owned())),
            Err(error) => return Err(damaged(format!("a frame can't be unpacked: {error}"))),
        }
        if job.parts.is_empty() {
            let ends = self.raw == END;
            return if ends { Ok(0) } else { Err(damaged("it does not end as an archive".to_owned())) };
        }
        let (mut rest, mut bytes) = (self.raw.as_slice(), 0);
        for part in &job.parts {
            let entry = match part {
                Part::Whole(entry) | Part::Head(entry) => entry,
                Part::Piece(piece) => &piece.of.0,
            };
            let differs = || damaged(format!("{} in it is not what was kept", entry.path));
            if let Part::Whole(entry) | Part::Head(entry) = part {
                self.head.clear();
                write_head(&mut self.head, self.stored.prefix, entry);
                rest = rest.strip_prefix(self.head.as_slice()).ok_or_else(differs)?;
            }
            let (length, pad, hash) = match part {
                Part::Head(_) => continue,
                Part::Piece(piece) => {
                    let last = piece.offset + piece.bytes as u64 == size(entry);
                    (piece.bytes, if last { padding(size(entry)) } else { 0 }, Some(&piece.sha256))
                }
                Part::Whole(Entry { kind: Kind::File { size, sha256 }, .. }) => {
                    (usize::try_from(*size).map_err(|_| differs())?, padding(*size), sha256.as_ref())
                }
                Part::Whole(_) => (0, 0, None),
            };
            let (content, after) = rest.split_at_checked(length).ok_or_else(differs)?;
            let (zeros, after) = after.split_at_checked(pad).ok_or_else(differs)?;
            let right =
                hash.is_none_or(|hash| sha256(content) == *hash) && zeros.iter().all(|byte| *byte == 0);
            if !right {
                return Err(differs());
            }
            (rest, bytes) = (after, bytes + length as u64);
            match (&mut self.writer, part) {
                (Some(writer), Part::Whole(entry)) => writer.put(entry, content)?,
                (Some(writer), Part::Piece(piece)) => {
                    writer.put_piece(entry, piece.of.1.as_ref(), piece.offset, content)?;
                }
                _ => {}
            }
        }
        if rest.is_empty() {
            Ok(bytes)
        } else {
            Err(damaged("a frame holds more than the manifest says".to_owned()))
        }
    }
}
