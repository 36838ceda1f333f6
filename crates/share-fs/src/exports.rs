//! One device, many folders: the root of what the guest mounts lists them, and each is a file system of its own.
//!
//! The upper 16 bits of a node's number say in which folder it is, 0 being the root that lists them. A folder that
//! is taken away leaves its number unused, so what the guest still knows of it is ESTALE for ever.

use std::{
    collections::BTreeMap,
    ffi::CStr,
    fmt,
    os::fd::OwnedFd,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fuse::{
    Attributes, Caller, Changes, CreateHow, DirectoryEntries, Entry, FileKind, FileSystem, FileSystemStatus,
    Name, NodeId, Payload, RenameFlags, Reply, Target, Timestamp, WriteFlags, XattrFlags,
};
use rustix::io::Errno;

use crate::{Guarded, HostFs, OpenError, ShareConfig, Shared, janitor::Janitor};

/// Bits of a number that belong to the folder.
const LOCAL_BITS: u32 = 48;
const LOCAL: u64 = (1 << LOCAL_BITS) - 1;
/// How long the guest believes that a folder is there. One taken away must not be found under its name for long.
const ROOT_VALID: Duration = Duration::from_millis(900);
/// Folders a session shares at once.
const MAX_FOLDERS: usize = 64;

/// All folders of a session.
pub struct Exports {
    shared: Shared,
    table: Arc<RwLock<Table>>,
    _janitor: Janitor,
}

#[derive(Default)]
struct Table {
    folders: BTreeMap<u16, Arc<Folder>>,
    names: BTreeMap<Box<[u8]>, u16>,
    last: u16,
}

struct Folder {
    name: String,
    index: u16,
    fs: Guarded,
    requests: AtomicU64,
}

/// A folder and what has happened in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareInfo {
    pub name: String,
    pub lost: bool,
    pub requests: u64,
    pub refused: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub known: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum AddError {
    #[error("a folder named {name:?} is shared already")]
    Taken { name: String },
    #[error("{MAX_FOLDERS} folders are shared already")]
    TooMany,
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl Exports {
    /// `descriptors`: how many files of all folders together may be held open.
    pub fn new(descriptors: usize) -> Result<Self, OpenError> {
        let shared = Shared::new(descriptors)?;
        let table = Arc::<RwLock<Table>>::default();
        let theirs = Arc::downgrade(&table);
        let tidy = move || theirs.upgrade().is_some_and(|table| tidy(&table));
        Ok(Exports {
            _janitor: Janitor::start(shared.bell(), tidy),
            shared,
            table,
        })
    }

    /// The folder appears in the guest's listing under `name`.
    pub fn add(&self, name: &str, root: OwnedFd, config: ShareConfig) -> Result<(), AddError> {
        let fs = HostFs::new(root, config.cache, config.limits, &self.shared)?;
        let mut table = self.table_mut();
        if table.names.contains_key(name.as_bytes()) {
            return Err(AddError::Taken { name: name.into() });
        }
        let index = table.last.checked_add(1).ok_or(AddError::TooMany)?;
        if table.folders.len() >= MAX_FOLDERS {
            return Err(AddError::TooMany);
        }
        let folder = Folder {
            name: name.into(),
            index,
            fs: Guarded::new(fs, config.policy),
            requests: AtomicU64::new(0),
        };
        table.last = index;
        table.names.insert(name.as_bytes().into(), index);
        table.folders.insert(index, Arc::new(folder));
        Ok(())
    }

    /// From now on whoever uses the folder in the guest gets ESTALE. False when there is none of that name.
    pub fn remove(&self, name: &str) -> bool {
        let removed = {
            let mut table = self.table_mut();
            let index = table.names.remove(name.as_bytes());
            index.and_then(|index| table.folders.remove(&index))
        };
        // The folder itself is closed here, or by the last request that is in it.
        removed.is_some()
    }

    pub fn status(&self) -> Vec<ShareInfo> {
        let folders: Vec<_> = self.table().folders.values().cloned().collect();
        folders.iter().map(|folder| folder.info()).collect()
    }

    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn table_mut(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_root(node: NodeId) -> bool {
        node == NodeId::ROOT
    }

    /// The folder a node is in, and the node's number there. The root that lists the folders is in none.
    fn folder(&self, node: NodeId) -> Reply<(Arc<Folder>, NodeId)> {
        if Self::is_root(node) {
            return Err(Errno::ROFS);
        }
        let index = (node.0 >> LOCAL_BITS) as u16;
        let folder = self.table().folders.get(&index).cloned().ok_or(Errno::STALE)?;
        folder.requests.fetch_add(1, Ordering::Relaxed);
        Ok((folder, NodeId(node.0 & LOCAL)))
    }

    /// Two nodes that an operation joins must be in one folder.
    fn folder_of_both(&self, one: NodeId, other: NodeId) -> Reply<(Arc<Folder>, NodeId, NodeId)> {
        if one.0 >> LOCAL_BITS != other.0 >> LOCAL_BITS {
            return Err(Errno::XDEV);
        }
        let (folder, one) = self.folder(one)?;
        Ok((folder, one, NodeId(other.0 & LOCAL)))
    }

    fn find_folder(&self, name: &[u8]) -> Reply<Entry> {
        let folder = {
            let table = self.table();
            table
                .names
                .get(name)
                .and_then(|index| table.folders.get(index))
                .cloned()
        };
        let Some(folder) = folder else {
            return Ok(Entry::Absent { valid: ROOT_VALID });
        };
        let root = folder.fs.inner().root();
        let attributes = match folder.fs.attributes(NOBODY, root) {
            Ok(attributes) => attributes,
            // The folder is gone from the host: it is still listed, and all that is in it is stale.
            Err(_) => root_attributes(),
        };
        Ok(Entry::Found {
            node: folder.global(root),
            generation: 0,
            attributes: Attributes {
                submount: true,
                ..attributes
            },
            valid: ROOT_VALID,
        })
    }

    fn list_folders(&self, offset: u64, entries: &mut dyn DirectoryEntries) {
        let table = self.table();
        let dots = [(1, &b"."[..]), (2, &b".."[..])];
        for (next, name) in dots.into_iter().filter(|(next, _)| *next > offset) {
            if !entries.add(NodeId::ROOT.0, next, FileKind::Directory, name) {
                return;
            }
        }
        // In the order of their numbers, which only grow: a folder that comes or goes moves no other.
        for (index, folder) in &table.folders {
            let next = u64::from(*index) + 2;
            let shown = u64::from(*index) << LOCAL_BITS | 1;
            if next > offset && !entries.add(shown, next, FileKind::Directory, folder.name.as_bytes()) {
                return;
            }
        }
    }
}

/// True when something is left to be closed later.
fn tidy(table: &RwLock<Table>) -> bool {
    let folders: Vec<_> = table
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .folders
        .values()
        .cloned()
        .collect();
    // Every one of them, not only up to the first that has something left.
    folders.iter().filter(|folder| folder.fs.inner().tidy()).count() > 0
}

/// For what is asked by nobody in the guest.
const NOBODY: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 0,
};

impl Folder {
    fn global(&self, local: NodeId) -> NodeId {
        NodeId(u64::from(self.index) << LOCAL_BITS | local.0 & LOCAL)
    }

    fn entry(&self, entry: Entry) -> Entry {
        match entry {
            Entry::Found {
                node,
                generation,
                attributes,
                valid,
            } => Entry::Found {
                node: self.global(node),
                generation,
                attributes,
                valid,
            },
            absent @ Entry::Absent { .. } => absent,
        }
    }

    fn info(&self) -> ShareInfo {
        let fs = self.fs.inner();
        ShareInfo {
            name: self.name.clone(),
            lost: fs.is_lost(),
            requests: self.requests.load(Ordering::Relaxed),
            refused: self.fs.refused(),
            read_bytes: fs.read_bytes(),
            written_bytes: fs.written_bytes(),
            known: fs.known(),
        }
    }
}

impl fmt::Debug for Exports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exports")
            .field("names", &self.table().names.len())
            .finish_non_exhaustive()
    }
}

