//! From a tar stream into a tree: ustar, GNU long names and pax headers, read with limits of our own.
//!
//! The headers are taken raw and put together here, because a long name or a pax record says its own
//! length and a hostile archive would have gigabytes of it read into memory. Absolute names mean the
//! root of the tree; `..` is refused; sparse files are refused rather than filled with wrong bytes.

mod headers;

use std::io::{self, Read};

use tar::EntryType;

use crate::tree::{Content, Name, Tree, TreePath};
use crate::{Error, Result};
use headers::Pending;

/// A name and a link of 4 KiB and some attributes need no more.
const MAX_EXTENDED_HEADER: u64 = 1 << 20;
/// What may be read to skip over entries: twice what a tree may hold.
const MAX_STREAM_BYTES: u64 = 128 << 30;

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";

/// What `.wh.NAME` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whiteouts {
    /// Takes NAME away: the archive is a layer of an OCI image.
    Apply,
    /// A file like any other: the archive is a whole file system.
    Literal,
}

/// Applies a tar stream to `tree` as one layer. `archive` names it in errors.
pub(crate) fn apply(tree: &mut Tree, archive: &str, stream: impl Read, whiteouts: Whiteouts) -> Result<()> {
    tree.begin_layer();
    let unreadable = |source| Error::Archive {
        archive: archive.to_owned(),
        source,
    };
    let mut archive = tar::Archive::new(Bounded {
        inner: stream,
        left: MAX_STREAM_BYTES,
    });
    let mut pending = Pending::default();
    for entry in archive.entries().map_err(unreadable)?.raw(true) {
        let mut entry = entry.map_err(unreadable)?;
        match entry.header().entry_type() {
            EntryType::XGlobalHeader => {}
            EntryType::XHeader => pending.take_pax(&extended(&mut entry)?)?,
            EntryType::GNULongName => pending.take_path(&extended(&mut entry)?),
            EntryType::GNULongLink => pending.take_link(&extended(&mut entry)?),
            _ => apply_entry(tree, &mut entry, &std::mem::take(&mut pending), whiteouts)?,
        }
    }
    Ok(())
}

fn extended(entry: &mut tar::Entry<'_, impl Read>) -> Result<Vec<u8>> {
    let size = entry.size();
    if size > MAX_EXTENDED_HEADER {
        return Err(Error::OverLimit {
            what: "bytes in an extended header",
            limit: MAX_EXTENDED_HEADER,
        });
    }
    let mut bytes = Vec::new();
    let read = entry.read_to_end(&mut bytes);
    read.map_err(|source| Error::Archive {
        archive: "an extended header".into(),
        source,
    })?;
    if bytes.len() as u64 == size {
        Ok(bytes)
    } else {
        Err(truncated("an extended header"))
    }
}

fn apply_entry(
    tree: &mut Tree,
    entry: &mut tar::Entry<'_, impl Read>,
    pending: &Pending,
    whiteouts: Whiteouts,
) -> Result<()> {
    let raw_path = pending.path(entry);
    let path = TreePath::parse(&raw_path)?;
    if whiteouts == Whiteouts::Apply
        && let Some((name, above)) = path.split_last()
        && name.as_bytes().starts_with(WHITEOUT)
    {
        return apply_whiteout(tree, above, name);
    }
    let meta = pending.meta(entry, &path)?;
    let content = match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous if raw_path.ends_with(b"/") => Content::Directory,
        EntryType::Regular | EntryType::Continuous => spool_file(tree, entry, &path)?,
        EntryType::Directory => Content::Directory,
        EntryType::Symlink => Content::Symlink(pending.link(entry)),
        EntryType::Link => return tree.link(&path, &TreePath::parse(&pending.link(entry))?),
        EntryType::Char => Content::Character(headers::device(entry, &path)?),
        EntryType::Block => Content::Block(headers::device(entry, &path)?),
        EntryType::Fifo => Content::Fifo,
        EntryType::GNUSparse => return refuse(&path, "a sparse file: pack it without --sparse"),
        _ => return refuse(&path, "a kind of entry that file systems do not have"),
    };
    tree.insert(&path, meta, content).map(drop)
}

fn apply_whiteout(tree: &mut Tree, above: &[Name], name: &Name) -> Result<()> {
    let name = name.as_bytes();
    if name == WHITEOUT_OPAQUE {
        return tree.make_opaque(above);
    }
    if name.starts_with(WHITEOUT_META) {
        return Ok(()); // bookkeeping of aufs that says nothing about files
    }
    tree.white_out(above, &Name::parse(&name[WHITEOUT.len()..])?)
}

fn spool_file(tree: &mut Tree, entry: &mut tar::Entry<'_, impl Read>, path: &TreePath) -> Result<Content> {
    let size = entry.size();
    let extent = tree.spool(&mut *entry)?;
    if extent.length == size {
        Ok(Content::File(extent))
    } else {
        Err(truncated(&path.to_string()))
    }
}

fn refuse<T>(path: &TreePath, problem: &'static str) -> Result<T> {
    Err(Error::BadEntry {
        entry: path.to_string(),
        problem,
    })
}

fn truncated(what: &str) -> Error {
    Error::Archive {
        archive: what.to_owned(),
        source: io::ErrorKind::UnexpectedEof.into(),
    }
}

/// Ends in an error when more is read than any archive of ours has: a few bytes of compressed zeros
/// would otherwise keep us reading for as long as their header says.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(n as u64)
            .ok_or_else(|| io::Error::other("the archive is too long"))?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
