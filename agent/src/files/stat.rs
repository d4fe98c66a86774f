//! What `statx` tells of a path.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, StatxTimestamp};
use rustix::io::Errno;

/// Attributes of a file or folder. Where its content has changed, at least one of them has, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Stamp {
    /// Length in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The device that holds it.
    pub device: u64,
    /// Its inode there.
    pub inode: u64,
    /// How many names it has.
    pub links: u64,
    /// When its content changed, in nanoseconds since 1970.
    pub mtime_ns: i128,
    /// When its content or attributes changed, in nanoseconds since 1970.
    pub ctime_ns: i128,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stat {
    /// Nothing.
    Missing,
    /// A regular file.
    File(Stamp),
    /// A folder.
    Folder(Stamp),
    /// Something else, or something else on the way to it; in a few words.
    Other(String),
}

/// What is at a path, and on which mount.
pub(super) struct Placed {
    pub stat: Stat,
    pub mount: u64,
}

pub(super) fn statx(fd: impl AsFd) -> Result<Statx, Errno> {
    rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)
}

pub(super) fn placed(found: Statx) -> Placed {
    let device = (u64::from(found.stx_dev_major) << 32) | u64::from(found.stx_dev_minor);
    let stamp = Stamp {
        size: found.stx_size,
        mode: u32::from(found.stx_mode) & 0o7777,
        uid: found.stx_uid,
        gid: found.stx_gid,
        device,
        inode: found.stx_ino,
        links: u64::from(found.stx_nlink),
        mtime_ns: nanoseconds(found.stx_mtime),
        ctime_ns: nanoseconds(found.stx_ctime),
    };
    let stat = match FileType::from_raw_mode(u32::from(found.stx_mode)) {
        FileType::RegularFile => Stat::File(stamp),
        FileType::Directory => Stat::Folder(stamp),
        FileType::Symlink => Stat::Other("there is a symlink".to_owned()),
        FileType::Fifo => Stat::Other("there is a FIFO".to_owned()),
        FileType::Socket => Stat::Other("there is a socket".to_owned()),
        FileType::CharacterDevice | FileType::BlockDevice => Stat::Other("there is a device".to_owned()),
        FileType::Unknown => Stat::Other("there is something of an unknown kind".to_owned()),
    };
    // Kernels before 5.8 do not tell the mount; the device is the next best thing.
    let told = found.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    Placed { stat, mount: if told { found.stx_mnt_id } else { device } }
}

fn nanoseconds(time: StatxTimestamp) -> i128 {
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}
