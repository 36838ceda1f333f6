//! Requests and replies in memory of our own.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::BorrowedFd,
};

use rustix::io::ReadWriteFlags;

use crate::{Incoming, Outgoing, Payload, Target, WriteFlags};

/// A request that came whole.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a>(pub &'a [u8]);

impl Incoming for Request<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn copy(&mut self, offset: usize, into: &mut [u8]) -> io::Result<usize> {
        let from = self.0.get(offset..).unwrap_or_default();
        let len = from.len().min(into.len());
        if let (Some(from), Some(into)) = (from.get(..len), into.get_mut(..len)) {
            into.copy_from_slice(from);
        }
        Ok(len)
    }

    fn payload(&mut self, offset: usize, len: usize) -> impl Payload + '_ {
        let rest = self.0.get(offset..).unwrap_or_default();
        Bytes(rest.get(..len).unwrap_or(rest))
    }
}

/// Room for a reply.
#[derive(Debug)]
pub struct ReplyRoom<'a>(pub &'a mut [u8]);

impl Outgoing for ReplyRoom<'_> {
    fn room(&self) -> usize {
        self.0.len()
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len());
        let place = end.and_then(|end| self.0.get_mut(offset..end));
        place.ok_or_else(full)?.copy_from_slice(bytes);
        Ok(())
    }

    fn target(&mut self, offset: usize, len: usize) -> impl Target + '_ {
        let rest = self.0.get_mut(offset..).unwrap_or_default();
        let len = len.min(rest.len());
        Room(rest.get_mut(..len).unwrap_or_default())
    }
}

/// What is left of a payload.
#[derive(Debug)]
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn advance(&mut self, len: usize) {
        self.0 = self.0.get(len..).unwrap_or_default();
    }
}

impl Payload for Bytes<'_> {
    fn left(&self) -> usize {
        self.0.len()
    }

    fn drain_to(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        flags: WriteFlags,
    ) -> io::Result<usize> {
        let bytes = self.0.get(..len).unwrap_or(self.0);
        let mut how = ReadWriteFlags::empty();
        how.set(ReadWriteFlags::APPEND, flags.contains(WriteFlags::APPEND));
        how.set(ReadWriteFlags::SYNC, flags.contains(WriteFlags::SYNC));
        how.set(ReadWriteFlags::DSYNC, flags.contains(WriteFlags::DATA_SYNC));
        let written = rustix::io::pwritev2(file, &[IoSlice::new(bytes)], offset, how)?;
        self.advance(written);
        Ok(written)
    }

    fn take(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let len = self.0.len().min(bytes.len());
        if let (Some(from), Some(into)) = (self.0.get(..len), bytes.get_mut(..len)) {
            into.copy_from_slice(from);
        }
        self.advance(len);
        Ok(len)
    }
}

/// What is left of a target.
#[derive(Debug)]
struct Room<'a>(&'a mut [u8]);

impl Room<'_> {
    fn advance(&mut self, len: usize) {
        let room = std::mem::take(&mut self.0);
        self.0 = room.get_mut(len..).unwrap_or_default();
    }
}

impl Target for Room<'_> {
    fn room(&self) -> usize {
        self.0.len()
    }

    fn fill_from(&mut self, file: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<usize> {
        let len = len.min(self.0.len());
        let place = self.0.get_mut(..len).unwrap_or_default();
        let read = rustix::io::preadv(file, &mut [IoSliceMut::new(place)], offset)?;
        self.advance(read);
        Ok(read)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0
            .get_mut(..bytes.len())
            .ok_or_else(full)?
            .copy_from_slice(bytes);
        self.advance(bytes.len());
        Ok(())
    }
}

fn full() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}
