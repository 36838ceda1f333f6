//! Payload on its way between a packet and a socket.

use std::{io, os::fd::BorrowedFd};

use rustix::{
    io::Errno,
    net::{SendFlags, send},
};

/// Bytes of the guest, to be written to a host socket from wherever they lie.
pub trait Source {
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes as much as `socket` takes without waiting, and without SIGPIPE.
    fn send(&self, socket: BorrowedFd<'_>) -> io::Result<usize>;

    /// Copies what follows the first `skip` bytes to the front of `out`; returns how many bytes that were.
    fn copy(&self, skip: usize, out: &mut [u8]) -> usize;
}

/// Room in the guest, to be filled from a host socket.
pub trait Sink {
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads what `socket` has without waiting, up to [`Self::len`] bytes.
    fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize>;
}

/// What became of an attempt to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Bytes(usize),
    /// The host takes no more, now or ever.
    Refused,
}

/// Guest bytes the socket did not take yet, in order. Bounded by the connection's window: the guest has
/// no credit for more until these are delivered. (The room kept for them is at most twice that.)
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    bytes: Vec<u8>,
    start: usize,
}

/// An empty backlog keeps this much room for the next one.
const KEEP: usize = 16 * 1024;

impl Backlog {
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Writes `source`, behind what already waits; keeps what the socket does not take.
    pub(crate) fn write(&mut self, socket: BorrowedFd<'_>, source: &impl Source) -> Written {
        let mut sent = 0;
        if self.is_empty() {
            match outcome(source.send(socket)) {
                Written::Bytes(len) => sent = len,
                Written::Refused => return Written::Refused,
            }
        }
        if sent < source.len() {
            self.keep(source, sent);
        }
        Written::Bytes(sent)
    }

    /// Writes what waits, as far as the socket takes it.
    pub(crate) fn flush(&mut self, socket: BorrowedFd<'_>) -> Written {
        let waiting = self.bytes.get(self.start..).unwrap_or_default();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let written = outcome(send(socket, waiting, flags).map_err(io::Error::from));
        if let Written::Bytes(len) = written {
            self.start = (self.start + len).min(self.bytes.len());
            if self.is_empty() {
                self.clear();
            }
        }
        written
    }

    pub(crate) fn clear(&mut self) {
        self.start = 0;
        self.bytes.clear();
        self.bytes.shrink_to(KEEP);
    }

    fn keep(&mut self, source: &impl Source, skip: usize) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let end = self.bytes.len();
        self.bytes.resize(end + (source.len() - skip), 0);
        let copied = source.copy(skip, &mut self.bytes[end..]);
        self.bytes.truncate(end + copied);
    }
}

fn outcome(result: io::Result<usize>) -> Written {
    match result {
        Ok(len) => Written::Bytes(len),
        Err(error) if is_not_now(&error) => Written::Bytes(0),
        Err(_) => Written::Refused,
    }
}

/// Errors that mean "try again when told to": nothing taken or given this time. A host short of memory
/// for socket buffers is one of them.
pub(crate) fn is_not_now(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM)
    )
}
