//! Names that go or move.
//!
//! A file that loses its last known name may still be open in the guest, which does not tell us. So before a name
//! the guest knows goes, its file is opened as a place and kept until the guest forgets it. One that has another name
//! is reached by that, if the guest knows it. If not, nobody can tell whether it is in the folder, now and later, and
//! it is not kept.

use std::{os::fd::AsFd, sync::Arc};

use fuse::{FileKind, Name, NodeId, RenameFlags, Reply};
use rustix::{
    fs::{AtFlags, OFlags},
    io::Errno,
};

use super::{
    Access, HostFs, Identity, Open, Place,
    nodes::{Owed, Slot},
};

/// The node the guest knows at a name that is about to go.
#[derive(Debug)]
struct Victim {
    slot: Slot,
    left: Left,
}

/// What is left of a node when the name is gone.
#[derive(Debug)]
enum Left {
    /// What is open of it, which is kept.
    Open,
    /// The same, and it is known to have no other name.
    Nameless(Arc<Open>),
    Name(Place),
    Nothing,
}

impl HostFs {
    pub(super) fn remove_file(&self, parent: NodeId, name: Name<'_>) -> Reply<()> {
        let _names = self.quota.names();
        let (parent, directory) = self.parent(parent)?;
        let victim = self.before_losing(parent, &directory, name)?;
        let (bytes, gone) = self.taking_name(&directory, name, || {
            rustix::fs::unlinkat(&*directory, name.as_c_str(), AtFlags::empty())
        });
        self.settle(victim, bytes, gone)
    }

    pub(super) fn remove_folder(&self, parent: NodeId, name: Name<'_>) -> Reply<()> {
        let (parent, directory) = self.parent(parent)?;
        let victim = self.before_losing(parent, &directory, name)?;
        let gone = rustix::fs::unlinkat(&*directory, name.as_c_str(), AtFlags::REMOVEDIR);
        self.settle(victim, 0, gone)
    }

