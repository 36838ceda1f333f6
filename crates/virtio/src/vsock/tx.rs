//! The transmit queue: packets of the guest, data gathered by connection.

use std::{io, os::fd::BorrowedFd};

use vm_memory::GuestMemoryMmap;
use vsock_mux::{HEADER_LEN, Header, Pair, Source};

use super::worker::MAX_SEGMENTS;
use crate::{
    Chain, DeviceQueue, QueueError,
    iovec::{IoVecs, MAX_IOVECS},
};

/// Packets gathered into one write: a whole window, in packets of 4 KiB.
const MAX_GATHERED: usize = 64;

/// The queue, and what was last taken from it.
#[derive(Debug)]
pub(super) struct TxRing {
    pub(super) queue: DeviceQueue,
    batch: Batch,
    spare: Vec<Chain>,
    unheard: bool,
}

/// Data packets of one connection, in order, whose payload is still to be written.
#[derive(Debug, Default)]
struct Batch {
    pair: Option<Pair>,
    parts: Vec<Part>,
    segments: usize,
}

#[derive(Debug)]
struct Part {
    chain: Chain,
    len: usize,
}

/// A packet as it was taken: its header copied, its payload where the guest put it.
#[derive(Debug)]
pub(super) struct TakenPacket {
    chain: Chain,
    pub(super) header: Header,
    /// Bytes behind the header.
    pub(super) available: usize,
}

impl TxRing {
    pub(super) fn new(queue: DeviceQueue) -> Self {
        TxRing {
            queue,
            batch: Batch::default(),
            spare: Vec::new(),
            unheard: false,
        }
    }

    /// Takes the next packet; `None` when there is none. A chain that holds no header, or is cut into more
    /// pieces than we look at, has been answered and is `Some(Err(..))`.
    pub(super) fn take(
        &mut self,
        memory: &GuestMemoryMmap,
    ) -> Result<Option<Result<TakenPacket, BadChain>>, QueueError> {
        let mut chain = self.spare.pop().unwrap_or_default();
        if !self.queue.pop(&mut chain)? {
            self.spare.push(chain);
            return Ok(None);
        }
        let bad = BadChain {
            bytes: chain.readable_len(),
            pieces: chain.readable().len(),
        };
        if bad.bytes < HEADER_LEN || bad.pieces > MAX_SEGMENTS {
            self.queue.push(chain.head(), 0)?;
            self.unheard = true;
            return Ok(Some(Err(bad)));
        }
        let mut header = [0; HEADER_LEN];
        chain.read_at(memory, 0, &mut header).map_err(QueueError::Chain)?;
        Ok(Some(Ok(TakenPacket {
            available: bad.bytes - HEADER_LEN,
            header: Header::decode(&header),
            chain,
        })))
    }

    /// True when this packet may be accepted while the batch is still unwritten.
    pub(super) fn continues_batch(&self, header: &Header) -> bool {
        self.batch.pair.is_none() || (header.is_data() && self.batch.pair == Some(header.pair()))
    }

    /// Keeps the first `len` bytes of the packet's payload for [`Self::batch`]. True when it is full.
    pub(super) fn gather(&mut self, packet: TakenPacket, len: usize) -> bool {
        self.batch.pair = Some(packet.header.pair());
        self.batch.segments += packet.chain.readable().len();
        self.batch.parts.push(Part {
            chain: packet.chain,
            len,
        });
        self.batch.parts.len() >= MAX_GATHERED || self.batch.segments + MAX_SEGMENTS > MAX_IOVECS
    }

    /// What has been gathered.
    pub(super) fn batch<'m>(
        &'m self,
        memory: &'m GuestMemoryMmap,
    ) -> Result<Option<(Pair, Gathered<'m>)>, QueueError> {
        let Some(pair) = self.batch.pair else {
            return Ok(None);
        };
        let mut gathered = Gathered {
            memory,
            parts: &self.batch.parts,
            pieces: IoVecs::new(),
            len: 0,
        };
        for part in &self.batch.parts {
            for slice in Chain::slices(memory, part.chain.readable(), HEADER_LEN, part.len) {
                // There is room: `gather` said when it would run out.
                gathered.pieces.push(&slice.map_err(QueueError::Chain)?);
            }
            gathered.len += part.len;
        }
        Ok(Some((pair, gathered)))
    }

    /// Gives the gathered packets back to the driver.
    pub(super) fn finish_batch(&mut self) -> Result<(), QueueError> {
        self.batch.pair = None;
        self.batch.segments = 0;
        for part in self.batch.parts.drain(..) {
            self.queue.push(part.chain.head(), 0)?;
            self.unheard = true;
            self.spare.push(part.chain);
        }
        Ok(())
    }

    /// Gives a packet back to the driver.
    pub(super) fn finish(&mut self, packet: TakenPacket) -> Result<(), QueueError> {
        self.queue.push(packet.chain.head(), 0)?;
        self.unheard = true;
        self.spare.push(packet.chain);
        Ok(())
    }

    /// Interrupts the driver if it got anything back.
    pub(super) fn signal(&mut self) -> Result<(), QueueError> {
        if std::mem::take(&mut self.unheard) {
            self.queue.signal()?;
        }
        Ok(())
    }
}

/// A chain that is no packet.
#[derive(Debug, thiserror::Error)]
#[error("chain of {bytes} bytes in {pieces} pieces is no packet")]
pub(super) struct BadChain {
    bytes: usize,
    pieces: usize,
}

/// Payload of several packets, to be written by one system call.
pub(super) struct Gathered<'m> {
    memory: &'m GuestMemoryMmap,
    parts: &'m [Part],
    pieces: IoVecs<'m>,
    len: usize,
}

impl Source for Gathered<'_> {
    fn len(&self) -> usize {
        self.len
    }

    fn send(&self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.pieces.send(socket)
    }

    fn copy(&self, mut skip: usize, mut out: &mut [u8]) -> usize {
        let wanted = out.len();
        for part in self.parts {
            let from = skip.min(part.len);
            skip -= from;
            let take = (part.len - from).min(out.len());
            let (target, rest) = std::mem::take(&mut out).split_at_mut(take);
            out = rest;
            let copied = part.chain.read_at(self.memory, HEADER_LEN + from, target);
            if !copied.is_ok_and(|copied| copied == take) {
                // `batch` resolved the same addresses just before, so this does not happen.
                break;
            }
        }
        wanted - out.len()
    }
}
