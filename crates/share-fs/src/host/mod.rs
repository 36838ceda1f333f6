//! One folder of the host, served.
//!
//! No path of the host is ever resolved here. A file is reached from the folder's own descriptor, or from that of a
//! directory in it, by one name at a time (see [`beneath`]), and what is reached is compared with what the guest was
//! told (see [`identity`]) before anything is done to it. So a name that the host, or another guest thread, turns
//! into something else leads nowhere: the answer is ESTALE.

mod beneath;
mod data;
mod descriptors;
mod directory;
mod echoed;
mod identity;
mod make;
mod nodes;
mod other_names;
pub(crate) mod quota;
mod remove;
mod serve;
mod stealth;
mod walk;
mod watched;
mod xattr;

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fuse::{Attributes, Entry, FileKind, NodeId, Reply};
use rustix::{fs::OFlags, io::Errno};
use share_policy::{RelPath, Standing};

pub(crate) use self::{
    descriptors::Open,
    identity::Identity,
    watched::{Change, State, ToWatch},
};
use self::{
    descriptors::{Access, Budget, now},
    directory::Streams,
    identity::{Found, Process},
    nodes::{MAX_DEPTH, Nodes, Place, ROOT, Slot},
    quota::Quota,
    watched::Watched,
};
use crate::{Cache, Limits, janitor::Bell};

/// How long a directory that is held open is believed to be where it was. A folder that the host moves out of the
/// share is out of the guest's reach after this.
const PLACE_VALID: u64 = 900;
/// How long a file stays open for writing after the guest last wrote to it: until then the host cannot execute it.
const WRITER_IDLE: u64 = 200;

/// `OVERLAYFS_SUPER_MAGIC`.
const OVERLAY_MAGIC: i64 = 0x794c_7630;
const NANOSECONDS: u32 = 1_000_000_000;

/// What all shares of a device have in common.
#[derive(Clone, Debug)]
pub struct Shared {
    budget: Arc<Budget>,
    /// `/proc/self/fd`, through which a file we hold open can be opened again or given a name.
    proc: Arc<OwnedFd>,
    bell: Arc<Bell>,
}

