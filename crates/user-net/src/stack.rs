//! The gateway: where a frame goes, and what comes back.

mod drops;
mod incoming;
pub(crate) mod packet;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use egress_policy::{HostName, Target, addresses::GUEST_MAC, link};
use smoltcp::wire::{EthernetAddress, EthernetProtocol};

use crate::{
    Offloads,
    bucket::Bucket,
    dns::{Asker, Place, Resolver, Streams},
    limits::{ERROR_BURST, ERRORS_PER_SECOND},
    local::{ETHERNET_HEADER, Replies, ethernet_header, udp_packet},
    tcp::{FlowEvent, Flows},
};
use drops::Drops;

/// Names a TCP flow. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub u64);

/// Names a DNS question that waits for a verdict. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryId(pub u64);

/// What the stack wants of whoever drives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// May the guest know this name? Answer with [`Stack::name_decided`].
    Name {
        query: QueryId,
        name: HostName,
        protocol: link::Protocol,
        /// The guest's.
        port: u16,
    },
    /// The guest wants a connection. Answer with [`Stack::accept`] or [`Stack::refuse`].
    Open {
        flow: FlowId,
        source: u16,
        target: Target,
        port: u16,
    },
    /// [`Stack::unread`] has something new, or the guest's end came ([`Stack::guest_finished`]).
    Readable(FlowId),
    /// [`Stack::room`] has become larger after it was nothing.
    Writable(FlowId),
    /// The flow is gone, in order or not; its number means nothing any more.
    Closed {
        flow: FlowId,
        broken: bool,
    },
    Dropped(link::Dropped),
}

/// The far end of the guest's cable, without I/O.
#[derive(Debug)]
pub struct Stack {
    flows: Flows,
    /// The flows whose driver is not done with them, and what stands for the names they go to.
    told: HashMap<FlowId, Option<Place>>,
    resolver: Resolver,
    streams: Streams,
    drops: Drops,
    errors: Bucket,
    replies: Replies,
    /// Questions to the driver. What flows and drops have to say they keep themselves.
    events: VecDeque<Event>,
    /// Where frames for the guest go: to whom the last packet from its own address came from, since a guest may put
    /// a bridge before its card. There is nothing else on the cable that could be robbed of anything by it.
    guest: EthernetAddress,
}

impl Stack {
    pub fn new(offloads: Offloads, now: Instant) -> Self {
        Stack {
            flows: Flows::new(offloads, now),
            told: HashMap::new(),
            resolver: Resolver::new(now),
            streams: Streams::default(),
            drops: Drops::default(),
            errors: Bucket::new(ERRORS_PER_SECOND, ERROR_BURST, now),
            replies: Replies::default(),
            events: VecDeque::new(),
            guest: EthernetAddress(GUEST_MAC),
        }
    }

    /// A frame of the guest.
    pub fn receive(&mut self, frame: &[u8], now: Instant) {
        self.incoming(frame, now);
        self.serve_streams(now);
    }

    /// Writes the next frame for the guest to the end of `frame`; false when there is none.
    pub fn transmit(&mut self, frame: &mut Vec<u8>, now: Instant) -> bool {
        if let Some(reply) = self.replies.pop() {
            frame.extend_from_slice(&reply);
            return true;
        }
        let start = frame.len();
        frame.extend_from_slice(&ethernet_header(self.guest, EthernetProtocol::Ipv4));
        if !self.flows.transmit(frame, now) {
            frame.truncate(start);
            return false;
        }
        let version = frame.get(start + ETHERNET_HEADER).map(|byte| byte >> 4);
        let header = frame.get_mut(start..start + ETHERNET_HEADER);
        if let (Some(6), Some(header)) = (version, header) {
            header.copy_from_slice(&ethernet_header(self.guest, EthernetProtocol::Ipv6));
        }
        true
    }