/// The root that lists the folders: everybody may look, nobody may change it.
fn root_attributes() -> Attributes {
    let never = Timestamp::default();
    Attributes {
        inode: NodeId::ROOT.0,
        kind: FileKind::Directory,
        permissions: 0o555,
        size: 0,
        blocks: 0,
        block_size: 4096,
        links: 2,
        uid: 0,
        gid: 0,
        device: 0,
        accessed: never,
        modified: never,
        changed: never,
        born: None,
        submount: false,
        valid: ROOT_VALID,
    }
}

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
        if Self::is_root(parent) {
            return self.find_folder(name.as_bytes());
        }
        let (folder, parent) = self.folder(parent)?;
        Ok(folder.entry(folder.fs.lookup(caller, parent, name)?))
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
        if Self::is_root(node) {
            return Ok(root_attributes());
        }
        let (folder, node) = self.folder(node)?;
        folder.fs.attributes(caller, node)
    }

    fn set_attributes(&self, caller: Caller, node: NodeId, changes: &Changes) -> Reply<Attributes> {
        let (folder, node) = self.folder(node)?;
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
        Ok(folder.entry(folder.fs.make_directory(caller, parent, name, permissions)?))
    }

    fn make_symlink(&self, caller: Caller, parent: NodeId, name: Name<'_>, text: &CStr) -> Reply<Entry> {
        let (folder, parent) = self.folder(parent)?;
        Ok(folder.entry(folder.fs.make_symlink(caller, parent, name, text)?))
    }

    fn make_link(&self, caller: Caller, node: NodeId, parent: NodeId, name: Name<'_>) -> Reply<Entry> {
        let (folder, node, parent) = self.folder_of_both(node, parent)?;
        Ok(folder.entry(folder.fs.make_link(caller, node, parent, name)?))
    }

    fn unlink(&self, caller: Caller, parent: NodeId, name: Name<'_>) -> Reply<()> {
        let (folder, parent) = self.folder(parent)?;
        folder.fs.unlink(caller, parent, name)
    }

    fn remove_directory(&self, caller: Caller, parent: NodeId, name: Name<'_>) -> Reply<()> {
        let (folder, parent) = self.folder(parent)?;
        folder.fs.remove_directory(caller, parent, name)
    }

    fn rename(
        &self,
        caller: Caller,
        from: (NodeId, Name<'_>),
        to: (NodeId, Name<'_>),
        flags: RenameFlags,
    ) -> Reply<()> {
        let (folder, old, new) = self.folder_of_both(from.0, to.0)?;
        folder.fs.rename(caller, (old, from.1), (new, to.1), flags)
    }

    fn create(&self, caller: Caller, parent: NodeId, name: Name<'_>, how: CreateHow) -> Reply<Entry> {
        let (folder, parent) = self.folder(parent)?;
        Ok(folder.entry(folder.fs.create(caller, parent, name, how)?))
    }

    fn make_temporary(&self, caller: Caller, parent: NodeId, permissions: u32) -> Reply<Entry> {
        let (folder, parent) = self.folder(parent)?;
        Ok(folder.entry(folder.fs.make_temporary(caller, parent, permissions)?))
    }

    fn release(&self, node: NodeId) {
        if let Ok((folder, node)) = self.folder(node) {
            folder.fs.release(node);
        }
    }

    fn read(&self, caller: Caller, node: NodeId, offset: u64, target: &mut dyn Target) -> Reply<()> {
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
        if Self::is_root(node) {
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
        if Self::is_root(node) {
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
        let (folder, node) = self.folder(node)?;
        folder.fs.set_xattr(caller, node, name, value, flags)
    }

    fn xattr(&self, caller: Caller, node: NodeId, name: Name<'_>) -> Reply<Vec<u8>> {
        if Self::is_root(node) {
            return Err(Errno::NODATA);
        }
        let (folder, node) = self.folder(node)?;
        folder.fs.xattr(caller, node, name)
    }

    fn list_xattrs(&self, caller: Caller, node: NodeId) -> Reply<Vec<u8>> {
        if Self::is_root(node) {
            return Ok(Vec::new());
        }
        let (folder, node) = self.folder(node)?;
        folder.fs.list_xattrs(caller, node)
    }

    fn remove_xattr(&self, caller: Caller, node: NodeId, name: Name<'_>) -> Reply<()> {
        let (folder, node) = self.folder(node)?;
        folder.fs.remove_xattr(caller, node, name)
    }

    fn allocate(&self, caller: Caller, node: NodeId, range: (u64, u64), mode: u32) -> Reply<()> {
        let (folder, node) = self.folder(node)?;
        folder.fs.allocate(caller, node, range, mode)
    }

    fn seek(&self, caller: Caller, node: NodeId, offset: u64, hole: bool) -> Reply<u64> {
        let (folder, node) = self.folder(node)?;
        folder.fs.seek(caller, node, offset, hole)
    }

    fn copy_range(&self, caller: Caller, from: (NodeId, u64), to: (NodeId, u64), len: u64) -> Reply<usize> {
        let (folder, source, target) = self.folder_of_both(from.0, to.0)?;
        folder
            .fs
            .copy_range(caller, (source, from.1), (target, to.1), len)
    }
}
