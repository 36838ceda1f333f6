//! What a packet of TCP says, and packets of our own making.

use std::net::{IpAddr, SocketAddr};

use smoltcp::{
    phy::{Checksum, ChecksumCapabilities},
    wire::{
        IpProtocol, IpRepr, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpControl, TcpPacket, TcpRepr,
        TcpSeqNumber,
    },
};

use crate::Offloads;

const HOP_LIMIT: u8 = 64;
const CHECKSUM_AT: usize = 16;

/// Both ends of a flow, the guest's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pub(super) guest: SocketAddr,
    pub(super) far: SocketAddr,
}

/// One segment of the guest, syntactically sound. Its checksum was not looked at: the cable is memory, and what is
/// sent over it is often not summed up at all.
#[derive(Debug)]
pub(super) struct Segment<'a> {
    ip: IpRepr,
    tcp: TcpRepr<'a>,
}

impl<'a> Segment<'a> {
    pub(super) fn parse(packet: &'a [u8]) -> Option<Self> {
        let (ip, payload) = match packet.first()? >> 4 {
            4 => {
                let packet = Ipv4Packet::new_checked(packet).ok()?;
                let ip = Ipv4Repr::parse(&packet, &ChecksumCapabilities::ignored()).ok()?;
                (IpRepr::Ipv4(ip), packet.payload())
            }
            6 => {
                let packet = Ipv6Packet::new_checked(packet).ok()?;
                (IpRepr::Ipv6(Ipv6Repr::parse(&packet).ok()?), packet.payload())
            }
            _ => return None,
        };
        if ip.next_header() != IpProtocol::Tcp || !ip.src_addr().is_unicast() {
            return None;
        }
        let segment = TcpPacket::new_checked(payload).ok()?;
        let (source, destination) = (ip.src_addr(), ip.dst_addr());
        let tcp = TcpRepr::parse(&segment, &source, &destination, &ChecksumCapabilities::ignored()).ok()?;
        Some(Segment { ip, tcp })
    }

    pub(super) fn ends(&self) -> Ends {
        Ends {
            guest: SocketAddr::new(IpAddr::from(self.ip.src_addr()), self.tcp.src_port),
            far: SocketAddr::new(IpAddr::from(self.ip.dst_addr()), self.tcp.dst_port),
        }
    }

    pub(super) fn is_for_one(&self) -> bool {
        self.ip.dst_addr().is_unicast()
    }

    pub(super) fn opens(&self) -> bool {
        self.tcp.control == TcpControl::Syn && self.tcp.ack_number.is_none()
    }

    pub(super) fn is_reset(&self) -> bool {
        self.tcp.control == TcpControl::Rst
    }

    /// A RST by whoever sent this SYN, which nobody answered yet.
    pub(super) fn takes_back(&self, syn: &[u8]) -> bool {
        let gap = Segment::parse(syn).map(|syn| self.seq().wrapping_sub(syn.seq()));
        self.is_reset() && matches!(gap, Some(0 | 1))
    }

    pub(super) fn seq(&self) -> u32 {
        self.tcp.seq_number.0.cast_unsigned()
    }

    pub(super) fn payload(&self) -> &[u8] {
        self.tcp.payload
    }

    /// The number after the last byte.
    pub(super) fn end(&self) -> u32 {
        // A segment is shorter than 64 KiB.
        self.seq()
            .wrapping_add(u32::try_from(self.payload().len()).unwrap_or(u32::MAX))
    }

    /// This SYN without what it brings along before its time.
    pub(super) fn bare(&self) -> Vec<u8> {
        let tcp = TcpRepr {
            payload: &[],
            ..self.tcp
        };
        write(
            self.ends().guest,
            self.ends().far,
            &tcp,
            Offloads {
                receives_without_checksum: true,
            },
        )
    }

    /// The answer to a segment of no flow (RFC 9293, 3.10.7.1). A RST has none.
    pub(super) fn reset(&self, offloads: Offloads) -> Option<Vec<u8>> {
        if self.is_reset() {
            return None;
        }
        let (seq, ack) = match self.tcp.ack_number {
            Some(ack) => (ack, None),
            None => (
                TcpSeqNumber(0),
                Some(self.tcp.seq_number + self.tcp.segment_len()),
            ),
        };
        let Ends { guest, far } = self.ends();
        Some(write(
            far,
            guest,
            &bare(far, guest, TcpControl::Rst, seq, ack),
            offloads,
        ))
    }
}

/// An empty segment that says where we are: the next number to send, and the next to come.
pub(super) fn acknowledgement(
    from: SocketAddr,
    to: SocketAddr,
    at: (u32, u32),
    offloads: Offloads,
) -> Vec<u8> {
    empty(from, to, TcpControl::None, at, offloads)
}

