//! What is at the other end of a guest's network cable.

use std::os::fd::BorrowedFd;

/// The far end of the cable, as a network device uses it; all from one thread.
pub trait Network: Send {
    /// A driver is ready. Everything from before it is forgotten.
    fn connect(&mut self, offloads: Offloads);

    /// Readable when [`Self::turn`] has something to do.
    fn wake(&self) -> BorrowedFd<'_>;

    /// Does what waits to be done; a bounded piece of it.
    fn turn(&mut self);

    /// A frame from the guest, Ethernet header and all. Hostile.
    fn receive(&mut self, frame: &[u8]);

    /// Writes the next frame for the guest to the end of `frame`; false when there is none. The caller asks for
    /// another only when it has delivered this one, so that none is lost.
    fn transmit(&mut self, frame: &mut Vec<u8>) -> bool;
}

/// What a driver does without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// The driver takes frames whose checksums are not filled in.
    pub receives_without_checksum: bool,
}
