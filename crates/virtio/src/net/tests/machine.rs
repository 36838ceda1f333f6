//! A guest's driver and its card.

use std::{collections::HashMap, sync::Arc};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{super::frame::HEADER_LEN, FarEnd, Net, NetWorker, worker};
use crate::{
    Activation, Device, QueueError,
    testing::{
        CountedInterrupt, KeptFailures,
        driver::{DriverQueue, Piece, guest_memory, readable, writable},
    },
};

const RX_BASE: u64 = 0;
const TX_BASE: u64 = 0x8000;
const TX_BUFFERS: u64 = 0x2_0000;
/// Room of each transmit buffer.
const TX_STRIDE: u64 = 0x800;
const RX_BUFFERS: u64 = 0x10_0000;
pub(super) const RX_SIZE: u16 = 128;
const TX_SIZE: u16 = 128;
const RAM: usize = 0x100_0000;

pub(super) struct Machine {
    pub(super) memory: Arc<GuestMemoryMmap>,
    pub(super) rx: DriverQueue,
    pub(super) tx: DriverQueue,
    pub(super) far_end: FarEnd,
    pub(super) failures: Arc<KeptFailures>,
    card: Option<Net>,
    worker: Option<NetWorker>,
    features: u64,
    /// Receive buffers by the head they were offered under.
    offered: HashMap<u16, Vec<Piece>>,
    next_buffer: u64,
    sent: u64,
}

/// A frame as the driver got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) header: [u8; HEADER_LEN],
    pub(super) frame: Vec<u8>,
    pub(super) buffers: usize,
}

impl Machine {
    /// With a card and its thread.
    pub(super) fn new(features: u64) -> Self {
        let far_end = FarEnd::new();
        let card = Net::new(far_end.network());
        Machine::with_card(card, far_end, features)
    }

    pub(super) fn with_card(card: Net, far_end: FarEnd, features: u64) -> Self {
        Machine::idle(far_end, features).with_thread(card)
    }

    /// With one interrupt for both queues, perhaps by index.
    pub(super) fn sparing(far_end: FarEnd, features: u64, event_idx: bool) -> Self {
        let card = Net::new(far_end.network());
        let mut machine = Machine::idle(far_end, features);
        machine.tx.interrupt = Arc::clone(&machine.rx.interrupt);
        if event_idx {
            machine.rx = machine.rx.with_event_idx();
            machine.tx = machine.tx.with_event_idx();
        }
        machine.with_thread(card)
    }

    fn with_thread(self, mut card: Net) -> Self {
        let mut machine = self;
        let activation = Activation {
            memory: Arc::clone(&machine.memory),
            features: machine.features,
            queues: vec![machine.rx.device(), machine.tx.device()],
            config_changed: Arc::new(CountedInterrupt::default()),
            failures: machine.failures.clone(),
        };
        card.activate(activation).unwrap();
        machine.card = Some(card);
        machine
    }

    /// Without; [`Self::turn`] does what there is to do.
    pub(super) fn idle(far_end: FarEnd, features: u64) -> Self {
        let memory = guest_memory(RAM);
        Machine {
            rx: DriverQueue::new(&memory, RX_BASE, RX_SIZE),
            tx: DriverQueue::new(&memory, TX_BASE, TX_SIZE),
            memory,
            far_end,
            failures: Arc::default(),
            card: None,
            worker: None,
            features,
            offered: HashMap::new(),
            next_buffer: RX_BUFFERS,
            sent: 0,
        }
    }

    pub(super) fn turn(&mut self) -> Result<(), QueueError> {
        let (rx, tx, far_end) = (&self.rx, &self.tx, &self.far_end);
        let worker = self
            .worker
            .get_or_insert_with(|| worker(rx, tx, far_end, self.features));
        worker.turn()
    }

    pub(super) fn into_card(self) -> Net {
        assert!(self.failures.0.lock().unwrap().is_empty());
        self.card.unwrap()
    }

    /// Offers a receive buffer in pieces of these lengths.
    pub(super) fn offer(&mut self, lens: &[u32]) -> u16 {
        let mut pieces = Vec::new();
        for len in lens {
            if self.next_buffer + u64::from(*len) > RAM as u64 {
                self.next_buffer = RX_BUFFERS;
            }
            pieces.push(writable(self.next_buffer, *len));
            self.next_buffer += u64::from(*len);
        }
        let head = self.rx.offer(&pieces);
        self.offered.insert(head, pieces);
        head
    }

    pub(super) fn offer_many(&mut self, count: usize, len: u32) {
        for _ in 0..count {
            self.offer(&[len]);
        }
        self.rx.kick();
    }

    /// Sends a frame behind an empty header, waits until it was taken.
    pub(super) fn transmit(&mut self, frame: &[u8]) {
        let seen = self.tx.interrupt.count();
        self.queue_frame(&[0; HEADER_LEN], frame);
        self.tx.kick();
        self.tx.interrupt.wait_for(seen + 1);
        assert_eq!(self.tx.used().map(|(_, written)| written), Some(0));
    }

    /// Puts a frame into the transmit queue, header and frame in a piece each.
    pub(super) fn queue_frame(&mut self, header: &[u8], frame: &[u8]) {
        let at = TX_BUFFERS + self.sent % u64::from(TX_SIZE) * TX_STRIDE;
        self.sent += 1;
        let behind = at + header.len() as u64;
        self.memory.write_slice(header, GuestAddress(at)).unwrap();
        self.memory.write_slice(frame, GuestAddress(behind)).unwrap();
        self.tx.offer(&[
            readable(at, header.len() as u32),
            readable(behind, frame.len() as u32),
        ]);
    }

    /// The next frame for the guest.
    pub(super) fn receive(&mut self) -> Got {
        loop {
            let seen = self.rx.interrupt.count();
            match self.received() {
                Some(got) => return got,
                None => self.rx.interrupt.wait_for(seen + 1),
            }
        }
    }

    /// As Linux does: the first buffer says how many there are, and they must all be there.
    pub(super) fn received(&mut self) -> Option<Got> {
        let mut bytes = self.used_buffer()?;
        let header: [u8; HEADER_LEN] = bytes[..HEADER_LEN].try_into().unwrap();
        let buffers = usize::from(u16::from_le_bytes([header[10], header[11]]));
        for _ in 1..buffers {
            bytes.extend(self.used_buffer().expect("a buffer of a frame is missing"));
        }
        Some(Got {
            header,
            frame: bytes.split_off(HEADER_LEN),
            buffers,
        })
    }

    fn used_buffer(&mut self) -> Option<Vec<u8>> {
        let (head, written) = self.rx.used()?;
        let mut bytes = Vec::new();
        for piece in self.offered.remove(&head).unwrap() {
            bytes.extend(self.bytes(piece.address, piece.len as usize));
        }
        bytes.truncate(written as usize);
        Some(bytes)
    }

    pub(super) fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }
}
