//! A file system that writes down what it is asked, and says yes.

use std::{
    ffi::CStr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    Attributes, Caller, Changes, CreateHow, DirectoryEntries, Entry, FileKind, FileSystem, FileSystemStatus,
    Name, NodeId, Payload, RenameFlags, Reply, Target, TimeChange, Timestamp, WriteFlags, XattrFlags,
};

#[derive(Debug, Default)]
pub(super) struct Recorder {
    calls: Mutex<Vec<String>>,
    callers: Mutex<Vec<Caller>>,
}

/// What any node is like.
pub(super) const ATTRIBUTES: Attributes = Attributes {
    inode: 77,
    kind: FileKind::File,
    permissions: 0o2640,
    size: 1 << 40,
    blocks: 3,
    block_size: 512,
    links: 2,
    uid: 1000,
    gid: 1001,
    device: 0,
    accessed: Timestamp {
        seconds: 1,
        nanoseconds: 2,
    },
    modified: Timestamp {
        seconds: -3,
        nanoseconds: 4,
    },
    changed: Timestamp {
        seconds: 5,
        nanoseconds: 6,
    },
    born: None,
    submount: true,
    valid: Duration::from_millis(1500),
};

/// When it was made.
pub(super) const BORN: Timestamp = Timestamp {
    seconds: 7,
    nanoseconds: 8,
};

pub(super) const STATUS: FileSystemStatus = FileSystemStatus {
    block_size: 1,
    blocks: 2,
    free_blocks: 3,
    available_blocks: 4,
    files: 5,
    free_files: 6,
    name_length: 7,
};

/// What it finds under any name but `absent`.
pub(super) fn found() -> Entry {
    Entry::Found {
        node: NodeId(50),
        generation: 4,
        attributes: ATTRIBUTES,
        valid: Duration::from_secs(2),
    }
}

impl Recorder {
    /// What was asked since the last time.
    pub(super) fn calls(&self) -> String {
        std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner)).join(", ")
    }

    pub(super) fn last_caller(&self) -> Option<Caller> {
        self.callers.lock().unwrap().last().copied()
    }

    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    fn entry(&self, call: String) -> Reply<Entry> {
        self.note(call);
        Ok(found())
    }

    fn done(&self, call: String) -> Reply<()> {
        self.note(call);
        Ok(())
    }
}

impl FileSystem for Recorder {
    fn lookup(&self, caller: Caller, parent: NodeId, name: Name<'_>) -> Reply<Entry> {
        self.callers.lock().unwrap().push(caller);
        self.note(format!("lookup {} {name:?}", parent.0));
        if name.as_bytes() == b"absent" {
            return Ok(Entry::Absent {
                valid: Duration::from_secs(9),
            });
        }
        Ok(found())
    }

    fn forget(&self, node: NodeId, count: u64) {
        self.note(format!("forget {} {count}", node.0));
    }

    fn forget_all(&self) {
        self.note("forget_all".to_owned());
    }

    fn attributes(&self, _: Caller, node: NodeId) -> Reply<Attributes> {
        self.note(format!("attributes {}", node.0));
        Ok(Attributes {
            born: Some(BORN),
            ..ATTRIBUTES
        })
    }

    fn set_attributes(&self, _: Caller, node: NodeId, changes: &Changes) -> Reply<Attributes> {
        let time = |change: Option<TimeChange>| match change {
            None => "none".to_owned(),
            Some(TimeChange::Now) => "Now".to_owned(),
            Some(TimeChange::To(time)) => format!("{}.{}", time.seconds, time.nanoseconds),
        };
        self.note(format!(
            "set_attributes {} mode {:o} uid {} gid {} size {} accessed {} modified {}{}",
            node.0,
            changes.permissions.unwrap_or_default(),
            changes.uid.unwrap_or_default(),
            changes.gid.unwrap_or_default(),
            changes.size.unwrap_or_default(),
            time(changes.accessed),
            time(changes.modified),
            if changes.kill_privileges { " kill" } else { "" },
        ));
        Ok(ATTRIBUTES)
    }

    fn read_link(&self, _: Caller, node: NodeId) -> Reply<Vec<u8>> {
        self.note(format!("read_link {}", node.0));
        Ok(b"../somewhere".to_vec())
    }

    fn make_node(
        &self,
        _: Caller,
        parent: NodeId,
        name: Name<'_>,
        kind: FileKind,
        permissions: u32,
    ) -> Reply<Entry> {
        self.entry(format!(
            "make_node {} {name:?} {kind:?} {permissions:o}",
            parent.0
        ))
    }

    fn make_directory(&self, _: Caller, parent: NodeId, name: Name<'_>, permissions: u32) -> Reply<Entry> {
        self.entry(format!("make_directory {} {name:?} {permissions:o}", parent.0))
    }

    fn make_symlink(&self, _: Caller, parent: NodeId, name: Name<'_>, text: &CStr) -> Reply<Entry> {
        self.entry(format!("make_symlink {} {name:?} {text:?}", parent.0))
    }

    fn make_link(&self, _: Caller, node: NodeId, parent: NodeId, name: Name<'_>) -> Reply<Entry> {
        self.entry(format!("make_link {} {} {name:?}", node.0, parent.0))
    }

    fn unlink(&self, _: Caller, parent: NodeId, name: Name<'_>) -> Reply<()> {
        self.done(format!("unlink {} {name:?}", parent.0))
    }

