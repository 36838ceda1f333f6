//! What the guest's kernel knows of a folder: each file once, with how often it was told and where it was seen.
//!
//! ```text
//!   lookup ──▶ Placed: parent and name ──unlink, rename over──▶ Nameless, held open
//!                 │  ▲                                              │
//!                 │  └───────────── link, rename, lookup ───────────┤
//!                 └──────────────── last FORGET ────────────────────┴──▶ gone
//! ```
//!
//! What is held open of a placed node is used as long as it is found at its place, and of a nameless one when the file
//! has no name anywhere: otherwise the host, or the guest, may have put it outside the folder.
//!
//! A node costs about 220 bytes and no descriptor. It stays while the guest counts it or a child of it is there,
//! for children are found through their parents.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use fuse::{FileKind, NodeId};
use hashbrown::HashTable;
use rustix::io::Errno;
use share_policy::Standing;

use super::{
    descriptors::{Access, Budget, Open, now},
    identity::Identity,
    stealth::Seen,
};

/// Nodes of one share. A guest's kernel forgets what it has no memory for; one that does not may cost us this many
/// times 220 bytes, and then hears ENFILE. It is more than the two million files a share is promised to work with.
const MAX_NODES: usize = 3_000_000;
/// Files of which more names than one are remembered, and how many more: without them a file that loses the name it
/// was seen under last has to be looked up again.
const MAX_SEVERAL: usize = 100_000;
const MAX_OTHER_NAMES: usize = 4;
/// Uses of a place in the table that are told apart.
const GENERATIONS: u16 = u16::MAX;

/// A node's number: where it is in the table, and above 32 bits which use of that place it is. So a number that was
/// looked at before a lock was let go means the same node after it, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slot(u64);

impl Slot {
    fn new(index: u32, generation: u16) -> Self {
        Slot(u64::from(generation) << 32 | u64::from(index))
    }

    fn index(self) -> usize {
        self.0 as u32 as usize
    }

    fn generation(self) -> u16 {
        (self.0 >> 32) as u16
    }
}

/// The folder itself.
pub(crate) const ROOT: Slot = Slot(1);

/// In [`Node::checked`]: what cannot come to be untrue. A file without a name never gets one by a rename.
const FOR_GOOD: u64 = u64::MAX;

/// What the quota gets back when a node without a name goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Owed {
    #[default]
    Nothing,
    /// Its bytes: its last name went while the guest knew it.
    Bytes,
    /// And itself: it never had a name.
    FileAndBytes,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) identity: Identity,
    /// Which use of its slot this is.
    generation: u16,
    /// What the policy said of it when it was last asked, and in which epoch that was.
    standing: Option<(Standing, u64)>,
    /// How many names it had when it was last looked at, and when that was.
    pub(crate) links: u32,
    pub(crate) looked: u64,
    pub(crate) owed: Owed,
    /// What was last shown of it.
    pub(crate) seen: Seen,
    /// How often the guest's kernel was told of it.
    lookups: u64,
    /// Nodes that name this one as their parent.
    children: u32,
    place: Option<Place>,
    open: Option<Arc<Open>>,
    /// Not to be closed for others: it could not be opened again.
    pinned: bool,
    /// When its place was last found to be true; of a nameless one [`FOR_GOOD`] when it was found to have no name.
    pub(crate) checked: u64,
}

impl Node {
    /// It was found to have so many names just now.
    pub(crate) fn looked(&mut self, links: u32) {
        self.links = links;
        self.looked = now();
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) parent: Slot,
    pub(crate) name: Box<[u8]>,
}

#[derive(Debug)]
pub(crate) struct Nodes {
    slots: Vec<Slotted>,
    free: VecDeque<u32>,
    by_identity: HashTable<Slot>,
    by_place: HashTable<Slot>,
    /// Where files with several names were seen before, the latest last.
    other_names: HashMap<Slot, Vec<Place>>,
    hasher: RandomState,
    /// Nodes with an open file that may be closed, those not used for longest in front.
    closable: VecDeque<Slot>,
    budget: Arc<Budget>,
    known: usize,
    /// Counts the times that names came to mean something else to the policy.
    epoch: u64,
    /// Files that are gone and owe the quota something.
    gone: Vec<(Option<Arc<Open>>, Owed)>,
}

#[derive(Debug)]
enum Slotted {
    Used(Box<Node>),
    /// With the generation of its last use.
    Free(u16),
}

