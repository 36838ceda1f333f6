//! What the guest knows of directories that somebody in it watches, so that what the host changed can be told from
//! what the guest did itself.
//!
//! The host's inotify says where to look, not what happened: what is there is compared with what was there when the
//! guest last knew. The guest's own operations put down what they left behind; whatever differs from that, the host
//! did.

use std::{
    collections::{HashMap, HashSet},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use fuse::{FileKind, NodeId, Reply};
use rustix::{fs::RawDir, io::Errno};
use share_policy::RelPath;

use super::{Found, HostFs, Identity, Open, nodes::Slot, path_of};

/// Names that are remembered, in all watched directories of a share. More are not watched.
const MAX_NAMES: usize = 200_000;
/// What one read of a directory gives.
const BATCH_BYTES: usize = 32 * 1024;

#[derive(Debug, Default)]
pub(super) struct Watched {
    /// Whether anything is watched: the only thing a guest without watchers pays for.
    active: AtomicBool,
    directories: Mutex<HashMap<NodeId, Directory>>,
}

#[derive(Debug, Default)]
struct Directory {
    /// Only these names, when the directory itself is not watched but files in it are.
    only: Option<HashSet<Box<[u8]>>>,
    known: HashMap<Box<[u8]>, State>,
}

/// What a name stood for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) identity: Identity,
    pub(crate) size: u64,
    modified: (i64, u32),
    changed: (i64, u32),
}

/// What the host did to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Appeared(FileKind),
    Gone(State),
    /// Something else has the name now.
    Replaced(State, FileKind),
    Content,
    Attributes,
}

/// A directory to be watched on the host.
#[derive(Debug)]
pub(crate) struct ToWatch {
    pub(crate) directory: NodeId,
    pub(crate) file: Arc<Open>,
}

impl State {
    fn new(found: &Found) -> Self {
        State {
            identity: found.identity,
            size: found.size(),
            modified: found.modified(),
            changed: found.changed(),
        }
    }

