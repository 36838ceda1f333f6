//! [`HostFs`] as a file system: which operation is done where.

use std::ffi::CStr;

use fuse::{
    Attributes, Caller, Changes, CreateHow, DirectoryEntries, Entry, FileKind, FileSystem, FileSystemStatus,
    Name, NodeId, Payload, RenameFlags, Reply, Target, WriteFlags, XattrFlags,
};
use rustix::io::Errno;

use super::{HostFs, ROOT, nodes::Slot};

impl HostFs {
    /// The guest did something to a name, whose result this is.
    fn noted<T>(&self, parent: NodeId, name: Name<'_>, result: Reply<T>) -> Reply<T> {
        self.did(parent, name.as_bytes());
        self.unless_lost(result)
    }

    fn noted_file<T>(&self, slot: Slot, result: Reply<T>) -> Reply<T> {
        self.did_to(slot);
        result
    }
}

impl FileSystem for HostFs {
    fn lookup(&self, _: Caller, parent: NodeId, name: Name<'_>) -> Reply<Entry> {
        self.look_up(parent, name)
    }

    fn forget(&self, node: NodeId, count: u64) {
        let mut nodes = self.nodes();
        if let Ok(slot) = nodes.slot(node) {
            nodes.forget(slot, count);
        }
        let gone = nodes.take_gone();
        drop(nodes);
        self.settle_owed(gone);
    }

    fn forget_all(&self) {
        self.streams.close_all();
        let gone = {
            let mut nodes = self.nodes();
            nodes.forget_all();
            nodes.take_gone()
        };
        self.settle_owed(gone);
    }

    fn attributes(&self, _: Caller, node: NodeId) -> Reply<Attributes> {
        let slot = self.slot(node)?;
        self.show_now(slot)
    }

    fn set_attributes(&self, _: Caller, node: NodeId, changes: &Changes) -> Reply<Attributes> {
        let slot = self.slot(node)?;
        self.noted_file(slot, self.change(slot, changes))
    }

    fn read_link(&self, _: Caller, node: NodeId) -> Reply<Vec<u8>> {
        self.link_text(self.slot(node)?)
    }

    /// Files only: a FIFO or a socket could hang or mislead whoever opens it on the host, a device is the host's.
    fn make_node(
        &self,
        _: Caller,
        parent: NodeId,
        name: Name<'_>,
        kind: FileKind,
        permissions: u32,
    ) -> Reply<Entry> {
        match kind {
            FileKind::File => self.noted(parent, name, self.make_file(parent, name, permissions)),
            _ => Err(Errno::PERM),
        }
    }

    fn make_directory(&self, _: Caller, parent: NodeId, name: Name<'_>, permissions: u32) -> Reply<Entry> {
        self.noted(parent, name, self.make_folder(parent, name, permissions))
    }

    fn make_symlink(&self, _: Caller, parent: NodeId, name: Name<'_>, text: &CStr) -> Reply<Entry> {
        self.noted(parent, name, self.make_text_link(parent, name, text))
    }

    fn make_link(&self, _: Caller, node: NodeId, parent: NodeId, name: Name<'_>) -> Reply<Entry> {
        self.noted(parent, name, self.make_name(node, parent, name))
    }

    fn unlink(&self, _: Caller, parent: NodeId, name: Name<'_>) -> Reply<()> {
        self.noted(parent, name, self.remove_file(parent, name))
    }

    fn remove_directory(&self, _: Caller, parent: NodeId, name: Name<'_>) -> Reply<()> {
        self.noted(parent, name, self.remove_folder(parent, name))
    }

    fn rename(
        &self,
        _: Caller,
        from: (NodeId, Name<'_>),
        to: (NodeId, Name<'_>),
        flags: RenameFlags,
    ) -> Reply<()> {
        let renamed = self.rename_entry(from, to, flags);
        self.noted(from.0, from.1, self.noted(to.0, to.1, renamed))
    }

    fn create(&self, _: Caller, parent: NodeId, name: Name<'_>, how: CreateHow) -> Reply<Entry> {
        self.noted(parent, name, self.create_file(parent, name, how.permissions))
    }

    fn make_temporary(&self, _: Caller, parent: NodeId, permissions: u32) -> Reply<Entry> {
        self.unless_lost(self.make_unnamed(parent, permissions))
    }

    fn read(&self, _: Caller, node: NodeId, offset: u64, target: &mut dyn Target) -> Reply<()> {
        self.read_file(self.slot(node)?, offset, target)
    }

    fn write(
        &self,
        _: Caller,
        node: NodeId,
        offset: u64,
        payload: &mut dyn Payload,
        flags: WriteFlags,
    ) -> Reply<usize> {
        let slot = self.slot(node)?;
        self.noted_file(slot, self.write_file(slot, offset, payload, flags))
    }

    fn sync(&self, _: Caller, node: NodeId, data_only: bool) -> Reply<()> {
        self.sync_node(self.slot(node)?, data_only)
    }

    fn sync_all(&self, _: Caller, _: NodeId) -> Reply<()> {
        self.sync_everything(ROOT)
    }

    fn read_directory(
        &self,
        _: Caller,
        node: NodeId,
        offset: u64,
        entries: &mut dyn DirectoryEntries,
    ) -> Reply<()> {
        self.unless_lost(self.list(self.slot(node)?, offset, entries))
    }

    fn status(&self, _: Caller, _: NodeId) -> Reply<FileSystemStatus> {
        let root = self.directory(ROOT)?;
        let status = rustix::fs::fstatfs(&*root)?;
        Ok(FileSystemStatus {
            block_size: u32::try_from(status.f_bsize).unwrap_or(4096),
            blocks: status.f_blocks,
            free_blocks: status.f_bfree,
            available_blocks: self.quota.available(&status),
            files: status.f_files,
            free_files: self.quota.available_files(&status),
            name_length: u32::try_from(status.f_namelen).unwrap_or(255),
        })
    }

    fn set_xattr(
        &self,
        _: Caller,
        node: NodeId,
        name: Name<'_>,
        value: &[u8],
        flags: XattrFlags,
    ) -> Reply<()> {
        let slot = self.slot(node)?;
        self.expect_change(slot);
        self.noted_file(slot, self.set_user_xattr(slot, name, value, flags))
    }

    fn xattr(&self, _: Caller, node: NodeId, name: Name<'_>) -> Reply<Vec<u8>> {
        self.user_xattr(self.slot(node)?, name)
    }

    fn list_xattrs(&self, _: Caller, node: NodeId) -> Reply<Vec<u8>> {
        self.user_xattrs(self.slot(node)?)
    }

    fn remove_xattr(&self, _: Caller, node: NodeId, name: Name<'_>) -> Reply<()> {
        let slot = self.slot(node)?;
        self.expect_change(slot);
        self.noted_file(slot, self.remove_user_xattr(slot, name))
    }

    fn allocate(&self, _: Caller, node: NodeId, range: (u64, u64), mode: u32) -> Reply<()> {
        let slot = self.slot(node)?;
        self.noted_file(slot, self.allocate_range(slot, range, mode))
    }

    fn seek(&self, _: Caller, node: NodeId, offset: u64, hole: bool) -> Reply<u64> {
        self.seek_in(self.slot(node)?, offset, hole)
    }

    fn copy_range(&self, _: Caller, from: (NodeId, u64), to: (NodeId, u64), len: u64) -> Reply<usize> {
        let target = self.slot(to.0)?;
        self.noted_file(
            target,
            self.copy((self.slot(from.0)?, from.1), (target, to.1), len),
        )
    }
}
