//! A guest's end of the cable, frame by frame: what a kernel would never send.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use egress_policy::addresses::{GATEWAY_MAC, GATEWAY_V4, GUEST_MAC, GUEST_V4, GUEST_V6};
use rustix::event::{PollFd, PollFlags, poll};
use user_net::{Carrier, Links, Network, Offloads};

use crate::world::PATIENCE;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;
/// What the guest's questions and pings come from.
const PORT: u16 = 40_000;

pub(crate) struct Wire {
    carrier: Carrier,
    links: Links,
}

impl Wire {
    pub(crate) fn new(link: OwnedFd) -> Self {
        let (mut carrier, links) = Carrier::new().unwrap();
        carrier.connect(Offloads {
            receives_without_checksum: true,
        });
        links.replace(link);
        carrier.turn();
        Wire { carrier, links }
    }

    pub(crate) fn relink(&mut self, link: OwnedFd) {
        self.links.replace(link);
        self.carrier.turn();
    }

    pub(crate) fn say(&mut self, frame: &[u8]) {
        self.carrier.receive(frame);
        self.carrier.turn();
    }

    /// The next frame to the guest that something can be made of.
    pub(crate) fn hear<T>(&mut self, wanted: impl Fn(&[u8]) -> Option<T>) -> T {
        self.hear_for(PATIENCE, wanted).expect("no such frame")
    }

    pub(crate) fn hear_for<T>(&mut self, time: Duration, wanted: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + time;
        loop {
            let mut frame = Vec::new();
            while self.carrier.transmit(&mut frame) {
                if let Some(found) = wanted(&frame) {
                    return Some(found);
                }
                frame.clear();
            }
            if Instant::now() >= deadline {
                return None;
            }
            let mut ready = [PollFd::from_borrowed_fd(self.carrier.wake(), PollFlags::IN)];
            let soon = rustix::time::Timespec {
                tv_sec: 0,
                tv_nsec: 50_000_000,
            };
            let _ = poll(&mut ready, Some(&soon));
            self.carrier.turn();
        }
    }

    /// The answer's code and the address in it.
    pub(crate) fn ask(&mut self, question: &[u8]) -> (u8, Option<IpAddr>) {
        self.say(&udp(GUEST_V4.into(), GATEWAY_V4.into(), (PORT, 53), question));
        self.hear(|frame| dns_answer(frame, question))
    }

    pub(crate) fn address_of(&mut self, name: &str) -> Option<IpAddr> {
        self.ask(&question(&labels(name), 1)).1
    }

    /// What a SYN is answered with: SYN and ACK, or RST.
    pub(crate) fn connect(&mut self, to: IpAddr, port: u16) -> Segment {
        self.connect_from(PORT, to, port)
    }

    pub(crate) fn connect_from(&mut self, from: u16, to: IpAddr, port: u16) -> Segment {
        self.say(&tcp(to, (from, port), 1000, 0, SYN, b""));
        self.hear(|frame| segment(frame).filter(|segment| segment.ports == (port, from)))
    }

    /// What was said before has been looked at when the gateway answers this.
    pub(crate) fn fence(&mut self) {
        let body = [&[8, 0, 0, 0, 0, 7, 0, 7][..], b"fence"].concat();
        self.say(&ip(GUEST_V4.into(), GATEWAY_V4.into(), ICMP, &summed(body, 2)));
        self.hear(|frame| (payload(frame, ICMP)?.first()? == &0).then_some(()));
    }
}

#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) ports: (u16, u16),
    pub(crate) sequence: u32,
    pub(crate) flags: u8,
    pub(crate) data: Vec<u8>,
}

impl Segment {
    pub(crate) fn is_refusal(&self) -> bool {
        self.flags & RST != 0
    }
}

pub(crate) fn segment(frame: &[u8]) -> Option<Segment> {
    let tcp = payload(frame, TCP)?;
    let header = usize::from(tcp[12] >> 4) * 4;
    Some(Segment {
        ports: (word(tcp, 0), word(tcp, 2)),
        sequence: u32::from_be_bytes(*tcp[4..].first_chunk()?),
        flags: tcp[13],
        data: tcp[header..].to_vec(),
    })
}

