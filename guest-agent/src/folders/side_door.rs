//! Another way into a folder, which only its owner has.
//!
//! A mount of the same file system that is nowhere in the tree: what is open through it does not keep the
//! folder from being unmounted, and it is writable where the folder's own mount says read-only, which is
//! how a read-only folder gets its file events.
#![allow(
    unsafe_code,
    reason = "mount_setattr and open_by_handle_at have no safe wrapper"
)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    mount::{OpenTreeFlags, open_tree},
};

/// What the kernel takes for a handle (`MAX_HANDLE_SZ`).
pub(crate) const MAX_HANDLE: usize = 128;

#[derive(Debug)]
pub(crate) struct SideDoor {
    root: OwnedFd,
    /// The mount lives as long as this.
    _tree: OwnedFd,
}

/// A file as a file system names it to the kernel itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    pub(crate) kind: i32,
    pub(crate) bytes: Vec<u8>,
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

    /// A file the kernel has in memory, by its handle, without opening the file itself.
    pub(crate) fn find(&self, handle: &Handle) -> io::Result<OwnedFd> {
        let mut raw = RawHandle {
            len: u32::try_from(handle.bytes.len()).map_err(io::Error::other)?,
            kind: handle.kind,
            bytes: [0; MAX_HANDLE],
        };
        match raw.bytes.get_mut(..handle.bytes.len()) {
            Some(room) => room.copy_from_slice(&handle.bytes),
            None => return Err(io::ErrorKind::InvalidInput.into()),
        }
        let flags = libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW;
        // SAFETY: `raw` is laid out as `struct file_handle`, outlives the call, and holds `len` bytes: they
        // were just copied into room of `MAX_HANDLE`.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                self.root.as_raw_fd(),
                &raw mut raw,
                flags,
            )
        };
        let fd = i32::try_from(checked(fd)?).map_err(io::Error::other)?;
        // SAFETY: the kernel has just made this descriptor for us, and nothing else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

#[repr(C)]
struct RawHandle {
    len: u32,
    kind: i32,
    bytes: [u8; MAX_HANDLE],
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
    checked(result).map(drop)
}

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
