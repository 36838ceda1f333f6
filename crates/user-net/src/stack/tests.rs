//! A guest made of bytes, at the other end of the cable.

pub(crate) mod dns;
mod hostile;
mod local;
mod random;
pub(crate) mod tcp;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use egress_policy::{
    HostName, Target,
    addresses::{GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST_MAC, GUEST_V4, GUEST_V6},
    link::{DropReason, Dropped, Protocol},
};
use smoltcp::wire::{EthernetAddress, IpProtocol, TcpPacket};

use super::{
    Event, Stack,
    packet::{Content, Ends, Frame},
};
use crate::{
    Offloads,
    local::{ip_packet, udp_packet},
};

const SOURCE_PORT: u16 = 40_000;

struct Cable {
    stack: Stack,
    now: Instant,
}

impl Cable {
    fn new() -> Self {
        let now = Instant::now();
        Cable {
            stack: Stack::new(Offloads::default(), now),
            now,
        }
    }

    fn send(&mut self, frame: &[u8]) {
        self.stack.receive(frame, self.now);
    }

    fn frames(&mut self) -> Vec<Vec<u8>> {
        let next = || {
            let mut frame = Vec::new();
            self.stack.transmit(&mut frame, self.now).then_some(frame)
        };
        std::iter::from_fn(next).collect()
    }

    fn frame(&mut self) -> Vec<u8> {
        let mut frames = self.frames();
        assert_eq!(frames.len(), 1, "{frames:?}");
        frames.remove(0)
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.stack.next_event()).collect()
    }

    /// Reasons of what was dropped since; nothing else may have happened.
    fn drops(&mut self) -> Vec<DropReason> {
        let events = self.events().into_iter();
        let reason = |event| match event {
            Event::Dropped(dropped) => dropped.reason,
            other => panic!("{other:?}"),
        };
        events.map(reason).collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.stack.expire(self.now);
    }

    /// Nothing comes back and nothing happens, but a record.
    fn expect_drop(&mut self, frame: &[u8], reason: DropReason) {
        self.send(frame);
        assert_eq!(self.frames(), Vec::<Vec<u8>>::new());
        assert_eq!(self.drops(), [reason]);
    }

    fn expect_silence(&mut self, frame: &[u8]) {
        self.send(frame);
        assert_eq!(self.frames(), Vec::<Vec<u8>>::new());
        assert_eq!(self.events(), []);
    }

    /// A name that is allowed, and its addresses.
    fn resolve(&mut self, name: &str) -> (Ipv4Addr, Ipv6Addr) {
        let address = |cable: &mut Self, kind| {
            cable.send(&dns::ask(name, kind));
            let Some(Event::Name { query, .. }) = cable.stack.next_event() else {
                panic!("no question");
            };
            cable.stack.name_decided(query, true, cable.now);
            let answer = dns::answer(&cable.frame());
            answer.answers[0].data.ip_addr().unwrap()
        };
        use hickory_proto::rr::RecordType;
        match (address(self, RecordType::A), address(self, RecordType::AAAA)) {
            (IpAddr::V4(v4), IpAddr::V6(v6)) => (v4, v6),
            other => panic!("{other:?}"),
        }
    }
}

fn name(text: &str) -> HostName {
    HostName::try_from(text.to_owned()).unwrap()
}

fn v4(destination: &str) -> Ends {
    Ends::V4 {
        source: GUEST_V4,
        destination: destination.parse().unwrap(),
    }
}

fn v6(destination: &str) -> Ends {
    Ends::V6 {
        source: GUEST_V6,
        destination: destination.parse().unwrap(),
    }
}

pub(crate) fn to(destination: impl Into<IpAddr>) -> Ends {
    match destination.into() {
        IpAddr::V4(destination) => Ends::V4 {
            source: GUEST_V4,
            destination,
        },
        IpAddr::V6(destination) => Ends::V6 {
            source: GUEST_V6,
            destination,
        },
    }
}

fn to_gateway() -> [Ends; 2] {
    [to(GATEWAY_V4), to(GATEWAY_V6)]
}

/// The same builders as the gateway's, from the other side.
fn from_guest(mut frame: Vec<u8>) -> Vec<u8> {
    frame[6..12].copy_from_slice(&GUEST_MAC);
    frame
}

fn ip(ends: Ends, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    from_guest(ip_packet(EthernetAddress(GATEWAY_MAC), ends, protocol, payload))
}

fn udp(ends: Ends, port: u16, content: &[u8]) -> Vec<u8> {
    let frame = udp_packet(EthernetAddress(GATEWAY_MAC), ends, (SOURCE_PORT, port), content);
    from_guest(frame.unwrap())
}

fn ping(ends: Ends, content: &[u8]) -> Vec<u8> {
    let (protocol, kind) = match ends {
        Ends::V4 { .. } => (IpProtocol::Icmp, 8),
        Ends::V6 { .. } => (IpProtocol::Icmpv6, 128),
    };
    let payload = [&[kind, 0, 0, 0, 0x12, 0x34, 0, 1], content].concat();
    ip(ends, protocol, &payload)
}

fn ethernet(kind: u16, content: &[u8]) -> Vec<u8> {
    [&GATEWAY_MAC, &GUEST_MAC, kind.to_be_bytes().as_slice(), content].concat()
}

/// What a frame of the gateway has in it: to whom, between which ends, what.
fn read(frame: &[u8]) -> (EthernetAddress, Ends, IpProtocol, Vec<u8>) {
    let frame = Frame::parse(frame).unwrap();
    assert_eq!(frame.source, EthernetAddress(GATEWAY_MAC));
    let Content::Ip(packet) = frame.content else {
        panic!("{frame:?}");
    };
    (
        frame.destination,
        packet.ends,
        packet.protocol,
        packet.payload.to_vec(),
    )
}

/// Type and code of the ICMP error a frame is, checked to be from the gateway, to the guest, and about `refused`.
fn error(frame: &[u8], refused: &[u8]) -> (u8, u8) {
    use smoltcp::wire::{Icmpv4Packet, Icmpv6Packet};
    let (to, ends, protocol, payload) = read(frame);
    assert_eq!(to, EthernetAddress(GUEST_MAC));
    match ends {
        Ends::V4 { source, destination } => {
            assert_eq!(
                (source, destination, protocol),
                (GATEWAY_V4, GUEST_V4, IpProtocol::Icmp)
            );
            assert!(Icmpv4Packet::new_checked(&payload).unwrap().verify_checksum());
        }
        Ends::V6 { source, destination } => {
            assert_eq!(
                (source, destination, protocol),
                (GATEWAY_V6, GUEST_V6, IpProtocol::Icmpv6)
            );
            assert!(
                Icmpv6Packet::new_checked(&payload)
                    .unwrap()
                    .verify_checksum(&source, &destination)
            );
        }
    }
    let quote = &payload[8..];
    assert_eq!(&refused[14..14 + quote.len()], quote);
    assert!(frame.len() <= 14 + 1280);
    (payload[0], payload[1])
}

fn dropped(protocol: Protocol, target: Option<Target>, port: Option<u16>, reason: DropReason) -> Dropped {
    Dropped {
        protocol,
        target,
        port,
        source: port.map(|_| SOURCE_PORT),
        reason,
        count: 1,
    }
}
