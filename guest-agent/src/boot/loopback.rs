//! The loopback interface: a machine without a network still talks to itself.
#![allow(unsafe_code, reason = "interface flags are an ioctl without a safe wrapper")]

use std::{io, mem, os::fd::AsRawFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::log;

/// Without it nothing here fails but what wants to talk to itself.
pub fn bring_up() {
    if let Err(error) = set_up() {
        log::warn(format_args!("cannot bring up the loopback interface: {error}"));
    }
}

fn set_up() -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: `ifreq` is integers in a union, for which zero is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request is a whole `ifreq` that outlives the call, as SIOCSIFFLAGS wants it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
