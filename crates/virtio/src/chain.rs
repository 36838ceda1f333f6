//! A descriptor chain, copied out of guest memory once and checked once.

use virtio_bindings::bindings::virtio_ring::VRING_DESC_F_WRITE;
use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

/// A range of guest RAM, known to lie within one region of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub address: GuestAddress,
    pub len: usize,
}

/// One request of the driver: what the device may read, then what it may write.
///
/// Filled by [`crate::DeviceQueue::pop`] and used again for the next request, so that the hot path does
/// not allocate.
#[derive(Debug, Default)]
pub struct Chain {
    head: u16,
    readable: Vec<Segment>,
    writable: Vec<Segment>,
}

impl Chain {
    pub fn head(&self) -> u16 {
        self.head
    }

    pub fn readable(&self) -> &[Segment] {
        &self.readable
    }

    pub fn writable(&self) -> &[Segment] {
        &self.writable
    }

    pub fn readable_len(&self) -> usize {
        total(&self.readable)
    }

    pub fn writable_len(&self) -> usize {
        total(&self.writable)
    }

    /// Copies readable bytes from `offset` on into `out`; returns how many there were.
    pub fn read_at(
        &self,
        memory: &GuestMemoryMmap,
        offset: usize,
        out: &mut [u8],
    ) -> Result<usize, ChainError> {
        let mut done = 0;
        for piece in cut(&self.readable, offset, out.len()) {
            let Some(target) = out.get_mut(done..done + piece.len) else {
                break;
            };
            memory
                .read_slice(target, piece.address)
                .map_err(ChainError::Memory)?;
            done += piece.len;
        }
        Ok(done)
    }

    /// Copies `data` into the writable bytes from `offset` on; returns how many fitted.
    pub fn write_at(
        &self,
        memory: &GuestMemoryMmap,
        offset: usize,
        data: &[u8],
    ) -> Result<usize, ChainError> {
        let mut done = 0;
        for piece in cut(&self.writable, offset, data.len()) {
            let Some(source) = data.get(done..done + piece.len) else {
                break;
            };
            memory
                .write_slice(source, piece.address)
                .map_err(ChainError::Memory)?;
            done += piece.len;
        }
        Ok(done)
    }

    /// The pieces of `segments` that hold `len` bytes from `offset` on, as slices of host memory that only
    /// volatile access may touch.
    pub fn slices<'m>(
        memory: &'m GuestMemoryMmap,
        segments: &'m [Segment],
        offset: usize,
        len: usize,
    ) -> impl Iterator<Item = Result<VolatileSlice<'m>, ChainError>> + 'm {
        cut(segments, offset, len).map(|piece| {
            memory
                .get_slice(piece.address, piece.len)
                .map_err(ChainError::Memory)
        })
    }

    /// Takes over the descriptors of `chain`. The iterator below ends loops, but only at the size of the
    /// queue or of the indirect table, which may be 65,535.
    pub(crate) fn fill(
        &mut self,
        memory: &GuestMemoryMmap,
        mut chain: DescriptorChain<&GuestMemoryMmap>,
    ) -> Result<(), ChainError> {
        self.head = chain.head_index();
        self.readable.clear();
        self.writable.clear();
        for (index, descriptor) in chain.by_ref().enumerate() {
            if index == MAX_DESCRIPTORS {
                return Err(ChainError::TooManyDescriptors);
            }
            let segment = Segment {
                address: descriptor.addr(),
                len: descriptor.len() as usize,
            };
            if segment.len == 0 {
                continue;
            }
            memory
                .get_slice(segment.address, segment.len)
                .map_err(ChainError::Memory)?;
            if u32::from(descriptor.flags()) & VRING_DESC_F_WRITE != 0 {
                self.writable.push(segment);
            } else if self.writable.is_empty() {
                self.readable.push(segment);
            } else {
                return Err(ChainError::ReadableAfterWritable);
            }
        }
        let len = total(&self.readable).saturating_add(total(&self.writable));
        if len > MAX_CHAIN_BYTES {
            return Err(ChainError::TooLong { len });
        }
        Ok(())
    }
}

/// Descriptors of one chain, empty ones included: what the kernel takes for one vectored read or write.
/// Linux sends up to 256. More would let a guest buy a megabyte of ours, and the time to look at it, with
/// every chain.
const MAX_DESCRIPTORS: usize = 1024;

/// Virtio forbids a chain of more bytes than fit a `u32`, which is also what the used ring can report.
const MAX_CHAIN_BYTES: usize = u32::MAX as usize;

fn total(segments: &[Segment]) -> usize {
    segments.iter().map(|segment| segment.len).sum()
}

fn cut(segments: &[Segment], mut offset: usize, mut len: usize) -> impl Iterator<Item = Segment> {
    segments.iter().filter_map(move |segment| {
        let skip = offset.min(segment.len);
        offset -= skip;
        let take = (segment.len - skip).min(len);
        len -= take;
        let address = GuestAddress(segment.address.0.checked_add(skip as u64)?);
        (take > 0).then_some(Segment { address, len: take })
    })
}

#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    #[error("descriptor outside guest memory")]
    Memory(#[source] vm_memory::GuestMemoryError),
    #[error("readable descriptor after a writable one")]
    ReadableAfterWritable,
    #[error("descriptor chain of more than {MAX_DESCRIPTORS} descriptors")]
    TooManyDescriptors,
    #[error("descriptor chain of {len} bytes")]
    TooLong { len: usize },
}

#[cfg(test)]
mod tests;
