//! A frame as it lies in a queue: a header of virtio's in front of one of Ethernet's.
//!
//! ```text
//! flags u8 | gso type u8 | header length u16 | gso size u16 | checksum start u16 | offset u16 | buffers u16
//! ```

use user_net::{addresses, unfinished_checksum};
use virtio_bindings::virtio_net::{VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM};

pub(super) const HEADER_LEN: usize = 12;
/// Two addresses and a type.
pub(super) const ETHERNET_LEN: usize = 14;

/// The largest frame for the guest, header and all.
pub(super) const LARGEST_TO_GUEST: usize = HEADER_LEN + ETHERNET_LEN + addresses::MTU as usize;

/// The largest frame of the guest, header and all: the largest packet IPv6 has without jumbograms, which is what a
/// driver that leaves segmentation to the device may send.
pub(super) const LARGEST_FROM_GUEST: usize = HEADER_LEN + ETHERNET_LEN + 40 + 65_535;

/// Fills in the header in front of a frame for the guest: that it is gathered from so many buffers, and what its
/// checksums are worth to a driver that takes frames without.
pub(super) fn put_header(packet: &mut [u8], takes_unfinished: bool, buffers: u16) {
    let Some((header, frame)) = packet.split_first_chunk_mut::<HEADER_LEN>() else {
        return;
    };
    *header = [0; HEADER_LEN];
    [header[10], header[11]] = buffers.to_le_bytes();
    if !takes_unfinished {
        return;
    }
    match unfinished_checksum(frame) {
        Some((start, offset)) => {
            header[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
            [header[6], header[7]] = start.to_le_bytes();
            [header[8], header[9]] = offset.to_le_bytes();
        }
        None => header[0] = VIRTIO_NET_HDR_F_DATA_VALID as u8,
    }
}
