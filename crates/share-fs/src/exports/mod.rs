//! One device, many folders: the root of what the guest mounts lists them, and each is a file system of its own.
//!
//! The upper 16 bits of a node's number say in which folder it is, 0 being the root that lists them. A folder that
//! is taken away leaves its number unused, so what the guest still knows of it is ESTALE for ever.

use std::{
    collections::BTreeMap,
    fmt,
    os::fd::OwnedFd,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fuse::{
    Attributes, Caller, DirectoryEntries, Entry, FileKind, FileSystem, Name, NodeId, Payload, Reply, Target,
    Timestamp,
};
use rustix::io::Errno;

use crate::{
    Guarded, HostFs, OpenError, ShareConfig, Shared,
    events::{Events, Step},
    janitor::Janitor,
};

mod serve;

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
    events: Events,
    _janitor: Janitor,
}

#[derive(Default)]
struct Table {
    folders: BTreeMap<u16, Arc<Folder>>,
    names: BTreeMap<Box<[u8]>, u16>,
    last: u16,
    /// When a folder last came or went: a listing from before is not believed.
    changed: Timestamp,
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
            events: Events::default(),
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
        table.changed = now();
        table.names.insert(name.as_bytes().into(), index);
        table.folders.insert(index, Arc::new(folder));
        Ok(())
    }

    /// From now on whoever uses the folder in the guest gets ESTALE. False when there is none of that name.
    pub fn remove(&self, name: &str) -> bool {
        let removed = {
            let mut table = self.table_mut();
            table.changed = now();
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

    /// The folder a node is in, and the node's number there. The root that lists the folders is in none.
    fn folder(&self, node: NodeId) -> Reply<(Arc<Folder>, NodeId)> {
        if is_root(node) {
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
            // One that is shared the next moment must be found.
            return Ok(Entry::Absent {
                valid: Duration::ZERO,
            });
        };
        let root = folder.fs.inner().root();
        let attributes = match folder.fs.attributes(NOBODY, root) {
            Ok(attributes) => attributes,
            // The folder is gone from the host: it is still listed, and all that is in it is stale.
            Err(_) => root_attributes(Timestamp::default()),
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

    fn events_entry(&self) -> Entry {
        Entry::Found {
            node: EVENTS,
            generation: 0,
            attributes: events_attributes(),
            valid: ROOT_VALID,
        }
    }

    /// What the agent is repeating when it asks for this name, if it is the agent.
    fn echoed(&self, caller: Caller, folder: &Folder, parent: NodeId, name: Name<'_>) -> Option<Step> {
        if !self.events.is_echo(caller) {
            return None;
        }
        self.events.next_step(folder.index, parent, name.as_bytes())
    }

    /// The agent repeats that the host made something: the guest's kernel gets to know it as it is.
    fn echo_made(&self, caller: Caller, folder: &Folder, parent: NodeId, name: Name<'_>) -> Reply<Entry> {
        if !self.events.makes(folder.index, parent, name.as_bytes()) {
            return Err(Errno::PERM);
        }
        match folder.fs.lookup(caller, parent, name)? {
            Entry::Absent { .. } => Err(Errno::NOENT),
            found => Ok(folder.entry(found)),
        }
    }

    /// The agent repeats that the host removed something.
    fn echo_removed(&self, folder: &Folder, parent: NodeId, name: Name<'_>) -> Reply<()> {
        let Some(Step::Remove(_)) = self.events.next_step(folder.index, parent, name.as_bytes()) else {
            return Err(Errno::PERM);
        };
        self.events.step_done(folder.index, parent, name.as_bytes());
        folder.fs.inner().pretend_removed(parent, name.as_bytes())
    }

    /// Nothing else that the agent's thread asks for changes a folder.
    fn not_an_echo(&self, caller: Caller) -> Reply<()> {
        if self.events.is_echo(caller) {
            Err(Errno::PERM)
        } else {
            Ok(())
        }
    }

    fn watch(&self, caller: Caller, payload: &mut dyn Payload) -> Reply<usize> {
        let len = payload.left();
        if len > MAX_WATCH_SET {
            return Err(Errno::FBIG);
        }
        let mut text = vec![0; len];
        payload.take(&mut text).map_err(|_| Errno::IO)?;
        self.with_folders(|folders| self.events.watch(caller, &text, folders))?;
        Ok(len)
    }

    fn news(&self, caller: Caller, target: &mut dyn Target) -> Reply<()> {
        if !self.events.is_echo(caller) {
            return Err(Errno::ACCESS);
        }
        let news = self.with_folders(|folders| self.events.news(target.room(), folders));
        target.put(&news).map_err(|_| Errno::IO)
    }

    fn with_folders<T>(&self, work: impl FnOnce(&BTreeMap<u16, (&[u8], &Guarded)>) -> T) -> T {
        let folders: Vec<_> = self.table().folders.values().cloned().collect();
        let by_index = folders
            .iter()
            .map(|folder| (folder.index, (folder.name.as_bytes(), &folder.fs)));
        work(&by_index.collect())
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

fn is_root(node: NodeId) -> bool {
    node == NodeId::ROOT
}

/// The file through which the guest's agent and [`Events`] speak. It is found by its name and not listed.
const EVENTS: NodeId = NodeId(2);
const EVENTS_NAME: &[u8] = b".coffer-events";
/// What the agent says of watched inodes in one request.
const MAX_WATCH_SET: usize = 128 * 1024;

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
fn root_attributes(changed: Timestamp) -> Attributes {
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
        accessed: changed,
        modified: changed,
        changed,
        born: None,
        submount: false,
        valid: ROOT_VALID,
    }
}

fn now() -> Timestamp {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    Timestamp {
        seconds: time.tv_sec,
        nanoseconds: u32::try_from(time.tv_nsec).unwrap_or(0),
    }
}

/// Only the guest's root may open it, and there is always something to read.
fn events_attributes() -> Attributes {
    Attributes {
        inode: EVENTS.0,
        kind: FileKind::File,
        permissions: 0o600,
        size: 1 << 20,
        links: 1,
        valid: Duration::ZERO,
        ..root_attributes(Timestamp::default())
    }
}
