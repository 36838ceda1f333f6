//! Segments made by hand, for what no stack would send.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use egress_policy::addresses::GUEST_V4;
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, TcpPacket, TcpSeqNumber},
};

use super::world::FAR_V4;
use crate::{
    FlowId, Offloads,
    tcp::{FlowEvent, Flows, Opening, Received},
};

/// As they stand in the header.
pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const PSH: u8 = 8;
pub(super) const ACK: u8 = 16;
pub(super) const URG: u8 = 32;

pub(super) const FIRST: u32 = 0xffff_f000;

#[derive(Clone, Copy, Debug)]
pub(super) struct Said<'a> {
    pub(super) port: u16,
    pub(super) flags: u8,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) window: u16,
    pub(super) payload: &'a [u8],
}

impl Said<'_> {
    pub(super) fn packet(&self) -> Vec<u8> {
        // MSS 1460, window scale 7.
        let options: &[u8] = if self.flags & SYN == 0 {
            &[]
        } else {
            &[2, 4, 5, 0xb4, 3, 3, 7, 0]
        };
        let mut tcp = vec![0; 20];
        tcp[0..2].copy_from_slice(&self.port.to_be_bytes());
        tcp[2..4].copy_from_slice(&443_u16.to_be_bytes());
        tcp[4..8].copy_from_slice(&self.seq.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.ack.to_be_bytes());
        tcp[12] = u8::try_from((20 + options.len()) / 4).unwrap() << 4;
        tcp[13] = self.flags;
        tcp[14..16].copy_from_slice(&self.window.to_be_bytes());
        tcp.extend_from_slice(options);
        tcp.extend_from_slice(self.payload);
        let IpAddress::Ipv4(far) = FAR_V4.into() else {
            unreachable!()
        };
        let ip = Ipv4Repr {
            src_addr: GUEST_V4,
            dst_addr: far,
            next_header: IpProtocol::Tcp,
            payload_len: tcp.len(),
            hop_limit: 64,
        };
        let mut packet = vec![0; 20];
        ip.emit(
            &mut Ipv4Packet::new_unchecked(&mut packet[..]),
            &ChecksumCapabilities::default(),
        );
        packet.extend_from_slice(&tcp);
        packet
    }
}

/// A packet to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) to: u16,
    pub(super) flags: u8,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) window: u16,
    pub(super) payload: Vec<u8>,
}

impl Heard {
    pub(super) fn read(packet: &[u8]) -> Heard {
        let ip = Ipv4Packet::new_checked(packet).unwrap();
        assert!(ip.verify_checksum());
        let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
        assert!(tcp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
        let number = |number: TcpSeqNumber| number.0.cast_unsigned();
        Heard {
            to: tcp.dst_port(),
            flags: ip.payload()[13],
            seq: number(tcp.seq_number()),
            ack: number(tcp.ack_number()),
            window: tcp.window_len(),
            payload: tcp.payload().to_vec(),
        }
    }
}

/// A guest that says what it is told to say.
pub(super) struct Hand {
    pub(super) flows: Flows,
    pub(super) now: Instant,
    pub(super) port: u16,
    /// Its next sequence number, and the next it expects.
    pub(super) seq: u32,
    pub(super) ack: u32,
}

impl Hand {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Hand {
            flows: Flows::new(Offloads::default(), now),
            now,
            port: 40_000,
            seq: FIRST,
            ack: 0,
        }
    }

    /// With a flow that stands.
    pub(super) fn open() -> (Self, FlowId) {
        let mut hand = Hand::new();
        let flow = hand.knock();
        hand.flows.accept(flow, hand.now);
        let answer = hand.hear();
        assert_eq!(answer.len(), 1);
        assert_eq!((answer[0].flags, answer[0].ack), (SYN | ACK, hand.seq));
        hand.ack = answer[0].seq.wrapping_add(1);
        hand.say(ACK, &[]);
        assert_eq!(hand.events(), [FlowEvent::Writable(flow)]);
        (hand, flow)
    }

    /// A SYN that makes a flow.
    pub(super) fn knock(&mut self) -> FlowId {
        let received = self.say_at(SYN, self.seq, &[]);
        let Received::Opening(Opening { flow, source, .. }) = received else {
            panic!("{received:?}");
        };
        assert_eq!(source, SocketAddr::new(GUEST_V4.into(), self.port));
        self.seq = self.seq.wrapping_add(1);
        flow
    }

    /// The next bytes, and on.
    pub(super) fn say(&mut self, flags: u8, payload: &[u8]) -> Received {
        let received = self.say_at(flags, self.seq, payload);
        let length = u32::try_from(payload.len()).unwrap() + u32::from(flags & FIN);
        self.seq = self.seq.wrapping_add(length);
        received
    }

    pub(super) fn say_at(&mut self, flags: u8, seq: u32, payload: &[u8]) -> Received {
        self.say_exactly(&Said {
            port: self.port,
            flags,
            seq,
            ack: self.ack,
            window: 1000,
            payload,
        })
    }

    pub(super) fn say_exactly(&mut self, said: &Said<'_>) -> Received {
        self.flows.receive(&said.packet(), self.now)
    }

    pub(super) fn hear(&mut self) -> Vec<Heard> {
        let mut heard = Vec::new();
        let mut packet = Vec::new();
        while self.flows.transmit(&mut packet, self.now) {
            heard.push(Heard::read(&packet));
            packet.clear();
            assert!(heard.len() < 10_000, "it never stops");
        }
        heard
    }

    pub(super) fn events(&mut self) -> Vec<FlowEvent> {
        std::iter::from_fn(|| self.flows.next_event()).collect()
    }

    /// All the guest's bytes, consumed.
    pub(super) fn read(&mut self, flow: FlowId) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let unread = self.flows.unread(flow);
            if unread.is_empty() {
                return all;
            }
            all.extend_from_slice(unread);
            let count = unread.len();
            self.flows.consume(flow, count, self.now);
        }
    }

    pub(super) fn write(&mut self, flow: FlowId, bytes: &[u8]) -> usize {
        let room = self.flows.room(flow);
        let count = room.len().min(bytes.len());
        room[..count].copy_from_slice(&bytes[..count]);
        self.flows.produced(flow, count, self.now);
        count
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
        self.flows.expire(self.now);
    }
}
