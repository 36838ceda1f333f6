//! New files, directories and names.

use std::{
    ffi::CStr,
    os::fd::{AsFd, OwnedFd},
};

use fuse::{CreateHow, Entry, FileKind, Name, NodeId, Reply};
use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};

use super::{
    Found, HostFs, Open, Place, beneath, data::through_proc, descriptors::Access, identity::PERMISSIONS,
    nodes::Slot,
};

impl HostFs {
    pub(super) fn look_up(&self, parent: NodeId, name: Name<'_>) -> Reply<Entry> {
        let parent = self.slot(parent)?;
        let directory = self.directory(parent)?;
        match Found::at(directory.as_fd(), name.as_c_str()) {
            Ok(found) => self.tell(&found, parent, name.as_bytes()),
            Err(Errno::NOENT) => Ok(Entry::Absent { valid: self.valid() }),
            Err(error) => Err(error),
        }
    }

    pub(super) fn make_file(&self, parent: NodeId, name: Name<'_>, permissions: u32) -> Reply<Entry> {
        let (parent, directory) = self.parent(parent)?;
        let file = self.counted(|| new_file(&directory, name, permissions))?;
        self.tell(&Found::of(file.as_fd())?, parent, name.as_bytes())
    }

    pub(super) fn create_file(&self, parent: NodeId, name: Name<'_>, how: CreateHow) -> Reply<Entry> {
        let (parent_slot, directory) = self.parent(parent)?;
        match self.counted(|| new_file(&directory, name, how.permissions)) {
            Ok(file) => self.tell_made(file, Some((parent_slot, name))),
            Err(Errno::EXIST) if !how.exclusive => self.find_instead(parent, name, how.truncate),
            Err(error) => Err(error),
        }
    }

    /// The file was there after all.
    fn find_instead(&self, parent: NodeId, name: Name<'_>, truncate: bool) -> Reply<Entry> {
        let entry = self.look_up(parent, name)?;
        let Entry::Found { node, attributes, .. } = entry else {
            return Err(Errno::NOENT);
        };
        if attributes.kind != FileKind::File || !truncate || attributes.size == 0 {
            return Ok(entry);
        }
        let changes = fuse::Changes {
            size: Some(0),
            ..fuse::Changes::default()
        };
        let slot = self.slot(node)?;
        match self.change(slot, &changes) {
            Ok(attributes) => Ok(match entry {
                Entry::Found {
                    node,
                    generation,
                    valid,
                    ..
                } => Entry::Found {
                    node,
                    generation,
                    attributes,
                    valid,
                },
                absent => absent,
            }),
            Err(error) => {
                self.nodes().forget(slot, 1);
                Err(error)
            }
        }
    }

    pub(super) fn make_unnamed(&self, parent: NodeId, permissions: u32) -> Reply<Entry> {
        let (_, directory) = self.parent(parent)?;
        let flags = OFlags::TMPFILE | OFlags::RDWR;
        let file =
            self.counted(|| beneath::open(directory.as_fd(), b".", flags, permissions & PERMISSIONS))?;
        self.tell_made(file, None)
    }

    /// The guest gets to know a file made just now, which is probably written to next.
    fn tell_made(&self, file: OwnedFd, place: Option<(Slot, Name<'_>)>) -> Reply<Entry> {
        let found = Found::of(file.as_fd())?;
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
            return Err(Errno::NFILE);
        }
        Ok(entry)
    }

    pub(super) fn make_folder(&self, parent: NodeId, name: Name<'_>, permissions: u32) -> Reply<Entry> {
        let (parent, directory) = self.parent(parent)?;
        let mode = Mode::from_raw_mode(permissions & PERMISSIONS);
        self.counted(|| rustix::fs::mkdirat(&*directory, name.as_c_str(), mode))?;
        self.tell_new(&directory, parent, name, FileKind::Directory)
    }

    pub(super) fn make_text_link(&self, parent: NodeId, name: Name<'_>, text: &CStr) -> Reply<Entry> {
        let (parent, directory) = self.parent(parent)?;
        self.counted(|| rustix::fs::symlinkat(text, &*directory, name.as_c_str()))?;
        self.tell_new(&directory, parent, name, FileKind::Symlink)
    }

    pub(super) fn make_name(&self, node: NodeId, parent: NodeId, name: Name<'_>) -> Reply<Entry> {
        let slot = self.slot(node)?;
        let (parent, directory) = self.parent(parent)?;
        let place = self.place(slot)?;
        let found = Found::of(place.as_fd())?;
        if found.identity.kind == FileKind::Directory {
            return Err(Errno::PERM);
        }
        self.expect_change(slot);
        let number = through_proc(&place);
        rustix::fs::linkat(
            &*self.shared.proc,
            &*number,
            &*directory,
            name.as_c_str(),
            AtFlags::SYMLINK_FOLLOW,
        )?;
        self.tell(&Found::of(place.as_fd())?, parent, name.as_bytes())
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
        let found = Found::at(directory.as_fd(), name.as_c_str())?;
        if found.identity.kind != kind {
            return Err(Errno::STALE);
        }
        self.tell(&found, parent, name.as_bytes())
    }

    /// Makes something that counts against the limit of files.
    fn counted<T>(&self, make: impl FnOnce() -> Reply<T>) -> Reply<T> {
        self.quota.before_making()?;
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
