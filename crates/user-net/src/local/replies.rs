//! Frames of the gateway, and those that wait for room in the guest.

use std::collections::VecDeque;

use egress_policy::addresses::GATEWAY_MAC;
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr,
        Ipv6Packet, Ipv6Repr, UdpPacket,
    },
};

use crate::{
    limits::{MAX_REPLIES, MAX_REPLY_BYTES},
    stack::packet::Ends,
};

pub(crate) const ETHERNET_HEADER: usize = 14;
const UDP_HEADER: usize = 8;
/// Hop limit of what we send; for NDP it must be this one.
const HOP_LIMIT: u8 = 255;

#[derive(Debug, Default)]
pub(crate) struct Replies {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Replies {
    /// One too many is lost, as on any cable.
    pub(crate) fn push(&mut self, frame: Vec<u8>) {
        let bytes = self.bytes.saturating_add(frame.len());
        if self.frames.len() < MAX_REPLIES && bytes <= MAX_REPLY_BYTES {
            self.bytes = bytes;
            self.frames.push_back(frame);
        }
    }

    pub(crate) fn extend(&mut self, frame: Option<Vec<u8>>) {
        if let Some(frame) = frame {
            self.push(frame);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        let frame = self.frames.pop_front()?;
        self.bytes = self.bytes.saturating_sub(frame.len());
        Some(frame)
    }
}

pub(crate) fn ethernet_header(to: EthernetAddress, protocol: EthernetProtocol) -> [u8; ETHERNET_HEADER] {
    let mut header = [0; ETHERNET_HEADER];
    let repr = EthernetRepr {
        src_addr: EthernetAddress(GATEWAY_MAC),
        dst_addr: to,
        ethertype: protocol,
    };
    repr.emit(&mut EthernetFrame::new_unchecked(&mut header));
    header
}

/// A frame around an IP payload whose checksum is in it.
pub(crate) fn ip_packet(to: EthernetAddress, ends: Ends, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let mut frame;
    match ends {
        Ends::V4 { source, destination } => {
            frame = ethernet_header(to, EthernetProtocol::Ipv4).to_vec();
            let mut header = [0; smoltcp::wire::IPV4_HEADER_LEN];
            let repr = Ipv4Repr {
                src_addr: source,
                dst_addr: destination,
                next_header: protocol,
                payload_len: payload.len(),
                hop_limit: HOP_LIMIT,
            };
            repr.emit(
                &mut Ipv4Packet::new_unchecked(&mut header),
                &ChecksumCapabilities::default(),
            );
            frame.extend_from_slice(&header);
        }
        Ends::V6 { source, destination } => {
            frame = ethernet_header(to, EthernetProtocol::Ipv6).to_vec();
            let mut header = [0; smoltcp::wire::IPV6_HEADER_LEN];
            let repr = Ipv6Repr {
                src_addr: source,
                dst_addr: destination,
                next_header: protocol,
                payload_len: payload.len(),
                hop_limit: HOP_LIMIT,
            };
            repr.emit(&mut Ipv6Packet::new_unchecked(&mut header));
            frame.extend_from_slice(&header);
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// `None` when the content is longer than a datagram can be.
pub(crate) fn udp_packet(
    to: EthernetAddress,
    ends: Ends,
    (source, destination): (u16, u16),
    content: &[u8],
) -> Option<Vec<u8>> {
    let length = u16::try_from(UDP_HEADER + content.len()).ok()?;
    let mut payload = vec![0; UDP_HEADER];
    payload.extend_from_slice(content);
    let mut datagram = UdpPacket::new_unchecked(&mut payload);
    datagram.set_src_port(source);
    datagram.set_dst_port(destination);
    datagram.set_len(length);
    match ends {
        Ends::V4 { source, destination } => datagram.fill_checksum(&source.into(), &destination.into()),
        Ends::V6 { source, destination } => datagram.fill_checksum(&source.into(), &destination.into()),
    }
    Some(ip_packet(to, ends, IpProtocol::Udp, &payload))
}
