//! DNS over TCP: connections to the resolver, which end here and are nobody else's business.
//!
//! One question at a time on each; the next is read when the answer is written. A guest that asks without reading
//! fills its own connection and nothing else.

use std::time::Instant;

use crate::{
    FlowId,
    limits::{MAX_QUESTION, MAX_RESOLVER_CONNECTIONS, RESOLVER_IDLE},
    tcp::Flows,
};

#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// In the order in which they were last used.
    streams: Vec<Stream>,
}

#[derive(Debug)]
struct Stream {
    flow: FlowId,
    port: u16,
    /// Of the next question, its length in front.
    input: Vec<u8>,
    output: Vec<u8>,
    asking: bool,
    finished: bool,
    idle_since: Instant,
}

/// A question from a connection.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) flow: FlowId,
    /// The guest's.
    pub(crate) port: u16,
    pub(crate) message: Vec<u8>,
}

impl Streams {
    /// Takes a connection. The one idle for longest makes room.
    pub(crate) fn open(&mut self, flow: FlowId, port: u16, flows: &mut Flows, now: Instant) {
        if self.streams.len() >= MAX_RESOLVER_CONNECTIONS {
            flows.refuse(self.streams.remove(0).flow, now);
        }
        flows.accept(flow, now);
        self.streams.push(Stream {
            flow,
            port,
            input: Vec::new(),
            output: Vec::new(),
            asking: false,
            finished: false,
            idle_since: now,
        });
    }

    pub(crate) fn forget(&mut self, flow: FlowId) {
        self.streams.retain(|stream| stream.flow != flow);
    }

    /// RST, for one that asks too much or makes no sense.
    pub(crate) fn cut(&mut self, flow: FlowId, flows: &mut Flows, now: Instant) {
        self.forget(flow);
        flows.refuse(flow, now);
    }

    /// Moves bytes, and hands over the next question that is complete.
    pub(crate) fn turn(&mut self, flows: &mut Flows, now: Instant) -> Option<Asked> {
        for index in 0..self.streams.len() {
            let stream = self.streams.get_mut(index)?;
            stream.flush(flows, now);
            if let Some(message) = stream.question(flows, now) {
                let mut stream = self.streams.remove(index);
                stream.asking = true;
                stream.idle_since = now;
                let asked = Asked {
                    flow: stream.flow,
                    port: stream.port,
                    message,
                };
                self.streams.push(stream);
                return Some(asked);
            }
        }
        None
    }

    /// The answer to the question this connection waits for; with none it goes on to the next.
    pub(crate) fn answer(&mut self, flow: FlowId, answer: &[u8], flows: &mut Flows, now: Instant) {
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.flow == flow) else {
            return;
        };
        stream.asking = false;
        if let Ok(length) = u16::try_from(answer.len()) {
            stream.output.extend_from_slice(&length.to_be_bytes());
            stream.output.extend_from_slice(answer);
        }
        stream.flush(flows, now);
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.streams
            .first()
            .map(|stream| stream.idle_since + RESOLVER_IDLE)
    }

    pub(crate) fn expire(&mut self, flows: &mut Flows, now: Instant) {
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            flows.refuse(self.streams.remove(0).flow, now);
        }
    }
}

impl Stream {
    fn flush(&mut self, flows: &mut Flows, now: Instant) {
        while !self.output.is_empty() {
            let room = flows.room(self.flow);
            let count = room.len().min(self.output.len());
            let (Some(to), Some(from)) = (room.get_mut(..count), self.output.get(..count)) else {
                return;
            };
            if count == 0 {
                return;
            }
            to.copy_from_slice(from);
            flows.produced(self.flow, count, now);
            self.output.drain(..count);
        }
        if !self.asking && !self.finished && flows.guest_finished(self.flow) {
            self.finished = true;
            flows.finish(self.flow, now);
        }
    }

    /// Reads no further than to the end of one question. One that is too long comes out empty: nobody can read that
    /// either, and it ends the connection.
    fn question(&mut self, flows: &mut Flows, now: Instant) -> Option<Vec<u8>> {
        if self.asking || !self.output.is_empty() {
            return None;
        }
        loop {
            let wanted = match self.input.first_chunk::<2>() {
                None => 2,
                Some(length) => 2 + usize::from(u16::from_be_bytes(*length)),
            };
            if wanted > 2 + MAX_QUESTION {
                return Some(Vec::new());
            }
            if self.input.len() >= 2 && self.input.len() == wanted {
                let mut message = std::mem::take(&mut self.input);
                message.drain(..2);
                return Some(message);
            }
            let unread = flows.unread(self.flow);
            let count = unread.len().min(wanted - self.input.len());
            if count == 0 {
                return None;
            }
            self.input.extend_from_slice(unread.get(..count)?);
            flows.consume(self.flow, count, now);
        }
    }
}
