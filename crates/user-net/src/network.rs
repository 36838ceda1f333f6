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

/// Where the checksum of a frame from [`Network::transmit`] is left to the driver ([`Offloads`]): from which byte on it
/// is to be made, and how far behind that it belongs. Only those of TCP are; a driver that is told so makes them when
/// it passes the packet on, to a container say, and saves itself the work otherwise.
pub fn unfinished_checksum(frame: &[u8]) -> Option<(u16, u16)> {
    const ETHERNET: u16 = 14;
    const TCP: u8 = 6;
    const OFFSET: u16 = 16;
    let ip = frame.get(usize::from(ETHERNET)..)?;
    // Ours have neither options nor extension headers.
    match (frame.get(12..14)?, ip.get(6)?, ip.get(9)?) {
        ([0x08, 0x00], _, &TCP) => Some((ETHERNET + 20, OFFSET)),
        ([0x86, 0xdd], &TCP, _) => Some((ETHERNET + 40, OFFSET)),
        _ => None,
    }
}
