//! All there is to know of a tree, to see whether anybody touched it.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// By path. Taking it changes nothing of it, not even when it was last read.
pub(crate) type Snapshot = BTreeMap<PathBuf, Fact>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fact {
    pub(crate) inode: u64,
    mode: u32,
    owner: (u32, u32),
    links: u64,
    size: u64,
    accessed: (i64, i64),
    modified: (i64, i64),
    changed: (i64, i64),
    content: Vec<u8>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

pub(crate) fn snapshot(root: &Path) -> Snapshot {
    let mut facts = Snapshot::new();
    look(root, &mut facts);
    facts
}

/// Without when it was last read, which looking through a directory changes.
pub(crate) fn unread(root: &Path) -> Snapshot {
    let mut facts = snapshot(root);
    for fact in facts.values_mut() {
        fact.accessed = (0, 0);
    }
    facts
}

/// What has changed, if something has.
pub(crate) fn assert_same(before: &Snapshot, after: &Snapshot, what: &str) {
    for (path, fact) in before {
        assert_eq!(
            after.get(path),
            Some(fact),
            "{what}: {} has changed",
            path.display()
        );
    }
    for path in after.keys() {
        assert!(before.contains_key(path), "{what}: {} is new", path.display());
    }
}

fn look(path: &Path, facts: &mut Snapshot) {
    let stat = fs::symlink_metadata(path).unwrap();
    let mut content = Vec::new();
    if stat.is_file() {
        quiet(path).read_to_end(&mut content).unwrap();
    } else if stat.is_symlink() {
        // Reading a link would touch its time of access; its size and inode tell enough of it.
        content = stat.size().to_string().into_bytes();
    }
    let fact = Fact {
        inode: stat.ino(),
        mode: stat.mode(),
        owner: (stat.uid(), stat.gid()),
        links: stat.nlink(),
        size: stat.size(),
        accessed: (stat.atime(), stat.atime_nsec()),
        modified: (stat.mtime(), stat.mtime_nsec()),
        changed: (stat.ctime(), stat.ctime_nsec()),
        content,
        xattrs: xattrs(path),
    };
    facts.insert(path.to_owned(), fact);
    if stat.is_dir() {
        let directory = rustix::fs::Dir::read_from(quiet(path)).unwrap();
        let names: Vec<_> = directory
            .map(|entry| entry.unwrap().file_name().to_bytes().to_vec())
            .filter(|name| !matches!(name.as_slice(), b"." | b".."))
            .collect();
        for name in names {
            use std::os::unix::ffi::OsStrExt as _;
            look(&path.join(std::ffi::OsStr::from_bytes(&name)), facts);
        }
    }
}

fn quiet(path: &Path) -> fs::File {
    let flags = OFlags::NOATIME | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .unwrap()
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 4096];
    let Ok(n) = rustix::fs::llistxattr(path, &mut names[..]) else {
        return Vec::new();
    };
    names[..n]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 4096];
            let n = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap_or(0);
            (name.to_vec(), value[..n].to_vec())
        })
        .collect()
}
