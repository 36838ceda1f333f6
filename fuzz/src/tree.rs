//! All there is to know of a tree. Looking at it changes nothing of it, not even when it was last read.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

/// What is looked at of a file's content; the files of these trees are shorter, but for what the guest makes.
const CONTENT: u64 = 64 << 10;

/// By the names on the way.
pub(crate) type Tree = BTreeMap<Vec<Vec<u8>>, Fact>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fact {
    pub(crate) inode: u64,
    /// With its type.
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) links: u64,
    pub(crate) size: u64,
    pub(crate) accessed: (i64, u64),
    pub(crate) modified: (i64, u64),
    pub(crate) changed: (i64, u64),
    pub(crate) content: Vec<u8>,
    pub(crate) xattrs: Vec<u8>,
}

impl Fact {
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    pub(crate) fn is_file(&self) -> bool {
        self.kind() == FileType::RegularFile
    }

    /// Without what reading changes.
    pub(crate) fn unread(&self) -> Fact {
        Fact {
            accessed: (0, 0),
            ..self.clone()
        }
    }

    /// What a guest must not change of a file: everything but its number, and what comes of being moved, linked or
    /// read.
    pub(crate) fn substance(&self) -> Fact {
        Fact {
            links: 0,
            accessed: (0, 0),
            changed: (0, 0),
            ..self.clone()
        }
    }
}

/// Everything below a directory, which is left out itself.
pub(crate) fn look(root: BorrowedFd<'_>) -> Tree {
    let mut tree = Tree::new();
    let root = open(root, b".", OFlags::DIRECTORY).expect("the tree is there");
    look_below(&root, &mut Vec::new(), &mut tree);
    tree
}

fn look_below(directory: &OwnedFd, path: &mut Vec<Vec<u8>>, tree: &mut Tree) {
    for name in names(directory) {
        path.push(name);
        let name = path.last().expect("it was pushed");
        if let Some(fact) = fact(directory.as_fd(), name) {
            let below = (fact.kind() == FileType::Directory)
                .then(|| open(directory.as_fd(), name, OFlags::DIRECTORY))
                .flatten();
            tree.insert(path.clone(), fact);
            if let Some(below) = below {
                look_below(&below, path, tree);
            }
        }
        path.pop();
    }
}

/// Removes everything below a directory.
pub(crate) fn clear(directory: BorrowedFd<'_>) {
    for name in names(&open(directory, b".", OFlags::DIRECTORY).expect("the tree is there")) {
        let name = name.as_slice();
        if rustix::fs::unlinkat(directory, name, AtFlags::empty()).is_ok() {
            continue;
        }
        // Whatever its permissions are, it is ours.
        let _ = rustix::fs::chmodat(directory, name, Mode::RWXU, AtFlags::empty());
        let below = open(directory, name, OFlags::DIRECTORY).expect("a directory can be opened");
        clear(below.as_fd());
        rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR).expect("an empty directory goes");
    }
}

fn names(directory: &OwnedFd) -> Vec<Vec<u8>> {
    Dir::read_from(directory)
        .expect("a directory can be read")
        .map(|entry| {
            entry
                .expect("a directory can be read")
                .file_name()
                .to_bytes()
                .to_vec()
        })
        .filter(|name| !matches!(name.as_slice(), b"." | b".."))
        .collect()
}

fn fact(directory: BorrowedFd<'_>, name: &[u8]) -> Option<Fact> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let (mut content, mut xattrs) = (Vec::new(), Vec::new());
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            // Not one whose permissions forbid it to who is not root.
            if let Some(file) = open(directory, name, OFlags::empty()) {
                content = read(&file, stat.st_size.cast_unsigned());
                xattrs = attributes_of(&file);
            }
        }
        FileType::Symlink => {
            // Its length tells a link apart well enough; reading it would be noticed.
            content = stat.st_size.to_string().into_bytes();
        }
        _ => {}
    }
    Some(Fact {
        inode: stat.st_ino,
        mode: stat.st_mode,
        owner: (stat.st_uid, stat.st_gid),
        links: stat.st_nlink,
        size: stat.st_size.cast_unsigned(),
        accessed: (stat.st_atime, stat.st_atime_nsec),
        modified: (stat.st_mtime, stat.st_mtime_nsec),
        changed: (stat.st_ctime, stat.st_ctime_nsec),
        content,
        xattrs,
    })
}

fn open(directory: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> Option<OwnedFd> {
    let flags = flags | OFlags::NOATIME | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty()).ok()
}

fn read(file: &OwnedFd, size: u64) -> Vec<u8> {
    let mut content = vec![0; size.min(CONTENT) as usize];
    let len = rustix::io::pread(file, &mut content[..], 0).unwrap_or(0);
    content.truncate(len);
    content
}

fn attributes_of(file: &OwnedFd) -> Vec<u8> {
    let mut names = [0; 4096];
    let len = rustix::fs::flistxattr(file, &mut names[..]).unwrap_or(0);
    names[..len].to_vec()
}
