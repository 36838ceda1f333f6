//! Every TCP connection of the guest, ended here.
//!
//! A SYN makes a flow that waits ([`Received::Opening`]); [`Flows::accept`] answers it, [`Flows::refuse`] is a RST.
//! Each flow that stands is a [`Connection`]: a smoltcp interface of its own with one socket, so that a packet costs
//! the same however many flows there are. Flows with something to say stand in a queue and take turns, a packet each.
//!
//! A flow is gone, its buffers with it, once both FINs are acknowledged and the guest's bytes consumed, or a RST came;
//! there is no TIME-WAIT, and what still comes for it is answered with a RST. [`FlowEvent::Closed`] tells of every end
//! but those that [`Flows::refuse`] made.

mod buffers;
mod clock;
mod connection;
mod port;
mod segment;
#[cfg(test)]
mod tests;
mod turns;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    fmt,
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    time::Instant,
};

use egress_policy::link::DropReason;

use self::{
    buffers::Buffers,
    clock::Clock,
    connection::{Connection, News},
    segment::{Ends, Segment},
};
use crate::{
    FlowId, Offloads,
    bucket::Bucket,
    limits::{
        HANDSHAKE_DEADLINE, MAX_FLOWS, MAX_LAST_WORDS, MAX_OPENING, OPENING_DEADLINE, RESET_BURST,
        RESETS_PER_SECOND,
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// It belongs to a flow, or to none and has its answer.
    Known,
    Opening(Opening),
    /// Where TCP has an answer to it, that is given already.
    Refused(DropReason),
}

/// A flow that waits for [`Flows::accept`] or [`Flows::refuse`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    pub(crate) flow: FlowId,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlowEvent {
    /// [`Flows::unread`] has something new, or the guest's end came.
    Readable(FlowId),
    /// [`Flows::room`] has become larger after it was nothing.
    Writable(FlowId),
    /// The flow is gone; its number means nothing any more. Not told of a flow that was refused.
    Closed { flow: FlowId, broken: bool },
}

impl FlowEvent {
    fn flow(self) -> FlowId {
        let (FlowEvent::Readable(id) | FlowEvent::Writable(id) | FlowEvent::Closed { flow: id, .. }) = self;
        id
    }
}

pub(crate) struct Flows {
    offloads: Offloads,
    clock: Clock,
    seeds: RandomState,
    flows: HashMap<FlowId, Flow>,
    ids: HashMap<Ends, FlowId>,
    last: u64,
    opening: usize,
    buffers: Buffers,
    /// Flows that may have a packet for the guest.
    ready: VecDeque<FlowId>,
    timers: BTreeSet<(Instant, FlowId)>,
    events: VecDeque<FlowEvent>,
    /// Packets of flows that are gone, or never were.
    last_words: VecDeque<Vec<u8>>,
    resets: Bucket,
}

struct Flow {
    ends: Ends,
    stage: Stage,
    /// By when it has to stand.
    opening: Option<Instant>,
    timer: Option<Instant>,
    is_ready: bool,
    readable: bool,
    writable: bool,
}

enum Stage {
    /// Holds the guest's SYN.
    Waiting(Vec<u8>),
    Standing(Box<Connection>),
    /// Until it is told.
    Gone {
        broken: bool,
    },
}

/// What the guest's packets do.
impl Flows {
    pub(crate) fn new(offloads: Offloads, now: Instant) -> Self {
        Flows {
            offloads,
            clock: Clock::new(now),
            seeds: RandomState::new(),
            flows: HashMap::new(),
            ids: HashMap::new(),
            last: 0,
            opening: 0,
            buffers: Buffers::default(),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            events: VecDeque::new(),
            last_words: VecDeque::new(),
            resets: Bucket::new(RESETS_PER_SECOND, RESET_BURST, now),
        }
    }

    /// A whole IP packet with TCP in it.
    pub(crate) fn receive(&mut self, packet: &[u8], now: Instant) -> Received {
        let Some(segment) = Segment::parse(packet) else {
            return Received::Refused(DropReason::Malformed);
        };
        if let Some(id) = self.flow_of(&segment) {
            self.deliver(id, packet, &segment, now);
            Received::Known
        } else if segment.opens() {
            self.open(&segment, now)
        } else {
            self.answer_stray(&segment, now);
            Received::Known
        }
    }

