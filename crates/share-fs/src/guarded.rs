//! The policy in front of a folder: every operation is decided here, on the host, when it is asked for.
//!
//! How a path stands with the patterns is worked out once, when the guest looks it up, and kept with the node. A
//! write then needs no path. What is not forwarded below answers ENOSYS, so an operation nobody thought of is
//! refused.

use std::{
    collections::HashMap,
    ffi::CStr,
    sync::{
        Mutex, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fuse::{
    Attributes, Caller, Changes, CreateHow, DirectoryEntries, Entry, FileKind, FileSystem, FileSystemStatus,
    Name, NodeId, Payload, RenameFlags, Reply, Target, WriteFlags, XattrFlags,
};
use rustix::io::Errno;
use share_policy::{Decision, Kind, Mode, Reach, Refusal, RelPath, SharePolicy, Standing};

use crate::HostFs;

/// Entries below a directory that are looked at before it may be renamed in or out of a place that matters. A `.git`
/// with more of them than this cannot be renamed by the guest.
const MAX_MOVED: usize = 20_000;
/// Entries of a folder that are looked at to find protected files with several names. In a larger folder the guest
/// cannot write to files with several names.
const MAX_SEARCHED: usize = 1_000_000;
/// Files with several names that are remembered, at some 50 bytes each.
const MAX_LINKED: usize = 200_000;
/// A protected file shows none of these, so that opening it for writing fails in the guest already.
const WRITE_BITS: u32 = 0o222;

/// A folder and what a guest may do in it.
#[derive(Debug)]
pub struct Guarded {
    inner: HostFs,
    policy: SharePolicy,
    refused: AtomicU64,
    /// Held for reading by whatever changes names, for writing while a directory is looked through and then renamed.
    moves: RwLock<()>,
    /// `None` until somebody needs to know.
    linked: Mutex<Option<Linked>>,
}

/// The files that have several names.
#[derive(Debug)]
enum Linked {
    /// By (device, inode).
    Known(HashMap<(u64, u64), LinkedFile>),
    /// The folder is too large to tell, or a directory in it cannot be read: any file with several names may be
    /// protected. Not looked through again before then.
    TooMany { until: Instant },
}

#[derive(Clone, Copy, Debug, Default)]
struct LinkedFile {
    links: u32,
    /// One of its names is.
    protected: bool,
}

impl Guarded {
    pub fn new(mut inner: HostFs, policy: SharePolicy) -> Self {
        if policy.mode() == Mode::ReadOnly {
            inner.leave_as_it_is();
        }
        let policy = if inner.has_other_names() {
            policy.without_other_names()
        } else {
            policy
        };
        Guarded {
            inner,
            policy,
            refused: AtomicU64::new(0),
            moves: RwLock::default(),
            linked: Mutex::default(),
        }
    }

    pub fn inner(&self) -> &HostFs {
        &self.inner
    }

    /// Requests refused by the policy.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether the guest does not see this name.
    pub(crate) fn hides_in(&self, directory: NodeId, name: &[u8]) -> bool {
        let plain = self.standing(directory).is_ok_and(Standing::is_plain);
        if plain && !self.policy.may_leave_plain(name) {
            return false;
        }
        // What cannot be told is not told of.
        self.inner
            .path_in(directory, name)
            .map_or(true, |path| self.policy.hides(&path))
    }

    fn carry_out(&self, decision: Decision) -> Reply<()> {
        let error = match decision {
            Decision::Allow => return Ok(()),
            Decision::Hide => Errno::NOENT,
            Decision::Deny(Refusal::ReadOnly) => Errno::ROFS,
            // There is nobody to ask yet, and no journal.
            Decision::Deny(_) | Decision::Ask | Decision::AllowWithUndo => Errno::ACCESS,
        };
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(error)
    }

    /// How a node stands.
    fn standing(&self, node: NodeId) -> Reply<Standing> {
        if let Some(standing) = self.inner.standing(node) {
            return Ok(standing);
        }
        let epoch = self.inner.epoch();
        let standing = match self.inner.path(node) {
            Ok(path) => self.policy.standing(&path),
            // A file that never had a name has none that is protected; one that lost it kept its standing.
            Err(Errno::STALE) => Standing::default(),
            Err(error) => return Err(error),
        };
        self.inner.set_standing(node, standing, epoch);
        Ok(standing)
    }

    /// How `name` in `parent` stands, whether it is there or not.
    fn standing_at(&self, parent: NodeId, name: Name<'_>) -> Reply<Standing> {
        if self.standing(parent)?.is_plain() && !self.policy.may_leave_plain(name.as_bytes()) {
            return Ok(Standing::default());
        }
        Ok(self.policy.standing(&self.path_at(parent, name)?))
    }

    fn path_at(&self, parent: NodeId, name: Name<'_>) -> Reply<RelPath> {
        let parent = self.inner.path(parent)?;
        parent.join(name.as_bytes()).map_err(|_| Errno::NAMETOOLONG)
    }

    /// Whether a node that is there may be changed.
    fn may_change(&self, node: NodeId) -> Reply<()> {
        let standing = self.standing(node)?;
        self.carry_out(self.policy.decide_change(standing))?;
        if self.inner.links(node)? > 1 && self.is_protected_elsewhere(node)? {
            return self.carry_out(Decision::Deny(Refusal::Protected));
        }
        Ok(())
    }

    fn may_change_at(&self, parent: NodeId, name: Name<'_>) -> Reply<()> {
        let standing = self.standing_at(parent, name)?;
        self.carry_out(self.policy.decide_change(standing))
    }

    fn may_make(&self, parent: NodeId, name: Name<'_>, kind: Kind) -> Reply<Standing> {
        let standing = self.standing_at(parent, name)?;
        self.carry_out(self.policy.decide_new(standing, kind))?;
        Ok(standing)
    }

    /// Whether another name of the file, which the host gave it, is protected. Looks through the whole folder, and again
    /// when a file has more names or fewer than it had then.
    fn is_protected_elsewhere(&self, node: NodeId) -> Reply<bool> {
        let (number, links) = (self.inner.identity(node)?.number(), self.inner.links_now(node)?);
        let mut linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Linked::Known(files)) = &*linked
            && let Some(file) = files.get(&number)
            && file.links == links
        {
            return Ok(file.protected);
        }
        if let Some(Linked::TooMany { until }) = &*linked
            && Instant::now() < *until
        {
            return Ok(true);
        }
        let found = self.find_linked();
        let protected = match &found {
            Linked::Known(files) => files.get(&number).is_some_and(|file| file.protected),
            Linked::TooMany { .. } => true,
        };
        *linked = Some(found);
        Ok(protected)
    }

    fn find_linked(&self) -> Linked {
        let start = Instant::now();
        let mut files: HashMap<_, LinkedFile> = HashMap::new();
        let walked = self.inner.walk(None, MAX_SEARCHED, &mut |seen| {
            if seen.kind == FileKind::File && seen.links > 1 {
                let file = files.entry(seen.identity.number()).or_default();
                file.links = seen.links;
                file.protected |= self.policy.protects(seen.path);
            }
            if files.len() > MAX_LINKED {
                Err(Errno::MFILE)
            } else {
                Ok(true)
            }
        });
        match walked {
            Ok(()) => Linked::Known(files),
            Err(_) => Linked::TooMany {
                until: Instant::now() + (start.elapsed() * 20).max(Duration::from_secs(1)),
            },
        }
    }

    /// The guest learns of a node by a name of this standing, worked out in this epoch.
    fn told(&self, entry: Entry, standing: Standing, epoch: u64) -> Entry {
        let Entry::Found {
            node,
            generation,
            attributes,
            valid,
        } = entry
        else {
            return entry;
        };
        self.inner.set_standing(node, standing, epoch);
        Entry::Found {
            node,
            generation,
            attributes: shown(attributes, standing),
            valid,
        }
    }

    /// What was to be made is there: it is opened, and emptied if it may be.
    fn find_instead(&self, caller: Caller, parent: NodeId, name: Name<'_>, truncate: bool) -> Reply<Entry> {
        let entry = self.lookup(caller, parent, name)?;
        let Entry::Found {
            node,
            generation,
            attributes,
            valid,
        } = entry
        else {
            return Err(Errno::NOENT);
        };
        if !truncate || attributes.kind != FileKind::File || attributes.size == 0 {
            return Ok(entry);
        }
        let empty = Changes {
            size: Some(0),
            ..Changes::default()
        };
        match self.set_attributes(caller, node, &empty) {
            Ok(attributes) => Ok(Entry::Found {
                node,
                generation,
                attributes,
                valid,
            }),
            Err(error) => {
                self.inner.forget(node, 1);
                Err(error)
            }
        }
    }

    fn may_rename(
        &self,
        (from, name): (NodeId, Name<'_>),
        (to, new_name): (NodeId, Name<'_>),
        exchange: bool,
    ) -> Reply<()> {
        self.may_move((from, name), (to, new_name))?;
        if exchange {
            self.may_move((to, new_name), (from, name))?;
        }
        Ok(())
    }

    fn may_move(&self, (from, name): (NodeId, Name<'_>), (to, new_name): (NodeId, Name<'_>)) -> Reply<()> {
        self.may_change_at(from, name)?;
        let kind = self.inner.kind_at(from, name)?;
        self.may_make(to, new_name, policy_kind(kind))?;
        if kind != FileKind::Directory || self.both_plain((from, name), (to, new_name))? {
            return Ok(());
        }
        let (old, new) = (self.path_at(from, name)?, self.path_at(to, new_name)?);
        if self.policy.renames_reach_patterns(&old, &new) == Reach::Nothing {
            return Ok(());
        }
        let walked = self.inner.walk(Some((from, name)), MAX_MOVED, &mut |seen| {
            let (old, new) = (append(&old, seen.path)?, append(&new, seen.path)?);
            self.carry_out(self.policy.verdict_for_moved(&old, &new, policy_kind(seen.kind)))?;
            Ok(true)
        });
        match walked {
            Err(Errno::MFILE) => self.carry_out(Decision::Deny(Refusal::Protected)),
            other => other,
        }
    }

    fn both_plain(&self, from: (NodeId, Name<'_>), to: (NodeId, Name<'_>)) -> Reply<bool> {
        Ok(self.standing_at(from.0, from.1)?.is_plain() && self.standing_at(to.0, to.1)?.is_plain())
    }

    fn changing_names(&self) -> RwLockReadGuard<'_, ()> {
        self.moves.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn append(path: &RelPath, rest: &RelPath) -> Reply<RelPath> {
    let mut path = path.clone();
    for name in rest.components() {
        path.push(name).map_err(|_| Errno::MFILE)?;
    }
    Ok(path)
}

fn policy_kind(kind: FileKind) -> Kind {
    match kind {
        FileKind::Directory => Kind::Directory,
        FileKind::Symlink => Kind::Symlink,
        _ => Kind::File,
    }
}

fn shown(attributes: Attributes, standing: Standing) -> Attributes {
    if !standing.is_protected() {
        return attributes;
    }
    Attributes {
        permissions: attributes.permissions & !WRITE_BITS,
        ..attributes
    }
}

/// Leaves out what is hidden.
struct Visible<'a> {
    guard: &'a Guarded,
    parent: NodeId,
    /// The directory's path, when names in it have to be held against the patterns one by one.
    path: Option<RelPath>,
    epoch: u64,
    entries: &'a mut dyn DirectoryEntries,
}

impl Visible<'_> {
    /// `None` when the guest does not see it, or nobody can tell.
    fn standing(&self, name: &[u8]) -> Option<Standing> {
        let policy = &self.guard.policy;
        if matches!(name, b"." | b"..") || (self.path.is_none() && !policy.may_leave_plain(name)) {
            return Some(Standing::default());
        }
        let path = match &self.path {
            Some(path) => path.join(name).ok()?,
            None => self.guard.inner.path_in(self.parent, name).ok()?,
        };
        let standing = policy.standing(&path);
        (!standing.is_hidden()).then_some(standing)
    }
}

impl DirectoryEntries for Visible<'_> {
    fn wants_entries(&self) -> bool {
        self.entries.wants_entries()
    }

    fn fits(&self, name: &[u8]) -> bool {
        self.entries.fits(name)
    }

    fn add(&mut self, inode: u64, next: u64, kind: FileKind, name: &[u8]) -> bool {
        self.standing(name).is_none() || self.entries.add(inode, next, kind, name)
    }

    fn add_with_entry(&mut self, entry: &Entry, next: u64, name: &[u8]) -> bool {
        let Some(standing) = self.standing(name) else {
            if let Entry::Found { node, .. } = entry {
                self.guard.inner.forget(*node, 1);
            }
            return true;
        };
        let entry = self.guard.told(*entry, standing, self.epoch);
        self.entries.add_with_entry(&entry, next, name)
    }
}

impl FileSystem for Guarded {
    fn lookup(&self, caller: Caller, parent: NodeId, name: Name<'_>) -> Reply<Entry> {
        let epoch = self.inner.epoch();
        let standing = self.standing_at(parent, name)?;
        if standing.is_hidden() {
            return Ok(Entry::Absent {
                valid: self.inner.valid(),
            });
        }
        Ok(self.told(self.inner.lookup(caller, parent, name)?, standing, epoch))
    }

    fn forget(&self, node: NodeId, count: u64) {
        self.inner.forget(node, count);
    }

    fn forget_all(&self) {
        self.inner.forget_all();
    }

    fn attributes(&self, caller: Caller, node: NodeId) -> Reply<Attributes> {
        let standing = self.standing(node)?;
        Ok(shown(self.inner.attributes(caller, node)?, standing))
    }

    fn set_attributes(&self, caller: Caller, node: NodeId, changes: &Changes) -> Reply<Attributes> {
        self.may_change(node)?;
        self.inner.set_attributes(caller, node, changes)
    }

    fn read_link(&self, caller: Caller, node: NodeId) -> Reply<Vec<u8>> {
        self.inner.read_link(caller, node)
    }

    fn make_node(
        &self,
        caller: Caller,
        parent: NodeId,
        name: Name<'_>,
        kind: FileKind,
        permissions: u32,
    ) -> Reply<Entry> {
        let _names = self.changing_names();
        let standing = self.may_make(parent, name, policy_kind(kind))?;
        let entry = self.inner.make_node(caller, parent, name, kind, permissions)?;
        Ok(self.told(entry, standing, self.inner.epoch()))
    }

    fn make_directory(
        &self,
        caller: Caller,
        parent: NodeId,
        name: Name<'_>,
        permissions: u32,
    ) -> Reply<Entry> {
        let _names = self.changing_names();
        let standing = self.may_make(parent, name, Kind::Directory)?;
        let entry = self.inner.make_directory(caller, parent, name, permissions)?;
        Ok(self.told(entry, standing, self.inner.epoch()))
    }

    fn make_symlink(&self, caller: Caller, parent: NodeId, name: Name<'_>, text: &CStr) -> Reply<Entry> {
        let _names = self.changing_names();
        let standing = self.may_make(parent, name, Kind::Symlink)?;
        let entry = self.inner.make_symlink(caller, parent, name, text)?;
        Ok(self.told(entry, standing, self.inner.epoch()))
    }

    fn make_link(&self, caller: Caller, node: NodeId, parent: NodeId, name: Name<'_>) -> Reply<Entry> {
        let _names = self.changing_names();
        self.may_change(node)?;
        let standing = self.may_make(parent, name, policy_kind(self.inner.kind(node)?))?;
        let entry = self.inner.make_link(caller, node, parent, name)?;
        Ok(self.told(entry, standing, self.inner.epoch()))
    }

    fn unlink(&self, caller: Caller, parent: NodeId, name: Name<'_>) -> Reply<()> {
        let _names = self.changing_names();
        self.may_change_at(parent, name)?;
        self.inner.unlink(caller, parent, name)
    }

    fn remove_directory(&self, caller: Caller, parent: NodeId, name: Name<'_>) -> Reply<()> {
        let _names = self.changing_names();
        self.may_change_at(parent, name)?;
        self.inner.remove_directory(caller, parent, name)
    }

    fn rename(
        &self,
        caller: Caller,
        from: (NodeId, Name<'_>),
        to: (NodeId, Name<'_>),
        flags: RenameFlags,
    ) -> Reply<()> {
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let plain = {
            let _names = self.changing_names();
            let plain = self.both_plain(from, to)?;
            if plain {
                // Nothing the patterns speak of begins here, and nothing below changes its standing.
                self.may_rename(from, to, exchange)?;
                self.inner.rename(caller, from, to, flags)?;
            }
            plain
        };
        if !plain {
            let _alone = self.moves.write().unwrap_or_else(PoisonError::into_inner);
            self.may_rename(from, to, exchange)?;
            self.inner.rename(caller, from, to, flags)?;
            self.inner.clear_standings();
        }
        Ok(())
    }

    fn create(&self, caller: Caller, parent: NodeId, name: Name<'_>, how: CreateHow) -> Reply<Entry> {
        let _names = self.changing_names();
        let standing = self.may_make(parent, name, Kind::File)?;
        match self.inner.create(caller, parent, name, how) {
            Ok(entry) => Ok(self.told(entry, standing, self.inner.epoch())),
            Err(Errno::EXIST) if !how.exclusive => self.find_instead(caller, parent, name, how.truncate),
            Err(error) => Err(error),
        }
    }

    fn make_temporary(&self, caller: Caller, parent: NodeId, permissions: u32) -> Reply<Entry> {
        // It has no name, so nothing speaks of it but the mode.
        self.carry_out(self.policy.decide_new(Standing::default(), Kind::File))?;
        self.inner.make_temporary(caller, parent, permissions)
    }

    fn read(&self, caller: Caller, node: NodeId, offset: u64, target: &mut dyn Target) -> Reply<()> {
        self.inner.read(caller, node, offset, target)
    }

    fn write(
        &self,
        caller: Caller,
        node: NodeId,
        offset: u64,
        payload: &mut dyn Payload,
        flags: WriteFlags,
    ) -> Reply<usize> {
        self.may_change(node)?;
        self.inner.write(caller, node, offset, payload, flags)
    }

    fn sync(&self, caller: Caller, node: NodeId, data_only: bool) -> Reply<()> {
        self.inner.sync(caller, node, data_only)
    }

    fn sync_all(&self, caller: Caller, node: NodeId) -> Reply<()> {
        self.inner.sync_all(caller, node)
    }

    fn read_directory(
        &self,
        caller: Caller,
        node: NodeId,
        offset: u64,
        entries: &mut dyn DirectoryEntries,
    ) -> Reply<()> {
        let epoch = self.inner.epoch();
        let path = if self.standing(node)?.is_plain() {
            None
        } else {
            Some(self.inner.path(node)?)
        };
        let mut visible = Visible {
            guard: self,
            parent: node,
            path,
            epoch,
            entries,
        };
        self.inner.read_directory(caller, node, offset, &mut visible)
    }

    fn status(&self, caller: Caller, node: NodeId) -> Reply<FileSystemStatus> {
        self.inner.status(caller, node)
    }

    fn set_xattr(
        &self,
        caller: Caller,
        node: NodeId,
        name: Name<'_>,
        value: &[u8],
        flags: XattrFlags,
    ) -> Reply<()> {
        self.may_change(node)?;
        self.inner.set_xattr(caller, node, name, value, flags)
    }

    fn xattr(&self, caller: Caller, node: NodeId, name: Name<'_>) -> Reply<Vec<u8>> {
        self.inner.xattr(caller, node, name)
    }

    fn list_xattrs(&self, caller: Caller, node: NodeId) -> Reply<Vec<u8>> {
        self.inner.list_xattrs(caller, node)
    }

    fn remove_xattr(&self, caller: Caller, node: NodeId, name: Name<'_>) -> Reply<()> {
        self.may_change(node)?;
        self.inner.remove_xattr(caller, node, name)
    }

    fn allocate(&self, caller: Caller, node: NodeId, range: (u64, u64), mode: u32) -> Reply<()> {
        self.may_change(node)?;
        self.inner.allocate(caller, node, range, mode)
    }

    fn seek(&self, caller: Caller, node: NodeId, offset: u64, hole: bool) -> Reply<u64> {
        self.inner.seek(caller, node, offset, hole)
    }

    fn copy_range(&self, caller: Caller, from: (NodeId, u64), to: (NodeId, u64), len: u64) -> Reply<usize> {
        self.may_change(to.0)?;
        self.inner.copy_range(caller, from, to, len)
    }
}
