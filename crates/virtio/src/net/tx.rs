//! The transmit queue: frames of the guest.

use user_net::Network;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6,
};
use vm_memory::GuestMemoryMmap;

use super::frame::{ETHERNET_LEN, HEADER_LEN, LARGEST_FROM_GUEST};
use crate::{Chain, ChainError, DeviceQueue, QueueError, rate_limit::warn_limited, turn::take_turn};

/// The queue, and room for the one frame that is looked at.
#[derive(Debug)]
pub(super) struct TxRing {
    pub(super) queue: DeviceQueue,
    chain: Chain,
    packet: Box<[u8]>,
}

impl TxRing {
    pub(super) fn new(queue: DeviceQueue) -> Self {
        TxRing {
            queue,
            chain: Chain::default(),
            packet: vec![0; LARGEST_FROM_GUEST].into(),
        }
    }

    /// Hands the network what waits, up to the bound of a turn.
    pub(super) fn carry(&mut self, network: &mut dyn Network) -> Result<(), QueueError> {
        take_turn(&mut self.queue, &mut self.chain, |memory, chain| {
            match frame(memory, chain, &mut self.packet) {
                Ok(frame) => network.receive(frame),
                Err(bad) => warn_limited!(%bad, "network frame dropped"),
            }
            Some(0)
        })?;
        Ok(())
    }
}

/// The chain's frame, copied. Of the header only the kind of segmentation counts, for what it asks for otherwise
/// is not done: a segment stays whole, and checksums between us and the guest protect from nothing.
fn frame<'p>(memory: &GuestMemoryMmap, chain: &Chain, packet: &'p mut [u8]) -> Result<&'p [u8], BadFrame> {
    let bytes = chain.readable_len();
    if bytes < HEADER_LEN + ETHERNET_LEN {
        return Err(BadFrame::Short { bytes });
    }
    let packet = packet.get_mut(..bytes).ok_or(BadFrame::Long { bytes })?;
    chain.read_at(memory, 0, packet)?;
    match packet.split_at_checked(HEADER_LEN) {
        Some(([_, kind, ..], frame)) if is_known(*kind) => Ok(frame),
        Some(([_, kind, ..], _)) => Err(BadFrame::Segmentation { kind: *kind }),
        _ => Err(BadFrame::Short { bytes }),
    }
}

/// Those offered, without regard to what the driver accepted of it.
fn is_known(kind: u8) -> bool {
    matches!(
        u32::from(kind),
        VIRTIO_NET_HDR_GSO_NONE | VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_TCPV6
    )
}

/// Why a chain is no frame.
#[derive(Debug, thiserror::Error)]
enum BadFrame {
    #[error("chain of {bytes} bytes is too short for a frame")]
    Short { bytes: usize },
    #[error("chain of {bytes} bytes is longer than any frame")]
    Long { bytes: usize },
    #[error("segmentation of kind {kind} is not offered")]
    Segmentation { kind: u8 },
    #[error("guest memory cannot be reached")]
    Memory(#[from] ChainError),
}
