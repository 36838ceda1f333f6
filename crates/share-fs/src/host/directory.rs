//! Listing directories.
//!
//! The guest does not tell when it opens or closes a directory, only where it goes on reading. A [`Stream`] is a
//! directory somebody is in the middle of: the next request that names the same directory and offset takes it.

use std::{
    collections::VecDeque,
    mem::MaybeUninit,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fuse::{DirectoryEntries, Entry, FileKind, Reply};
use rustix::{
    fs::{RawDir, SeekFrom},
    io::Errno,
};

use super::{
    HostFs, Open,
    descriptors::now,
    identity::kind_of_entry,
    nodes::{ROOT, Slot},
};

/// Directories of one share that are being read at a time; one more, and the one not read for longest starts again
/// from its offset.
const MAX_STREAMS: usize = 32;
/// Milliseconds after which a reader is not expected back.
const IDLE: u64 = 2000;
/// What the kernel gives at once: some hundred entries.
const BATCH_BYTES: usize = 32 * 1024;

#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<VecDeque<Stream>>);

#[derive(Debug)]
struct Stream {
    slot: Slot,
    file: Arc<Open>,
    /// The offset of the next entry.
    next: u64,
    batch: Batch,
    used: u64,
}

/// Entries the kernel gave and the guest has not had. They come by the hundred, so their names lie in one piece.
#[derive(Debug, Default)]
struct Batch {
    items: Vec<Item>,
    names: Vec<u8>,
    /// How many the guest has had.
    told: usize,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    inode: u64,
    /// The offset of the entry behind it.
    next: u64,
    kind: Option<FileKind>,
    /// Where its name begins and ends.
    name: (u32, u32),
}

/// An item with its name.
#[derive(Clone, Copy)]
struct Named<'a> {
    inode: u64,
    next: u64,
    kind: Option<FileKind>,
    name: &'a [u8],
}

impl Batch {
    fn clear(&mut self) {
        self.items.clear();
        self.names.clear();
        self.told = 0;
    }

    fn push(&mut self, inode: u64, next: u64, kind: Option<FileKind>, name: &[u8]) {
        let begin = self.names.len() as u32;
        self.names.extend_from_slice(name);
        self.items.push(Item {
            inode,
            next,
            kind,
            name: (begin, self.names.len() as u32),
        });
    }

    /// The next one the guest is to have.
    fn front(&self) -> Option<Named<'_>> {
        let item = self.items.get(self.told)?;
        let (begin, end) = item.name;
        Some(Named {
            inode: item.inode,
            next: item.next,
            kind: item.kind,
            name: self.names.get(begin as usize..end as usize)?,
        })
    }
}

impl Streams {
    fn take(&self, slot: Slot, offset: u64) -> Option<Stream> {
        let mut streams = self.lock();
        let at = streams
            .iter()
            .position(|stream| stream.slot == slot && stream.next == offset)?;
        streams.remove(at)
    }

    /// `most`: how many may be kept.
    fn put_back(&self, mut stream: Stream, most: usize) {
        stream.used = now();
        let mut streams = self.lock();
        while streams.len() >= most {
            streams.pop_front();
        }
        streams.push_back(stream);
    }

    /// True when some are left.
    pub(super) fn close_idle(&self) -> bool {
        let mut streams = self.lock();
        let now = now();
        streams.retain(|stream| now.saturating_sub(stream.used) < IDLE);
        !streams.is_empty()
    }

    pub(super) fn close_all(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Stream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// False at the end of the directory.
    fn fill(&mut self) -> Reply<bool> {
        self.batch.clear();
        let mut buffer = [MaybeUninit::uninit(); BATCH_BYTES];
        let mut entries = RawDir::new(self.file.as_fd(), &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let kind = kind_of_entry(entry.file_type());
            let name = entry.file_name().to_bytes();
            self.batch
                .push(entry.ino(), entry.next_entry_cookie(), kind, name);
            if entries.is_buffer_empty() {
                break;
            }
        }
        Ok(self.batch.front().is_some())
    }
}

impl HostFs {
    pub(super) fn list(&self, slot: Slot, offset: u64, entries: &mut dyn DirectoryEntries) -> Reply<()> {
        let mut stream = match self.streams.take(slot, offset) {
            // What is being read goes on only where it is still known to be.
            Some(stream) => self.directory(slot).map(|_| stream)?,
            None => self.start_reading(slot, offset)?,
        };
        loop {
            if stream.batch.front().is_none() && !stream.fill()? {
                return Ok(());
            }
            while let Some(item) = stream.batch.front() {
                if !self.add(slot, &stream.file, item, entries)? {
                    let spent = self.shared.budget.is_spent();
                    self.streams.put_back(stream, if spent { 1 } else { MAX_STREAMS });
                    self.shared.bell.ring();
                    return Ok(());
                }
                stream.next = item.next;
                stream.batch.told += 1;
            }
        }
    }

    fn start_reading(&self, slot: Slot, offset: u64) -> Reply<Stream> {
        let file = self.directory_for_reading(slot)?;
        if offset != 0 {
            rustix::fs::seek(&*file, SeekFrom::Start(offset))?;
        }
        Ok(Stream {
            slot,
            file,
            next: offset,
            batch: Batch::default(),
            used: now(),
        })
    }

    /// False when there is no room for it.
    fn add(
        &self,
        directory: Slot,
        file: &Open,
        item: Named<'_>,
        entries: &mut dyn DirectoryEntries,
    ) -> Reply<bool> {
        let name = item.name;
        let is_dots = matches!(name, b"." | b"..");
        if !entries.fits(name) {
            return Ok(false);
        }
        if (entries.wants_entries() || item.kind.is_none()) && !is_dots {
            let found = match self.found_at(file.as_fd(), name) {
                Ok(found) => found,
                // Gone since the directory was read: nothing to tell of.
                Err(Errno::NOENT) => return Ok(true),
                // A directory may be readable and not searchable: then names are all there is.
                Err(_) => {
                    return Ok(entries.add(item.inode, item.next, item.kind.unwrap_or(FileKind::File), name));
                }
            };
            if entries.wants_entries()
                && let Ok(entry) = self.tell(&found, directory, name)
            {
                let added = entries.add_with_entry(&entry, item.next, name);
                if let (false, Entry::Found { node, .. }) = (added, entry) {
                    self.unlearn(node);
                }
                return Ok(added);
            }
            return Ok(entries.add(item.inode, item.next, found.identity.kind, name));
        }
        let kind = item.kind.unwrap_or(FileKind::Directory);
        // What is above the folder is no business of the guest's, not even its number.
        let inode = if directory == ROOT && is_dots {
            self.root_inode
        } else {
            item.inode
        };
        Ok(entries.add(inode, item.next, kind, name))
    }

    fn unlearn(&self, node: fuse::NodeId) {
        let mut nodes = self.nodes();
        if let Ok(slot) = nodes.slot(node) {
            nodes.forget(slot, 1);
        }
    }
}
