//! The receive queue: buffers the driver offers, filled with packets for the guest.

use std::{io, os::fd::BorrowedFd};

use vm_memory::GuestMemoryMmap;
use vsock_mux::{HEADER_LEN, Header, Sink};

use super::worker::MAX_SEGMENTS;
use crate::{Chain, DeviceQueue, QueueError, iovec::IoVecs, stock::Stock};

/// Buffers one read spreads over: the largest read, in the smallest buffers a Linux guest offers.
const MAX_CHAINS_PER_READ: usize = 80;

/// Buffers, as packets for the guest use them.
#[derive(Debug)]
pub(super) struct RxRing(pub(super) Stock);

impl RxRing {
    pub(super) fn new(queue: DeviceQueue) -> Self {
        RxRing(Stock::new(queue, is_buffer))
    }

    /// Room for `bytes` of data, or as much of it as there is.
    pub(super) fn room<'m>(
        &'m mut self,
        memory: &'m GuestMemoryMmap,
        bytes: usize,
    ) -> Result<Room<'m>, QueueError> {
        let mut room = Room {
            pieces: IoVecs::new(),
            len: 0,
        };
        let mut used = 0;
        while room.len < bytes && used < MAX_CHAINS_PER_READ && self.0.up_to(used + 1)? {
            room.len += self.0.get(used).map_or(0, payload_room).min(bytes - room.len);
            used += 1;
        }
        let mut left = room.len;
        room.len = 0;
        for chain in self.0.iter().take(used) {
            for slice in Chain::slices(memory, chain.writable(), HEADER_LEN, left) {
                let slice = slice.map_err(QueueError::Chain)?;
                if !room.pieces.push(&slice) {
                    return Ok(room);
                }
                left -= slice.len();
                room.len += slice.len();
            }
        }
        Ok(room)
    }

    /// Puts `len` bytes, which a [`Room`] received, into packets with this header.
    pub(super) fn send_data(
        &mut self,
        memory: &GuestMemoryMmap,
        mut header: Header,
        len: u32,
    ) -> Result<(), QueueError> {
        let mut left = len;
        while left > 0 {
            let Some(chain) = self.0.next() else {
                break;
            };
            header.len = left.min(payload_room(&chain) as u32);
            left -= header.len;
            self.finish(memory, chain, &header)?;
        }
        Ok(())
    }

    /// True when a packet without payload can be sent.
    pub(super) fn has_buffer(&mut self) -> Result<bool, QueueError> {
        self.0.up_to(1)
    }

    /// Sends a packet without payload, into a buffer that [`Self::has_buffer`] saw.
    pub(super) fn send_control(
        &mut self,
        memory: &GuestMemoryMmap,
        header: &Header,
    ) -> Result<(), QueueError> {
        match self.0.next() {
            Some(chain) => self.finish(memory, chain, header),
            None => Ok(()),
        }
    }

    fn finish(&mut self, memory: &GuestMemoryMmap, chain: Chain, header: &Header) -> Result<(), QueueError> {
        chain
            .write_at(memory, 0, &header.encode())
            .map_err(QueueError::Chain)?;
        self.0.answer(chain, HEADER_LEN as u32 + header.len)
    }
}

/// Room for some payload, in no more pieces than we keep.
fn is_buffer(chain: &Chain) -> bool {
    payload_room(chain) > 0 && chain.writable().len() <= MAX_SEGMENTS
}

fn payload_room(chain: &Chain) -> usize {
    chain.writable_len().saturating_sub(HEADER_LEN)
}

/// The payload parts of some buffers, to be filled by one system call.
pub(super) struct Room<'m> {
    pieces: IoVecs<'m>,
    len: usize,
}

impl Sink for Room<'_> {
    fn len(&self) -> usize {
        self.len
    }

    fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.pieces.receive(socket)
    }
}
