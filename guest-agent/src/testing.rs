//! What the tests of several modules need.
#![allow(unsafe_code, reason = "namespaces of a test's own have no safe wrapper")]

use std::{fs::File, io, os::fd::AsRawFd, path::Path};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

/// Gives the thread of this test, and those it starts, mounts of their own. `false`, with the reason said,
/// when the machine does not let us.
pub(crate) fn private_mounts() -> bool {
    // SAFETY: takes numbers only.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } < 0 {
        skipped::because(format_args!("no mount namespace: {}", io::Error::last_os_error()));
        return false;
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    true
}

/// Gives the thread of this test a network of its own. `false`, with the reason said, when the machine does not let us.
pub(crate) fn private_network() -> bool {
    // SAFETY: takes numbers only.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
        skipped::because(format_args!(
            "no network namespace: {}",
            io::Error::last_os_error()
        ));
        return false;
    }
    true
}

pub(crate) fn mount_tmpfs(at: &Path) {
    mount("tmpfs", at, "tmpfs", MountFlags::NODEV, c"").unwrap();
}

/// A share whose host never answers, as long as the file returned is open.
pub(crate) fn mount_dead_share(at: &Path) -> File {
    let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let options = std::ffi::CString::new(options).unwrap();
    mount("dead", at, "fuse", MountFlags::NODEV, options.as_c_str()).unwrap();
    device
}
