//! A guest, a cable and a far end, all in memory and with a clock of their own.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use smoltcp::socket::tcp::{Socket, State};

use super::guest::Guest;
use crate::{
    FlowId, Offloads,
    tcp::{FlowEvent, Flows, Opening, Received, Stage, clock::Clock},
};

pub(super) const FAR_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 1, 7));
pub(super) const FAR_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfdc0, 0xffe4, 0, 1, 0, 0, 0, 7));

/// What is sent both ways: byte `n` of a stream is byte `n` of this, over and over. The length has no factor in
/// common with any buffer's.
const PERIOD: usize = 65_521;

pub(super) fn pattern() -> Vec<u8> {
    (0..PERIOD).map(|n| (n ^ (n >> 8)).to_le_bytes()[0]).collect()
}

/// A stream as it is written or checked.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pattern: Vec<u8>,
    pub(super) at: u64,
}

impl Stream {
    pub(super) fn new() -> Self {
        Stream {
            pattern: pattern(),
            at: 0,
        }
    }

    pub(super) fn write(&mut self, space: &mut [u8], limit: u64) -> usize {
        let count = space
            .len()
            .min(usize::try_from(limit.saturating_sub(self.at)).unwrap());
        for piece in self.pieces(count) {
            let (at, bytes) = piece;
            space[at..at + bytes.len()].copy_from_slice(bytes);
        }
        self.at += count as u64;
        count
    }

    pub(super) fn check(&mut self, bytes: &[u8]) {
        for (at, expected) in self.pieces(bytes.len()) {
            assert!(
                &bytes[at..at + expected.len()] == expected,
                "the stream differs after byte {}",
                self.at
            );
        }
        self.at += bytes.len() as u64;
    }

    fn pieces(&self, count: usize) -> impl Iterator<Item = (usize, &[u8])> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let start = usize::try_from((self.at + done as u64) % PERIOD as u64).unwrap();
            let length = (count - done).min(PERIOD - start);
            let piece = (done, &self.pattern[start..start + length]);
            done += length;
            (length > 0).then_some(piece)
        })
    }
}

pub(super) struct World {
    pub(super) flows: Flows,
    pub(super) guest: Guest,
    pub(super) now: Instant,
    pub(super) far: HashMap<FlowId, Far>,
    pub(super) openings: VecDeque<Opening>,
    pub(super) closed: Vec<(FlowId, bool)>,
    /// Loses every so-and-so-many-th packet, either way.
    pub(super) loses: Option<u64>,
    pub(super) packets: u64,
    start: Instant,
}

/// What is behind a flow.
pub(super) struct Far {
    pub(super) received: Stream,
    pub(super) sent: Stream,
    pub(super) to_send: u64,
    /// FIN after that.
    pub(super) finishes: bool,
    pub(super) finished: bool,
    pub(super) heard_end: bool,
    pub(super) reads: bool,
}

impl Default for Far {
    fn default() -> Self {
        Far {
            received: Stream::new(),
            sent: Stream::new(),
            to_send: 0,
            finishes: true,
            finished: false,
            heard_end: false,
            reads: true,
        }
    }
}

impl World {
    pub(super) fn new(mtu: usize) -> Self {
        World::with(mtu, Offloads::default())
    }

    pub(super) fn with(mtu: usize, offloads: Offloads) -> Self {
        let now = Instant::now();
        World {
            flows: Flows::new(offloads, now),
            guest: Guest::new(mtu, offloads),
            now,
            far: HashMap::new(),
            openings: VecDeque::new(),
            closed: Vec::new(),
            loses: None,
            packets: 0,
            start: now,
        }
    }

    /// Accepts all that waits.
    pub(super) fn accept(&mut self, far: impl Fn() -> Far) {
        while let Some(opening) = self.openings.pop_front() {
            self.far.insert(opening.flow, far());
            self.flows.accept(opening.flow, self.now);
        }
    }