/// What a packet to the guest of this protocol carries.
pub(crate) fn payload(frame: &[u8], protocol: u8) -> Option<&[u8]> {
    match (
        frame[14] >> 4,
        frame[12..14] == [8, 0],
        frame[12..14] == [0x86, 0xdd],
    ) {
        (4, true, _) if frame[23] == protocol => Some(&frame[34..]),
        (6, _, true) if frame[20] == protocol => Some(&frame[54..]),
        _ => None,
    }
}

fn dns_answer(frame: &[u8], question: &[u8]) -> Option<(u8, Option<IpAddr>)> {
    let udp = payload(frame, UDP)?;
    let dns = &udp[8..];
    if word(udp, 0) != 53 || dns[..2] != question[..2] {
        return None;
    }
    let address = match (word(dns, 6), dns.len()) {
        (1.., len @ 16..) => match word(dns, len - 6) {
            4 => Some(IpAddr::from(*dns[len - 4..].first_chunk::<4>()?)),
            _ => Some(IpAddr::from(*dns[len - 16..].first_chunk::<16>()?)),
        },
        _ => None,
    };
    Some((dns[3] & 15, address))
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    [&GATEWAY_MAC[..], &GUEST_MAC, &kind.to_be_bytes(), payload].concat()
}

/// Checksums of packets are not filled in: the cable is memory, and they are not looked at.
pub(crate) fn ip(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet(0x0800, &ip4(from, to, protocol, 0, payload)),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet(0x86dd, &ip6(from, to, protocol, payload)),
        _ => panic!("two kinds of addresses"),
    }
}

/// `fragment` is the word of flags and offset.
pub(crate) fn ip4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let [high, low] = fragment.to_be_bytes();
    let head = [0x45, 0, length[0], length[1], 0, 1, high, low, 64, protocol, 0, 0];
    [
        &summed([&head[..], &from.octets(), &to.octets()].concat(), 10),
        payload,
    ]
    .concat()
}

pub(crate) fn ip6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [0x60, 0, 0, 0, length[0], length[1], protocol, 64];
    [&head[..], &from.octets(), &to.octets(), payload].concat()
}

/// With the internet checksum at this place.
pub(crate) fn summed(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    bytes[at..at + 2].copy_from_slice(&(!sum as u16).to_be_bytes());
    bytes
}

pub(crate) fn udp(from: IpAddr, to: IpAddr, (source, port): (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let head = [source, port, length, 0].map(u16::to_be_bytes).concat();
    ip(from, to, UDP, &[&head, payload].concat())
}

/// From the guest.
pub(crate) fn tcp(
    to: IpAddr,
    (source, port): (u16, u16),
    sequence: u32,
    acknowledges: u32,
    flags: u8,
    data: &[u8],
) -> Vec<u8> {
    let from = if to.is_ipv4() {
        GUEST_V4.into()
    } else {
        GUEST_V6.into()
    };
    ip(
        from,
        to,
        TCP,
        &tcp_segment((source, port), sequence, acknowledges, flags, data),
    )
}

pub(crate) fn tcp_segment(
    (source, port): (u16, u16),
    sequence: u32,
    acknowledges: u32,
    flags: u8,
    data: &[u8],
) -> Vec<u8> {
    let mut head = [source.to_be_bytes(), port.to_be_bytes()].concat();
    head.extend(sequence.to_be_bytes());
    head.extend(acknowledges.to_be_bytes());
    head.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    head.extend(data);
    head
}

/// A name as DNS writes it.
pub(crate) fn labels(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| {
        let length = u8::try_from(label.len()).unwrap();
        std::iter::once(length).chain(label.bytes())
    });
    labels.chain([0]).collect()
}

/// One question; its name says which answer is its own.
pub(crate) fn question(name: &[u8], kind: u16) -> Vec<u8> {
    let number = name.iter().fold(kind, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u16::from(*byte))
    });
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend(name);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}
