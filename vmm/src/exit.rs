//! Why the machine ends: the first reason given by any thread is the one.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use rustix::event::{EventfdFlags, eventfd};
use virtio::FailureSink;
use vmm_api::ExitReason;

#[derive(Debug)]
pub(crate) struct Exit {
    reason: Mutex<Option<ExitReason>>,
    event: OwnedFd,
}

impl Exit {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Exit {
            reason: Mutex::new(None),
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    pub(crate) fn because(&self, reason: ExitReason) {
        self.reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(reason);
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    pub(crate) fn reason(&self) -> Option<ExitReason> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Readable once there is a reason.
impl AsFd for Exit {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl FailureSink for Exit {
    fn device_failed(&self, device: &str, reason: &str) {
        self.because(ExitReason::DeviceError {
            text: format!("{device}: {reason}"),
        });
    }
}
