//! The receive queue: buffers the driver offers, filled with frames for the guest.

use std::sync::Arc;

use user_net::Network;
use virtio_bindings::virtio_net::{VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_MRG_RXBUF};

use super::frame::{self, HEADER_LEN, LARGEST_TO_GUEST};
use crate::{Chain, DeviceQueue, QueueError, rate_limit::warn_limited, stock::Stock};

/// Frames delivered before the thread looks at its other events again: what Linux takes in one turn of its own.
const FRAMES_PER_TURN: usize = 64;

/// Times per turn that buffers the driver adds meanwhile are looked at.
const REFILLS_PER_TURN: usize = 4;

/// Pieces of one buffer: Linux offers 18 where it takes large frames in one buffer. A chain could have 1024, which
/// would make us keep 16 KiB for each.
pub(super) const MAX_SEGMENTS: usize = 64;

/// Buffers, and the frame whose turn it is.
#[derive(Debug)]
pub(super) struct RxRing {
    pub(super) stock: Stock,
    answers: Vec<(u16, u32)>,
    /// Header and frame; empty when there is none.
    packet: Vec<u8>,
    takes_unfinished: bool,
    /// Buffers one frame may be spread over.
    most_buffers: usize,
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
            stock: Stock::new(queue, is_buffer),
            answers: Vec::new(),
            packet: Vec::with_capacity(LARGEST_TO_GUEST),
        }
    }

    /// Takes note that the driver has rung. It is asked to ring again when something waits for its buffers.
    pub(super) fn rung(&mut self) -> Result<(), QueueError> {
        self.stock.queue.kick().hush();
        self.stock.queue.mute()
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
                    if !self.stock.queue.unmute()? {
                        return Ok(());
                    }
                    self.stock.queue.mute()?;
                }
            }
        }
        self.stock.queue.kick().ring();
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
            if !self.stock.up_to(buffers + 1)? {
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
        let memory = Arc::clone(self.stock.queue.memory());
        let mut rest = self.packet.as_slice();
        for _ in 0..buffers {
            let Some(chain) = self.stock.next() else {
                break;
            };
            let written = chain.write_at(&memory, 0, rest).map_err(QueueError::Chain)?;
            rest = rest.get(written..).unwrap_or_default();
            self.answers.push((chain.head(), written as u32));
            self.stock.spare(chain);
        }
        // Together, for the driver looks for all of them once it sees the first.
        self.stock.answer_together(self.answers.drain(..))?;
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
}

/// Room for a header at least, nothing to read, and no more pieces than we keep.
fn is_buffer(chain: &Chain) -> bool {
    chain.readable().is_empty()
        && chain.writable().len() <= MAX_SEGMENTS
        && chain.writable_len() >= HEADER_LEN
}