pub(super) fn end(from: SocketAddr, to: SocketAddr, at: (u32, u32), offloads: Offloads) -> Vec<u8> {
    empty(from, to, TcpControl::Fin, at, offloads)
}

fn empty(
    from: SocketAddr,
    to: SocketAddr,
    control: TcpControl,
    (seq, ack): (u32, u32),
    offloads: Offloads,
) -> Vec<u8> {
    let (seq, ack) = (TcpSeqNumber(seq.cast_signed()), TcpSeqNumber(ack.cast_signed()));
    write(from, to, &bare(from, to, control, seq, Some(ack)), offloads)
}

/// What we need to know of a packet that smoltcp made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// The sequence number after it.
    pub(super) end: u32,
    /// It says how large our window is, in the units of the flow.
    pub(super) says_window: bool,
}

/// Makes a packet of smoltcp ready to go.
pub(super) fn seal(packet: &mut [u8], offloads: Offloads) -> Option<Sent> {
    let mut tcp = TcpPacket::new_checked(tcp_of(packet)?).ok()?;
    let plain = !tcp.syn() && !tcp.rst();
    if plain {
        // smoltcp rounds the window down to the unit it is given in, so that its right edge goes back by a little
        // when data comes, and what then lies beyond it is cut off, before a FIN as well. One unit less than it
        // means, and no guest that keeps to the window ever gets there.
        tcp.set_window_len(tcp.window_len().saturating_sub(1));
    }
    let sent = Sent {
        end: (tcp.seq_number() + tcp.segment_len()).0.cast_unsigned(),
        says_window: plain,
    };
    sum_up(packet, offloads);
    Some(sent)
}

fn bare(
    from: SocketAddr,
    to: SocketAddr,
    control: TcpControl,
    seq: TcpSeqNumber,
    ack: Option<TcpSeqNumber>,
) -> TcpRepr<'static> {
    TcpRepr {
        src_port: from.port(),
        dst_port: to.port(),
        control,
        seq_number: seq,
        ack_number: ack,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    }
}

fn write(from: SocketAddr, to: SocketAddr, tcp: &TcpRepr<'_>, offloads: Offloads) -> Vec<u8> {
    let (source, destination) = (from.ip().into(), to.ip().into());
    let ip = IpRepr::new(source, destination, IpProtocol::Tcp, tcp.buffer_len(), HOP_LIMIT);
    let mut packet = vec![0; ip.buffer_len()];
    ip.emit(&mut packet[..], &checksums());
    if let Some(segment) = tcp_of(&mut packet) {
        tcp.emit(
            &mut TcpPacket::new_unchecked(segment),
            &source,
            &destination,
            &checksums(),
        );
    }
    sum_up(&mut packet, offloads);
    packet
}

/// Only the header of IPv4: the sum over a segment comes last, or not at all.
pub(super) fn checksums() -> ChecksumCapabilities {
    let mut checksums = ChecksumCapabilities::ignored();
    checksums.ipv4 = Checksum::Tx;
    checksums
}

/// A driver that does without the sum finds that of the pseudo header in its place, as if it had asked for the rest
/// to be done by its device; so the device may say either that the segment is good or that its sum is to be made,
/// and a guest that sends the packet on to a container makes it then.
fn sum_up(packet: &mut [u8], offloads: Offloads) {
    let Some((source, destination)) = addresses_of(packet) else {
        return;
    };
    let Some(segment) = tcp_of(packet) else {
        return;
    };
    let sum = if offloads.receives_without_checksum {
        pseudo_header(source, destination, segment.len())
    } else {
        TcpPacket::new_unchecked(&mut *segment).fill_checksum(&source.into(), &destination.into());
        return;
    };
    if let Some(field) = segment.get_mut(CHECKSUM_AT..CHECKSUM_AT + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

/// Not complemented: the sum to start the rest from.
fn pseudo_header(source: IpAddr, destination: IpAddr, length: usize) -> u16 {
    let words = |address: IpAddr| match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    };
    let length = u32::try_from(length).unwrap_or(0);
    let total = words(source) + words(destination) + u32::from(u8::from(IpProtocol::Tcp)) + length;
    let folded = (total & 0xffff) + (total >> 16);
    u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX)
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum()
}

/// Of a packet made here, which has no options and no extension headers.
fn tcp_of(packet: &mut [u8]) -> Option<&mut [u8]> {
    let header = if packet.first()? >> 4 == 4 { 20 } else { 40 };
    packet.get_mut(header..)
}

fn addresses_of(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    if packet.first()? >> 4 == 4 {
        let packet = Ipv4Packet::new_checked(packet).ok()?;
        Some((packet.src_addr().into(), packet.dst_addr().into()))
    } else {
        let packet = Ipv6Packet::new_checked(packet).ok()?;
        Some((packet.src_addr().into(), packet.dst_addr().into()))
    }
}