    /// Until nothing moves any more without time passing.
    pub(super) fn settle(&mut self) {
        while self.turn() {}
    }

    /// Lets time pass until `done`, or panics after `limit`.
    pub(super) fn run(&mut self, limit: Duration, mut done: impl FnMut(&mut World) -> bool) {
        let end = self.now + limit;
        loop {
            self.settle();
            if done(self) {
                return;
            }
            let next = self
                .next_deadline()
                .unwrap_or_else(|| panic!("nothing will ever happen: {:?}", self.states()));
            self.now = next.max(self.now + Duration::from_micros(1));
            assert!(self.now <= end, "it takes too long");
            self.flows.expire(self.now);
        }
    }

    pub(super) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.settle();
            let next = self
                .next_deadline()
                .unwrap_or(end)
                .max(self.now + Duration::from_micros(1));
            self.now = next.min(end);
            self.flows.expire(self.now);
        }
        self.settle();
    }

    fn states(&self) -> Vec<State> {
        let clients = self.guest.clients.iter().map(|client| client.handle);
        let guest = clients.map(|handle| self.guest.sockets.get::<Socket<'_>>(handle));
        let ours = self.flows.flows.values().filter_map(|flow| match &flow.stage {
            Stage::Standing(connection) => Some(connection.socket()),
            _ => None,
        });
        guest.chain(ours).map(Socket::state).collect()
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        let guest = self.guest.deadline(Clock::new(self.start), self.now);
        [self.flows.deadline(), guest].into_iter().flatten().min()
    }

    pub(super) fn turn(&mut self) -> bool {
        self.guest.poll(Clock::new(self.start).at(self.now));
        let mut moved = false;
        while let Some(packet) = self.guest.cable.to_us.pop_front() {
            moved = true;
            if !self.is_lost() {
                self.receive(&packet);
            }
        }
        moved |= self.serve();
        let mut packet = Vec::new();
        while self.flows.transmit(&mut packet, self.now) {
            moved = true;
            let packet = std::mem::take(&mut packet);
            if !self.is_lost() {
                self.guest.cable.to_guest.push_back(packet);
            }
        }
        moved
    }

    pub(super) fn receive(&mut self, packet: &[u8]) -> Received {
        let received = self.flows.receive(packet, self.now);
        if let Received::Opening(opening) = received {
            self.openings.push_back(opening);
        }
        received
    }

    fn is_lost(&mut self) -> bool {
        self.packets += 1;
        self.loses.is_some_and(|every| self.packets.is_multiple_of(every))
    }

    /// The far ends do what they can.
    pub(super) fn serve(&mut self) -> bool {
        let mut moved = false;
        while let Some(event) = self.flows.next_event() {
            moved = true;
            match event {
                FlowEvent::Readable(flow) => self.read(flow),
                FlowEvent::Writable(flow) => self.write(flow),
                FlowEvent::Closed { flow, broken } => self.closed.push((flow, broken)),
            }
        }
        moved
    }

    pub(super) fn read(&mut self, flow: FlowId) {
        let far = self
            .far
            .get_mut(&flow)
            .expect("an event of a flow that was never accepted");
        while far.reads {
            let unread = self.flows.unread(flow);
            let count = unread.len();
            far.received.check(unread);
            self.flows.consume(flow, count, self.now);
            if count == 0 {
                break;
            }
        }
        far.heard_end |= self.flows.guest_finished(flow);
    }

    pub(super) fn write(&mut self, flow: FlowId) {
        let far = self
            .far
            .get_mut(&flow)
            .expect("an event of a flow that was never accepted");
        loop {
            let count = far.sent.write(self.flows.room(flow), far.to_send);
            if count == 0 {
                break;
            }
            self.flows.produced(flow, count, self.now);
        }
        if far.sent.at == far.to_send && far.finishes && !far.finished {
            far.finished = true;
            self.flows.finish(flow, self.now);
        }
    }
}
