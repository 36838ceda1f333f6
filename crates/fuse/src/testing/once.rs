//! A request that may be read once.

use std::io;

use crate::{Incoming, Payload, WriteFlags, buffer::Request};

/// Refuses, loudly, to be copied twice: what a guest changes between two copies is what gets past a check.
#[derive(Debug)]
pub struct Once<'a> {
    bytes: &'a [u8],
    taken: Vec<bool>,
}

impl<'a> Once<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Once {
            bytes,
            taken: vec![false; bytes.len()],
        }
    }

    fn take(&mut self, offset: usize, len: usize) {
        for taken in self.taken.iter_mut().skip(offset).take(len) {
            assert!(!*taken, "a byte was copied twice");
            *taken = true;
        }
    }
}

impl Incoming for Once<'_> {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn copy(&mut self, offset: usize, into: &mut [u8]) -> io::Result<usize> {
        let copied = Request(self.bytes).copy(offset, into)?;
        self.take(offset, copied);
        Ok(copied)
    }

    fn payload(&mut self, offset: usize, len: usize) -> impl Payload + '_ {
        self.take(offset, len);
        let rest = self.bytes.get(offset..).unwrap_or_default();
        Pieces(rest.get(..len).unwrap_or(rest))
    }
}

/// Hands out no more than a page at a time, as guest memory in pieces does.
struct Pieces<'a>(&'a [u8]);

const PIECE: usize = 4096;

impl Payload for Pieces<'_> {
    fn left(&self) -> usize {
        self.0.len()
    }

    fn drain_to(
        &mut self,
        file: std::os::fd::BorrowedFd<'_>,
        offset: u64,
        len: usize,
        flags: WriteFlags,
    ) -> io::Result<usize> {
        let mut request = Request(self.0);
        let written = request
            .payload(0, self.0.len())
            .drain_to(file, offset, len.min(PIECE), flags)?;
        self.0 = self.0.get(written..).unwrap_or_default();
        Ok(written)
    }

    fn take(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let len = bytes.len().min(PIECE);
        let taken = Request(self.0).copy(0, bytes.get_mut(..len).unwrap_or_default())?;
        self.0 = self.0.get(taken..).unwrap_or_default();
        Ok(taken)
    }
}
