//! What carries requests in and replies out: a virtio queue, `/dev/fuse`, or a test.

use std::io;

use crate::{Payload, Target};

/// One request. The server copies no byte of it twice, so it may change under the server's hands.
pub trait Incoming {
    /// All of it, header included.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies from `offset` on; returns how much, which is less than asked only where the request ends.
    fn copy(&mut self, offset: usize, into: &mut [u8]) -> io::Result<usize>;

    /// What a WRITE carries: `len` bytes from `offset` on, or what there is of them.
    fn payload(&mut self, offset: usize, len: usize) -> impl Payload + '_;
}

/// The room for one reply. Written in any order; what counts of it is what [`Answered::Reply`] says in the end.
pub trait Outgoing {
    fn room(&self) -> usize;

    /// All of `bytes`, or an error.
    fn put(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()>;

    /// Where a READ puts its data: `len` bytes from `offset` on, or what there is of them.
    fn target(&mut self, offset: usize, len: usize) -> impl Target + '_;
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// A reply of this many bytes.
    Reply(usize),
    /// Nothing is to be sent: the request wants no reply, or there is no room for even an error.
    Silence,
    /// Too short to be a request, or unreadable: there is nobody to answer.
    Broken,
}