    pub fn next_event(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        while let Some(event) = self.flows.next_event() {
            if let Some(event) = self.flow_event(event) {
                return Some(event);
            }
        }
        self.drops.next().map(Event::Dropped)
    }

    /// Flows that the driver never heard of, or refused itself, are none of its business.
    fn flow_event(&mut self, event: FlowEvent) -> Option<Event> {
        match event {
            FlowEvent::Readable(flow) => self.told.contains_key(&flow).then_some(Event::Readable(flow)),
            FlowEvent::Writable(flow) => self.told.contains_key(&flow).then_some(Event::Writable(flow)),
            FlowEvent::Closed { flow, broken } => {
                self.streams.forget(flow);
                self.release(flow).then_some(Event::Closed { flow, broken })
            }
        }
    }

    /// When [`Self::expire`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.flows.deadline(),
            self.resolver.deadline(),
            self.streams.deadline(),
            self.drops.deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    pub fn expire(&mut self, now: Instant) {
        self.flows.expire(now);
        while let Some(query) = self.resolver.expired(now) {
            let answers = self.resolver.failed(query);
            self.send_answers(answers, now);
        }
        self.streams.expire(&mut self.flows, now);
        self.drops.expire(now);
        self.serve_streams(now);
    }

    /// The answer to [`Event::Name`]: an address of the pool, or that there is no such name.
    pub fn name_decided(&mut self, query: QueryId, allowed: bool, now: Instant) {
        let answers = self.resolver.decided(query, allowed);
        self.send_answers(answers, now);
        self.serve_streams(now);
    }

    fn send_answers(&mut self, answers: Vec<(Asker, Vec<u8>)>, now: Instant) {
        for (asker, answer) in answers {
            self.send_answer(asker, &answer, now);
        }
    }

    fn send_answer(&mut self, asker: Asker, answer: &[u8], now: Instant) {
        match asker {
            Asker::Udp { answer: ends, port } => {
                let frame = udp_packet(self.guest, ends, (crate::dns::PORT, port), answer);
                self.replies.extend(frame);
            }
            Asker::Tcp { flow } => self.streams.answer(flow, answer, &mut self.flows, now),
        }
    }

    /// The far end stands: finish the handshake with the guest.
    pub fn accept(&mut self, flow: FlowId, now: Instant) {
        self.flows.accept(flow, now);
    }

    /// RST to the guest, at once; before the flow was accepted or after. No event of this flow comes after that.
    pub fn refuse(&mut self, flow: FlowId, now: Instant) {
        self.release(flow);
        self.flows.refuse(flow, now);
    }

    /// Whether the driver knew of it.
    fn release(&mut self, flow: FlowId) -> bool {
        let known = self.told.remove(&flow);
        if let Some(Some(place)) = known {
            self.resolver.names.release(place);
        }
        known.is_some()
    }

    /// Bytes of the guest that were not taken yet, as far as they lie together.
    pub fn unread(&mut self, flow: FlowId) -> &[u8] {
        self.flows.unread(flow)
    }

    /// `count` of the unread bytes are delivered.
    pub fn consume(&mut self, flow: FlowId, count: usize, now: Instant) {
        self.flows.consume(flow, count, now);
    }

    /// The guest has said all it has to say, and all of it is consumed.
    pub fn guest_finished(&self, flow: FlowId) -> bool {
        self.flows.guest_finished(flow)
    }

    /// Where bytes for the guest can be put, as far as it lies together.
    pub fn room(&mut self, flow: FlowId) -> &mut [u8] {
        self.flows.room(flow)
    }

    /// `count` bytes were put into [`Self::room`].
    pub fn produced(&mut self, flow: FlowId, count: usize, now: Instant) {
        self.flows.produced(flow, count, now);
    }

    /// The far end has said all it has to say: FIN to the guest after what is buffered.
    pub fn finish(&mut self, flow: FlowId, now: Instant) {
        self.flows.finish(flow, now);
    }
}
