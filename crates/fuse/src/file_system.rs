//! What a file system is to the server.

use rustix::io::Errno;

use crate::{
    Attributes, Caller, Changes, DirectoryEntries, Entry, FileKind, FileSystemStatus, Name, NodeId, Payload,
    RenameFlags, Reply, Target, WriteFlags, XattrFlags,
};

/// A file system. Called from any number of threads at once. An operation nobody wrote answers ENOSYS, so that a
/// wrapper which does not know of an operation refuses it.
pub trait FileSystem: Send + Sync {
    /// A successful answer that is [`Entry::Found`] makes the kernel know the node once more; so do those of all
    /// operations below that return an [`Entry`].
    fn lookup(&self, _caller: Caller, _parent: NodeId, _name: Name<'_>) -> Reply<Entry> {
        Err(Errno::NOSYS)
    }

    /// The kernel knows the node `count` times less. Never fails; a count that is too high is the guest's problem.
    fn forget(&self, _node: NodeId, _count: u64) {}

    /// The kernel knows nothing but the root any more, and holds nothing that [`Self::create`] made: it has unmounted
    /// (which it does without forgetting one by one) or starts afresh.
    fn forget_all(&self) {}

    fn attributes(&self, _caller: Caller, _node: NodeId) -> Reply<Attributes> {
        Err(Errno::NOSYS)
    }

    fn set_attributes(&self, _caller: Caller, _node: NodeId, _changes: &Changes) -> Reply<Attributes> {
        Err(Errno::NOSYS)
    }

    /// The text of a symbolic link, as it is stored.
    fn read_link(&self, _caller: Caller, _node: NodeId) -> Reply<Vec<u8>> {
        Err(Errno::NOSYS)
    }

    /// MKNOD: an empty file, or something else that is not a directory or a link.
    fn make_node(
        &self,
        _caller: Caller,
        _parent: NodeId,
        _name: Name<'_>,
        _kind: FileKind,
        _permissions: u32,
    ) -> Reply<Entry> {
        Err(Errno::NOSYS)
    }

    fn make_directory(
        &self,
        _caller: Caller,
        _parent: NodeId,
        _name: Name<'_>,
        _permissions: u32,
    ) -> Reply<Entry> {
        Err(Errno::NOSYS)
    }

    /// `text` is one to 4095 bytes without NUL.
    fn make_symlink(
        &self,
        _caller: Caller,
        _parent: NodeId,
        _name: Name<'_>,
        _text: &std::ffi::CStr,
    ) -> Reply<Entry> {
        Err(Errno::NOSYS)
    }

    fn make_link(&self, _caller: Caller, _node: NodeId, _parent: NodeId, _name: Name<'_>) -> Reply<Entry> {
        Err(Errno::NOSYS)
    }

    fn unlink(&self, _caller: Caller, _parent: NodeId, _name: Name<'_>) -> Reply<()> {
        Err(Errno::NOSYS)
    }

    fn remove_directory(&self, _caller: Caller, _parent: NodeId, _name: Name<'_>) -> Reply<()> {
        Err(Errno::NOSYS)
    }

    fn rename(
        &self,
        _caller: Caller,
        _from: (NodeId, Name<'_>),
        _to: (NodeId, Name<'_>),
        _flags: RenameFlags,
    ) -> Reply<()> {
        Err(Errno::NOSYS)
    }

    /// Makes a file, or finds the one that is there unless `exclusive`; `truncate` empties that one. What was made
    /// stays usable, whatever its permissions, until [`Self::release`].
    fn create(&self, _caller: Caller, _parent: NodeId, _name: Name<'_>, _how: CreateHow) -> Reply<Entry> {
        Err(Errno::NOSYS)
    }

    /// TMPFILE: a file without a name, in the file system of `parent`. As with [`Self::create`].
    fn make_temporary(&self, _caller: Caller, _parent: NodeId, _permissions: u32) -> Reply<Entry> {
        Err(Errno::NOSYS)
    }

    /// The file that [`Self::create`] or [`Self::make_temporary`] made is closed where it was made. Not to be counted
    /// on: Linux says so no more once it knows that opening asks nothing (seen up to 6.18), and a hostile guest says so
    /// of any node.
    fn release(&self, _node: NodeId) {}

    /// Up to `target.room()` bytes at `offset`; fewer only at the end of the file.
    fn read(&self, _caller: Caller, _node: NodeId, _offset: u64, _target: &mut dyn Target) -> Reply<()> {
        Err(Errno::NOSYS)
    }

    /// Returns how much was written.
    fn write(
        &self,
        _caller: Caller,
        _node: NodeId,
        _offset: u64,
        _payload: &mut dyn Payload,
        _flags: WriteFlags,
    ) -> Reply<usize> {
        Err(Errno::NOSYS)
    }

    /// FSYNC and FSYNCDIR.
    fn sync(&self, _caller: Caller, _node: NodeId, _data_only: bool) -> Reply<()> {
        Err(Errno::NOSYS)
    }

    /// SYNCFS: everything of the file system this node is in.
    fn sync_all(&self, _caller: Caller, _node: NodeId) -> Reply<()> {
        Err(Errno::NOSYS)
    }

    /// Entries from `offset` on, which is 0 or the `next` of an entry given before.
    fn read_directory(
        &self,
        _caller: Caller,
        _node: NodeId,
        _offset: u64,
        _entries: &mut dyn DirectoryEntries,
    ) -> Reply<()> {
        Err(Errno::NOSYS)
    }

    fn status(&self, _caller: Caller, _node: NodeId) -> Reply<FileSystemStatus> {
        Err(Errno::NOSYS)
    }

    fn set_xattr(
        &self,
        _caller: Caller,
        _node: NodeId,
        _name: Name<'_>,
        _value: &[u8],
        _flags: XattrFlags,
    ) -> Reply<()> {
        Err(Errno::NOSYS)
    }

    /// The value; the server sees to it that it fits what the kernel asked for.
    fn xattr(&self, _caller: Caller, _node: NodeId, _name: Name<'_>) -> Reply<Vec<u8>> {
        Err(Errno::NOSYS)
    }

    /// The names, each ended by NUL.
    fn list_xattrs(&self, _caller: Caller, _node: NodeId) -> Reply<Vec<u8>> {
        Err(Errno::NOSYS)
    }

    fn remove_xattr(&self, _caller: Caller, _node: NodeId, _name: Name<'_>) -> Reply<()> {
        Err(Errno::NOSYS)
    }

    /// `mode` as `fallocate` takes it.
    fn allocate(&self, _caller: Caller, _node: NodeId, _range: (u64, u64), _mode: u32) -> Reply<()> {
        Err(Errno::NOSYS)
    }

    /// SEEK_DATA (`hole` false) or SEEK_HOLE.
    fn seek(&self, _caller: Caller, _node: NodeId, _offset: u64, _hole: bool) -> Reply<u64> {
        Err(Errno::NOSYS)
    }

    fn copy_range(
        &self,
        _caller: Caller,
        _from: (NodeId, u64),
        _to: (NodeId, u64),
        _len: u64,
    ) -> Reply<usize> {
        Err(Errno::NOSYS)
    }
}

/// How [`FileSystem::create`] is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateHow {
    pub permissions: u32,
    pub exclusive: bool,
    pub truncate: bool,
}
