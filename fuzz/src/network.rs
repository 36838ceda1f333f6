//! A guest's network card: frames of every kind into the stack, while the far end answers, reads, writes and breaks off.
//!
//! A frame is either bytes as they come or made of fields, so that most get past the first check; segments carry the
//! numbers the stack expects, plus what the fuzzer adds to them.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use arbitrary::Arbitrary;
use egress_policy::addresses::{
    GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST_MAC, GUEST_V4, GUEST_V6, MTU, POOL_V4, POOL_V6,
};
use user_net::{Event, FlowId, Offloads, QueryId, Stack};

#[derive(Arbitrary, Debug)]
pub struct Input {
    checksums: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Frame(Vec<u8>),
    /// An Ethernet frame with this payload.
    Payload { kind: Kind, bytes: Vec<u8> },
    Tcp {
        v6: bool,
        to: Place,
        source: u8,
        port: Port,
        flags: u8,
        ahead: i16,
        acknowledged: i16,
        window: u16,
        options: Vec<u8>,
        len: u16,
    },
    Udp { v6: bool, to: Place, port: Port, bytes: Vec<u8> },
    Question { v6: bool, name: Vec<u8>, kind: u16, tail: Vec<u8> },
    /// What was asked last is decided.
    Decide { oldest: bool, allowed: bool },
    Read { flow: u8, most: u16 },
    Write { flow: u8, most: u16 },
    Finish { flow: u8 },
    Break { flow: u8 },
    Transmit { most: u8 },
    Wait { milliseconds: u16 },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Kind {
    V4,
    V6,
    Arp,
    Other(u16),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Place {
    Gateway,
    Pool(u8),
    Elsewhere(u32),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Port {
    Dns,
    Dhcp,
    Https,
    Any(u16),
}

/// More than any input needs, so that none is slow.
const STEPS: usize = 200;

/// # Panics
/// When a frame for the guest is longer than its link, or the stack goes on for ever.
pub fn guest_frames(input: &Input) {
    let mut world = World::new(input.checksums);
    for step in input.steps.iter().take(STEPS) {
        world.step(step);
        world.listen();
    }
    world.now += Duration::from_secs(3600);
    world.stack.expire(world.now);
    world.transmit(usize::from(u8::MAX));
    world.listen();
}

struct World {
    stack: Stack,
    now: Instant,
    questions: Vec<QueryId>,
    opening: Vec<FlowId>,
    open: Vec<FlowId>,
    /// What the stack last said on a connection, by the guest's port: the number it expects next, and its own next.
    numbers: HashMap<u16, (u32, u32)>,
}

impl World {
    fn new(receives_without_checksum: bool) -> Self {
        let now = Instant::now();
        World {
            stack: Stack::new(
                Offloads {
                    receives_without_checksum,
                },
                now,
            ),
            now,
            questions: Vec::new(),
            opening: Vec::new(),
            open: Vec::new(),
            numbers: HashMap::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Frame(bytes) => self.stack.receive(bytes, self.now),
            Step::Payload { kind, bytes } => {
                let kind = match kind {
                    Kind::V4 => 0x0800,
                    Kind::V6 => 0x86dd,
                    Kind::Arp => 0x0806,
                    Kind::Other(number) => *number,
                };
                self.stack.receive(&ethernet(kind, bytes), self.now);
            }
            Step::Tcp {
                v6,
                to,
                source,
                port,
                flags,
                ahead,
                acknowledged,
                window,
                options,
                len,
            } => {
                let source = 40_000 + u16::from(*source % 8);
                let (next, ours) = self.numbers.get(&source).copied().unwrap_or((1000, 0));
                let options = options.get(..options.len().min(40) / 4 * 4).unwrap_or_default();
                let mut segment = Vec::new();
                segment.extend(source.to_be_bytes());
                segment.extend(port.number().to_be_bytes());
                segment.extend(next.wrapping_add_signed((*ahead).into()).to_be_bytes());
                segment.extend(ours.wrapping_add_signed((*acknowledged).into()).to_be_bytes());
                segment.push(((5 + options.len() / 4) << 4) as u8);
                segment.push(*flags);
                segment.extend(window.to_be_bytes());
                segment.extend([0; 4]);
                segment.extend(options);
                segment.resize(segment.len() + usize::from(*len), b'x');
                self.stack.receive(&ip(*v6, *to, 6, &segment), self.now);
            }
            Step::Udp { v6, to, port, bytes } => {
                self.stack.receive(&ip(*v6, *to, 17, &udp(port.number(), bytes)), self.now);
            }
            Step::Question { v6, name, kind, tail } => {
                let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
                for label in name.chunks(7) {
                    question.push(label.len() as u8);
                    question.extend(label.iter().map(|byte| b'a' + byte % 26));
                }
                question.push(0);
                question.extend(kind.to_be_bytes());
                question.extend([0, 1]);
                question.extend(tail);
                self.stack.receive(&ip(*v6, Place::Gateway, 17, &udp(53, &question)), self.now);
            }
            Step::Decide { oldest, allowed } => self.decide(*oldest, *allowed),
            Step::Read { flow, most } => {
                if let Some(flow) = self.flow(*flow) {
                    let count = self.stack.unread(flow).len().min((*most).into());
                    self.stack.consume(flow, count, self.now);
                }
            }
            Step::Write { flow, most } => {
                if let Some(flow) = self.flow(*flow) {
                    let room = self.stack.room(flow);
                    let count = room.len().min((*most).into());
                    room.iter_mut().take(count).for_each(|byte| *byte = b'y');
                    self.stack.produced(flow, count, self.now);
                }
            }
            Step::Finish { flow } => {
                if let Some(flow) = self.flow(*flow) {
                    self.stack.finish(flow, self.now);
                }
            }
            Step::Break { flow } => {
                if let Some(flow) = self.flow(*flow) {
                    self.stack.refuse(flow, self.now);
                }
            }
            Step::Transmit { most } => self.transmit((*most).into()),
            Step::Wait { milliseconds } => {
                self.now += Duration::from_millis((*milliseconds).into());
                self.stack.expire(self.now);
            }
        }
    }

    fn decide(&mut self, oldest: bool, allowed: bool) {
        if let Some(query) = take(&mut self.questions, oldest) {
            self.stack.name_decided(query, allowed, self.now);
        }
        match take(&mut self.opening, oldest) {
            Some(flow) if allowed => {
                self.stack.accept(flow, self.now);
                self.open.push(flow);
            }
            Some(flow) => self.stack.refuse(flow, self.now),
            None => {}
        }
    }

    fn flow(&self, number: u8) -> Option<FlowId> {
        self.open.get(usize::from(number) % self.open.len().max(1)).copied()
    }

    fn listen(&mut self) {
        let mut events = 0;
        while let Some(event) = self.stack.next_event() {
            events += 1;
            assert!(events < 100_000, "events without end");
            match event {
                Event::Name { query, .. } => self.questions.push(query),
                Event::Open { flow, .. } => self.opening.push(flow),
                Event::Closed { flow, .. } => {
                    self.opening.retain(|known| *known != flow);
                    self.open.retain(|known| *known != flow);
                }
                Event::Readable(_) | Event::Writable(_) | Event::Dropped(_) => {}
            }
        }
    }

    fn transmit(&mut self, most: usize) {
        let mut frame = Vec::new();
        for _ in 0..most {
            frame.clear();
            if !self.stack.transmit(&mut frame, self.now) {
                break;
            }
            assert!(frame.len() <= 14 + usize::from(MTU), "a frame of {}", frame.len());
            self.remember(&frame);
        }
    }

    fn remember(&mut self, frame: &[u8]) {
        let ip = &frame[14..];
        let (protocol, header) = match ip[0] >> 4 {
            4 => (ip[9], usize::from(ip[0] & 15) * 4),
            _ => (ip[6], 40),
        };
        if protocol != 6 || frame[12..14] == [8, 6] {
            return;
        }
        let tcp = &ip[header..];
        let number = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
        let payload = tcp.len() - usize::from(tcp[12] >> 4) * 4;
        let counts = payload as u32 + u32::from(tcp[13] & 1) + u32::from(tcp[13] >> 1 & 1);
        let guest = u16::from_be_bytes([tcp[2], tcp[3]]);
        self.numbers.insert(guest, (number(8), number(4).wrapping_add(counts)));
    }
}

fn take<T>(list: &mut Vec<T>, oldest: bool) -> Option<T> {
    if oldest && !list.is_empty() {
        return Some(list.remove(0));
    }
    list.pop()
}

impl Port {
    fn number(self) -> u16 {
        match self {
            Port::Dns => 53,
            Port::Dhcp => 67,
            Port::Https => 443,
            Port::Any(number) => number,
        }
    }
}

impl Place {
    fn v4(self) -> Ipv4Addr {
        match self {
            Place::Gateway => GATEWAY_V4,
            Place::Pool(number) => Ipv4Addr::from(u32::from(POOL_V4) + u32::from(number % 4)),
            Place::Elsewhere(number) => number.into(),
        }
    }

    fn v6(self) -> Ipv6Addr {
        match self {
            Place::Gateway => GATEWAY_V6,
            Place::Pool(number) => Ipv6Addr::from(u128::from(POOL_V6) + u128::from(number % 4)),
            Place::Elsewhere(number) => Ipv6Addr::from(u128::from(number).rotate_right(number % 128)),
        }
    }
}

pub(crate) fn udp(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    let source = if port == 67 { 68 } else { 40_000u16 };
    datagram.extend(source.to_be_bytes());
    datagram.extend(port.to_be_bytes());
    datagram.extend(((8 + bytes.len()) as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(bytes);
    datagram
}

pub(crate) fn ip(v6: bool, to: Place, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    if v6 {
        packet.extend([0x60, 0, 0, 0]);
        packet.extend((payload.len() as u16).to_be_bytes());
        packet.extend([protocol, 64]);
        packet.extend(GUEST_V6.octets());
        packet.extend(to.v6().octets());
    } else {
        packet.extend([0x45, 0]);
        packet.extend(((20 + payload.len()) as u16).to_be_bytes());
        packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
        packet.extend(GUEST_V4.octets());
        packet.extend(to.v4().octets());
    }
    packet.extend(payload);
    ethernet(if v6 { 0x86dd } else { 0x0800 }, &packet)
}

fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(GATEWAY_MAC);
    frame.extend(GUEST_MAC);
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}
