//! A file system that keeps nothing: for fuzzing the server, and for measuring it.

use std::time::Duration;

use rustix::io::Errno;

use crate::{
    Attributes, Caller, Changes, CreateHow, DirectoryEntries, Entry, FileKind, FileSystem, FileSystemStatus,
    Name, NodeId, Payload, RenameFlags, Reply, Target, Timestamp, WriteFlags, XattrFlags,
};

/// In its root a file of zeroes, a link to it, and a directory with the same two. Whatever is made looks like one of
/// these, and whatever is written is gone.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullFileSystem;

const FILE: NodeId = NodeId(2);
const DIRECTORY: NodeId = NodeId(3);
const LINK: NodeId = NodeId(4);

/// The directory comes last, since it is in the root only.
const NAMES: [(&[u8], NodeId); 3] = [(b"file", FILE), (b"link", LINK), (b"directory", DIRECTORY)];

const FILE_SIZE: u64 = 1 << 20;
const VALID: Duration = Duration::from_secs(1);
const ZEROES: [u8; 4096] = [0; 4096];
const XATTR: &[u8] = b"user.null";

impl FileSystem for NullFileSystem {
    fn lookup(&self, _caller: Caller, parent: NodeId, name: Name<'_>) -> Reply<Entry> {
        let known = names_in(parent)?
            .iter()
            .find(|(known, _)| *known == name.as_bytes());
        Ok(known.map_or(Entry::Absent { valid: VALID }, |(_, node)| found(*node)))
    }

    fn attributes(&self, _caller: Caller, node: NodeId) -> Reply<Attributes> {
        Ok(attributes(node))
    }

    fn set_attributes(&self, _caller: Caller, node: NodeId, _changes: &Changes) -> Reply<Attributes> {
        Ok(attributes(node))
    }

    fn read_link(&self, _caller: Caller, node: NodeId) -> Reply<Vec<u8>> {
        match kind(node) {
            FileKind::Symlink => Ok(b"file".to_vec()),
            _ => Err(Errno::INVAL),
        }
    }

    fn make_node(&self, _: Caller, _: NodeId, _: Name<'_>, _: FileKind, _: u32) -> Reply<Entry> {
        Ok(found(FILE))
    }

    fn make_directory(&self, _: Caller, _: NodeId, _: Name<'_>, _: u32) -> Reply<Entry> {
        Ok(found(DIRECTORY))
    }

    fn make_symlink(&self, _: Caller, _: NodeId, _: Name<'_>, _: &std::ffi::CStr) -> Reply<Entry> {
        Ok(found(LINK))
    }

    fn make_link(&self, _: Caller, node: NodeId, _: NodeId, _: Name<'_>) -> Reply<Entry> {
        Ok(found(node))
    }

    fn unlink(&self, _: Caller, _: NodeId, _: Name<'_>) -> Reply<()> {
        Ok(())
    }

    fn remove_directory(&self, _: Caller, _: NodeId, _: Name<'_>) -> Reply<()> {
        Ok(())
    }

    fn rename(&self, _: Caller, _: (NodeId, Name<'_>), _: (NodeId, Name<'_>), _: RenameFlags) -> Reply<()> {
        Ok(())
    }

    fn create(&self, _: Caller, _: NodeId, _: Name<'_>, _: CreateHow) -> Reply<Entry> {
        Ok(found(FILE))
    }

    fn make_temporary(&self, _: Caller, _: NodeId, _: u32) -> Reply<Entry> {
        Ok(found(FILE))
    }

    fn read(&self, _: Caller, _: NodeId, offset: u64, target: &mut dyn Target) -> Reply<()> {
        let mut left = FILE_SIZE.saturating_sub(offset);
        while left > 0 && target.room() > 0 {
            let len = left.min(target.room() as u64).min(ZEROES.len() as u64);
            let zeroes = ZEROES.get(..len as usize).unwrap_or(&ZEROES);
            target.put(zeroes).map_err(|_| Errno::IO)?;
            left -= len;
        }
        Ok(())
    }