impl Nodes {
    pub(crate) fn new(root: Identity, open: Arc<Open>, budget: &Arc<Budget>) -> Self {
        let mut nodes = Nodes {
            slots: vec![Slotted::Free(0)],
            free: VecDeque::new(),
            by_identity: HashTable::new(),
            by_place: HashTable::new(),
            other_names: HashMap::new(),
            hasher: RandomState::new(),
            closable: VecDeque::new(),
            budget: Arc::clone(budget),
            known: 0,
            epoch: 0,
            gone: Vec::new(),
        };
        let node = Node {
            identity: root,
            generation: 0,
            standing: None,
            links: 1,
            looked: 0,
            owed: Owed::Nothing,
            seen: Seen::default(),
            // The guest never looks it up and cannot forget it.
            lookups: 1,
            children: 0,
            place: None,
            open: Some(open),
            pinned: true,
            checked: FOR_GOOD,
        };
        nodes.slots.push(Slotted::Used(Box::new(node)));
        nodes.index_identity(ROOT, root);
        nodes
    }

    /// Nodes the guest knows.
    pub(crate) fn known(&self) -> usize {
        self.known
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Node> {
        match self.slots.get(slot.index()) {
            Some(Slotted::Used(node)) if node.generation == slot.generation() => Some(node),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Node> {
        match self.slots.get_mut(slot.index()) {
            Some(Slotted::Used(node)) if node.generation == slot.generation() => Some(node),
            _ => None,
        }
    }

    /// The node that a guest's number means now.
    pub(crate) fn slot(&self, id: NodeId) -> Result<Slot, Errno> {
        let slot = Slot(id.0);
        self.get(slot).map(|_| slot).ok_or(Errno::STALE)
    }

    #[allow(clippy::unused_self, reason = "a number means something only in its table")]
    pub(crate) fn id(&self, slot: Slot) -> NodeId {
        NodeId(slot.0)
    }

    /// What the policy said of a node, if names still mean the same.
    pub(crate) fn standing(&self, slot: Slot) -> Option<Standing> {
        let (standing, epoch) = self.get(slot)?.standing?;
        (epoch == self.epoch).then_some(standing)
    }

    /// Worked out in `epoch`. A file with several names stands as the strictest of those it was seen under.
    pub(crate) fn set_standing(&mut self, slot: Slot, standing: Standing, epoch: u64) {
        let strict = self.standing(slot).is_some_and(Standing::is_protected);
        if epoch == self.epoch
            && !strict
            && let Some(node) = self.get_mut(slot)
        {
            node.standing = Some((standing, epoch));
        }
    }

    /// Names may mean something else to the policy from now on.
    pub(crate) fn clear_standings(&mut self) {
        self.epoch += 1;
    }

    /// The guest was told that `place` is this file: it counts once more. A file known by another name is the same
    /// node, with its place where it was seen last.
    pub(crate) fn learn(&mut self, identity: Identity, place: Option<Place>) -> Result<Slot, Errno> {
        let slot = match self.find(identity) {
            Some(slot) => slot,
            None => self.insert(identity)?,
        };
        if slot != ROOT
            && let Some(place) = place
        {
            self.put(slot, place);
        }
        if let Some(node) = self.get_mut(slot) {
            node.lookups = node.lookups.saturating_add(1);
        }
        Ok(slot)
    }

    /// The guest forgets `count` of what it was told.
    pub(crate) fn forget(&mut self, slot: Slot, count: u64) {
        if slot == ROOT {
            return;
        }
        if let Some(node) = self.get_mut(slot) {
            node.lookups = node.lookups.saturating_sub(count);
        }
        self.release(slot);
    }

    /// The guest forgets everything, as its kernel does when it starts anew.
    pub(crate) fn forget_all(&mut self) {
        for index in 0..self.slots.len() {
            if let Some(Slotted::Used(node)) = self.slots.get(index) {
                self.forget(Slot::new(index as u32, node.generation), u64::MAX);
            }
        }
    }

    /// Files that went since this was last asked, and what the quota gets back for them.
    pub(crate) fn take_gone(&mut self) -> Vec<(Option<Arc<Open>>, Owed)> {
        std::mem::take(&mut self.gone)
    }

    pub(crate) fn place(&self, slot: Slot) -> Option<&Place> {
        self.get(slot)?.place.as_ref()
    }

    /// A file with several names is about to be seen at `place`, and is not forgotten to have been seen elsewhere.
    pub(crate) fn remember_name(&mut self, identity: Identity, place: &Place) {
        let Some(slot) = self.find(identity) else { return };
        let Some(known) = self.place(slot).filter(|known| *known != place).cloned() else {
            return;
        };
        if self.other_names.len() >= MAX_SEVERAL && !self.other_names.contains_key(&slot) {
            return;
        }
        let others = self.other_names.entry(slot).or_default();
        others.retain(|other| other != place && *other != known);
        if others.len() >= MAX_OTHER_NAMES {
            others.remove(0);
        }
        others.push(known);
    }

    /// Where a node was seen besides its place, the latest first.
    pub(crate) fn other_names(&self, slot: Slot) -> Vec<Place> {
        let others = self.other_names.get(&slot).into_iter().flatten().rev();
        others
            .filter(|other| self.place(slot) != Some(other))
            .cloned()
            .collect()
    }

    /// The node last seen at a place, if there is one.
    pub(crate) fn at(&self, parent: Slot, name: &[u8]) -> Option<Slot> {
        let hash = self.hash_place(parent, name);
        let same = |slot: &Slot| {
            self.place(*slot)
                .is_some_and(|place| place.parent == parent && *place.name == *name)
        };
        self.by_place.find(hash, same).copied()
    }

    /// The node was seen at `place`. A directory that was seen elsewhere before was moved by the host, and the policy
    /// may say something else of what is below it.
    pub(crate) fn put(&mut self, slot: Slot, place: Place) {
        let moved = self.place(slot).is_some_and(|old| *old != place);
        let directory = |node: &Node| node.identity.kind == FileKind::Directory;
        if moved && self.get(slot).is_some_and(directory) {
            self.clear_standings();
        }
        self.move_to(slot, place);
    }

    /// The node is now at `place`, and nothing else is.
    pub(crate) fn move_to(&mut self, slot: Slot, place: Place) {
        if self.place(slot) == Some(&place) {
            return;
        }
        if let Some(other) = self.at(place.parent, &place.name) {
            self.displace(other);
        }
        // Not below itself, which a rename of the host's during a lookup could make it look like.
        if self.is_below(place.parent, slot) {
            return self.displace(slot);
        }
        if let Some(parent) = self.get_mut(place.parent) {
            parent.children += 1;
        }
        // A rename of the guest's says nothing of where a file is, nor that it is not there.
        let checked = self.get(slot).filter(|node| node.place.is_some());
        let checked = checked.map_or(0, |node| node.checked);
        self.displace(slot);
        let hash = self.hash_place(place.parent, &place.name);
        if let Some(node) = self.get_mut(slot) {
            node.place = Some(place);
            node.checked = checked;
            let (slots, hasher) = (&self.slots, &self.hasher);
            self.by_place
                .insert_unique(hash, slot, |slot| rehash_place(slots, hasher, *slot));
        }
        self.unpin_if_placed(slot);
    }

    /// The node has no name any more, as far as is known.
    pub(crate) fn displace(&mut self, slot: Slot) {
        let Some(node) = self.get_mut(slot) else { return };
        let Some(place) = node.place.take() else { return };
        node.checked = 0;
        let hash = self.hash_place(place.parent, &place.name);
        if let Ok(entry) = self.by_place.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
        if let Some(parent) = self.get_mut(place.parent) {
            parent.children = parent.children.saturating_sub(1);
        }
        self.release(place.parent);
    }

    /// The open file of a node, if it serves.
    pub(crate) fn open(&self, slot: Slot, wanted: Access) -> Option<Arc<Open>> {
        let open = self.get(slot)?.open.as_ref()?;
        open.touch();
        open.access.serves(wanted).then(|| Arc::clone(open))
    }

    /// Keeps `open` for the node's next use, as long as there are descriptors to spare.
    pub(crate) fn keep(&mut self, slot: Slot, open: &Arc<Open>) {
        let Some(node) = self.get_mut(slot) else { return };
        let is_listed = node.open.is_some() && !node.pinned;
        let pinned = node.pinned;
        node.open = Some(Arc::clone(open));
        if !pinned && !is_listed {
            self.closable.push_back(slot);
        }
        self.drop_stale();
        self.make_room();
    }

    /// Nodes that were forgotten stay in the list of what may be closed, up to as many as may be open.
    fn drop_stale(&mut self) {
        if self.closable.len() > 2 * self.budget.limit() + LOOK_AT {
            let slots = &self.slots;
            self.closable.retain(|slot| is_open(slots, *slot));
        }
    }

    /// Keeps `open` until the node is forgotten or has a name again: it could not be opened. False when too many are
    /// kept so already.
    pub(crate) fn pin(&mut self, slot: Slot, open: &Arc<Open>) -> bool {
        let budget = Arc::clone(&self.budget);
        let Some(node) = self.get_mut(slot) else {
            return false;
        };
        if !node.pinned && !budget.pin() {
            return false;
        }
        node.pinned = true;
        node.open = Some(Arc::clone(open));
        self.make_room();
        true
    }

    /// The node's file can be opened again by its name: it is closed now.
    pub(crate) fn unpin_if_placed(&mut self, slot: Slot) {
        if slot == ROOT {
            return;
        }
        let Some(node) = self.get_mut(slot) else { return };
        if node.pinned && node.place.is_some() {
            node.pinned = false;
            node.open = None;
            self.budget.unpin();
        }
    }

    /// The node has no name, nor has its file: nobody can have moved it anywhere. Where too many are kept already, it is
    /// open until others need the descriptor.
    pub(crate) fn keep_nameless(&mut self, slot: Slot, open: &Arc<Open>) {
        self.displace(slot);
        self.pin(slot, open);
        if let Some(node) = self.get_mut(slot) {
            node.checked = FOR_GOOD;
        }
    }

    /// What is open of the node is not the guest's any more.
    pub(crate) fn let_go(&mut self, slot: Slot) {
        let Some(node) = self.get_mut(slot) else { return };
        node.open = None;
        if std::mem::take(&mut node.pinned) {
            self.budget.unpin();
        }
    }

    /// Closes what was opened for writing and has not been used for so many milliseconds; true when some are left.
    /// A program that somebody has open for writing cannot be executed on the host.
    pub(crate) fn close_idle_writers(&mut self, idle: u64) -> bool {
        let mut left = false;
        let (slots, closable) = (&mut self.slots, &mut self.closable);
        closable.retain(|slot| {
            let Some(Slotted::Used(node)) = slots.get_mut(slot.index()) else {
                return false;
            };
            if node.generation != slot.generation() {
                return false;
            }
            let Some(open) = &node.open else { return false };
            if node.pinned {
                return false;
            }
            if !open.access.writes() {
                return true;
            }
            if open.idle() >= idle {
                node.open = None;
                return false;
            }
            left = true;
            true
        });
        left
    }

    pub(crate) fn find(&self, identity: Identity) -> Option<Slot> {
        let hash = self.hash_identity(identity);
        let same = |slot: &Slot| self.get(*slot).is_some_and(|node| node.identity == identity);
        self.by_identity.find(hash, same).copied()
    }

    /// The node of an inode number, as the guest sees it.
    pub(crate) fn find_number(&self, device: u64, inode: u64) -> Option<Slot> {
        let hash = self.hasher.hash_one((device, inode));
        let same = |slot: &Slot| {
            self.get(*slot)
                .is_some_and(|node| node.identity.number() == (device, inode))
        };
        self.by_identity.find(hash, same).copied()
    }

    fn insert(&mut self, identity: Identity) -> Result<Slot, Errno> {
        if self.known >= MAX_NODES {
            return Err(Errno::NFILE);
        }
        let index = match self.free.pop_front() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.slots.len()).map_err(|_| Errno::NFILE)?;
                self.slots.push(Slotted::Free(0));
                index
            }
        };
        let generation = match self.slots.get(index as usize) {
            Some(Slotted::Free(last)) => last.wrapping_add(1),
            _ => 0,
        };
        let node = Node {
            identity,
            generation,
            standing: None,
            links: 1,
            looked: 0,
            owed: Owed::Nothing,
            seen: Seen::default(),
            lookups: 0,
            children: 0,
            place: None,
            open: None,
            pinned: false,
            checked: 0,
        };
        if let Some(slotted) = self.slots.get_mut(index as usize) {
            *slotted = Slotted::Used(Box::new(node));
        }
        let slot = Slot::new(index, generation);
        self.known += 1;
        self.index_identity(slot, identity);
        Ok(slot)
    }

