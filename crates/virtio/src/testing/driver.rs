//! A driver under a test's control: lays out a queue in guest memory, rightly or wrongly.

use std::sync::{
    Arc,
    atomic::{Ordering, fence},
};

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::{
    Queue, QueueT,
    desc::{RawDescriptor, split::Descriptor},
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::CountedInterrupt;
use crate::DeviceQueue;

pub(crate) const NEXT: u16 = VRING_DESC_F_NEXT as u16;
pub(crate) const WRITE: u16 = VRING_DESC_F_WRITE as u16;
pub(crate) const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

/// Guest RAM of `bytes` from address zero.
pub(crate) fn guest_memory(bytes: usize) -> Arc<GuestMemoryMmap> {
    Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), bytes)]).unwrap())
}

/// A buffer the driver offers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
}

pub(crate) fn readable(address: u64, len: u32) -> Piece {
    Piece {
        address,
        len,
        flags: 0,
    }
}

pub(crate) fn writable(address: u64, len: u32) -> Piece {
    Piece {
        address,
        len,
        flags: WRITE,
    }
}

/// A queue in guest memory, from `base` on: descriptors, then the ring of available ones, then of used
/// ones; under 32 bytes for each entry.
pub(crate) struct DriverQueue {
    pub(crate) memory: Arc<GuestMemoryMmap>,
    pub(crate) interrupt: Arc<CountedInterrupt>,
    kick: EventFd,
    base: u64,
    size: u16,
    event_idx: bool,
    next_descriptor: u16,
    avail: u16,
    seen: u16,
}

impl DriverQueue {
    pub(crate) fn new(memory: &Arc<GuestMemoryMmap>, base: u64, size: u16) -> Self {
        DriverQueue {
            memory: Arc::clone(memory),
            interrupt: Arc::default(),
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
            base,
            size,
            event_idx: false,
            next_descriptor: 0,
            avail: 0,
            seen: 0,
        }
    }

    pub(crate) fn with_event_idx(mut self) -> Self {
        self.event_idx = true;
        self
    }

    /// The device's end.
    pub(crate) fn device(&self) -> DeviceQueue {
        let mut ring = Queue::new(self.size).unwrap();
        ring.set_size(self.size);
        ring.set_desc_table_address(Some(self.base as u32), Some(0));
        ring.set_avail_ring_address(Some(self.avail_ring() as u32), Some(0));
        ring.set_used_ring_address(Some(self.used_ring() as u32), Some(0));
        ring.set_event_idx(self.event_idx);
        ring.set_ready(true);
        let kick = self.kick.try_clone().unwrap();
        let interrupt = Arc::clone(&self.interrupt);
        DeviceQueue::new(ring, Arc::clone(&self.memory), kick, interrupt).unwrap()
    }

    /// Offers a well-formed chain of these buffers; returns its head.
    pub(crate) fn offer(&mut self, pieces: &[Piece]) -> u16 {
        let head = self.next_descriptor;
        for (index, piece) in pieces.iter().enumerate() {
            let at = self.next_descriptor;
            self.next_descriptor = (at + 1) % self.size;
            let more = if index + 1 < pieces.len() { NEXT } else { 0 };
            self.describe(at, *piece, piece.flags | more, self.next_descriptor);
        }
        self.offer_head(head);
        head
    }

    /// Writes one descriptor of the table as it is.
    pub(crate) fn describe(&self, index: u16, piece: Piece, flags: u16, next: u16) {
        let at = self.base + u64::from(index) * 16;
        describe_at(&self.memory, at, piece, flags, next);
    }

    /// Makes a chain available by its head, whatever that is.
    pub(crate) fn offer_head(&mut self, head: u16) {
        let slot = self.avail_ring() + 4 + u64::from(self.avail % self.size) * 2;
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        self.avail = self.avail.wrapping_add(1);
        self.set_avail_index(self.avail);
    }

    pub(crate) fn set_avail_index(&self, index: u16) {
        let at = GuestAddress(self.avail_ring() + 2);
        self.memory.write_obj(index, at).unwrap();
    }

    /// When the driver wants to be interrupted next, with the event-index feature.
    pub(crate) fn set_used_event(&self, index: u16) {
        let at = self.avail_ring() + 4 + u64::from(self.size) * 2;
        self.memory.write_obj(index, GuestAddress(at)).unwrap();
    }

    /// Whether the device wants to be told of the chain offered last.
    pub(crate) fn must_kick(&self) -> bool {
        fence(Ordering::SeqCst);
        let at = if self.event_idx {
            self.used_ring() + 4 + u64::from(self.size) * 8
        } else {
            self.used_ring()
        };
        let word: u16 = self.memory.read_obj(GuestAddress(at)).unwrap();
        match self.event_idx {
            true => word == self.avail.wrapping_sub(1),
            false => word & 1 == 0,
        }
    }

    pub(crate) fn kick(&self) {
        self.kick.write(1).unwrap();
    }

    /// Whether the doorbell rings, and no longer.
    pub(crate) fn kicked(&self) -> bool {
        self.kick.read().is_ok()
    }

    /// The next answer: its head and how many bytes it says were written.
    pub(crate) fn used(&mut self) -> Option<(u16, u32)> {
        let index: u16 = self.memory.read_obj(GuestAddress(self.used_ring() + 2)).unwrap();
        if index == self.seen {
            return None;
        }
        let slot = self.used_ring() + 4 + u64::from(self.seen % self.size) * 8;
        self.seen = self.seen.wrapping_add(1);
        let [head, written]: [u32; 2] = self.memory.read_obj(GuestAddress(slot)).unwrap();
        Some((head as u16, written))
    }

    fn avail_ring(&self) -> u64 {
        self.base + 16 * u64::from(self.size)
    }

    fn used_ring(&self) -> u64 {
        (self.avail_ring() + 6 + 2 * u64::from(self.size)).next_multiple_of(4)
    }
}

/// Writes a descriptor anywhere, for tables of indirect ones.
pub(crate) fn describe_at(memory: &GuestMemoryMmap, at: u64, piece: Piece, flags: u16, next: u16) {
    let descriptor = Descriptor::new(piece.address, piece.len, flags, next);
    memory
        .write_obj(RawDescriptor::from(descriptor), GuestAddress(at))
        .unwrap();
}
