//! New files, directories and names.

use std::{
    ffi::CStr,
    os::fd::{AsFd, OwnedFd},
};

use fuse::{Entry, FileKind, Name, NodeId, Reply};
use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};

use super::{
    HostFs, Open, Place, beneath,
    data::through_proc,
    descriptors::Access,
    identity::PERMISSIONS,
    nodes::{Owed, ROOT, Slot},
};

impl HostFs {
    pub(super) fn look_up(&self, parent: NodeId, name: Name<'_>) -> Reply<Entry> {
        let parent = self.slot(parent)?;
        let directory = self.directory(parent)?;
        match self.found_at(directory.as_fd(), name.as_c_str()) {
            Ok(found) => self.tell(&found, parent, name.as_bytes()),
            // Below, its directory is found to be gone soon enough.
            Err(Errno::NOENT) if parent == ROOT && self.is_lost() => Err(Errno::STALE),
            Err(Errno::NOENT) => Ok(Entry::Absent { valid: self.valid() }),
            Err(error) => Err(error),
        }
    }

    pub(super) fn make_file(&self, parent: NodeId, name: Name<'_>, permissions: u32) -> Reply<Entry> {
        let (parent, directory) = self.parent(parent)?;
        let file = self.counted(&directory, Some(name), || new_file(&directory, name, permissions))?;
        self.tell(&self.found(file.as_fd())?, parent, name.as_bytes())
    }

    /// Only what is not there: whoever wants a file that is finds it by its name, past the policy.
    pub(super) fn create_file(&self, parent: NodeId, name: Name<'_>, permissions: u32) -> Reply<Entry> {
        let (parent, directory) = self.parent(parent)?;
        let file = self.counted(&directory, Some(name), || new_file(&directory, name, permissions))?;
        self.tell_made(file, Some((parent, name)))
    }

    pub(super) fn make_unnamed(&self, parent: NodeId, permissions: u32) -> Reply<Entry> {
        let (_, directory) = self.parent(parent)?;
        let flags = OFlags::TMPFILE | OFlags::RDWR;
        let file = self.counted(&directory, None, || {
            beneath::open(directory.as_fd(), b".", flags, permissions & PERMISSIONS)
        })?;
        self.tell_made(file, None)
    }

    /// The guest gets to know a file made just now, which is probably written to next.
    fn tell_made(&self, file: OwnedFd, place: Option<(Slot, Name<'_>)>) -> Reply<Entry> {
        let found = self.found(file.as_fd())?;
        let place = place.map(|(parent, name)| Place {
            parent,
            name: name.as_bytes().into(),
        });
        let has_name = place.is_some();
        let open = Open::new(file, Access::ReadWrite, &self.shared.budget);
        let (slot, entry) = self.tell_placed(&found, place)?;
        let mut nodes = self.nodes();
        if has_name {
            nodes.keep(slot, &open);
            self.shared.bell.ring();
        } else if !nodes.pin(slot, &open) {
            nodes.forget(slot, 1);
            drop(nodes);
            self.quota.unmade();
            return Err(Errno::NFILE);
        } else {
            nodes.keep_nameless(slot, &open);
            if let Some(node) = nodes.get_mut(slot) {
                node.owed = Owed::FileAndBytes;
            }
        }
        Ok(entry)
    }

    pub(super) fn make_folder(&self, parent: NodeId, name: Name<'_>, permissions: u32) -> Reply<Entry> {
        let (parent, directory) = self.parent(parent)?;
        let mode = Mode::from_raw_mode(permissions & PERMISSIONS);
        self.counted(&directory, Some(name), || {
            rustix::fs::mkdirat(&*directory, name.as_c_str(), mode)
        })?;
        self.tell_new(&directory, parent, name, FileKind::Directory)
    }

    pub(super) fn make_text_link(&self, parent: NodeId, name: Name<'_>, text: &CStr) -> Reply<Entry> {
        let (parent, directory) = self.parent(parent)?;
        self.counted(&directory, Some(name), || {
            rustix::fs::symlinkat(text, &*directory, name.as_c_str())
        })?;
        self.tell_new(&directory, parent, name, FileKind::Symlink)
    }

    pub(super) fn make_name(&self, node: NodeId, parent: NodeId, name: Name<'_>) -> Reply<Entry> {
        let slot = self.slot(node)?;
        let _alone = self.alone(slot)?;
        let (parent, directory) = self.parent(parent)?;
        let place = self.place(slot)?;
        let found = self.found(place.as_fd())?;
        if found.identity.kind == FileKind::Directory {
            return Err(Errno::PERM);
        }
        self.expect_change(slot);
        let number = through_proc(&place);
        self.counted(&directory, Some(name), || {
            rustix::fs::linkat(
                &*self.shared.proc,
                &*number,
                &*directory,
                name.as_c_str(),
                AtFlags::SYMLINK_FOLLOW,
            )
        })?;
        if let Some(node) = self.nodes().get_mut(slot)
            && std::mem::take(&mut node.owed) == Owed::FileAndBytes
        {
            // It counts by its name from now on.
            self.quota.unmade();
        }
        self.tell(&self.found(place.as_fd())?, parent, name.as_bytes())
    }

    pub(super) fn link_text(&self, slot: Slot) -> Reply<Vec<u8>> {
        let link = self.place(slot)?;
        match rustix::fs::readlinkat(&*link, c"", Vec::new()) {
            Ok(text) => Ok(text.into_bytes()),
            // Not a symbolic link.
            Err(Errno::NOENT) => Err(Errno::INVAL),
            Err(error) => Err(error),
        }
    }

    pub(super) fn parent(&self, parent: NodeId) -> Reply<(Slot, std::sync::Arc<Open>)> {
        let slot = self.slot(parent)?;
        Ok((slot, self.directory(slot)?))
    }

    fn tell_new(&self, directory: &Open, parent: Slot, name: Name<'_>, kind: FileKind) -> Reply<Entry> {
        let found = self.found_at(directory.as_fd(), name.as_c_str())?;
        if found.identity.kind != kind {
            return Err(Errno::STALE);
        }
        self.tell(&found, parent, name.as_bytes())
    }

    /// Makes something that counts against the limit of files. What is there already is that, and no question of how
    /// many there may be.
    fn counted<T>(
        &self,
        directory: &Open,
        name: Option<Name<'_>>,
        make: impl FnOnce() -> Reply<T>,
    ) -> Reply<T> {
        if let Err(error) = self.quota.before_making(directory) {
            let there = name.is_some_and(|name| self.found_at(directory.as_fd(), name.as_c_str()).is_ok());
            return Err(if there { Errno::EXIST } else { error });
        }
        make().inspect_err(|_| self.quota.unmade())
    }
}

fn new_file(directory: &Open, name: Name<'_>, permissions: u32) -> Reply<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
    beneath::open(
        directory.as_fd(),
        name.as_bytes(),
        flags,
        permissions & PERMISSIONS,
    )
}
