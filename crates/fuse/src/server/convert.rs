//! From our types to those of the wire.

use std::time::Duration;

use rustix::io::Errno;

use crate::{
    Attributes, Entry, FileKind, FileSystemStatus, Reply, Timestamp,
    wire::{
        ATTR_SUBMOUNT, Attr, AttrOut, EntryOut, STATX_BASIC, STATX_BTIME, StatFsOut, StatX, StatXOut,
        StatXTime,
    },
};

const PERMISSIONS: u32 = 0o7777;
const TYPE: u32 = 0o170_000;

impl FileKind {
    /// As in `st_mode`.
    pub(crate) fn mode(self) -> u32 {
        match self {
            FileKind::Fifo => 0o010_000,
            FileKind::CharacterDevice => 0o020_000,
            FileKind::Directory => 0o040_000,
            FileKind::BlockDevice => 0o060_000,
            FileKind::File => 0o100_000,
            FileKind::Symlink => 0o120_000,
            FileKind::Socket => 0o140_000,
        }
    }

    pub(crate) fn of_mode(mode: u32) -> Option<FileKind> {
        [
            FileKind::Fifo,
            FileKind::CharacterDevice,
            FileKind::Directory,
            FileKind::BlockDevice,
            FileKind::File,
            FileKind::Symlink,
            FileKind::Socket,
        ]
        .into_iter()
        .find(|kind| kind.mode() == mode & TYPE)
    }

    /// As in `d_type`.
    pub(crate) fn directory_type(self) -> u32 {
        self.mode() >> 12
    }
}

pub(super) fn permissions(mode: u32) -> u32 {
    mode & PERMISSIONS
}

pub(super) fn attr(of: &Attributes) -> Attr {
    Attr {
        inode: of.inode,
        size: of.size,
        blocks: of.blocks,
        atime: of.accessed.seconds,
        mtime: of.modified.seconds,
        ctime: of.changed.seconds,
        atime_nsec: of.accessed.nanoseconds,
        mtime_nsec: of.modified.nanoseconds,
        ctime_nsec: of.changed.nanoseconds,
        mode: of.kind.mode() | permissions(of.permissions),
        links: of.links,
        uid: of.uid,
        gid: of.gid,
        device: of.device,
        block_size: of.block_size,
        flags: if of.submount { ATTR_SUBMOUNT } else { 0 },
    }
}

pub(super) fn attr_out(of: &Attributes) -> AttrOut {
    let (attr_valid, attr_valid_nsec) = parts(of.valid);
    AttrOut {
        attr_valid,
        attr_valid_nsec,
        padding: 0,
        attr: attr(of),
    }
}

/// The kernel takes node 0 for "absent". The mark of a submount is for one that mounts it.
pub(super) fn entry_out(entry: &Entry, submounts: bool) -> EntryOut {
    match entry {
        Entry::Absent { valid } => {
            let (entry_valid, entry_valid_nsec) = parts(*valid);
            EntryOut {
                entry_valid,
                entry_valid_nsec,
                ..EntryOut::default()
            }
        }
        Entry::Found {
            node,
            generation,
            attributes,
            valid,
        } => {
            let (entry_valid, entry_valid_nsec) = parts(*valid);
            let (attr_valid, attr_valid_nsec) = parts(attributes.valid);
            EntryOut {
                node: node.0,
                generation: *generation,
                entry_valid,
                attr_valid,
                entry_valid_nsec,
                attr_valid_nsec,
                attr: attr(&Attributes {
                    submount: attributes.submount && submounts,
                    ..*attributes
                }),
            }
        }
    }
}

/// Of an operation that makes something: it cannot be absent, nor a file system of its own.
pub(super) fn made(entry: &Entry) -> Reply<EntryOut> {
    match entry {
        Entry::Found { .. } => Ok(entry_out(entry, true)),
        Entry::Absent { .. } => Err(Errno::IO),
    }
}

pub(super) fn statx_out(of: &Attributes) -> StatXOut {
    let (attr_valid, attr_valid_nsec) = parts(of.valid);
    StatXOut {
        attr_valid,
        attr_valid_nsec,
        statx: StatX {
            mask: STATX_BASIC | if of.born.is_some() { STATX_BTIME } else { 0 },
            block_size: of.block_size,
            links: of.links,
            uid: of.uid,
            gid: of.gid,
            mode: (of.kind.mode() | permissions(of.permissions)) as u16,
            inode: of.inode,
            size: of.size,
            blocks: of.blocks,
            accessed: time(of.accessed),
            born: time(of.born.unwrap_or_default()),
            changed: time(of.changed),
            modified: time(of.modified),
            device_major: (of.device >> 8) & 0xfff,
            device_minor: (of.device & 0xff) | ((of.device >> 12) & 0xf_ff00),
            ..StatX::default()
        },
        ..StatXOut::default()
    }
}

pub(super) fn statfs_out(of: &FileSystemStatus) -> StatFsOut {
    StatFsOut {
        blocks: of.blocks,
        free_blocks: of.free_blocks,
        available_blocks: of.available_blocks,
        files: of.files,
        free_files: of.free_files,
        block_size: of.block_size,
        name_length: of.name_length,
        fragment_size: of.block_size,
        ..StatFsOut::default()
    }
}

fn time(of: Timestamp) -> StatXTime {
    StatXTime {
        seconds: of.seconds,
        nanoseconds: of.nanoseconds,
        reserved: 0,
    }
}

fn parts(duration: Duration) -> (u64, u32) {
    (duration.as_secs(), duration.subsec_nanos())
}