    /// Drops the node if nobody counts it, and its parents if that was all they were kept for.
    fn release(&mut self, mut slot: Slot) {
        while slot != ROOT {
            let Some(node) = self.get(slot) else { return };
            if node.lookups > 0 || node.children > 0 {
                return;
            }
            let identity = node.identity;
            let hash = self.hash_identity(identity);
            if let Ok(entry) = self.by_identity.find_entry(hash, |other| *other == slot) {
                entry.remove();
            }
            self.other_names.remove(&slot);
            let Some(node) = self.take(slot) else { return };
            if node.pinned {
                self.budget.unpin();
            }
            if node.owed != Owed::Nothing {
                self.gone.push((node.open, node.owed));
            }
            let Some(place) = node.place else { return };
            let hash = self.hash_place(place.parent, &place.name);
            if let Ok(entry) = self.by_place.find_entry(hash, |other| *other == slot) {
                entry.remove();
            }
            if let Some(parent) = self.get_mut(place.parent) {
                parent.children = parent.children.saturating_sub(1);
            }
            slot = place.parent;
        }
    }

    fn take(&mut self, slot: Slot) -> Option<Node> {
        self.get(slot)?;
        let slotted = self.slots.get_mut(slot.index())?;
        let generation = slot.generation();
        let Slotted::Used(node) = std::mem::replace(slotted, Slotted::Free(generation)) else {
            return None;
        };
        self.known -= 1;
        // A slot whose numbers are used up is not used again, so that no number ever means two files.
        if generation < GENERATIONS {
            self.free.push_back(slot.index() as u32);
        }
        Some(*node)
    }