    fn write(&self, _: Caller, _: NodeId, _: u64, payload: &mut dyn Payload, _: WriteFlags) -> Reply<usize> {
        let mut bytes = [0; 4096];
        let mut written = 0;
        while payload.left() > 0 {
            match payload.take(&mut bytes) {
                Ok(0) | Err(_) => return Err(Errno::IO),
                Ok(len) => written += len,
            }
        }
        Ok(written)
    }

    fn sync(&self, _: Caller, _: NodeId, _: bool) -> Reply<()> {
        Ok(())
    }

    fn sync_all(&self, _: Caller, _: NodeId) -> Reply<()> {
        Ok(())
    }

    fn read_directory(
        &self,
        _: Caller,
        node: NodeId,
        offset: u64,
        entries: &mut dyn DirectoryEntries,
    ) -> Reply<()> {
        let dots = [(&b"."[..], node), (b"..", NodeId::ROOT)];
        for (next, (name, node)) in (1..).zip(dots.iter().chain(names_in(node)?)) {
            let added = next <= offset
                || if entries.wants_entries() {
                    entries.add_with_entry(&found(*node), next, name)
                } else {
                    entries.add(node.0, next, kind(*node), name)
                };
            if !added {
                break;
            }
        }
        Ok(())
    }

    fn status(&self, _: Caller, _: NodeId) -> Reply<FileSystemStatus> {
        Ok(FileSystemStatus {
            block_size: 4096,
            blocks: 1 << 20,
            free_blocks: 1 << 19,
            available_blocks: 1 << 19,
            files: NAMES.len() as u64,
            free_files: 0,
            name_length: 255,
        })
    }

    fn set_xattr(&self, _: Caller, _: NodeId, _: Name<'_>, _: &[u8], _: XattrFlags) -> Reply<()> {
        Ok(())
    }

    fn xattr(&self, _: Caller, _: NodeId, name: Name<'_>) -> Reply<Vec<u8>> {
        if name.as_bytes() == XATTR {
            Ok(b"nothing".to_vec())
        } else {
            Err(Errno::NODATA)
        }
    }

    fn list_xattrs(&self, _: Caller, _: NodeId) -> Reply<Vec<u8>> {
        Ok([XATTR, &[0]].concat())
    }

    fn remove_xattr(&self, _: Caller, _: NodeId, _: Name<'_>) -> Reply<()> {
        Ok(())
    }

    fn allocate(&self, _: Caller, _: NodeId, _: (u64, u64), _: u32) -> Reply<()> {
        Ok(())
    }

    fn seek(&self, _: Caller, _: NodeId, offset: u64, hole: bool) -> Reply<u64> {
        match (offset < FILE_SIZE, hole) {
            (true, true) => Ok(offset),
            _ => Err(Errno::NXIO),
        }
    }

    fn copy_range(&self, _: Caller, _: (NodeId, u64), _: (NodeId, u64), len: u64) -> Reply<usize> {
        Ok(len.min(FILE_SIZE) as usize)
    }
}

fn names_in(directory: NodeId) -> Reply<&'static [(&'static [u8], NodeId)]> {
    match directory {
        NodeId::ROOT => Ok(&NAMES),
        DIRECTORY => NAMES.split_last().map(|(_, rest)| rest).ok_or(Errno::IO),
        _ => Err(Errno::NOTDIR),
    }
}

fn kind(node: NodeId) -> FileKind {
    match node {
        NodeId::ROOT | DIRECTORY => FileKind::Directory,
        LINK => FileKind::Symlink,
        _ => FileKind::File,
    }
}

fn found(node: NodeId) -> Entry {
    Entry::Found {
        node,
        generation: 0,
        attributes: attributes(node),
        valid: VALID,
    }
}

fn attributes(node: NodeId) -> Attributes {
    let kind = kind(node);
    let (size, permissions, links) = match kind {
        FileKind::Directory => (0, 0o755, 2),
        FileKind::Symlink => (4, 0o777, 1),
        _ => (FILE_SIZE, 0o644, 1),
    };
    Attributes {
        inode: node.0,
        kind,
        permissions,
        size,
        blocks: size.div_ceil(512),
        block_size: 4096,
        links,
        uid: 0,
        gid: 0,
        device: 0,
        accessed: Timestamp::default(),
        modified: Timestamp::default(),
        changed: Timestamp::default(),
        born: Some(Timestamp::default()),
        submount: false,
        valid: VALID,
    }
}
