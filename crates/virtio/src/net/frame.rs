//! A frame as it lies in a queue: a header of virtio's in front of one of Ethernet's.
//!
//! ```text
//! flags u8 | gso type u8 | header length u16 | gso size u16 | checksum start u16 | offset u16 | buffers u16
//! ```

use user_net::addresses;
use virtio_bindings::virtio_net::VIRTIO_NET_HDR_GSO_NONE;

pub(super) const HEADER_LEN: usize = 12;
/// Two addresses and a type.
pub(super) const ETHERNET_LEN: usize = 14;

/// The largest frame for the guest, header and all.
pub(super) const LARGEST_TO_GUEST: usize = HEADER_LEN + ETHERNET_LEN + addresses::MTU as usize;

/// The largest frame of the guest, header and all: the largest packet IPv6 has without jumbograms, which is what a
/// driver that leaves segmentation to the device may send.
pub(super) const LARGEST_FROM_GUEST: usize = HEADER_LEN + ETHERNET_LEN + 40 + 65_535;

/// Fills in the header in front of a frame for the guest. Nothing is left for the driver to do but to gather the
/// frame from so many buffers.
pub(super) fn put_header(packet: &mut [u8], flags: u8, buffers: u16) {
    let Some(header) = packet.first_chunk_mut::<HEADER_LEN>() else {
        return;
    };
    *header = [0; HEADER_LEN];
    [header[0], header[1]] = [flags, VIRTIO_NET_HDR_GSO_NONE as u8];
    [header[10], header[11]] = buffers.to_le_bytes();
}