    /// Closes files until the budget holds, those not used for longest first.
    fn make_room(&mut self) {
        let mut looked = 0;
        while self.budget.is_spent() && looked < LOOK_AT && self.closable.len() > FAIR_SHARE {
            let Some(slot) = self.closable.pop_front() else {
                return;
            };
            looked += 1;
            let Some(node) = self.get_mut(slot) else { continue };
            let Some(open) = &node.open else { continue };
            if node.pinned {
                continue;
            }
            // In use by a request at this moment, or by one not long ago.
            if looked < LOOK_AT / 2 && (Arc::strong_count(open) > 1 || open.idle() < RECENT) {
                self.closable.push_back(slot);
                continue;
            }
            node.open = None;
        }
    }

    fn is_below(&self, mut slot: Slot, above: Slot) -> bool {
        for _ in 0..MAX_DEPTH {
            if slot == above {
                return true;
            }
            match self.place(slot) {
                Some(place) => slot = place.parent,
                None => return false,
            }
        }
        true
    }

    fn index_identity(&mut self, slot: Slot, identity: Identity) {
        let hash = self.hash_identity(identity);
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.by_identity
            .insert_unique(hash, slot, |slot| rehash_identity(slots, hasher, *slot));
    }

    fn hash_identity(&self, identity: Identity) -> u64 {
        self.hasher.hash_one((identity.device, identity.inode))
    }

