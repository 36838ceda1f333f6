//! A queue as a device's thread holds it: frozen, with its doorbell and its interrupt.

use std::sync::{
    Arc,
    atomic::{Ordering, fence},
};

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};
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
    /// How far the used ring was when the driver was last told of it, or would have been had it wanted to be.
    told: u16,
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
            told: ring.next_used(),
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
        self.push_together([(head, written)])
    }

    /// Answers several requests, each as [`Self::push`] does, that the driver must see at once or not at all. There
    /// are no more of them than the queue is long.
    pub fn push_together(&mut self, answers: impl IntoIterator<Item = (u16, u32)>) -> Result<(), QueueError> {
        let memory = self.memory.as_ref();
        let mut next = self.ring.next_used();
        for (head, written) in answers {
            if head >= self.ring.size() {
                return Err(QueueError::Ring(virtio_queue::Error::InvalidDescriptorIndex));
            }
            let slot = USED_RING + USED_ELEMENT * u64::from(next % self.ring.size());
            let element = [u32::from(head).to_le(), written.to_le()];
            memory
                .write_obj(element, at(self.ring.used_ring(), slot)?)
                .map_err(unreachable)?;
            next = next.wrapping_add(1);
        }
        self.ring.set_next_used(next);
        memory
            .store(
                next.to_le(),
                at(self.ring.used_ring(), USED_INDEX)?,
                Ordering::Release,
            )
            .map_err(unreachable)
    }

    /// Interrupts the driver if it wants to hear of the answers pushed since the last call.
    pub fn signal(&mut self) -> Result<(), QueueError> {
        if self.is_awaited()? {
            self.interrupt.signal();
        }
        Ok(())
    }

    /// True when the answer the driver waits for is among those pushed since the last call.
    fn is_awaited(&mut self) -> Result<bool, QueueError> {
        let end = self.ring.next_used();
        let start = std::mem::replace(&mut self.told, end);
        if !self.ring.event_idx_enabled() {
            return Ok(true);
        }
        // The driver says what it waits for, then looks at the index: we do it the other way round.
        fence(Ordering::SeqCst);
        let slot = AVAIL_RING + AVAIL_ELEMENT * u64::from(self.ring.size());
        let awaited: u16 = self
            .memory
            .load(at(self.ring.avail_ring(), slot)?, Ordering::Relaxed)
            .map_err(unreachable)?;
        let ahead = end.wrapping_sub(u16::from_le(awaited)).wrapping_sub(1);
        Ok(ahead < end.wrapping_sub(start))
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

/// Where an available ring has its elements, and their size; behind the last is what the driver waits for.
const AVAIL_RING: u64 = 4;
const AVAIL_ELEMENT: u64 = 2;
/// Where a used ring has its index and its elements, and their size.
const USED_INDEX: u64 = 2;
const USED_RING: u64 = 4;
const USED_ELEMENT: u64 = 8;

fn at(ring: u64, offset: u64) -> Result<GuestAddress, QueueError> {
    ring.checked_add(offset)
        .map(GuestAddress)
        .ok_or(QueueError::Ring(virtio_queue::Error::AddressOverflow))
}

fn unreachable(error: GuestMemoryError) -> QueueError {
    QueueError::Ring(virtio_queue::Error::GuestMemory(error))
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
