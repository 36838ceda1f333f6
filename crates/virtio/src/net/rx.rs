//! The receive queue: buffers the driver offers, filled with frames for the guest.

use std::{collections::VecDeque, sync::Arc};

use user_net::Network;
use virtio_bindings::virtio_net::{VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_MRG_RXBUF};

use super::frame::{self, HEADER_LEN, LARGEST_TO_GUEST};
use crate::{Chain, DeviceQueue, QueueError, rate_limit::warn_limited};

/// Frames delivered before the thread looks at its other events again: what Linux takes in one turn of its own.
const FRAMES_PER_TURN: usize = 64;

/// Times per turn that buffers the driver adds meanwhile are looked at.
const REFILLS_PER_TURN: usize = 4;

/// Pieces of one buffer: Linux offers 18 where it takes large frames in one buffer. A chain could have 1024, which
/// would make us keep 16 KiB for each.
pub(super) const MAX_SEGMENTS: usize = 64;

/// The queue, buffers already taken from it, and the frame whose turn it is.
#[derive(Debug)]
pub(super) struct RxRing {
    pub(super) queue: DeviceQueue,
    stock: VecDeque<Chain>,
    spare: Vec<Chain>,
    answers: Vec<(u16, u32)>,
    /// Header and frame; empty when there is none.
    packet: Vec<u8>,
    takes_unfinished: bool,
    /// Buffers one frame may be spread over.
    most_buffers: usize,
    unheard: bool,
}

/// Where a frame can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// Into the first so many buffers of the stock.
    In(usize),
    /// Nowhere before the driver offers more.
    Later,
    /// Nowhere in what this driver offers.
    Never,
}

impl RxRing {
    pub(super) fn new(queue: DeviceQueue, features: u64) -> Self {
        let has = |feature: u32| features & (1 << feature) != 0;
        RxRing {
            most_buffers: match has(VIRTIO_NET_F_MRG_RXBUF) {
                true => usize::from(queue.size()),
                false => 1,
            },
            takes_unfinished: has(VIRTIO_NET_F_GUEST_CSUM),
            queue,
            stock: VecDeque::new(),
            spare: Vec::new(),
            answers: Vec::new(),
            packet: Vec::with_capacity(LARGEST_TO_GUEST),
            unheard: false,
        }
    }

    /// Takes note that the driver has rung. It is asked to ring again when something waits for its buffers.
    pub(super) fn rung(&mut self) -> Result<(), QueueError> {
        self.queue.kick().hush();
        self.queue.mute()
    }

    /// Delivers what the network has for the guest, up to the bound of a turn.
    pub(super) fn deliver(&mut self, network: &mut dyn Network) -> Result<(), QueueError> {
        let mut refills = 0;
        for _ in 0..FRAMES_PER_TURN {
            if !self.fetch(network) {
                return Ok(());
            }
            match self.room(self.packet.len())? {
                Room::In(buffers) => self.send(buffers)?,
                Room::Never => self.drop_frame(),
                Room::Later if refills == REFILLS_PER_TURN => break,
                Room::Later => {
                    refills += 1;
                    if !self.queue.unmute()? {
                        return Ok(());
                    }
                    self.queue.mute()?;
                }
            }
        }
        self.queue.kick().ring();
        Ok(())
    }

    /// Interrupts the driver if there is anything new for it.
    pub(super) fn signal(&mut self) -> Result<(), QueueError> {
        if std::mem::take(&mut self.unheard) {
            self.queue.signal()?;
        }
        Ok(())
    }

    /// Has a frame at hand; false when the network has none. One that waits for room waits here, so that none that
    /// the network let go of is lost.
    fn fetch(&mut self, network: &mut dyn Network) -> bool {
        if self.packet.is_empty() {
            self.packet.resize(HEADER_LEN, 0);
            if !network.transmit(&mut self.packet) {
                self.packet.clear();
            }
        }
        !self.packet.is_empty()
    }

    fn room(&mut self, len: usize) -> Result<Room, QueueError> {
        let (mut buffers, mut room) = (0, 0);
        while room < len {
            if buffers == self.most_buffers {
                return Ok(Room::Never);
            }
            if !self.stock_up(buffers + 1)? {
                return Ok(Room::Later);
            }
            room += self.stock.get(buffers).map_or(0, Chain::writable_len);
            buffers += 1;
        }
        Ok(Room::In(buffers))
    }

    /// Puts the frame into the first `buffers` of the stock, which have room for it.
    fn send(&mut self, buffers: usize) -> Result<(), QueueError> {
        // There are no more than the queue is long.
        frame::put_header(&mut self.packet, self.takes_unfinished, buffers as u16);
        let memory = Arc::clone(self.queue.memory());
        let mut rest = self.packet.as_slice();
        for chain in self.stock.drain(..buffers) {
            let written = chain.write_at(&memory, 0, rest).map_err(QueueError::Chain)?;
            rest = rest.get(written..).unwrap_or_default();
            self.answers.push((chain.head(), written as u32));
            self.spare.push(chain);
        }
        // Together, for the driver looks for all of them once it sees the first.
        self.queue.push_together(self.answers.drain(..))?;
        self.unheard = true;
        self.packet.clear();
        Ok(())
    }

    fn drop_frame(&mut self) {
        let bytes = self.packet.len();
        warn_limited!(
            bytes,
            "network frame dropped: the driver's buffers are too small for it"
        );
        self.packet.clear();
    }

    /// Takes buffers from the queue until there are `count`; false when the driver has not offered that many.
    /// Chains that are no buffers go back empty, a queue full of them at most.
    fn stock_up(&mut self, count: usize) -> Result<bool, QueueError> {
        for _ in 0..=self.queue.size() {
            if self.stock.len() >= count {
                return Ok(true);
            }
            let mut chain = self.spare.pop().unwrap_or_default();
            if !self.queue.pop(&mut chain)? {
                self.spare.push(chain);
                return Ok(false);
            }
            if is_buffer(&chain) {
                self.stock.push_back(chain);
            } else {
                self.queue.push(chain.head(), 0)?;
                self.unheard = true;
            }
        }
        Ok(false)
    }
}

/// Room for a header at least, nothing to read, and no more pieces than we keep.
fn is_buffer(chain: &Chain) -> bool {
    chain.readable().is_empty()
        && chain.writable().len() <= MAX_SEGMENTS
        && chain.writable_len() >= HEADER_LEN
}
