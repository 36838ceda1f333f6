//! Names that go or move.
//!
//! A file that loses its last known name may still be open in the guest, which does not tell us. So before a name
//! the guest knows goes, its file is opened as a place and kept until the guest forgets it.

use std::{os::fd::AsFd, sync::Arc};

use fuse::{FileKind, Name, NodeId, RenameFlags, Reply};
use rustix::{
    fs::{AtFlags, OFlags},
    io::Errno,
};

use super::{
    Access, HostFs, Open, Place, beneath,
    nodes::{Owed, Slot},
};

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

    /// The node the guest knows at a name that is about to go, kept open. ENFILE when too many are: the guest may have
    /// it open, and what it has open must not be lost.
    fn before_losing(&self, parent: Slot, directory: &Open, name: Name<'_>) -> Reply<Option<Slot>> {
        let (slot, kind, open) = {
            let nodes = self.nodes();
            let Some(slot) = nodes.at(parent, name.as_bytes()) else {
                return Ok(None);
            };
            let Some(node) = nodes.get(slot) else {
                return Ok(None);
            };
            (slot, node.identity.kind, nodes.open(slot, Access::Path))
        };
        if !matches!(kind, FileKind::File | FileKind::Directory) {
            return Ok(Some(slot));
        }
        let open = match open {
            Some(open) => open,
            None => match beneath::open(directory.as_fd(), name.as_bytes(), OFlags::PATH, 0) {
                Ok(file) => Open::new(file, Access::Path, &self.shared.budget),
                // Then it does not go either, or not by us.
                Err(_) => return Ok(Some(slot)),
            },
        };
        if self.nodes().pin(slot, &open) {
            Ok(Some(slot))
        } else {
            Err(Errno::NFILE)
        }
    }

    /// A name went, with so many bytes if it was the last. The guest may have the file open: it takes room until
    /// the guest forgets it.
    fn settle(&self, victim: Option<Slot>, bytes: u64, gone: Reply<()>) -> Reply<()> {
        if gone.is_err() {
            return self.keep_name(victim, gone);
        }
        self.quota.unmade();
        let Some(victim) = victim else {
            self.quota.give_back(bytes);
            return Ok(());
        };
        let gone = {
            let mut nodes = self.nodes();
            if let Some(node) = nodes.get_mut(victim)
                && bytes > 0
            {
                node.owed = Owed::Bytes;
            }
            nodes.displace(victim);
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
    fn keep_name(&self, victim: Option<Slot>, result: Reply<()>) -> Reply<()> {
        if let Some(victim) = victim {
            self.nodes().unpin_if_placed(victim);
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