impl Shared {
    /// `descriptors`: how many the shares may hold open, all together.
    pub fn new(descriptors: usize) -> Result<Self, OpenError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open(c"/proc/self/fd", flags, rustix::fs::Mode::empty());
        Ok(Shared {
            budget: Budget::new(descriptors),
            proc: Arc::new(proc.map_err(OpenError::Proc)?),
            bell: Arc::default(),
        })
    }

    /// Rung when [`HostFs::tidy`] will have something to do.
    pub(crate) fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open /proc/self/fd")]
    Proc(#[source] Errno),
    #[error("folder is not a directory")]
    NotADirectory,
    #[error("cannot look at the folder")]
    Look(#[source] Errno),
    #[error("this kernel has no openat2, which keeps a guest inside its folder (Linux 5.6 has it)")]
    NoOpenat2,
}

/// What there is to reach a node by.
#[derive(Debug)]
struct Known {
    identity: Identity,
    place: Option<Place>,
    open: Option<Arc<Open>>,
}

/// A folder of the host as a file system.
#[derive(Debug)]
pub struct HostFs {
    nodes: Mutex<Nodes>,
    shared: Shared,
    streams: Streams,
    quota: Quota,
    /// Held while permissions change, and while they are set aside for a moment.
    permissions: Mutex<()>,
    watched: Watched,
    cache: Cache,
    /// Nothing in the folder is changed, not even for a moment.
    untouchable: bool,
    /// Whether a file keeps its birth time as long as it lives. On overlayfs it does not: the first write makes a copy.
    births: bool,
    who: Process,
    /// Device and mount of the folder: nothing on another mount is served.
    device: u64,
    root_inode: u64,
    mount: u64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
}

impl HostFs {
    /// `root` is a directory, opened with O_PATH or for reading.
    pub fn new(root: OwnedFd, cache: Cache, limits: Limits, shared: &Shared) -> Result<Self, OpenError> {
        let births = !is_overlay(root.as_fd());
        let found = Found::of(root.as_fd(), births).map_err(OpenError::Look)?;
        if found.identity.kind != FileKind::Directory {
            return Err(OpenError::NotADirectory);
        }
        beneath::open(root.as_fd(), b".", OFlags::PATH, 0).map_err(|error| match error {
            Errno::NOSYS => OpenError::NoOpenat2,
            other => OpenError::Look(other),
        })?;
        let open = Open::new(root, Access::Path, &shared.budget);
        Ok(HostFs {
            nodes: Mutex::new(Nodes::new(found.identity, open, &shared.budget)),
            shared: shared.clone(),
            streams: Streams::default(),
            quota: Quota::new(limits),
            permissions: Mutex::default(),
            watched: Watched::default(),
            cache,
            untouchable: false,
            births,
            who: Process::current(),
            device: found.identity.device,
            root_inode: found.identity.inode,
            mount: found.mount(),
            read_bytes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
        })
    }

    /// For a folder that is shared read-only.
    pub(crate) fn leave_as_it_is(&mut self) {
        self.untouchable = true;
    }

    /// The node of the folder itself.
    pub fn root(&self) -> NodeId {
        self.nodes().id(ROOT)
    }

    /// Nodes the guest knows.
    pub fn known(&self) -> u64 {
        self.nodes().known() as u64
    }

    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// The folder was removed on the host; who has it open sees it empty.
    pub(crate) fn is_lost(&self) -> bool {
        let root = self.directory(ROOT);
        !root.is_ok_and(|root| self.found(root.as_fd()).is_ok_and(|found| found.links() > 0))
    }

    /// In a folder that was removed on the host nothing is found: that says nothing of the name, but of the folder.
    fn unless_lost<T>(&self, result: Reply<T>) -> Reply<T> {
        match result {
            Err(Errno::NOENT) if self.is_lost() => Err(Errno::STALE),
            other => other,
        }
    }

    /// Closes what has been idle long enough; true when something is left to be closed later.
    pub fn tidy(&self) -> bool {
        let streams = self.streams.close_idle();
        self.nodes().close_idle_writers(WRITER_IDLE) || streams
    }

    /// Where a node was last seen, from the folder down. A file without a name has none: ESTALE.
    pub(crate) fn path(&self, node: NodeId) -> Reply<RelPath> {
        let nodes = self.nodes();
        let slot = nodes.slot(node)?;
        path_of(&nodes, slot)
    }

    pub(crate) fn kind(&self, node: NodeId) -> Reply<FileKind> {
        let nodes = self.nodes();
        let slot = nodes.slot(node)?;
        nodes.get(slot).map(|node| node.identity.kind).ok_or(Errno::STALE)
    }

    /// What the policy said of a node, if it was asked since the guest knows it.
    pub(crate) fn standing(&self, node: NodeId) -> Option<Standing> {
        let nodes = self.nodes();
        nodes.standing(nodes.slot(node).ok()?)
    }

    /// Names mean the same, as far as the policy cares, as long as this number does not change.
    pub(crate) fn epoch(&self) -> u64 {
        self.nodes().epoch()
    }

    /// What was worked out before names changed is not kept.
    pub(crate) fn set_standing(&self, node: NodeId, standing: Standing, epoch: u64) {
        let mut nodes = self.nodes();
        if let Ok(slot) = nodes.slot(node) {
            nodes.set_standing(slot, standing, epoch);
        }
    }

    pub(crate) fn clear_standings(&self) {
        self.nodes().clear_standings();
    }

    /// How many names a file has, as it was at most a second ago. A directory has one.
    pub(crate) fn links(&self, node: NodeId) -> Reply<u32> {
        let slot = self.slot(node)?;
        {
            let nodes = self.nodes();
            let node = nodes.get(slot).ok_or(Errno::STALE)?;
            if node.identity.kind == FileKind::Directory {
                return Ok(1);
            }
            if self.is_fresh(node.looked) {
                return Ok(node.links);
            }
        }
        let found = self.look(slot)?;
        if let Some(node) = self.nodes().get_mut(slot) {
            node.looked(found.links());
        }
        Ok(found.links())
    }

    /// How many names a file has at this moment.
    pub(crate) fn links_now(&self, node: NodeId) -> Reply<u32> {
        self.look(self.slot(node)?).map(|found| found.links())
    }

    /// What is at a name now.
    pub(crate) fn kind_at(&self, parent: NodeId, name: fuse::Name<'_>) -> Reply<FileKind> {
        let directory = self.directory(self.slot(parent)?)?;
        let found = self.found_at(directory.as_fd(), name.as_c_str());
        self.unless_lost(found).map(|found| found.identity.kind)
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, node: NodeId) -> Reply<Slot> {
        self.nodes().slot(node)
    }

    pub(crate) fn valid(&self) -> Duration {
        self.cache.valid()
    }

    fn show(&self, nodes: &mut Nodes, slot: Slot, found: &Found) -> Attributes {
        let mut attributes = found.attributes(&self.who, self.device, self.valid());
        if let Some(node) = nodes.get_mut(slot)
            && found.identity.kind == FileKind::File
            && self.cache == Cache::Shared
        {
            let later = u32::from(node.seen.look(found));
            attributes.modified.nanoseconds = (attributes.modified.nanoseconds + later) % NANOSECONDS;
        }
        attributes
    }

    /// What a node is like now, as the guest is to see it.
    fn show_now(&self, slot: Slot) -> Reply<Attributes> {
        let found = self.look(slot)?;
        Ok(self.show(&mut self.nodes(), slot, &found))
    }

    /// The guest is about to change something of a node that is not its content.
    fn expect_change(&self, slot: Slot) {
        if let Some(node) = self.nodes().get_mut(slot) {
            node.seen.expect_change();
        }
    }

    /// What `name` in `directory` is; see [`Found::at`].
    fn found_at(&self, directory: BorrowedFd<'_>, name: impl rustix::path::Arg) -> Reply<Found> {
        Found::at(directory, name, self.births)
    }

    fn found(&self, file: BorrowedFd<'_>) -> Reply<Found> {
        Found::of(file, self.births)
    }

    /// Refuses what lies on another mount than the folder.
    fn same_mount(&self, found: &Found) -> Reply<()> {
        if found.mount() == self.mount {
            Ok(())
        } else {
            Err(Errno::XDEV)
        }
    }

    /// A directory that is held open, and is where it was a moment ago.
    fn directory(&self, slot: Slot) -> Reply<Arc<Open>> {
        let (mut base, mut chain) = {
            let nodes = self.nodes();
            let mut chain = Vec::new();
            let mut at = slot;
            let base = loop {
                let node = nodes.get(at).ok_or(Errno::STALE)?;
                if node.identity.kind != FileKind::Directory {
                    return Err(Errno::NOTDIR);
                }
                let open = nodes.open(at, Access::Path);
                if let Some(open) = &open
                    && (at == ROOT || self.is_fresh(node.checked))
                {
                    break Arc::clone(open);
                }
                let Some(place) = nodes.place(at).cloned() else {
                    // A directory that was removed while the guest was in it: nothing is there, and nothing comes.
                    let open = open.ok_or(Errno::STALE)?;
                    if self.found(open.as_fd())?.links() > 0 {
                        return Err(Errno::STALE);
                    }
                    break open;
                };
                let parent = place.parent;
                chain.push((at, node.identity, place, open));
                if chain.len() > MAX_DEPTH {
                    return Err(Errno::NAMETOOLONG);
                }
                at = parent;
            };
            (base, chain)
        };
        while let Some((slot, identity, place, open)) = chain.pop() {
            base = match open {
                Some(open) => self
                    .still_at((base.as_fd(), &place.name), identity)
                    .map(|_| open)?,
                None => {
                    let flags = OFlags::PATH | OFlags::DIRECTORY;
                    let file = self.open_known((base.as_fd(), &place.name), identity, flags)?;
                    let open = Open::new(file, Access::Path, &self.shared.budget);
                    self.nodes().keep(slot, &open);
                    open
                }
            };
            if let Some(node) = self.nodes().get_mut(slot) {
                node.checked = now();
            }
        }
        Ok(base)
    }

    fn is_fresh(&self, checked: u64) -> bool {
        self.cache == Cache::Exclusive && checked != 0 || now().saturating_sub(checked) < PLACE_VALID
    }

    /// What is known to be at a place is there.
    fn still_at(&self, (directory, name): (BorrowedFd<'_>, &[u8]), identity: Identity) -> Reply<Found> {
        match self.found_at(directory, name) {
            Ok(found) if found.identity == identity => Ok(found),
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Err(Errno::STALE),
            Err(error) => Err(error),
        }
    }

    /// Opens what is known to be at a place, and nothing else that is there by now.
    fn open_known(
        &self,
        (directory, name): (BorrowedFd<'_>, &[u8]),
        identity: Identity,
        flags: OFlags,
    ) -> Reply<OwnedFd> {
        let file = match beneath::open(directory, name, flags, 0) {
            // The name is a symbolic link now, or gone.
            Err(Errno::LOOP | Errno::NOENT | Errno::NOTDIR) => return Err(Errno::STALE),
            other => other?,
        };
        if self.found(file.as_fd())?.identity != identity {
            return Err(Errno::STALE);
        }
        Ok(file)
    }

    /// A file of any kind, open at least as a place.
    fn place(&self, slot: Slot) -> Reply<Arc<Open>> {
        if self.nodes().get(slot).ok_or(Errno::STALE)?.identity.kind == FileKind::Directory {
            return self.directory(slot);
        }
        let Known {
            identity,
            place,
            open,
        } = self.known_now(slot)?;
        if let Some(open) = open {
            return Ok(open);
        }
        let place = place.ok_or(Errno::STALE)?;
        let parent = self.directory(place.parent)?;
        let file = self.open_known((parent.as_fd(), &place.name), identity, OFlags::PATH)?;
        Ok(Open::new(file, Access::Path, &self.shared.budget))
    }

    /// What a node is like now.
    fn look(&self, slot: Slot) -> Reply<Found> {
        let (known, fresh) = self.believed(slot)?;
        if let Some(open) = &known.open
            && fresh
        {
            let found = self.found(open.as_fd())?;
            if slot == ROOT && found.links() == 0 {
                return Err(Errno::STALE);
            }
            return Ok(found);
        }
        self.look_again(slot, &known).map(|(found, _)| found)
    }

    /// What is known of a node and held open of it, if that is where the guest saw it as of a moment ago, or nowhere.
    fn known_now(&self, slot: Slot) -> Reply<Known> {
        let (known, fresh) = self.believed(slot)?;
        if fresh || known.open.is_none() {
            return Ok(known);
        }
        let (_, placed) = self.look_again(slot, &known)?;
        Ok(Known {
            place: known.place.filter(|_| placed),
            ..known
        })
    }

    /// What is known of a node, and whether that was found to be true a moment ago.
    fn believed(&self, slot: Slot) -> Reply<(Known, bool)> {
        let nodes = self.nodes();
        let node = nodes.get(slot).ok_or(Errno::STALE)?;
        let known = Known {
            identity: node.identity,
            place: nodes.place(slot).cloned(),
            open: nodes.open(slot, Access::Path),
        };
        Ok((known, self.is_fresh(node.checked)))
    }

    /// Finds a node where the guest saw it; or else, and then false, what is open of it without any name. Something
    /// that has a name elsewhere is let go: it may be anywhere by now.
    fn look_again(&self, slot: Slot, known: &Known) -> Reply<(Found, bool)> {
        let at_place = match &known.place {
            Some(place) => self.found_known(place, known.identity),
            None => Err(Errno::STALE),
        };
        let Some(open) = &known.open else {
            return at_place.map(|found| (found, true));
        };
        if let Ok(found) = at_place {
            if let Some(node) = self.nodes().get_mut(slot) {
                node.checked = now();
            }
            return Ok((found, true));
        }
        let found = self.found(open.as_fd())?;
        let mut nodes = self.nodes();
        if found.links() > 0 {
            nodes.let_go(slot);
            return Err(Errno::STALE);
        }
        nodes.keep_nameless(slot, open);
        Ok((found, false))
    }

    /// What is known to be at a place, found there.
    fn found_known(&self, place: &Place, identity: Identity) -> Reply<Found> {
        let parent = self.directory(place.parent)?;
        self.still_at((parent.as_fd(), &place.name), identity)
    }

    /// Tells the guest of what was found at a name.
    fn tell(&self, found: &Found, parent: Slot, name: &[u8]) -> Reply<Entry> {
        self.same_mount(found)?;
        let place = Place {
            parent,
            name: name.into(),
        };
        self.tell_placed(found, Some(place)).map(|(_, entry)| entry)
    }

    fn tell_placed(&self, found: &Found, place: Option<Place>) -> Reply<(Slot, Entry)> {
        let mut nodes = self.nodes();
        if let Some(place) = &place
            && found.links() > 1
            && found.identity.kind == FileKind::File
        {
            nodes.remember_name(found.identity, place);
        }
        let slot = nodes.learn(found.identity, place)?;
        if let Some(node) = nodes.get_mut(slot) {
            node.looked(found.links());
        }
        let entry = Entry::Found {
            node: nodes.id(slot),
            generation: 0,
            attributes: self.show(&mut nodes, slot, found),
            valid: self.valid(),
        };
        Ok((slot, entry))
    }
}

fn is_overlay(file: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|status| status.f_type == OVERLAY_MAGIC)
}

fn path_of(nodes: &Nodes, slot: Slot) -> Reply<RelPath> {
    let mut names: Vec<&[u8]> = Vec::new();
    let mut at = slot;
    while at != ROOT {
        let place = nodes.place(at).ok_or(Errno::STALE)?;
        if names.len() > MAX_DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        names.push(&place.name);
        at = place.parent;
    }
    let mut path = RelPath::root();
    for name in names.iter().rev() {
        path.push(name).map_err(|_| Errno::NAMETOOLONG)?;
    }
    Ok(path)
}
