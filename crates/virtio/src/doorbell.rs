//! A queue's doorbell as the device's thread holds it.

#![allow(
    unsafe_code,
    reason = "an EventFd, which KVM wants, can be turned into an owned descriptor only through its number"
)]

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use vmm_sys_util::eventfd::EventFd;

/// Readable when the driver has rung, until [`Self::hush`].
#[derive(Debug)]
pub struct Doorbell(OwnedFd);

impl Doorbell {
    /// Rings as the driver would, for work left over.
    pub fn ring(&self) {
        // It fails only when the counter is full, and then the bell is ringing anyway.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Takes note of the ringing so far. Never waits: the transport makes the descriptor non-blocking.
    pub fn hush(&self) {
        // It fails only when nobody has rung.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl From<EventFd> for Doorbell {
    fn from(event: EventFd) -> Self {
        // SAFETY: `into_raw_fd` hands over an open descriptor that nothing else closes.
        Doorbell(unsafe { OwnedFd::from_raw_fd(event.into_raw_fd()) })
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