    /// Writes the next packet for the guest to the end of `packet`; false when there is none.
    pub(crate) fn transmit(&mut self, packet: &mut Vec<u8>, now: Instant) -> bool {
        if let Some(words) = self.last_words.pop_front() {
            packet.extend_from_slice(&words);
            return true;
        }
        while let Some(id) = self.ready.pop_front() {
            let Some(flow) = self.flows.get_mut(&id) else {
                continue;
            };
            flow.is_ready = false;
            let Stage::Standing(connection) = &mut flow.stage else {
                continue;
            };
            if connection.transmit(packet, now) {
                self.make_ready(id);
                return true;
            }
            if let Some(at) = connection.deadline(now) {
                self.set_timer(id, at);
            }
        }
        false
    }

    /// The flow of a segment. One that both sides ended makes room for the next between the same ends.
    fn flow_of(&mut self, segment: &Segment<'_>) -> Option<FlowId> {
        let ends = segment.ends();
        let id = *self.ids.get(&ends)?;
        let is_quiet = matches!(&self.flows.get(&id)?.stage, Stage::Standing(it) if it.is_quiet());
        if is_quiet && segment.opens() {
            self.ids.remove(&ends);
            return None;
        }
        Some(id)
    }

    fn deliver(&mut self, id: FlowId, packet: &[u8], segment: &Segment<'_>, now: Instant) {
        let Some(flow) = self.flows.get_mut(&id) else {
            return;
        };
        match &mut flow.stage {
            // Again, or anew from the same port.
            Stage::Waiting(syn) if segment.opens() => *syn = segment.bare(),
            Stage::Waiting(syn) if segment.takes_back(syn) => self.end(id, true),
            Stage::Waiting(_) | Stage::Gone { .. } => {}
            Stage::Standing(connection) => {
                let news = connection.receive(packet, segment, now);
                self.tell(id, news);
                self.make_ready(id);
                self.end_if_over(id);
            }
        }
    }

    fn open(&mut self, segment: &Segment<'_>, now: Instant) -> Received {
        if !segment.is_for_one() {
            return Received::Refused(DropReason::Multicast);
        }
        if self.flows.len() >= MAX_FLOWS || self.opening >= MAX_OPENING {
            self.answer_stray(segment, now);
            return Received::Refused(DropReason::Limit);
        }
        let ends = segment.ends();
        self.last += 1;
        let id = FlowId(self.last);
        let flow = Flow {
            ends,
            stage: Stage::Waiting(segment.bare()),
            opening: Some(now + OPENING_DEADLINE),
            timer: None,
            is_ready: false,
            readable: false,
            writable: false,
        };
        self.flows.insert(id, flow);
        self.ids.insert(ends, id);
        self.opening += 1;
        self.set_timer(id, now + OPENING_DEADLINE);
        Received::Opening(Opening {
            flow: id,
            source: ends.guest,
            destination: ends.far,
        })
    }

    fn tell(&mut self, id: FlowId, news: News) {
        let Some(flow) = self.flows.get_mut(&id) else {
            return;
        };
        if news.opened && flow.opening.take().is_some() {
            self.opening -= 1;
        }
        let tells_readable = news.readable && !flow.readable;
        let tells_writable = news.writable && !flow.writable;
        flow.readable |= news.readable;
        flow.writable |= news.writable;
        if tells_readable {
            self.push_event(FlowEvent::Readable(id));
        }
        if tells_writable {
            self.push_event(FlowEvent::Writable(id));
        }
    }

    fn answer_stray(&mut self, segment: &Segment<'_>, now: Instant) {
        if let Some(reset) = segment.reset(self.offloads)
            && self.resets.take(now)
        {
            self.say(reset);
        }
    }

