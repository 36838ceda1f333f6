//! The way to the host: a stream socket, dialed from here.
#![allow(
    unsafe_code,
    reason = "no safe wrapper of ours knows the addresses of AF_VSOCK"
)]

use std::{
    io, mem,
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::Duration,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::log;

/// The first pause between attempts; doubled up to [`SLOWEST`]. The transport comes up within
/// milliseconds of its driver, so the first attempts are close together.
const QUICKEST: Duration = Duration::from_millis(1);

/// A host that is not there is asked once a second, for as long as the machine runs.
const SLOWEST: Duration = Duration::from_secs(1);

pub trait Dialer: Send + Sync {
    fn dial(&self) -> io::Result<OwnedFd>;
}

/// The host at the other end of the machine's vsock device.
#[derive(Clone, Copy, Debug)]
pub struct HostVsock;

impl Dialer for HostVsock {
    fn dial(&self) -> io::Result<OwnedFd> {
        let socket = socket_with(
            AddressFamily::VSOCK,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        // SAFETY: `sockaddr_vm` is plain integers, for which zero is a value.
        let mut address: libc::sockaddr_vm = unsafe { mem::zeroed() };
        address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
        address.svm_cid = libc::VMADDR_CID_HOST;
        address.svm_port = agent_protocol::PORT;
        // SAFETY: the pointer is to a whole `sockaddr_vm` that outlives the call, the length is its
        // own, and the descriptor is open.
        let result = unsafe {
            libc::connect(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                mem::size_of::<libc::sockaddr_vm>() as libc::socklen_t,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(socket)
    }
}

/// Pauses that grow from [`QUICKEST`] to [`SLOWEST`].
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Self {
        Backoff(QUICKEST)
    }

    pub(crate) fn pause(&mut self) {
        thread::sleep(self.0);
        self.0 = (self.0 * 2).min(SLOWEST);
    }
}

pub(crate) fn dial_until_answered(dialer: &dyn Dialer) -> OwnedFd {
    let mut backoff = Backoff::new();
    let mut told = false;
    loop {
        match dialer.dial() {
            Ok(socket) => return socket,
            Err(error) if backoff.0 == SLOWEST && !told => {
                told = true;
                log::warn(format_args!("host does not answer, asking on: {error}"));
            }
            Err(_) => {}
        }
        backoff.pause();
    }
}
