//! What requests and answers are made of, as types that do not depend on the wire.

use std::{io, os::fd::BorrowedFd, time::Duration};

/// What every operation answers with.
pub type Reply<T> = Result<T, rustix::io::Errno>;

/// A node as the kernel names it: whatever the file system gave it in an [`Entry`], until it forgets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The one node the kernel knows without having looked it up.
    pub const ROOT: NodeId = NodeId(1);
}

/// Who asks, as the guest's kernel says. Untrusted: fit to tell one guest process from another for the guest's own
/// good, never to decide what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharacterDevice,
    BlockDevice,
}

/// Seconds may be negative, nanoseconds lie below a billion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    pub seconds: i64,
    pub nanoseconds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The inode number to show; not the [`NodeId`].
    pub inode: u64,
    pub kind: FileKind,
    /// The twelve permission bits.
    pub permissions: u32,
    pub size: u64,
    /// Of 512 bytes.
    pub blocks: u64,
    pub block_size: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    /// Encoded as Linux encodes it, 0 for what is no device.
    pub device: u32,
    pub accessed: Timestamp,
    pub modified: Timestamp,
    pub changed: Timestamp,
    pub born: Option<Timestamp>,
    /// This directory is the root of a file system of its own: the kernel mounts it with a device number of its own.
    pub submount: bool,
    /// How long the kernel may believe this.
    pub valid: Duration,
}

/// A name looked up: the kernel now knows the node once more.
#[derive(Clone, Copy, Debug)]
pub enum Entry {
    Found {
        node: NodeId,
        /// Tells apart nodes that had the same number at different times.
        generation: u64,
        attributes: Attributes,
        /// How long the kernel may believe that the name means this node.
        valid: Duration,
    },
    /// There is nothing of that name, and the kernel may believe so for this long.
    Absent { valid: Duration },
}

/// What SETATTR changes; absent things stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub permissions: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub accessed: Option<TimeChange>,
    pub modified: Option<TimeChange>,
    /// The kernel asks that set-user-id and set-group-id bits go, because of a write by someone else than the owner.
    pub kill_privileges: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeChange {
    Now,
    To(Timestamp),
}

bitflags::bitflags! {
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct RenameFlags: u32 {
        const NO_REPLACE = 1;
        const EXCHANGE = 2;
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct WriteFlags: u32 {
        /// At the end of the file, wherever that is; the offset is the kernel's guess of it.
        const APPEND = 1;
        /// Dirty pages of a shared mapping, not a call to `write`.
        const FROM_CACHE = 2;
        /// Set-user-id and set-group-id bits go.
        const KILL_PRIVILEGES = 4;
        /// Durable before the answer (O_SYNC), or its data at least (O_DSYNC).
        const SYNC = 8;
        const DATA_SYNC = 16;
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct XattrFlags: u32 {
        const CREATE = 1;
        const REPLACE = 2;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystemStatus {
    pub block_size: u32,
    pub blocks: u64,
    pub free_blocks: u64,
    pub available_blocks: u64,
    pub files: u64,
    pub free_files: u64,
    pub name_length: u32,
}

/// Where the bytes of a READ go: guest memory, or a buffer.
pub trait Target {
    /// Bytes that still fit.
    fn room(&self) -> usize;

    /// Reads up to `len` bytes of `file` at `offset` behind what is there already. 0 at the end of the file.
    fn fill_from(&mut self, file: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<usize>;

    /// For what comes from no file. More than there is room for is an error.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// The bytes of a WRITE.
pub trait Payload {
    /// Bytes not yet taken.
    fn left(&self) -> usize;

    /// Writes up to `len` of them to `file` at `offset`, or at its end; fewer is no error.
    fn drain_to(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        flags: WriteFlags,
    ) -> io::Result<usize>;

    /// Copies out what is left, up to the size of `bytes`.
    fn take(&mut self, bytes: &mut [u8]) -> io::Result<usize>;
}

/// Takes the entries of a directory until it is full.
pub trait DirectoryEntries {
    /// Whether the kernel wants [`Self::add_with_entry`] (READDIRPLUS).
    fn wants_entries(&self) -> bool;

    /// Whether an entry of this name still fits. Asked before a lookup that would have to be undone. An empty name and
    /// one of more than 255 bytes never fit: leave those out, or the kernel takes the listing for finished.
    fn fits(&self, name: &[u8]) -> bool;

    /// `next` is the offset at which the reading goes on behind this entry. False: full, and not added.
    fn add(&mut self, inode: u64, next: u64, kind: FileKind, name: &[u8]) -> bool;

    /// With what a lookup of the name would have answered; the kernel then knows the node once more, unless the name
    /// is `.` or `..`.
    fn add_with_entry(&mut self, entry: &Entry, next: u64, name: &[u8]) -> bool;
}
