//! The only way in which anything of a folder is opened.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
};

/// Not up, not through a symbolic link of any kind, not onto another mount.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// A FIFO or a device that takes a file's place meanwhile must not hold the thread up.
const ALWAYS: OFlags = OFlags::CLOEXEC
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NOCTTY)
    .union(OFlags::NONBLOCK);

/// The kernel gives up, and may be asked again, when directories are renamed while it resolves.
const TRIES: usize = 8;

/// Opens one name in a directory.
pub(crate) fn open(
    directory: BorrowedFd<'_>,
    name: &[u8],
    flags: OFlags,
    mode: u32,
) -> Result<OwnedFd, Errno> {
    let mode = Mode::from_raw_mode(mode);
    // O_PATH takes few other flags, and with O_NOFOLLOW opens a symbolic link itself: that is not a link resolved.
    let flags = if flags.contains(OFlags::PATH) {
        flags | OFlags::CLOEXEC | OFlags::NOFOLLOW
    } else {
        flags | ALWAYS
    };
    let mut tries = TRIES;
    loop {
        tries -= 1;
        match rustix::fs::openat2(directory, name, flags, mode, RESOLVE) {
            Err(Errno::AGAIN | Errno::INTR) if tries > 0 => {}
            other => return other,
        }
    }
}
