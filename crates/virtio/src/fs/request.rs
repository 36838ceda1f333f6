//! A chain as a FUSE request and the room for its reply.
//!
//! ```text
//! readable: header | arguments, or data to write          writable: header | what was asked for, or data read
//! ```
//! Linux gives each of these a descriptor of its own, and each page of data one; another driver may split them
//! as it likes, so all of it is addressed by offset. Data goes straight between files and guest memory.

use std::{io, os::fd::BorrowedFd};

use fuse::{Incoming, Outgoing, Payload, Target, WriteFlags};
use rustix::io::ReadWriteFlags;
use vm_memory::GuestMemoryMmap;

use crate::{Chain, ChainError, Segment, iovec::IoVecs};

/// What the driver asks.
pub(super) struct Request<'c> {
    memory: &'c GuestMemoryMmap,
    chain: &'c Chain,
}

impl<'c> Request<'c> {
    pub(super) fn new(memory: &'c GuestMemoryMmap, chain: &'c Chain) -> Self {
        Request { memory, chain }
    }
}

impl Incoming for Request<'_> {
    fn len(&self) -> usize {
        self.chain.readable_len()
    }

    fn copy(&mut self, offset: usize, into: &mut [u8]) -> io::Result<usize> {
        self.chain.read_at(self.memory, offset, into).map_err(unreachable)
    }

    fn payload(&mut self, offset: usize, len: usize) -> impl Payload + '_ {
        Outbound(Span {
            memory: self.memory,
            chain: self.chain,
            at: offset,
            left: len.min(self.len().saturating_sub(offset)),
        })
    }
}

/// Where the driver wants the reply.
pub(super) struct Room<'c> {
    memory: &'c GuestMemoryMmap,
    chain: &'c Chain,
}

impl<'c> Room<'c> {
    pub(super) fn new(memory: &'c GuestMemoryMmap, chain: &'c Chain) -> Self {
        Room { memory, chain }
    }
}

impl Outgoing for Room<'_> {
    fn room(&self) -> usize {
        self.chain.writable_len()
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let written = self
            .chain
            .write_at(self.memory, offset, bytes)
            .map_err(unreachable)?;
        if written < bytes.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }

    fn target(&mut self, offset: usize, len: usize) -> impl Target + '_ {
        Inbound(Span {
            memory: self.memory,
            chain: self.chain,
            at: offset,
            left: len.min(self.room().saturating_sub(offset)),
        })
    }
}

/// Bytes of a chain, used up from the first one on.
struct Span<'c> {
    memory: &'c GuestMemoryMmap,
    chain: &'c Chain,
    at: usize,
    left: usize,
}

impl Span<'_> {
    fn advance(&mut self, bytes: usize) {
        self.at += bytes;
        self.left = self.left.saturating_sub(bytes);
    }

    /// Moves up to `len` bytes by `call`, which is given as many pieces as one system call takes and how many
    /// bytes were moved before. Ends early when a call moves fewer than it could, and fails only when nothing
    /// was moved.
    fn transfer(
        &mut self,
        segments: &[Segment],
        len: usize,
        mut call: impl FnMut(&IoVecs<'_>, u64) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let len = len.min(self.left);
        let mut done = 0;
        while done < len {
            let mut pieces = IoVecs::new();
            let mut offered = 0;
            for slice in Chain::slices(self.memory, segments, self.at, len - done) {
                let slice = slice.map_err(unreachable)?;
                if !pieces.push(&slice) {
                    break;
                }
                offered += slice.len();
            }
            let moved = match call(&pieces, done as u64) {
                Ok(moved) => moved,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            };
            self.advance(moved);
            done += moved;
            if moved < offered {
                break;
            }
        }
        Ok(done)
    }
}

/// What a WRITE carries.
struct Outbound<'c>(Span<'c>);

impl Payload for Outbound<'_> {
    fn left(&self) -> usize {
        self.0.left
    }

    fn drain_to(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        flags: WriteFlags,
    ) -> io::Result<usize> {
        let segments = self.0.chain.readable();
        let how = how_to_write(flags);
        self.0.transfer(segments, len, |pieces, done| {
            pieces.write_with(file, offset.saturating_add(done), how)
        })
    }

    fn take(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let len = bytes.len().min(self.0.left);
        let bytes = bytes.get_mut(..len).unwrap_or_default();
        let taken = self
            .0
            .chain
            .read_at(self.0.memory, self.0.at, bytes)
            .map_err(unreachable)?;
        self.0.advance(taken);
        Ok(taken)
    }
}

/// Where a READ puts its data.
struct Inbound<'c>(Span<'c>);

impl Target for Inbound<'_> {
    fn room(&self) -> usize {
        self.0.left
    }

    fn fill_from(&mut self, file: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<usize> {
        let segments = self.0.chain.writable();
        self.0.transfer(segments, len, |pieces, done| {
            pieces.read_at(file, offset.saturating_add(done))
        })
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > self.0.left {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let written = self
            .0
            .chain
            .write_at(self.0.memory, self.0.at, bytes)
            .map_err(unreachable)?;
        self.0.advance(written);
        Ok(())
    }
}

fn how_to_write(flags: WriteFlags) -> ReadWriteFlags {
    let mut how = ReadWriteFlags::empty();
    how.set(ReadWriteFlags::APPEND, flags.contains(WriteFlags::APPEND));
    how.set(ReadWriteFlags::SYNC, flags.contains(WriteFlags::SYNC));
    how.set(ReadWriteFlags::DSYNC, flags.contains(WriteFlags::DATA_SYNC));
    how
}

/// A chain was checked to lie in guest memory when it was taken.
fn unreachable(error: ChainError) -> io::Error {
    io::Error::other(error)
}
