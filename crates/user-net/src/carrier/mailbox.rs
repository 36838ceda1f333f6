//! Where another thread leaves a new link.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::event::{EventfdFlags, eventfd};

/// Gives a [`crate::Carrier`] its links, from any thread.
#[derive(Clone, Debug)]
pub struct Links(Arc<Shared>);

/// The carrier's half.
#[derive(Debug)]
pub(super) struct Mailbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// A link that nobody took before the next came was of no use.
    next: Mutex<Option<OwnedFd>>,
    bell: OwnedFd,
}

pub(super) fn pair() -> io::Result<(Mailbox, Links)> {
    let shared = Arc::new(Shared {
        next: Mutex::new(None),
        bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
    });
    Ok((Mailbox(Arc::clone(&shared)), Links(shared)))
}

impl Links {
    /// `link` takes the place of the one before, whose flows are broken.
    pub fn replace(&self, link: OwnedFd) {
        *self.0.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(link);
        // Fails only when it is ringing already.
        let _ = rustix::io::write(&self.0.bell, &1u64.to_ne_bytes());
    }
}

impl Mailbox {
    pub(super) fn take(&self) -> Option<OwnedFd> {
        let _ = rustix::io::read(&self.0.bell, &mut [0; 8]);
        self.0.next.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.bell.as_fd()
    }
}