    pub(super) fn rename_entry(
        &self,
        (from, name): (NodeId, Name<'_>),
        (to, new_name): (NodeId, Name<'_>),
        flags: RenameFlags,
    ) -> Reply<()> {
        let _names = self.quota.names();
        let (from, from_directory) = self.parent(from)?;
        let (to, to_directory) = self.parent(to)?;
        let how = rename_flags(flags);
        let replaces = !flags.intersects(RenameFlags::NO_REPLACE | RenameFlags::EXCHANGE);
        let same = (from == to && name.as_bytes() == new_name.as_bytes())
            || (replaces && self.is_one_file((&from_directory, name), (&to_directory, new_name)));
        let victim = (replaces && !same)
            .then(|| self.before_losing(to, &to_directory, new_name))
            .transpose()?
            .flatten();
        let rename = || {
            let (old, new) = (name.as_c_str(), new_name.as_c_str());
            rustix::fs::renameat_with(&*from_directory, old, &*to_directory, new, how)
        };
        let (bytes, renamed) = if replaces {
            self.taking_name(&to_directory, new_name, rename)
        } else {
            (0, rename())
        };
        if same || renamed.is_err() {
            return self.keep_name(victim, renamed);
        }
        let old = Place {
            parent: from,
            name: name.as_bytes().into(),
        };
        let new = Place {
            parent: to,
            name: new_name.as_bytes().into(),
        };
        if victim.is_some() {
            self.settle(victim, bytes, Ok(()))?;
        }
        self.moved(old, new, flags.contains(RenameFlags::EXCHANGE));
        Ok(())
    }

    /// Two names of one file: a rename leaves both.
    fn is_one_file(&self, one: (&Open, Name<'_>), other: (&Open, Name<'_>)) -> bool {
        let at =
            |(directory, name): (&Open, Name<'_>)| self.found_at(directory.as_fd(), name.as_c_str()).ok();
        match at(other) {
            // Nothing there, or a name that cannot be one of two.
            Some(other) if other.links() > 1 => at(one).is_some_and(|one| one.identity == other.identity),
            _ => false,
        }
    }

    fn moved(&self, old: Place, new: Place, exchanged: bool) {
        let mut nodes = self.nodes();
        let moved = nodes.at(old.parent, &old.name);
        let other = nodes.at(new.parent, &new.name);
        for slot in [moved, other].into_iter().flatten() {
            if let Some(node) = nodes.get_mut(slot) {
                node.seen.expect_change();
            }
        }
        match (moved, other) {
            (Some(moved), Some(other)) if exchanged => {
                nodes.displace(other);
                nodes.move_to(moved, new);
                nodes.move_to(other, old);
            }
            (None, Some(other)) if exchanged => nodes.move_to(other, old),
            (Some(moved), _) => nodes.move_to(moved, new),
            (None, Some(other)) => nodes.displace(other),
            (None, None) => {}
        }
    }

    /// ENFILE when too many are kept open: the guest may have it open, and what it has open must not be lost.
    fn before_losing(&self, parent: Slot, directory: &Open, name: Name<'_>) -> Reply<Option<Victim>> {
        let (slot, identity, links, open) = {
            let nodes = self.nodes();
            let Some(slot) = nodes.at(parent, name.as_bytes()) else {
                return Ok(None);
            };
            let Some(node) = nodes.get(slot) else {
                return Ok(None);
            };
            (slot, node.identity, node.links, nodes.open(slot, Access::Path))
        };
        let victim = |left| Ok(Some(Victim { slot, left }));
        if !matches!(identity.kind, FileKind::File | FileKind::Directory) {
            return victim(Left::Nothing);
        }
        let open = match open {
            Some(open) => open,
            None => match self.open_known((directory.as_fd(), name.as_bytes()), identity, OFlags::PATH) {
                Ok(file) => Open::new(file, Access::Path, &self.shared.budget),
                // Then it does not go either, or not by us.
                Err(_) => return victim(Left::Nothing),
            },
        };
        let is_file = identity.kind == FileKind::File;
        if is_file && links > 1 && self.found(open.as_fd())?.links() > 1 {
            return victim(
                self.another_name(slot, identity)
                    .map_or(Left::Nothing, Left::Name),
            );
        }
        if !self.nodes().pin(slot, &open) {
            return Err(Errno::NFILE);
        }
        if is_file && !self.births && self.is_only_name(directory, name, identity) {
            return victim(Left::Nameless(open));
        }
        victim(Left::Open)
    }

    /// Another name that the guest knows the file by, and that is one.
    fn another_name(&self, slot: Slot, identity: Identity) -> Option<Place> {
        let names = self.nodes().other_names(slot);
        names
            .into_iter()
            .find(|place| self.found_known(place, identity).is_ok())
    }

    /// On overlayfs a file of a lower layer counts one name also when it has none any more.
    fn is_only_name(&self, directory: &Open, name: Name<'_>, identity: Identity) -> bool {
        self.found_at(directory.as_fd(), name.as_c_str())
            .is_ok_and(|found| found.identity == identity && found.links() == 1)
    }

    /// A name went, with so many bytes if it was the last. The guest may have the file open: it takes room until
    /// the guest forgets it.
    fn settle(&self, victim: Option<Victim>, bytes: u64, gone: Reply<()>) -> Reply<()> {
        if gone.is_err() {
            return self.keep_name(victim, gone);
        }
        self.quota.unmade();
        let Some(Victim { slot, left }) = victim else {
            self.quota.give_back(bytes);
            return Ok(());
        };
        let gone = {
            let mut nodes = self.nodes();
            if let Some(node) = nodes.get_mut(slot)
                && bytes > 0
            {
                node.owed = Owed::Bytes;
            }
            match left {
                Left::Name(place) => nodes.move_to(slot, place),
                Left::Nameless(open) => nodes.keep_nameless(slot, &open),
                Left::Open | Left::Nothing => nodes.displace(slot),
            }
            nodes.take_gone()
        };
        self.settle_owed(gone);
        Ok(())
    }

    /// Files that the guest has forgotten are gone for good, unless they have got a name meanwhile.
    pub(super) fn settle_owed(&self, gone: Vec<(Option<Arc<Open>>, Owed)>) {
        for (file, owed) in gone {
            let Some(file) = file else { continue };
            let Ok(identity) = self.found(file.as_fd()).map(|found| found.identity) else {
                continue;
            };
            let _alone = self.quota.alone(identity);
            let Ok(found) = self.found(file.as_fd()) else {
                continue;
            };
            if found.links() > 0 {
                continue;
            }
            if owed == Owed::FileAndBytes {
                self.quota.unmade();
            }
            self.quota.give_back(found.size());
        }
    }

    /// The name did not go after all.
    fn keep_name(&self, victim: Option<Victim>, result: Reply<()>) -> Reply<()> {
        if let Some(victim) = victim {
            self.nodes().unpin_if_placed(victim.slot);
        }
        result
    }

    /// Does what takes a name from its file. With what the file system gets back when it is gone.
    fn taking_name(
        &self,
        directory: &Open,
        name: Name<'_>,
        act: impl FnOnce() -> Reply<()>,
    ) -> (u64, Reply<()>) {
        let look = || self.found_at(directory.as_fd(), name.as_c_str());
        let first = self.quota.is_limited().then(look);
        let Some(Ok(first)) = first else {
            return (0, act());
        };
        let _alone = self.quota.alone(first.identity);
        let bytes = match look() {
            Ok(found) if found.links() == 1 && found.identity.kind == FileKind::File => found.size(),
            _ => 0,
        };
        (bytes, act())
    }
}

fn rename_flags(flags: RenameFlags) -> rustix::fs::RenameFlags {
    let mut how = rustix::fs::RenameFlags::empty();
    how.set(
        rustix::fs::RenameFlags::NOREPLACE,
        flags.contains(RenameFlags::NO_REPLACE),
    );
    how.set(
        rustix::fs::RenameFlags::EXCHANGE,
        flags.contains(RenameFlags::EXCHANGE),
    );
    how
}