    fn hash_place(&self, parent: Slot, name: &[u8]) -> u64 {
        self.hasher.hash_one((parent, name))
    }
}

/// Descriptors a share keeps even when others have spent the budget.
const FAIR_SHARE: usize = 8;
/// How many open files are looked at to find one to close; the second half is closed whatever it is.
const LOOK_AT: usize = 16;
/// Milliseconds in which an open file counts as used just now.
const RECENT: u64 = 20;
/// Directories in each other; a path of 4,096 bytes has fewer than half as many, but a guest can make one deeper by
/// going down step by step.
pub(crate) const MAX_DEPTH: usize = 4096;

fn is_open(slots: &[Slotted], slot: Slot) -> bool {
    match slots.get(slot.index()) {
        Some(Slotted::Used(node)) => {
            node.generation == slot.generation() && node.open.is_some() && !node.pinned
        }
        _ => false,
    }
}

fn rehash_identity(slots: &[Slotted], hasher: &RandomState, slot: Slot) -> u64 {
    match slots.get(slot.index()) {
        Some(Slotted::Used(node)) => hasher.hash_one((node.identity.device, node.identity.inode)),
        _ => 0,
    }
}

fn rehash_place(slots: &[Slotted], hasher: &RandomState, slot: Slot) -> u64 {
    match slots.get(slot.index()) {
        Some(Slotted::Used(node)) => node
            .place
            .as_ref()
            .map_or(0, |place| hasher.hash_one((place.parent, &*place.name))),
        _ => 0,
    }
}
