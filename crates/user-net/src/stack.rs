//! The gateway: where a frame goes, and what comes back.

use std::time::Instant;

use egress_policy::{HostName, Target, link};

use crate::Offloads;

/// Names a TCP flow. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub u64);

/// Names a DNS question that waits for a verdict. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryId(pub u64);

/// What the stack wants of whoever drives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// May the guest know this name? Answer with [`Stack::name_decided`].
    Name {
        query: QueryId,
        name: HostName,
        protocol: link::Protocol,
        /// The guest's.
        port: u16,
    },
    /// The guest wants a connection. Answer with [`Stack::accept`] or [`Stack::refuse`].
    Open {
        flow: FlowId,
        source: u16,
        target: Target,
        port: u16,
    },
    /// [`Stack::unread`] has something new, or the guest's end came ([`Stack::guest_finished`]).
    Readable(FlowId),
    /// [`Stack::room`] has become larger after it was nothing.
    Writable(FlowId),
    /// The flow is gone, in order or not; its number means nothing any more.
    Closed { flow: FlowId, broken: bool },
    Dropped(link::Dropped),
}

/// The far end of the guest's cable, without I/O.
#[derive(Debug)]
pub struct Stack {}

impl Stack {
    pub fn new(_offloads: Offloads, _now: Instant) -> Self {
        Stack {}
    }

    /// A frame of the guest.
    pub fn receive(&mut self, _frame: &[u8], _now: Instant) {}

    /// Writes the next frame for the guest to the end of `frame`; false when there is none.
    pub fn transmit(&mut self, _frame: &mut Vec<u8>, _now: Instant) -> bool {
        false
    }

    pub fn next_event(&mut self) -> Option<Event> {
        None
    }

    /// When [`Self::expire`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    pub fn expire(&mut self, _now: Instant) {}

    /// The answer to [`Event::Name`]: an address of the pool, or that there is no such name.
    pub fn name_decided(&mut self, _query: QueryId, _allowed: bool, _now: Instant) {}

    /// The far end stands: finish the handshake with the guest.
    pub fn accept(&mut self, _flow: FlowId, _now: Instant) {}

    /// RST to the guest, at once; before the flow was accepted or after.
    pub fn refuse(&mut self, _flow: FlowId, _now: Instant) {}

    /// Bytes of the guest that were not taken yet, as far as they lie together.
    pub fn unread(&mut self, _flow: FlowId) -> &[u8] {
        &[]
    }

    /// `count` of the unread bytes are delivered.
    pub fn consume(&mut self, _flow: FlowId, _count: usize, _now: Instant) {}

    /// The guest has said all it has to say, and all of it is consumed.
    pub fn guest_finished(&self, _flow: FlowId) -> bool {
        false
    }

    /// Where bytes for the guest can be put, as far as it lies together.
    pub fn room(&mut self, _flow: FlowId) -> &mut [u8] {
        &mut []
    }

    /// `count` bytes were put into [`Self::room`].
    pub fn produced(&mut self, _flow: FlowId, _count: usize, _now: Instant) {}

    /// The far end has said all it has to say: FIN to the guest after what is buffered.
    pub fn finish(&mut self, _flow: FlowId, _now: Instant) {}
}