    fn compare(before: Option<State>, now: Option<State>) -> Option<Change> {
        match (before, now) {
            (None, None) => None,
            (None, Some(now)) => Some(Change::Appeared(now.identity.kind)),
            (Some(before), None) => Some(Change::Gone(before)),
            (Some(before), Some(now)) if before.identity != now.identity => {
                Some(Change::Replaced(before, now.identity.kind))
            }
            (Some(before), Some(now)) if before.size != now.size || before.modified != now.modified => {
                // A directory's own time changes with its entries, each of which is told of by itself.
                (now.identity.kind != FileKind::Directory).then_some(Change::Content)
            }
            (Some(before), Some(now)) => (before.changed != now.changed).then_some(Change::Attributes),
        }
    }
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Directory>> {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HostFs {
    /// From now on these inodes are watched in the guest, and no others. Returns the directories to look after.
    pub(crate) fn watch(&self, inodes: &[u64]) -> Vec<ToWatch> {
        let wanted = self.directories_of(inodes);
        let mut old = std::mem::take(&mut *self.watched.lock());
        self.watched.active.store(!wanted.is_empty(), Ordering::Release);
        let mut names = 0;
        let mut found = Vec::new();
        for (directory, only) in wanted {
            let Ok(file) = self.slot(directory).and_then(|slot| self.directory(slot)) else {
                continue;
            };
            // What was known is kept, so that nothing that happens between two sets is lost.
            let kept = old.remove(&directory).filter(|kept| kept.only == only);
            let known = match kept {
                Some(kept) => Ok(kept.known),
                None => self.snapshot(directory, only.as_ref()),
            };
            let Ok(known) = known else { continue };
            names += known.len();
            if names > MAX_NAMES {
                break;
            }
            self.watched.lock().insert(directory, Directory { only, known });
            found.push(ToWatch { directory, file });
        }
        found
    }

    /// What the host did to `name` in a watched directory since the guest last knew. The guest is taken to know it
    /// from now on.
    pub(crate) fn changes_of(&self, directory: NodeId, name: &[u8]) -> Option<Change> {
        let now = self.state_at(directory, name).ok()?;
        let mut directories = self.watched.lock();
        let watched = directories.get_mut(&directory)?;
        if watched.only.as_ref().is_some_and(|only| !only.contains(name)) {
            return None;
        }
        let before = match now {
            Some(state) => watched.known.insert(name.into(), state),
            None => watched.known.remove(name),
        };
        State::compare(before, now)
    }

    /// Every name of a watched directory that the guest knows or that is there: where to look when events were lost.
    pub(crate) fn names_of(&self, directory: NodeId) -> Vec<Box<[u8]>> {
        let now = self.snapshot(directory, None).unwrap_or_default();
        let mut names: HashSet<Box<[u8]>> = now.into_keys().collect();
        if let Some(watched) = self.watched.lock().get(&directory) {
            names.extend(watched.known.keys().cloned());
        }
        names.into_iter().collect()
    }

    /// The path of a name in a directory.
    pub(crate) fn path_in(&self, directory: NodeId, name: &[u8]) -> Reply<RelPath> {
        let nodes = self.nodes();
        let slot = nodes.slot(directory)?;
        let path = path_of(&nodes, slot)?;
        path.join(name).map_err(|_| Errno::NAMETOOLONG)
    }

    /// The guest itself has just done something to this name.
    pub(super) fn did(&self, directory: NodeId, name: &[u8]) {
        if self.watched.active.load(Ordering::Acquire) && self.watched.lock().contains_key(&directory) {
            // Takes note of what is there now.
            let _ = self.changes_of(directory, name);
        }
    }

    /// The guest itself has just changed this file.
    pub(super) fn did_to(&self, slot: Slot) {
        if !self.watched.active.load(Ordering::Acquire) {
            return;
        }
        let place = {
            let nodes = self.nodes();
            nodes
                .place(slot)
                .map(|place| (nodes.id(place.parent), place.name.clone()))
        };
        if let Some((directory, name)) = place {
            self.did(directory, &name);
        }
    }

    /// The directories behind watched inodes: they themselves, or those their files are in.
    fn directories_of(&self, inodes: &[u64]) -> HashMap<NodeId, Option<HashSet<Box<[u8]>>>> {
        let nodes = self.nodes();
        let mut wanted: HashMap<NodeId, Option<HashSet<Box<[u8]>>>> = HashMap::new();
        for inode in inodes {
            let Some(slot) = nodes.find_number(self.device, *inode) else {
                continue;
            };
            let Some(node) = nodes.get(slot) else { continue };
            if node.identity.kind == FileKind::Directory {
                wanted.insert(nodes.id(slot), None);
            } else if let Some(place) = nodes.place(slot) {
                let names = wanted
                    .entry(nodes.id(place.parent))
                    .or_insert_with(|| Some(HashSet::new()));
                if let Some(names) = names {
                    names.insert(place.name.clone());
                }
            }
        }
        wanted
    }

    fn snapshot(
        &self,
        directory: NodeId,
        only: Option<&HashSet<Box<[u8]>>>,
    ) -> Reply<HashMap<Box<[u8]>, State>> {
        let names: Vec<Box<[u8]>> = match only {
            Some(only) => only.iter().cloned().collect(),
            None => self.read_names(directory)?,
        };
        let mut known = HashMap::with_capacity(names.len());
        for name in names {
            if let Some(state) = self.state_at(directory, &name)? {
                known.insert(name, state);
            }
        }
        Ok(known)
    }

    fn read_names(&self, directory: NodeId) -> Reply<Vec<Box<[u8]>>> {
        let file = self.directory_for_reading(self.slot(directory)?)?;
        let mut buffer = Vec::with_capacity(BATCH_BYTES);
        let mut entries = RawDir::new(file.as_fd(), buffer.spare_capacity_mut());
        let mut names = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(name.into());
            }
            if names.len() > MAX_NAMES {
                return Err(Errno::NOSPC);
            }
        }
        Ok(names)
    }

    fn state_at(&self, directory: NodeId, name: &[u8]) -> Reply<Option<State>> {
        let file = self.directory(self.slot(directory)?)?;
        match self.found_at(file.as_fd(), name) {
            Ok(found) if self.same_mount(&found).is_ok() => Ok(Some(State::new(&found))),
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
