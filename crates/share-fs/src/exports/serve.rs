//! [`Exports`] as a file system: each request goes to the folder its node is in.

use std::{ffi::CStr, time::Duration};

use fuse::{
    Attributes, Caller, Changes, CreateHow, DirectoryEntries, Entry, FileKind, FileSystem, FileSystemStatus,
    Name, NodeId, Payload, RenameFlags, Reply, Target, WriteFlags, XattrFlags,
};
use rustix::io::Errno;

use super::{EVENTS, EVENTS_NAME, Exports, Folder, events_attributes, is_root, root_attributes};
use crate::events::Step;

/// Adds the folder's number to the entries of one of its directories.
struct InFolder<'a> {
    folder: &'a Folder,
    entries: &'a mut dyn DirectoryEntries,
}

impl DirectoryEntries for InFolder<'_> {
    fn wants_entries(&self) -> bool {
        self.entries.wants_entries()
    }

    fn fits(&self, name: &[u8]) -> bool {
        self.entries.fits(name)
    }

    fn add(&mut self, inode: u64, next: u64, kind: FileKind, name: &[u8]) -> bool {
        self.entries.add(inode, next, kind, name)
    }

    fn add_with_entry(&mut self, entry: &Entry, next: u64, name: &[u8]) -> bool {
        self.entries
            .add_with_entry(&self.folder.entry(*entry), next, name)
    }
}

impl FileSystem for Exports {
    fn lookup(&self, caller: Caller, parent: NodeId, name: Name<'_>) -> Reply<Entry> {
        if is_root(parent) && name.as_bytes() == EVENTS_NAME {
            return Ok(self.events_entry());
        }
        if is_root(parent) {
            return self.find_folder(name.as_bytes());
        }
        let (folder, parent) = self.folder(parent)?;
        match self.echoed(caller, &folder, parent, name) {
            Some(Step::Make(_)) => Ok(Entry::Absent {
                valid: Duration::ZERO,
            }),
            Some(Step::Remove(state)) => {
                let entry = folder.fs.inner().pretend(parent, name.as_bytes(), state)?;
                Ok(folder.entry(entry))
            }
            None => Ok(folder.entry(folder.fs.lookup(caller, parent, name)?)),
        }
    }

    fn forget(&self, node: NodeId, count: u64) {
        if let Ok((folder, node)) = self.folder(node) {
            folder.fs.forget(node, count);
        }
    }

    fn forget_all(&self) {
        for folder in self.table().folders.values() {
            folder.fs.forget_all();
        }
    }

    fn attributes(&self, caller: Caller, node: NodeId) -> Reply<Attributes> {
        if is_root(node) {
            return Ok(root_attributes(self.table().changed));
        }
        if node == EVENTS {
            return Ok(events_attributes());
        }
        let (folder, node) = self.folder(node)?;
        folder.fs.attributes(caller, node)
    }

    fn set_attributes(&self, caller: Caller, node: NodeId, changes: &Changes) -> Reply<Attributes> {
        if node == EVENTS {
            return Ok(events_attributes());
        }
        let (folder, node) = self.folder(node)?;
        if self.events.is_echo(caller) {
            return folder.fs.attributes(caller, node);
        }
        folder.fs.set_attributes(caller, node, changes)
    }

    fn read_link(&self, caller: Caller, node: NodeId) -> Reply<Vec<u8>> {
        let (folder, node) = self.folder(node)?;
        folder.fs.read_link(caller, node)
    }

    fn make_node(
        &self,
        caller: Caller,
        parent: NodeId,
        name: Name<'_>,
        kind: FileKind,
        permissions: u32,
    ) -> Reply<Entry> {
        let (folder, parent) = self.folder(parent)?;
        if self.events.is_echo(caller) {
            return self.echo_made(caller, &folder, parent, name);
        }
        Ok(folder.entry(folder.fs.make_node(caller, parent, name, kind, permissions)?))
    }

    fn make_directory(
        &self,
        caller: Caller,
        parent: NodeId,
        name: Name<'_>,
        permissions: u32,
    ) -> Reply<Entry> {
        let (folder, parent) = self.folder(parent)?;
        if self.events.is_echo(caller) {
            return self.echo_made(caller, &folder, parent, name);
        }
        Ok(folder.entry(folder.fs.make_directory(caller, parent, name, permissions)?))
    }

    fn make_symlink(&self, caller: Caller, parent: NodeId, name: Name<'_>, text: &CStr) -> Reply<Entry> {
        let (folder, parent) = self.folder(parent)?;
        if self.events.is_echo(caller) {
            return self.echo_made(caller, &folder, parent, name);
        }
        Ok(folder.entry(folder.fs.make_symlink(caller, parent, name, text)?))
    }

    fn make_link(&self, caller: Caller, node: NodeId, parent: NodeId, name: Name<'_>) -> Reply<Entry> {
        self.not_an_echo(caller)?;
        let (folder, node, parent) = self.folder_of_both(node, parent)?;
        Ok(folder.entry(folder.fs.make_link(caller, node, parent, name)?))
    }

    fn unlink(&self, caller: Caller, parent: NodeId, name: Name<'_>) -> Reply<()> {
        let (folder, parent) = self.folder(parent)?;
        if self.events.is_echo(caller) {
            return self.echo_removed(&folder, parent, name);
        }
        folder.fs.unlink(caller, parent, name)
    }

