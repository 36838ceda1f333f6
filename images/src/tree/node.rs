//! What a node of the tree is.

use std::collections::BTreeMap;

use super::{Extent, Name};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(super) u32);

impl NodeId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) meta: Meta,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Directory(BTreeMap<Name, Entry>),
    File(Extent),
    Symlink(Box<[u8]>),
    Character(Device),
    Block(Device),
    Fifo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    major: u32,
    minor: u32,
}

impl Device {
    /// Linux has 12 bits for the major number and 20 for the minor one.
    pub(crate) fn new(major: u32, minor: u32) -> Option<Self> {
        (major < 1 << 12 && minor < 1 << 20).then_some(Self { major, minor })
    }

    /// As the kernel packs it on disk: the low byte of the minor number below the major one.
    pub(crate) fn packed(self) -> u32 {
        (self.minor & 0xff) | (self.major << 8) | ((self.minor & !0xff) << 12)
    }
}

/// A name in a directory, and the layer that last touched it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(super) id: NodeId,
    pub(super) layer: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    /// The twelve permission bits.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Mtime,
    pub(crate) xattrs: Xattrs,
}

impl Meta {
    /// Of a directory that no entry names.
    pub(crate) fn directory() -> Self {
        Self {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Mtime::default(),
            xattrs: Xattrs::default(),
        }
    }
}

/// Times before 1970 become 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mtime {
    pub(crate) seconds: u64,
    pub(crate) nanoseconds: u32,
}

impl Mtime {
    /// The last second an ext4 overlay can hold (the year 2514): a file copied up keeps its time.
    pub(crate) const LATEST: Self = Self {
        seconds: (1 << 34) - 1,
        nanoseconds: 0,
    };
}

/// Extended attributes that are kept: `user.*` and file capabilities, in the order of their names.
///
/// Labels of security modules mean nothing to a guest with its own, and `trusted.overlay.*` or
/// `user.overlay.*` would steer the overlay the guest mounts over the image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Xattrs(BTreeMap<Box<[u8]>, Box<[u8]>>);

impl Xattrs {
    /// The kernel's own limits: XATTR_NAME_MAX, and a block for all of a file's attributes as on ext4.
    const MAX_NAME: usize = 255;
    const MAX_BYTES: usize = 4096;

    /// False when the attribute would go over a limit; what is not kept is passed over.
    #[must_use]
    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) -> bool {
        if !Self::kept(name) {
            return true;
        }
        self.0.insert(name.into(), value.into());
        name.len() <= Self::MAX_NAME && !name.contains(&0) && self.bytes() <= Self::MAX_BYTES
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    fn kept(name: &[u8]) -> bool {
        let users = name.strip_prefix(b"user.").is_some_and(|rest| !rest.is_empty());
        name == b"security.capability" || users && !name.starts_with(b"user.overlay.")
    }
}
