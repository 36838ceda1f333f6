//! A frame of the guest, read as far as the IP payload. What this lets through has lengths that agree.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use egress_policy::link::{self, DropReason};
use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet};

#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) source: EthernetAddress,
    pub(crate) destination: EthernetAddress,
    pub(crate) content: Content<'a>,
}

#[derive(Debug)]
pub(crate) enum Content<'a> {
    Arp(&'a [u8]),
    Ip(Packet<'a>),
}

#[derive(Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) ends: Ends,
    pub(crate) protocol: IpProtocol,
    pub(crate) hop_limit: u8,
    /// Headers and all, without what the frame has behind it.
    pub(crate) whole: &'a [u8],
    pub(crate) payload: &'a [u8],
    /// An extension header that this does not look behind comes first. Only multicast listeners send such.
    pub(crate) extended: bool,
}

/// Two addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ends {
    V4 { source: Ipv4Addr, destination: Ipv4Addr },
    V6 { source: Ipv6Addr, destination: Ipv6Addr },
}

impl Ends {
    pub(crate) fn destination(self) -> IpAddr {
        match self {
            Ends::V4 { destination, .. } => destination.into(),
            Ends::V6 { destination, .. } => destination.into(),
        }
    }

    pub(crate) fn reversed(self) -> Self {
        match self {
            Ends::V4 { source, destination } => Ends::V4 {
                source: destination,
                destination: source,
            },
            Ends::V6 { source, destination } => Ends::V6 {
                source: destination,
                destination: source,
            },
        }
    }
}

/// A frame that is not read further, and what is known of it for the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub(crate) reason: DropReason,
    pub(crate) protocol: link::Protocol,
    pub(crate) destination: Option<IpAddr>,
}

impl Rejected {
    const MALFORMED: Rejected = Rejected {
        reason: DropReason::Malformed,
        protocol: link::Protocol::Ip(0),
        destination: None,
    };

    pub(crate) const fn arp(reason: DropReason) -> Self {
        Rejected {
            reason,
            ..Self::MALFORMED
        }
    }
}

impl<'a> Frame<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Rejected> {
        let frame = EthernetFrame::new_checked(bytes).map_err(|_| Rejected::MALFORMED)?;
        let content = match frame.ethertype() {
            EthernetProtocol::Arp => Content::Arp(frame.payload()),
            EthernetProtocol::Ipv4 => Content::Ip(Packet::parse_v4(frame.payload())?),
            EthernetProtocol::Ipv6 => Content::Ip(Packet::parse_v6(frame.payload())?),
            EthernetProtocol::Unknown(_) => return Err(Rejected::MALFORMED),
        };
        Ok(Frame {
            source: frame.src_addr(),
            destination: frame.dst_addr(),
            content,
        })
    }
}

impl<'a> Packet<'a> {
    /// Checksums are not looked at: the cable is a copy in memory, and a driver with offloads does not fill them in.
    fn parse_v4(bytes: &'a [u8]) -> Result<Self, Rejected> {
        let packet = Ipv4Packet::new_checked(bytes).map_err(|_| Rejected::MALFORMED)?;
        let rejected = |reason| Rejected {
            reason,
            protocol: kind(packet.next_header()),
            destination: Some(packet.dst_addr().into()),
        };
        if packet.version() != 4 {
            return Err(Rejected::MALFORMED);
        }
        if packet.more_frags() || packet.frag_offset() != 0 {
            return Err(rejected(DropReason::Fragment));
        }
        let header = usize::from(packet.header_len());
        check_options(bytes.get(20..header).unwrap_or_default()).map_err(rejected)?;
        Ok(Packet {
            ends: Ends::V4 {
                source: packet.src_addr(),
                destination: packet.dst_addr(),
            },
            protocol: packet.next_header(),
            hop_limit: packet.hop_limit(),
            whole: bytes
                .get(..usize::from(packet.total_len()))
                .ok_or(Rejected::MALFORMED)?,
            payload: packet.payload(),
            extended: false,
        })
    }

    /// A length of zero, which is how Linux marks what is longer than the field can say, leaves no payload here.
    fn parse_v6(bytes: &'a [u8]) -> Result<Self, Rejected> {
        let packet = Ipv6Packet::new_checked(bytes).map_err(|_| Rejected::MALFORMED)?;
        let rejected = |reason| Rejected {
            reason,
            protocol: kind(packet.next_header()),
            destination: Some(packet.dst_addr().into()),
        };
        if packet.version() != 6 {
            return Err(Rejected::MALFORMED);
        }
        let extended = match packet.next_header() {
            IpProtocol::Ipv6Frag => return Err(rejected(DropReason::Fragment)),
            // What every Linux says when it joins a group; nothing reads it here.
            IpProtocol::HopByHop if packet.dst_addr().is_multicast() => true,
            IpProtocol::HopByHop | IpProtocol::Ipv6Route => return Err(rejected(DropReason::SourceRoute)),
            _ => false,
        };
        Ok(Packet {
            ends: Ends::V6 {
                source: packet.src_addr(),
                destination: packet.dst_addr(),
            },
            protocol: packet.next_header(),
            hop_limit: packet.hop_limit(),
            whole: bytes.get(..packet.total_len()).ok_or(Rejected::MALFORMED)?,
            payload: packet.payload(),
            extended,
        })
    }
}

const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

fn check_options(mut options: &[u8]) -> Result<(), DropReason> {
    loop {
        options = match options {
            [] | [END_OF_OPTIONS, ..] => return Ok(()),
            [NO_OPERATION, rest @ ..] => rest,
            [LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE, ..] => return Err(DropReason::SourceRoute),
            [_, length, ..] if *length >= 2 => {
                options.get(usize::from(*length)..).ok_or(DropReason::Malformed)?
            }
            _ => return Err(DropReason::Malformed),
        }
    }
}

/// How a protocol of IP is called in a record.
pub(crate) fn kind(protocol: IpProtocol) -> link::Protocol {
    match protocol {
        IpProtocol::Tcp => link::Protocol::Tcp,
        IpProtocol::Udp => link::Protocol::Udp,
        IpProtocol::Icmp | IpProtocol::Icmpv6 => link::Protocol::Icmp,
        other => link::Protocol::Ip(other.into()),
    }
}

/// The ports of TCP and UDP, which both have in front: source, destination.
pub(crate) fn ports(packet: &Packet<'_>) -> Option<(u16, u16)> {
    if !matches!(packet.protocol, IpProtocol::Tcp | IpProtocol::Udp) {
        return None;
    }
    let [a, b, c, d] = *packet.payload.first_chunk::<4>()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}