    fn remove_directory(&self, _: Caller, parent: NodeId, name: Name<'_>) -> Reply<()> {
        self.done(format!("remove_directory {} {name:?}", parent.0))
    }

    fn rename(
        &self,
        _: Caller,
        from: (NodeId, Name<'_>),
        to: (NodeId, Name<'_>),
        flags: RenameFlags,
    ) -> Reply<()> {
        let flags = flags.bits();
        self.done(format!(
            "rename {} {:?} {} {:?} {flags}",
            from.0.0, from.1, to.0.0, to.1
        ))
    }

    fn create(&self, _: Caller, parent: NodeId, name: Name<'_>, how: CreateHow) -> Reply<Entry> {
        let exclusive = if how.exclusive { " exclusive" } else { "" };
        let truncate = if how.truncate { " truncate" } else { "" };
        self.entry(format!(
            "create {} {name:?} {:o}{exclusive}{truncate}",
            parent.0, how.permissions
        ))
    }

    fn make_temporary(&self, _: Caller, parent: NodeId, permissions: u32) -> Reply<Entry> {
        self.entry(format!("make_temporary {} {permissions:o}", parent.0))
    }

    fn release(&self, node: NodeId) {
        self.note(format!("release {}", node.0));
    }

    fn read(&self, _: Caller, node: NodeId, offset: u64, target: &mut dyn Target) -> Reply<()> {
        self.note(format!("read {} {offset} {}", node.0, target.room()));
        let some = b"content".get(..target.room()).unwrap_or(b"content");
        target.put(some).unwrap();
        Ok(())
    }

    fn write(
        &self,
        _: Caller,
        node: NodeId,
        offset: u64,
        payload: &mut dyn Payload,
        flags: WriteFlags,
    ) -> Reply<usize> {
        let mut data = vec![0; payload.left()];
        let mut len = 0;
        while payload.left() > 0 {
            len += payload.take(&mut data[len..]).unwrap();
        }
        let shown: String = data.iter().take(16).map(|&byte| char::from(byte)).collect();
        let flags: Vec<_> = flags.iter_names().map(|(name, _)| name).collect();
        self.note(format!("write {} {offset} {shown:?} {}", node.0, flags.join(" ")));
        Ok(len)
    }

    fn sync(&self, _: Caller, node: NodeId, data_only: bool) -> Reply<()> {
        self.done(format!(
            "sync {} {}",
            node.0,
            if data_only { "data" } else { "all" }
        ))
    }

    fn sync_all(&self, _: Caller, node: NodeId) -> Reply<()> {
        self.done(format!("sync_all {}", node.0))
    }

    /// `.`, `..`, then `n` and so on for ever, with offsets that count up.
    fn read_directory(
        &self,
        _: Caller,
        node: NodeId,
        offset: u64,
        entries: &mut dyn DirectoryEntries,
    ) -> Reply<()> {
        let how = if entries.wants_entries() { "plus" } else { "plain" };
        self.note(format!("read_directory {} {offset} {how}", node.0));
        for at in offset.. {
            let name = match at {
                0 => b".".to_vec(),
                1 => b"..".to_vec(),
                _ => vec![b'n'; (at as usize - 1).min(255)],
            };
            if !entries.fits(&name) {
                break;
            }
            let added = if entries.wants_entries() {
                entries.add_with_entry(&found(), at + 1, &name)
            } else {
                entries.add(at + 100, at + 1, FileKind::Directory, &name)
            };
            assert!(added, "what fits is added");
        }
        Ok(())
    }

    fn status(&self, _: Caller, node: NodeId) -> Reply<FileSystemStatus> {
        self.note(format!("status {}", node.0));
        Ok(STATUS)
    }

    fn set_xattr(
        &self,
        _: Caller,
        node: NodeId,
        name: Name<'_>,
        value: &[u8],
        flags: XattrFlags,
    ) -> Reply<()> {
        let value: String = value.iter().take(16).map(|&byte| char::from(byte)).collect();
        self.done(format!(
            "set_xattr {} {name:?} {value:?} {}",
            node.0,
            flags.bits()
        ))
    }

    fn xattr(&self, _: Caller, node: NodeId, name: Name<'_>) -> Reply<Vec<u8>> {
        self.note(format!("xattr {} {name:?}", node.0));
        Ok(b"a value".to_vec())
    }

    fn list_xattrs(&self, _: Caller, node: NodeId) -> Reply<Vec<u8>> {
        self.note(format!("list_xattrs {}", node.0));
        Ok(b"user.a\0user.b\0".to_vec())
    }

    fn remove_xattr(&self, _: Caller, node: NodeId, name: Name<'_>) -> Reply<()> {
        self.done(format!("remove_xattr {} {name:?}", node.0))
    }

    fn allocate(&self, _: Caller, node: NodeId, range: (u64, u64), mode: u32) -> Reply<()> {
        self.done(format!("allocate {} {} {} {mode}", node.0, range.0, range.1))
    }

    fn seek(&self, _: Caller, node: NodeId, offset: u64, hole: bool) -> Reply<u64> {
        self.note(format!(
            "seek {} {offset} {}",
            node.0,
            if hole { "hole" } else { "data" }
        ));
        Ok(offset + 1)
    }

    fn copy_range(&self, _: Caller, from: (NodeId, u64), to: (NodeId, u64), len: u64) -> Reply<usize> {
        self.note(format!(
            "copy_range {} {} {} {} {len}",
            from.0.0, from.1, to.0.0, to.1
        ));
        Ok(usize::MAX)
    }
}