    /// What finds no room is lost, as on any cable: the guest asks again.
    fn say(&mut self, packet: Vec<u8>) {
        if self.last_words.len() < MAX_LAST_WORDS {
            self.last_words.push_back(packet);
        }
    }
}

/// What the driver of the stack does.
impl Flows {
    pub(crate) fn next_event(&mut self) -> Option<FlowEvent> {
        loop {
            let event = self.events.pop_front()?;
            let id = event.flow();
            // It may have been refused since.
            let Some(flow) = self.flows.get_mut(&id) else {
                continue;
            };
            match (event, &flow.stage) {
                (FlowEvent::Closed { .. }, _) => drop(self.flows.remove(&id)),
                // One that ended in order is readable to its end: the guest's FIN is news.
                (_, Stage::Gone { broken: true }) => continue,
                (FlowEvent::Readable(_), _) => flow.readable = false,
                (FlowEvent::Writable(_), _) => flow.writable = false,
            }
            return Some(event);
        }
    }

    /// Finishes the handshake with the guest.
    pub(crate) fn accept(&mut self, id: FlowId, now: Instant) {
        let seed = self.seeds.hash_one(id);
        let Some(flow) = self.flows.get_mut(&id) else {
            return;
        };
        let Stage::Waiting(syn) = &flow.stage else {
            return;
        };
        let buffer = self.buffers.take();
        let connection = Connection::accept(syn, flow.ends, buffer, (self.offloads, seed), (self.clock, now));
        match connection {
            Some(connection) => {
                flow.stage = Stage::Standing(Box::new(connection));
                flow.opening = Some(now + HANDSHAKE_DEADLINE);
                self.set_timer(id, now + HANDSHAKE_DEADLINE);
                self.make_ready(id);
            }
            None => {
                self.buffers.give_back(buffer);
                self.cut(id, now);
            }
        }
    }

    /// RST to the guest, now or later in the flow's life. The flow is gone, and no event tells of it.
    pub(crate) fn refuse(&mut self, id: FlowId, now: Instant) {
        self.cut(id, now);
        self.flows.remove(&id);
    }

    /// Bytes of the guest that are not consumed, as far as they lie together.
    pub(crate) fn unread(&mut self, id: FlowId) -> &[u8] {
        self.standing(id).map(Connection::unread).unwrap_or_default()
    }

    /// `count` of [`Self::unread`] are delivered.
    pub(crate) fn consume(&mut self, id: FlowId, count: usize, _now: Instant) {
        let Some(connection) = self.standing(id) else {
            return;
        };
        connection.consume(count);
        self.make_ready(id);
        self.end_if_over(id);
    }

    /// The guest has said all it has to say, and all of it is consumed.
    pub(crate) fn guest_finished(&self, id: FlowId) -> bool {
        match self.flows.get(&id).map(|flow| &flow.stage) {
            Some(Stage::Standing(connection)) => connection.guest_finished(),
            Some(Stage::Gone { broken }) => !broken,
            _ => false,
        }
    }

    /// Where bytes for the guest can be put, as far as it lies together; until the guest's next packet.
    pub(crate) fn room(&mut self, id: FlowId) -> &mut [u8] {
        self.standing(id).map(Connection::room).unwrap_or_default()
    }

    /// `count` bytes were put into [`Self::room`].
    pub(crate) fn produced(&mut self, id: FlowId, count: usize, now: Instant) {
        if let Some(connection) = self.standing(id) {
            connection.produced(count, now);
            self.make_ready(id);
        }
    }

    /// FIN to the guest after what is buffered.
    pub(crate) fn finish(&mut self, id: FlowId, now: Instant) {
        if let Some(connection) = self.standing(id) {
            connection.finish(now);
            self.make_ready(id);
        }
    }

    fn standing(&mut self, id: FlowId) -> Option<&mut Connection> {
        match &mut self.flows.get_mut(&id)?.stage {
            Stage::Standing(connection) => Some(connection),
            _ => None,
        }
    }
}

/// What flows hold is the guest's business.
impl fmt::Debug for Flows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flows")
            .field("flows", &self.flows.len())
            .field("opening", &self.opening)
            .finish_non_exhaustive()
    }
}
