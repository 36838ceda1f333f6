//! A queue as a device's thread holds it: frozen, with its doorbell and its interrupt.

use std::sync::{Arc, atomic::Ordering};

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use crate::{Chain, ChainError, Doorbell, Interrupt};

/// A queue the driver has set up. After an error the queue is broken until a reset: the caller stops
/// serving it, as virtio asks of a device whose driver misbehaves.
#[derive(Debug)]
pub struct DeviceQueue {
    ring: Queue,
    memory: Arc<GuestMemoryMmap>,
    kick: Doorbell,
    interrupt: Arc<dyn Interrupt>,
}

impl DeviceQueue {
    /// `None` when the rings the driver described do not lie in guest memory.
    pub fn new(
        ring: Queue,
        memory: Arc<GuestMemoryMmap>,
        kick: EventFd,
        interrupt: Arc<dyn Interrupt>,
    ) -> Option<Self> {
        ring.is_valid(memory.as_ref()).then_some(DeviceQueue {
            ring,
            memory,
            kick: kick.into(),
            interrupt,
        })
    }

    /// Readable when the driver has rung the doorbell.
    pub fn kick(&self) -> &Doorbell {
        &self.kick
    }

    pub fn memory(&self) -> &Arc<GuestMemoryMmap> {
        &self.memory
    }

    pub fn size(&self) -> u16 {
        self.ring.size()
    }

    /// Takes the next request into `chain`; false when there is none. A request taken must be answered
    /// with [`Self::push`] sooner or later.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        let memory = self.memory.as_ref();
        let mut requests = self.ring.iter(memory).map_err(QueueError::Ring)?;
        match requests.next() {
            Some(descriptors) => {
                chain.fill(memory, descriptors).map_err(QueueError::Chain)?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Puts back the request that [`Self::pop`] returned last, unanswered.
    pub fn unpop(&mut self) {
        self.ring.go_to_previous_position();
    }

    /// How many requests wait, as the driver last said; bounded by the queue's size.
    pub fn waiting(&self) -> Result<u16, QueueError> {
        let index = self
            .ring
            .avail_idx(self.memory.as_ref(), Ordering::Acquire)
            .map_err(QueueError::Ring)?;
        let waiting = index.0.wrapping_sub(self.ring.next_avail());
        if waiting > self.ring.size() {
            return Err(QueueError::Ring(virtio_queue::Error::InvalidAvailRingIndex));
        }
        Ok(waiting)
    }

    /// Answers the request with this head; `written` bytes of its writable part were filled.
    pub fn push(&mut self, head: u16, written: u32) -> Result<(), QueueError> {
        self.ring
            .add_used(self.memory.as_ref(), head, written)
            .map_err(QueueError::Ring)
    }

    /// Interrupts the driver if it wants to hear of the answers pushed since the last call.
    pub fn signal(&mut self) -> Result<(), QueueError> {
        if self
            .ring
            .needs_notification(self.memory.as_ref())
            .map_err(QueueError::Ring)?
        {
            self.interrupt.signal();
        }
        Ok(())
    }

    /// Asks the driver not to ring while requests are being taken anyway.
    pub fn mute(&mut self) -> Result<(), QueueError> {
        self.ring
            .disable_notification(self.memory.as_ref())
            .map_err(QueueError::Ring)
    }

    /// Asks the driver to ring again; true when requests came in meanwhile and must be looked at now.
    pub fn unmute(&mut self) -> Result<bool, QueueError> {
        self.ring
            .enable_notification(self.memory.as_ref())
            .map_err(QueueError::Ring)
    }
}

/// The driver broke the rules of the ring.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error("broken ring")]
    Ring(#[source] virtio_queue::Error),
    #[error("broken descriptor chain")]
    Chain(#[source] ChainError),
}

#[cfg(test)]
mod tests;
