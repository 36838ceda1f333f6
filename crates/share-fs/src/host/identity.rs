//! What a file is, whatever it is called.

use fuse::{Attributes, FileKind, Timestamp};
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, StatxTimestamp};
use std::{os::fd::BorrowedFd, time::Duration};

/// The owner every file is shown to have: the guest's user `agent`.
const SHOWN_OWNER: u32 = 1000;
/// Permission bits that are ever stored or shown: no set-user-id, no set-group-id.
pub(crate) const PERMISSIONS: u32 = 0o1777;
/// Blocks are counted in these, whatever the file system uses.
const SECTOR: u64 = 512;

/// What no file system has: Linux's device numbers have 12 and 20 bits.
const NO_DEVICE: u64 = u64::MAX;

/// Tells a file from every other one, also from a later one with the same inode number where the file system keeps
/// birth times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    born: i64,
    pub(crate) kind: FileKind,
}

impl Identity {
    /// What is the same for all names of a file.
    pub(crate) fn number(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Of something that looks the same and is no file of the host's.
    pub(crate) fn stand_in(self) -> Self {
        Identity {
            device: NO_DEVICE,
            ..self
        }
    }
}

/// What one `statx` says, with what only the share knows added when it is shown.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    stat: Statx,
    pub(crate) identity: Identity,
}

const WANTED: StatxFlags = StatxFlags::BASIC_STATS
    .union(StatxFlags::BTIME)
    .union(StatxFlags::MNT_ID);

impl Found {
    /// What `name` in `directory` is. A last symbolic link is itself, not where it leads. `births`: whether birth times
    /// tell files apart here.
    pub(crate) fn at(
        directory: BorrowedFd<'_>,
        name: impl rustix::path::Arg,
        births: bool,
    ) -> rustix::io::Result<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let stat = rustix::fs::statx(directory, name, flags, WANTED)?;
        Ok(Found::new(stat, births))
    }

    pub(crate) fn of(file: BorrowedFd<'_>, births: bool) -> rustix::io::Result<Self> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
        let stat = rustix::fs::statx(file, c"", flags, WANTED)?;
        Ok(Found::new(stat, births))
    }

    fn new(stat: Statx, births: bool) -> Self {
        let born = births && StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        let identity = Identity {
            device: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
            inode: stat.stx_ino,
            born: if born { nanoseconds(stat.stx_btime) } else { 0 },
            kind: kind(FileType::from_raw_mode(stat.stx_mode.into())),
        };
        Found { stat, identity }
    }

    /// Which mount it lies in; 0 where the kernel does not say (before 5.8).
    pub(crate) fn mount(&self) -> u64 {
        let says = StatxFlags::from_bits_retain(self.stat.stx_mask).contains(StatxFlags::MNT_ID);
        if says { self.stat.stx_mnt_id } else { 0 }
    }

    pub(crate) fn links(&self) -> u32 {
        self.stat.stx_nlink
    }

    pub(crate) fn size(&self) -> u64 {
        self.stat.stx_size
    }

    pub(crate) fn modified(&self) -> (i64, u32) {
        (self.stat.stx_mtime.tv_sec, self.stat.stx_mtime.tv_nsec)
    }

    pub(crate) fn changed(&self) -> (i64, u32) {
        (self.stat.stx_ctime.tv_sec, self.stat.stx_ctime.tv_nsec)
    }

    /// It takes less room than it is long.
    pub(crate) fn has_holes(&self) -> bool {
        self.stat.stx_blocks.saturating_mul(SECTOR) < self.stat.stx_size
    }

    /// Set-user-id or set-group-id, which a file of the host may have.
    pub(crate) fn has_privilege_bits(&self) -> bool {
        self.stat.stx_mode & 0o6000 != 0
    }

    pub(crate) fn raw_permissions(&self) -> u32 {
        u32::from(self.stat.stx_mode) & 0o7777
    }

    pub(crate) fn attributes(&self, who: &Process, home_device: u64, valid: Duration) -> Attributes {
        let stat = &self.stat;
        Attributes {
            inode: shown_inode(self.identity, home_device),
            kind: self.identity.kind,
            permissions: who.shown(stat),
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            block_size: stat.stx_blksize.max(SECTOR as u32),
            links: stat.stx_nlink,
            uid: SHOWN_OWNER,
            gid: SHOWN_OWNER,
            device: 0,
            accessed: timestamp(stat.stx_atime),
            modified: timestamp(stat.stx_mtime),
            changed: timestamp(stat.stx_ctime),
            born: StatxFlags::from_bits_retain(stat.stx_mask)
                .contains(StatxFlags::BTIME)
                .then(|| timestamp(stat.stx_btime)),
            submount: false,
            valid,
        }
    }
}

/// The owner and group that a change of owner may name: those shown, which changes nothing.
pub(crate) fn is_shown_owner(id: u32) -> bool {
    id == SHOWN_OWNER
}

pub(crate) fn shown_owner() -> u32 {
    SHOWN_OWNER
}

/// Who we are on the host: it decides which of a file's permission bits are ours.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    uid: u32,
    groups: Vec<u32>,
}

impl Process {
    pub(crate) fn current() -> Self {
        let mut groups: Vec<u32> = rustix::process::getgroups()
            .unwrap_or_default()
            .into_iter()
            .map(rustix::fs::Gid::as_raw)
            .collect();
        groups.push(rustix::process::getegid().as_raw());
        Process {
            uid: rustix::process::geteuid().as_raw(),
            groups,
        }
    }

    pub(crate) fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// The guest's one user sees as the owner's what this process may do.
    fn shown(&self, stat: &Statx) -> u32 {
        let bits = u32::from(stat.stx_mode) & PERMISSIONS;
        if self.is_root() || stat.stx_uid == self.uid {
            return bits;
        }
        let ours = if self.groups.contains(&stat.stx_gid) {
            bits >> 3 & 0o7
        } else {
            bits & 0o7
        };
        bits & !0o700 | ours << 6
    }
}

/// Inode numbers are unique in one file system; a folder may reach into several without a mount (btrfs, overlay).
fn shown_inode(identity: Identity, home_device: u64) -> u64 {
    if identity.device == home_device {
        return identity.inode;
    }
    let other = (identity.device ^ identity.device >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    identity.inode ^ (other | 1 << 23) << 40
}

fn kind(file_type: FileType) -> FileKind {
    match file_type {
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::CharacterDevice => FileKind::CharacterDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::RegularFile | FileType::Unknown => FileKind::File,
    }
}

/// What a directory says an entry is; `None` when it does not say.
pub(crate) fn kind_of_entry(file_type: FileType) -> Option<FileKind> {
    (file_type != FileType::Unknown).then(|| kind(file_type))
}

fn timestamp(time: StatxTimestamp) -> Timestamp {
    Timestamp {
        seconds: time.tv_sec,
        nanoseconds: time.tv_nsec,
    }
}

fn nanoseconds(time: StatxTimestamp) -> i64 {
    time.tv_sec
        .wrapping_mul(1_000_000_000)
        .wrapping_add(time.tv_nsec.into())
}
