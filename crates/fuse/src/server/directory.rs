//! Reading directories.

use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::{
    Call,
    answer::{Answer, Length},
    convert,
    data::read_size,
};
use crate::{
    DirectoryEntries, Entry, FileKind, FileSystem, Outgoing, Reply,
    wire::{DirEntry, EntryOut, ReadIn},
};

/// `NAME_MAX`.
const MAX_NAME: usize = 255;

/// Records are gathered before they are put where the kernel wants them, which may be memory that is slow to reach:
/// as many as Linux asked for at a time for many years.
const GATHERED: usize = 4096;

pub(super) fn read<F: FileSystem>(
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
    with_entries: bool,
) -> Reply<Length> {
    let ReadIn { offset, size, .. } = call.body.only()?;
    let size = read_size(size)?;
    answer.reserve(size)?;
    let mut listing = Listing {
        answer,
        size,
        put: 0,
        gathered: Vec::with_capacity(size.min(GATHERED)),
        with_entries,
        submounts: call.session.mounts_submounts(),
        broken: false,
    };
    call.fs
        .read_directory(call.caller, call.node, offset, &mut listing)?;
    listing.flush();
    if listing.broken {
        return Err(Errno::IO);
    }
    Ok(Length::of(listing.put))
}

struct Listing<'a, 'b, O> {
    answer: &'a mut Answer<'b, O>,
    size: usize,
    /// Bytes that are where the kernel wants them.
    put: usize,
    /// And those that come behind.
    gathered: Vec<u8>,
    with_entries: bool,
    submounts: bool,
    broken: bool,
}

impl<O: Outgoing> Listing<'_, '_, O> {
    fn record_len(&self, name: &[u8]) -> usize {
        let entry = if self.with_entries {
            size_of::<EntryOut>()
        } else {
            0
        };
        (entry + size_of::<DirEntry>() + name.len()).next_multiple_of(8)
    }

    /// Before this was called, the record was seen to fit.
    fn put(&mut self, entry: &EntryOut, head: &DirEntry, name: &[u8]) -> bool {
        let end = self.gathered.len() + self.record_len(name);
        if self.with_entries {
            self.gathered.extend_from_slice(entry.as_bytes());
        }
        self.gathered.extend_from_slice(head.as_bytes());
        self.gathered.extend_from_slice(name);
        self.gathered.resize(end, 0);
        if end >= GATHERED {
            self.flush();
        }
        !self.broken
    }

    fn flush(&mut self) {
        self.broken |= self.answer.put_at(self.put, &self.gathered).is_err();
        self.put += self.gathered.len();
        self.gathered.clear();
    }
}

impl<O: Outgoing> DirectoryEntries for Listing<'_, '_, O> {
    fn wants_entries(&self) -> bool {
        self.with_entries
    }

    fn fits(&self, name: &[u8]) -> bool {
        !self.broken
            && (1..=MAX_NAME).contains(&name.len())
            && self.record_len(name) <= self.size.saturating_sub(self.put + self.gathered.len())
    }

    /// In a READDIRPLUS this is an entry without attributes, which the kernel looks up when it needs it.
    fn add(&mut self, inode: u64, next: u64, kind: FileKind, name: &[u8]) -> bool {
        self.fits(name) && self.put(&EntryOut::default(), &head(inode, next, kind, name), name)
    }

    fn add_with_entry(&mut self, entry: &Entry, next: u64, name: &[u8]) -> bool {
        let Entry::Found { attributes, .. } = entry else {
            return false;
        };
        if !self.with_entries || !self.fits(name) {
            return false;
        }
        let mut shown = convert::entry_out(entry, self.submounts);
        if matches!(name, b"." | b"..") {
            // The kernel must not count these.
            shown = EntryOut::default();
        }
        let head = head(attributes.inode, next, attributes.kind, name);
        self.put(&shown, &head, name)
    }
}

fn head(inode: u64, next: u64, kind: FileKind, name: &[u8]) -> DirEntry {
    DirEntry {
        inode,
        next,
        name_len: name.len() as u32,
        kind: kind.directory_type(),
    }
}
