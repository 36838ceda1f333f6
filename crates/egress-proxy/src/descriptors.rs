//! What this process was given, and nothing else.
#![allow(
    unsafe_code,
    reason = "descriptors that were inherited have no owner until one is named"
)]

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

use egress_policy::control::LINK_DESCRIPTOR;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes the link and closes whatever else was left open by mistake. Called once, before anything is opened.
pub(crate) fn link() -> io::Result<OwnedFd> {
    close_from(LINK_DESCRIPTOR.saturating_add(1))?;
    // SAFETY: `fcntl` with F_GETFD reads no memory and takes any number for a descriptor.
    if unsafe { libc::fcntl(LINK_DESCRIPTOR, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, as was just seen; it was inherited, so nothing else in this process owns it.
    let link = unsafe { OwnedFd::from_raw_fd(LINK_DESCRIPTOR) };
    rustix::io::fcntl_setfd(&link, rustix::io::FdFlags::CLOEXEC)?;
    Ok(link)
}

fn close_from(first: RawFd) -> io::Result<()> {
    let first = first.unsigned_abs();
    // SAFETY: `close_range` reads no memory; nothing in this process has opened a descriptor yet that it could lose.
    match unsafe { libc::close_range(first, libc::c_uint::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A guest may have a thousand flows, each with two descriptors; the usual soft limit would end them at five hundred.
pub(crate) fn allow_all() {
    let limit = getrlimit(Resource::Nofile);
    // Not being allowed what the hard limit allows is no reason not to start.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
}