    fn remove_directory(&self, caller: Caller, parent: NodeId, name: Name<'_>) -> Reply<()> {
        let (folder, parent) = self.folder(parent)?;
        if self.events.is_echo(caller) {
            return self.echo_removed(&folder, parent, name);
        }
        folder.fs.remove_directory(caller, parent, name)
    }

    fn rename(
        &self,
        caller: Caller,
        from: (NodeId, Name<'_>),
        to: (NodeId, Name<'_>),
        flags: RenameFlags,
    ) -> Reply<()> {
        self.not_an_echo(caller)?;
        let (folder, old, new) = self.folder_of_both(from.0, to.0)?;
        folder.fs.rename(caller, (old, from.1), (new, to.1), flags)
    }

    fn create(&self, caller: Caller, parent: NodeId, name: Name<'_>, how: CreateHow) -> Reply<Entry> {
        self.not_an_echo(caller)?;
        let (folder, parent) = self.folder(parent)?;
        Ok(folder.entry(folder.fs.create(caller, parent, name, how)?))
    }

    fn make_temporary(&self, caller: Caller, parent: NodeId, permissions: u32) -> Reply<Entry> {
        self.not_an_echo(caller)?;
        let (folder, parent) = self.folder(parent)?;
        Ok(folder.entry(folder.fs.make_temporary(caller, parent, permissions)?))
    }

    fn read(&self, caller: Caller, node: NodeId, offset: u64, target: &mut dyn Target) -> Reply<()> {
        if node == EVENTS {
            return self.news(caller, target);
        }
        let (folder, node) = self.folder(node)?;
        folder.fs.read(caller, node, offset, target)
    }

    fn write(
        &self,
        caller: Caller,
        node: NodeId,
        offset: u64,
        payload: &mut dyn Payload,
        flags: WriteFlags,
    ) -> Reply<usize> {
        if node == EVENTS {
            return self.watch(caller, payload);
        }
        self.not_an_echo(caller)?;
        let (folder, node) = self.folder(node)?;
        folder.fs.write(caller, node, offset, payload, flags)
    }

    fn sync(&self, caller: Caller, node: NodeId, data_only: bool) -> Reply<()> {
        let (folder, node) = self.folder(node)?;
        folder.fs.sync(caller, node, data_only)
    }

    fn sync_all(&self, caller: Caller, node: NodeId) -> Reply<()> {
        let (folder, node) = self.folder(node)?;
        folder.fs.sync_all(caller, node)
    }

    fn read_directory(
        &self,
        caller: Caller,
        node: NodeId,
        offset: u64,
        entries: &mut dyn DirectoryEntries,
    ) -> Reply<()> {
        if is_root(node) {
            self.list_folders(offset, entries);
            return Ok(());
        }
        let (folder, node) = self.folder(node)?;
        let mut entries = InFolder {
            folder: &folder,
            entries,
        };
        folder.fs.read_directory(caller, node, offset, &mut entries)
    }

    fn status(&self, caller: Caller, node: NodeId) -> Reply<FileSystemStatus> {
        if is_root(node) {
            return Ok(FileSystemStatus {
                block_size: 4096,
                blocks: 0,
                free_blocks: 0,
                available_blocks: 0,
                files: 0,
                free_files: 0,
                name_length: 255,
            });
        }
        let (folder, node) = self.folder(node)?;
        folder.fs.status(caller, node)
    }

    fn set_xattr(
        &self,
        caller: Caller,
        node: NodeId,
        name: Name<'_>,
        value: &[u8],
        flags: XattrFlags,
    ) -> Reply<()> {
        self.not_an_echo(caller)?;
        let (folder, node) = self.folder(node)?;
        folder.fs.set_xattr(caller, node, name, value, flags)
    }

    fn xattr(&self, caller: Caller, node: NodeId, name: Name<'_>) -> Reply<Vec<u8>> {
        if is_root(node) || node == EVENTS {
            return Err(Errno::NODATA);
        }
        let (folder, node) = self.folder(node)?;
        folder.fs.xattr(caller, node, name)
    }

    fn list_xattrs(&self, caller: Caller, node: NodeId) -> Reply<Vec<u8>> {
        if is_root(node) || node == EVENTS {
            return Ok(Vec::new());
        }
        let (folder, node) = self.folder(node)?;
        folder.fs.list_xattrs(caller, node)
    }

    fn remove_xattr(&self, caller: Caller, node: NodeId, name: Name<'_>) -> Reply<()> {
        self.not_an_echo(caller)?;
        let (folder, node) = self.folder(node)?;
        folder.fs.remove_xattr(caller, node, name)
    }

    fn allocate(&self, caller: Caller, node: NodeId, range: (u64, u64), mode: u32) -> Reply<()> {
        self.not_an_echo(caller)?;
        let (folder, node) = self.folder(node)?;
        folder.fs.allocate(caller, node, range, mode)
    }

    fn seek(&self, caller: Caller, node: NodeId, offset: u64, hole: bool) -> Reply<u64> {
        let (folder, node) = self.folder(node)?;
        folder.fs.seek(caller, node, offset, hole)
    }

    fn copy_range(&self, caller: Caller, from: (NodeId, u64), to: (NodeId, u64), len: u64) -> Reply<usize> {
        self.not_an_echo(caller)?;
        let (folder, source, target) = self.folder_of_both(from.0, to.0)?;
        folder
            .fs
            .copy_range(caller, (source, from.1), (target, to.1), len)
    }
}
