//! An entry's head as every `tar` reads it: POSIX ustar, with a pax header where ustar has no room.
//!
//! There is no reader. A restore makes the heads anew from the manifest and compares: whatever an archive has besides
//! what its manifest says is damage.

use super::entry::{Entry, Kind, Text};

/// Everything in an archive comes in blocks of this many bytes.
pub(crate) const BLOCK: usize = 512;
/// What ustar's octal fields hold.
const SIZE_LIMIT: u64 = 0o777_7777_7777;
const ID_LIMIT: u32 = 0o777_7777;
const TIME_LIMIT: i64 = 0o777_7777_7777;
const NAME_LIMIT: usize = 100;

/// The two empty blocks at an archive's end.
pub(crate) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// How many zeros follow content of this length.
pub(crate) fn padding(size: u64) -> usize {
    // Less than a block, so that it fits.
    usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or(0)
}

/// An entry's path in an archive: a folder's ends with a slash.
fn path_in_archive(prefix: &Text, path: &[u8], folder: bool) -> Vec<u8> {
    let mut full = prefix.0.clone();
    if !path.is_empty() {
        full.push(b'/');
        full.extend_from_slice(path);
    }
    if folder {
        full.push(b'/');
    }
    full
}

/// Appends what stands before an entry's content.
pub(crate) fn write_head(out: &mut Vec<u8>, prefix: &Text, entry: &Entry) {
    let folder = matches!(entry.kind, Kind::Folder {});
    let name = path_in_archive(prefix, entry.path.bytes(), folder);
    let (flag, size, link) = match &entry.kind {
        Kind::Folder {} => (b'5', 0, Vec::new()),
        Kind::File { size, .. } => (b'0', *size, Vec::new()),
        Kind::Symlink { target } => (b'2', 0, target.0.clone()),
        Kind::Link { to } => (b'1', 0, path_in_archive(prefix, to.bytes(), false)),
    };
    let records = pax(entry, &name, &link, size);
    if !records.is_empty() {
        let head = Head { name: b"./PaxHeaders/entry", link: b"", size: records.len() as u64, flag: b'x' };
        head.write(out, 0o644, 0, 0, 0);
        out.extend_from_slice(&records);
        out.resize(out.len() + padding(records.len() as u64), 0);
    }
    let head = Head { name: &name, link: &link, size: if size > SIZE_LIMIT { 0 } else { size }, flag };
    let id = |id: u32| if id > ID_LIMIT { 0 } else { id };
    let time = if (0..=TIME_LIMIT).contains(&entry.mtime.0) { entry.mtime.0 } else { 0 };
    head.write(out, entry.mode, id(entry.uid), id(entry.gid), time);
}

struct Head<'a> {
    name: &'a [u8],
    link: &'a [u8],
    size: u64,
    flag: u8,
}

impl Head<'_> {
    fn write(&self, out: &mut Vec<u8>, mode: u32, uid: u32, gid: u32, time: i64) {
        let mut block = [0_u8; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name[..self.name.len().min(NAME_LIMIT)]);
        put(100, format!("{mode:07o}").as_bytes());
        put(108, format!("{uid:07o}").as_bytes());
        put(116, format!("{gid:07o}").as_bytes());
        put(124, format!("{:011o}", self.size).as_bytes());
        put(136, format!("{time:011o}").as_bytes());
        put(148, b"        ");
        put(156, &[self.flag]);
        put(157, &self.link[..self.link.len().min(NAME_LIMIT)]);
        put(257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        out.extend_from_slice(&block);
    }
}

/// What ustar has no room for.
fn pax(entry: &Entry, name: &[u8], link: &[u8], size: u64) -> Vec<u8> {
    let mut records = Vec::new();
    let binary = [name, link].iter().any(|bytes| std::str::from_utf8(bytes).is_err());
    if binary {
        record(&mut records, "hdrcharset", b"BINARY");
    }
    if name.len() > NAME_LIMIT || binary {
        record(&mut records, "path", name);
    }
    if link.len() > NAME_LIMIT || (binary && !link.is_empty()) {
        record(&mut records, "linkpath", link);
    }
    if size > SIZE_LIMIT {
        record(&mut records, "size", size.to_string().as_bytes());
    }
    for (key, id) in [("uid", entry.uid), ("gid", entry.gid)] {
        if id > ID_LIMIT {
            record(&mut records, key, id.to_string().as_bytes());
        }
    }
    let (seconds, nanoseconds) = entry.mtime;
    if nanoseconds != 0 || !(0..=TIME_LIMIT).contains(&seconds) {
        record(&mut records, "mtime", time(seconds, nanoseconds).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        record(&mut records, &format!("SCHILY.xattr.{name}"), &value.0);
    }
    records
}

/// Seconds with a fraction. The kernel counts nanoseconds upwards from the second before, whatever its sign.
fn time(seconds: i64, nanoseconds: u32) -> String {
    if seconds >= 0 || nanoseconds == 0 {
        return format!("{seconds}.{nanoseconds:09}");
    }
    let (seconds, nanoseconds) = (-(seconds + 1), 1_000_000_000 - nanoseconds);
    format!("-{seconds}.{nanoseconds:09}")
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}
