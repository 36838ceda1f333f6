//! Replies as the types the file system answered with.

use std::time::Duration;

use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::Answer;
use crate::{
    Attributes, Entry, FileKind, FileSystemStatus, NodeId, Reply, Timestamp,
    wire::{
        ATTR_SUBMOUNT, Attr, AttrOut, CreateOut, DirEntry, EntryOut, GetXattrOut, InitOut, LSeekOut, OpenOut,
        StatFsOut, StatXOut, WriteOut,
    },
};

/// What a server says to INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    pub major: u32,
    pub minor: u32,
    pub max_readahead: u32,
    /// Both words.
    pub flags: u64,
    pub max_write: u32,
    pub max_pages: u16,
}

/// An entry of a directory.
#[derive(Clone, Debug)]
pub struct Listed {
    pub name: Vec<u8>,
    pub inode: u64,
    pub next: u64,
    pub kind: Option<FileKind>,
    /// In READDIRPLUS, unless the kernel was told nothing of it.
    pub entry: Option<Entry>,
}

impl Answer {
    pub fn started(&self) -> Reply<Started> {
        let out: InitOut = self.whole()?;
        Ok(Started {
            major: out.major,
            minor: out.minor,
            max_readahead: out.max_readahead,
            flags: u64::from(out.flags) | u64::from(out.flags2) << 32,
            max_write: out.max_write,
            max_pages: out.max_pages,
        })
    }

    /// LOOKUP, and what makes a node.
    pub fn entry(&self) -> Reply<Entry> {
        entry(&self.whole()?)
    }

    /// The node of [`Self::entry`]; ENOENT where there is none.
    pub fn node(&self) -> Reply<u64> {
        match self.entry()? {
            Entry::Found { node, .. } => Ok(node.0),
            Entry::Absent { .. } => Err(Errno::NOENT),
        }
    }

    /// CREATE and TMPFILE: what was made, and the handle to release it with.
    pub fn created(&self) -> Reply<(Entry, u64)> {
        let out: CreateOut = self.whole()?;
        Ok((entry(&out.entry)?, out.open.fh))
    }

    /// OPEN and OPENDIR: the handle, and the flags.
    pub fn opened(&self) -> Reply<(u64, u32)> {
        let out: OpenOut = self.whole()?;
        Ok((out.fh, out.open_flags))
    }

    pub fn attributes(&self) -> Reply<Attributes> {
        let out: AttrOut = self.whole()?;
        attributes(&out.attr, duration(out.attr_valid, out.attr_valid_nsec))
    }

    /// STATX: when the file was made.
    pub fn born(&self) -> Reply<Option<Timestamp>> {
        let out: StatXOut = self.whole()?;
        let born = Timestamp {
            seconds: out.statx.born.seconds,
            nanoseconds: out.statx.born.nanoseconds,
        };
        Ok((out.statx.mask & crate::wire::STATX_BTIME != 0).then_some(born))
    }

    /// WRITE and COPY_FILE_RANGE.
    pub fn written(&self) -> Reply<u32> {
        Ok(self.whole::<WriteOut>()?.size)
    }

    /// LSEEK.
    pub fn offset(&self) -> Reply<u64> {
        Ok(self.whole::<LSeekOut>()?.offset)
    }

    /// GETXATTR and LISTXATTR that asked for the size.
    pub fn size(&self) -> Reply<u32> {
        Ok(self.whole::<GetXattrOut>()?.size)
    }

    pub fn status(&self) -> Reply<FileSystemStatus> {
        let out: StatFsOut = self.whole()?;
        Ok(FileSystemStatus {
            block_size: out.block_size,
            blocks: out.blocks,
            free_blocks: out.free_blocks,
            available_blocks: out.available_blocks,
            files: out.files,
            free_files: out.free_files,
            name_length: out.name_length,
        })
    }

    /// READDIR, or READDIRPLUS `with_entries`.
    pub fn listing(&self, with_entries: bool) -> Reply<Vec<Listed>> {
        let mut rest = self.result()?;
        let mut listing = Vec::new();
        while !rest.is_empty() {
            let before = rest.len();
            let entry = with_entries.then(|| take::<EntryOut>(&mut rest)).transpose()?;
            let head: DirEntry = take(&mut rest)?;
            let name = cut(&mut rest, head.name_len as usize)?.to_vec();
            let used = before - rest.len();
            cut(&mut rest, used.next_multiple_of(8) - used)?;
            listing.push(Listed {
                name,
                inode: head.inode,
                next: head.next,
                kind: FileKind::of_mode(head.kind << 12),
                entry: entry
                    .filter(|entry| entry.node != 0)
                    .map(|out| self::entry(&out))
                    .transpose()?,
            });
        }
        Ok(listing)
    }

    fn whole<T: FromBytes + KnownLayout + Immutable>(&self) -> Reply<T> {
        T::read_from_bytes(self.result()?).map_err(|_| Errno::BADMSG)
    }
}

fn take<T: FromBytes + KnownLayout + Immutable>(rest: &mut &[u8]) -> Reply<T> {
    T::read_from_bytes(cut(rest, size_of::<T>())?).map_err(|_| Errno::BADMSG)
}

fn cut<'a>(rest: &mut &'a [u8], len: usize) -> Reply<&'a [u8]> {
    let (piece, behind) = rest.split_at_checked(len).ok_or(Errno::BADMSG)?;
    *rest = behind;
    Ok(piece)
}

fn entry(out: &EntryOut) -> Reply<Entry> {
    let valid = duration(out.entry_valid, out.entry_valid_nsec);
    if out.node == 0 {
        return Ok(Entry::Absent { valid });
    }
    Ok(Entry::Found {
        node: NodeId(out.node),
        generation: out.generation,
        attributes: attributes(&out.attr, duration(out.attr_valid, out.attr_valid_nsec))?,
        valid,
    })
}

fn attributes(attr: &Attr, valid: Duration) -> Reply<Attributes> {
    let time = |seconds, nanoseconds| Timestamp { seconds, nanoseconds };
    Ok(Attributes {
        inode: attr.inode,
        kind: FileKind::of_mode(attr.mode).ok_or(Errno::BADMSG)?,
        permissions: attr.mode & 0o7777,
        size: attr.size,
        blocks: attr.blocks,
        block_size: attr.block_size,
        links: attr.links,
        uid: attr.uid,
        gid: attr.gid,
        device: attr.device,
        accessed: time(attr.atime, attr.atime_nsec),
        modified: time(attr.mtime, attr.mtime_nsec),
        changed: time(attr.ctime, attr.ctime_nsec),
        born: None,
        submount: attr.flags & ATTR_SUBMOUNT != 0,
        valid,
    })
}

fn duration(seconds: u64, nanoseconds: u32) -> Duration {
    Duration::new(seconds, nanoseconds)
}
