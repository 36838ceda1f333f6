//! Another way into a folder, which only its owner has.
//!
//! A mount of the same file system that is nowhere in the tree: what is open through it does not keep the
//! folder from being unmounted, and it is writable where the folder's own mount says read-only, which is
//! how a read-only folder gets its file events.
#![allow(unsafe_code, reason = "mount_setattr has no safe wrapper")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    mount::{OpenTreeFlags, open_tree},
};

#[derive(Debug)]
pub(crate) struct SideDoor {
    root: OwnedFd,
    /// The mount lives as long as this.
    _tree: OwnedFd,
}

impl SideDoor {
    /// Never follows a link that stands in the place of the folder.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_SYMLINK_NOFOLLOW
            | OpenTreeFlags::AT_NO_AUTOMOUNT;
        let tree = open_tree(CWD, folder, flags)?;
        make_writable(&tree)?;
        let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(&tree, ".", directory, Mode::empty())?;
        Ok(SideDoor { root, _tree: tree })
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// `struct mount_attr`
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const READ_ONLY: u64 = 1;

fn make_writable(tree: &OwnedFd) -> io::Result<()> {
    let attributes = MountAttributes {
        set: 0,
        clear: READ_ONLY,
        propagation: 0,
        user_namespace: 0,
    };
    // SAFETY: the empty path is a C string, and `attributes` is laid out as the kernel wants it, has the
    // size we say, and outlives the call, which only reads it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
