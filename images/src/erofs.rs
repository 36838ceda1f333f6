//! Writes a tree as an EROFS image: read-only, not compressed, the same bytes for the same tree.
//!
//! The format is the plain core of EROFS that every kernel since 5.4 reads: 4 KiB blocks, extended
//! inodes, inline extended attributes. Why our own writer: it needs no privilege and no tool of a
//! certain version, and it never unpacks anything on the host.
//!
//! ```text
//! block 0   superblock at byte 1024
//! block 1…  inodes in 32-byte slots, each with its attributes and the tail of a small content
//! after     full blocks of contents, each file contiguous, in the order of the inodes
//! ```

mod directory;
mod layout;
mod superblock;

use std::io::{self, Write};

use crate::tree::{Extent, Kind, Meta, Tree};
use crate::{Error, Result};
use layout::{Layout, Placed};

const BLOCK: u64 = 4096;
const BLOCK_BYTES: usize = BLOCK as usize;
/// Inodes lie at multiples of this, and are named by the number of the slot.
const SLOT: u64 = 32;
const INODE_BYTES: u64 = 64;
const COPY_BYTES: usize = 64 * BLOCK_BYTES;

pub(crate) fn write(tree: &Tree, out: impl Write) -> Result<()> {
    let layout = Layout::of(tree)?;
    let mut writer = Writer {
        tree,
        layout: &layout,
        out,
        position: 0,
    };
    writer
        .superblock()
        .and_then(|()| writer.metadata())
        .and_then(|()| writer.blocks())
}

struct Writer<'a, W> {
    tree: &'a Tree,
    layout: &'a Layout,
    out: W,
    position: u64,
}

impl<W: Write> Writer<'_, W> {
    fn superblock(&mut self) -> Result<()> {
        self.put(&superblock::block(self.layout))
    }

    fn metadata(&mut self) -> Result<()> {
        for placed in &self.layout.inodes {
            self.pad_to(placed.position)?;
            let meta = &self.tree.node(placed.id).meta;
            self.put(&inode(placed, meta, &self.tree.node(placed.id).kind))?;
            self.put(&attributes(meta))?;
            if placed.inline_tail() > 0 {
                self.content(placed, placed.full_blocks() * BLOCK, placed.inline_tail())?;
            }
        }
        self.pad_to(self.layout.first_data_block * BLOCK)
    }

    fn blocks(&mut self) -> Result<()> {
        for placed in &self.layout.inodes {
            let in_blocks = placed.size - placed.inline_tail();
            if in_blocks > 0 {
                debug_assert_eq!(self.position, placed.first_block * BLOCK);
                self.content(placed, 0, in_blocks)?;
                self.pad_to(self.position.next_multiple_of(BLOCK))?;
            }
        }
        self.out.flush().map_err(write_error)
    }

    /// Writes `length` bytes of a node's content from byte `from` on.
    fn content(&mut self, placed: &Placed, from: u64, length: u64) -> Result<()> {
        let range = from as usize..(from + length) as usize;
        match &self.tree.node(placed.id).kind {
            Kind::File(extent) => self.copy(extent, from, length),
            Kind::Directory(_) => {
                let bytes = directory::pack(self.tree, placed.id, placed.parent, |id| self.layout.nid(id));
                self.put(bytes.get(range).unwrap_or_default())
            }
            Kind::Symlink(target) => self.put(target.get(range).unwrap_or_default()),
            Kind::Character(_) | Kind::Block(_) | Kind::Fifo => Ok(()),
        }
    }

    fn copy(&mut self, extent: &Extent, mut from: u64, length: u64) -> Result<()> {
        let mut buffer = vec![0; COPY_BYTES.min(length as usize)];
        let end = from + length;
        while from < end {
            let n = (end - from).min(COPY_BYTES as u64) as usize;
            self.tree.read_at(extent, from, &mut buffer[..n])?;
            self.put(&buffer[..n])?;
            from += n as u64;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(write_error)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn pad_to(&mut self, position: u64) -> Result<()> {
        const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
        while self.position < position {
            let n = (position - self.position).min(BLOCK);
            self.put(&ZEROS[..n as usize])?;
        }
        Ok(())
    }
}

fn write_error(source: io::Error) -> Error {
    Error::Io {
        act: "write",
        path: crate::manifest::ROOTFS.into(),
        source,
    }
}

/// `struct erofs_inode_extended`.
fn inode(placed: &Placed, meta: &Meta, kind: &Kind) -> Vec<u8> {
    const EXTENDED: u16 = 1;
    const LAYOUT_SHIFT: u16 = 1;
    const FLAT_PLAIN: u16 = 0;
    const FLAT_INLINE: u16 = 2;
    let layout = if placed.inline_tail() > 0 {
        FLAT_INLINE
    } else {
        FLAT_PLAIN
    };
    let union = match kind {
        Kind::Character(device) | Kind::Block(device) => device.packed(),
        _ if placed.full_blocks() > 0 || placed.inline_tail() == 0 && placed.size > 0 => {
            placed.first_block as u32
        }
        _ => 0,
    };
    let mut bytes = Vec::with_capacity(INODE_BYTES as usize);
    bytes.extend((EXTENDED | layout << LAYOUT_SHIFT).to_le_bytes());
    bytes.extend(attribute_count(meta).to_le_bytes());
    bytes.extend((file_type(kind) | meta.mode).to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(placed.size.to_le_bytes());
    bytes.extend(union.to_le_bytes());
    bytes.extend(placed.number.to_le_bytes());
    bytes.extend(meta.uid.to_le_bytes());
    bytes.extend(meta.gid.to_le_bytes());
    bytes.extend(meta.mtime.seconds.to_le_bytes());
    bytes.extend(meta.mtime.nanoseconds.to_le_bytes());
    bytes.extend(placed.links.to_le_bytes());
    bytes.extend([0; 16]);
    bytes
}

/// The bits of `st_mode` above the permissions.
fn file_type(kind: &Kind) -> u16 {
    match kind {
        Kind::Fifo => 0o010_000,
        Kind::Character(_) => 0o020_000,
        Kind::Directory(_) => 0o040_000,
        Kind::Block(_) => 0o060_000,
        Kind::File(_) => 0o100_000,
        Kind::Symlink(_) => 0o120_000,
    }
}

const ATTRIBUTE_HEADER_BYTES: usize = 12;
const ATTRIBUTE_ALIGNMENT: usize = 4;

/// Attributes follow the inode: a header of twelve bytes, then entries padded to four.
fn attributes(meta: &Meta) -> Vec<u8> {
    const USER: u8 = 1;
    const SECURITY: u8 = 6;
    let mut bytes = Vec::new();
    for (name, value) in meta.xattrs.iter() {
        let dot = name.iter().position(|b| *b == b'.').unwrap_or_default();
        let (prefix, suffix) = (&name[..dot], &name[dot + 1..]);
        bytes.resize(bytes.len().max(ATTRIBUTE_HEADER_BYTES), 0);
        bytes.push(suffix.len() as u8);
        bytes.push(if prefix == b"user" { USER } else { SECURITY });
        bytes.extend((value.len() as u16).to_le_bytes());
        bytes.extend(suffix);
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(ATTRIBUTE_ALIGNMENT), 0);
    }
    bytes
}

/// Counted in units of four bytes after the header, plus one for the header.
fn attribute_count(meta: &Meta) -> u16 {
    match attributes(meta).len() {
        0 => 0,
        n => ((n - ATTRIBUTE_HEADER_BYTES) / ATTRIBUTE_ALIGNMENT + 1) as u16,
    }
}

#[cfg(test)]
mod tests;
