//! The connections of one guest.

use std::{
    collections::{HashMap, VecDeque},
    os::fd::BorrowedFd,
    sync::Arc,
    time::Instant,
};

use crate::{
    Interest, Refusal, Sink, Source,
    connection::Connection,
    dial::{Dialled, Routes},
    limits::{
        DIAL_RETRY, DIAL_TIMEOUT, MAX_CONNECTIONS, MAX_LOOSE_RESETS, NARROW_WINDOW, WIDE_CONNECTIONS,
        WIDE_WINDOW,
    },
    packet::{Header, Op, Packet, Pair},
    state::{IllegalEvent, State},
};

/// Carries packets of a guest to AF_UNIX sockets and back.
///
/// The caller hands in packets ([`Self::receive`], then [`Self::write`] for data) and readiness of
/// sockets, fetches packets for the guest ([`Self::next_packet`]; for data [`Self::quota`],
/// [`Self::read`], [`Self::data_header`]), and after each round of that calls [`Self::settle`] to learn
/// which sockets to wait for.
#[derive(Debug)]
pub struct Mux {
    routes: Arc<Routes>,
    connections: HashMap<Pair, Connection>,
    /// Connections that owe the guest a packet; each at most once.
    outbox: VecDeque<Pair>,
    /// Resets that belong to no connection.
    loose_resets: VecDeque<Header>,
    /// Connections with data for the guest, waiting for their turn; each at most once.
    line: VecDeque<Pair>,
    /// Connections whose interest may have changed since the last [`Self::settle`].
    touched: Vec<Pair>,
    /// No later than the first deadline.
    wake: Option<Instant>,
}

/// What to do with a packet's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    Done,
    /// Hand the first `len` bytes of payload to [`Mux::write`], before the next packet of this pair.
    Data {
        pair: Pair,
        len: usize,
    },
}

/// Told which sockets to wait for. A socket that is closed is forgotten without a word: epoll does so too.
pub trait Watch {
    type Error;

    fn watch(
        &mut self,
        socket: BorrowedFd<'_>,
        pair: Pair,
        before: Option<Interest>,
        after: Option<Interest>,
    ) -> Result<(), Self::Error>;
}

impl Mux {
    pub fn new(routes: Arc<Routes>) -> Self {
        Mux {
            routes,
            connections: HashMap::new(),
            outbox: VecDeque::new(),
            loose_resets: VecDeque::new(),
            line: VecDeque::new(),
            touched: Vec::new(),
            wake: None,
        }
    }

    /// Connections in any state.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Bytes of the guest held here because the host does not take them.
    pub fn held(&self) -> usize {
        self.connections.values().map(Connection::held).sum()
    }

    /// When to call [`Self::expire`] next.
    pub fn deadline(&self) -> Option<Instant> {
        self.wake
    }

    /// Brings what is waited for in line with what can proceed.
    pub fn settle<W: Watch>(&mut self, watch: &mut W) -> Result<(), W::Error> {
        for pair in self.touched.drain(..) {
            let Some(connection) = self.connections.get_mut(&pair) else {
                continue;
            };
            connection.place.is_touched = false;
            let before = connection.place.watched;
            let after = connection.interest();
            if before != after {
                if let Some(socket) = connection.socket() {
                    watch.watch(socket, pair, before, after)?;
                }
                connection.place.watched = after;
            }
        }
        Ok(())
    }
}

/// Packets from the guest.
impl Mux {
    /// Takes in a packet with `available` bytes of payload behind it. A refused packet has been answered;
    /// what is returned is for the log.
    pub fn receive(&mut self, header: &Header, available: usize, now: Instant) -> Result<Received, Refusal> {
        let result = Packet::parse(header, self.routes.guest_cid(), available)
            .and_then(|packet| self.dispatch(packet, now));
        if let Err(refusal) = &result {
            self.answer(header, refusal, now);
        }
        result
    }

    fn dispatch(&mut self, packet: Packet, now: Instant) -> Result<Received, Refusal> {
        let pair = packet.pair;
        if packet.op == Op::Request {
            return self.request(packet, now).map(|()| Received::Done);
        }
        let connection = match self.connections.get_mut(&pair) {
            Some(connection) if connection.state() != State::Draining => connection,
            _ if packet.op == Op::Reset => return Ok(Received::Done),
            _ => return Err(Refusal::NoConnection),
        };
        if connection.hear(packet.buf_alloc, packet.fwd_cnt)? {
            self.stand_in_line(pair);
        }
        let received = self.step(packet, now)?;
        self.follow_up(pair);
        Ok(received)
    }

    fn step(&mut self, packet: Packet, now: Instant) -> Result<Received, Refusal> {
        let pair = packet.pair;
        let Some(connection) = self.connections.get_mut(&pair) else {
            return Err(Refusal::NoConnection);
        };
        match packet.op {
            Op::Request => return Err(Refusal::RequestedTwice),
            Op::Response => return Err(Refusal::Unasked),
            Op::Reset => connection.guest_gone(false, now)?,
            Op::Shutdown(directions) => {
                connection.guest_shut(directions, now)?;
                let deadline = connection.deadline();
                self.wake_by(deadline);
            }
            Op::Data(len) => {
                if connection.accept(len)? {
                    let len = len as usize;
                    return Ok(Received::Data { pair, len });
                }
            }
            Op::CreditUpdate => {}
            Op::CreditRequest => connection.owe_credit_update(),
        }
        Ok(Received::Done)
    }

    fn request(&mut self, packet: Packet, now: Instant) -> Result<(), Refusal> {
        let pair = packet.pair;
        if self.connections.contains_key(&pair) {
            return Err(Refusal::RequestedTwice);
        }
        if !self.routes.has(pair.host) {
            return Err(Refusal::NoSuchPort(pair.host));
        }
        if self.connections.len() >= MAX_CONNECTIONS {
            return Err(Refusal::TooManyConnections);
        }
        let window = if self.connections.len() < WIDE_CONNECTIONS {
            WIDE_WINDOW
        } else {
            NARROW_WINDOW
        };
        let mut connection = Connection::dialing(window, now + DIAL_TIMEOUT);
        connection.hear(packet.buf_alloc, packet.fwd_cnt)?;
        match self.routes.dial(pair.host) {
            Dialled::Connected(socket) => connection.connected(socket)?,
            Dialled::Busy => self.wake_by(Some(now + DIAL_RETRY)),
            Dialled::Failed(error) => return Err(dial_refusal(pair, &error)),
        }
        self.connections.insert(pair, connection);
        self.follow_up(pair);
        Ok(())
    }

    /// Writes data that [`Self::receive`] accepted, of one or several packets of the same pair.
    pub fn write(&mut self, pair: Pair, source: &impl Source, now: Instant) {
        self.with(pair, now, |connection| connection.write(source, now));
    }

    /// Answers a packet that was refused, where the protocol allows an answer.
    fn answer(&mut self, header: &Header, refusal: &Refusal, now: Instant) {
        let names_a_connection = !matches!(
            refusal,
            Refusal::ForgedSource(_) | Refusal::NotTheHost(_) | Refusal::NotAStream(_)
        );
        let pair = header.pair();
        let is_live = self
            .connections
            .get(&pair)
            .is_some_and(|connection| connection.state() != State::Draining);
        if names_a_connection && is_live {
            let answer = !header.is_reset();
            self.with(pair, now, |connection| connection.guest_gone(answer, now));
        } else if !matches!(refusal, Refusal::ForgedSource(_))
            && !header.is_reset()
            && self.loose_resets.len() < MAX_LOOSE_RESETS
        {
            self.loose_resets.push_back(header.reset());
        }
    }
}

/// Packets for the guest.
impl Mux {
    /// True when [`Self::next_packet`] may have one.
    pub fn has_packet(&self) -> bool {
        !self.loose_resets.is_empty() || !self.outbox.is_empty()
    }

    /// The next packet without payload that is due to the guest. It counts as delivered.
    pub fn next_packet(&mut self) -> Option<Header> {
        if let Some(reset) = self.loose_resets.pop_front() {
            return Some(reset);
        }
        while let Some(pair) = self.outbox.pop_front() {
            let Some(connection) = self.connections.get_mut(&pair) else {
                continue;
            };
            connection.place.in_outbox = false;
            if let Some(op) = connection.next_op() {
                let header = self.header(pair, op);
                self.follow_up(pair);
                return Some(header);
            }
        }
        None
    }

    /// How many bytes of this connection may go to the guest now; 0 when none.
    pub fn quota(&self, pair: Pair) -> usize {
        self.connections.get(&pair).map_or(0, Connection::quota)
    }

    /// Reads from the host's socket into `sink`, which is no longer than [`Self::quota`]. The bytes
    /// returned have been charged to the guest's credit and must reach it.
    pub fn read(&mut self, pair: Pair, sink: &mut impl Sink, now: Instant) -> u32 {
        let mut len = 0;
        self.with(pair, now, |connection| {
            len = connection.read(sink, now)?;
            Ok(())
        });
        len
    }

    /// The header of a data packet.
    pub fn data_header(&mut self, pair: Pair, len: u32) -> Header {
        self.header(pair, Op::Data(len))
    }

    /// The connection has data for the guest but there is no room; its turn will come.
    pub fn starve(&mut self, pair: Pair) {
        self.stand_in_line(pair);
        self.touch(pair);
    }

    /// True when [`Self::next_in_line`] has one.
    pub fn has_line(&self) -> bool {
        !self.line.is_empty()
    }

    /// The connection whose turn it is to read data for the guest.
    pub fn next_in_line(&mut self) -> Option<Pair> {
        let pair = self.line.pop_front()?;
        if let Some(connection) = self.connections.get_mut(&pair) {
            connection.place.in_line = false;
        }
        self.touch(pair);
        Some(pair)
    }

    fn header(&mut self, pair: Pair, op: Op) -> Header {
        let mut header = Header::to_guest(self.routes.guest_cid(), pair, op);
        if let Some(connection) = self.connections.get_mut(&pair) {
            (header.buf_alloc, header.fwd_cnt) = connection.announce();
        }
        header
    }
}

/// Bookkeeping.
impl Mux {
    /// Lets a connection take a step that only our own mistakes could make illegal; then it is reset.
    fn with(
        &mut self,
        pair: Pair,
        now: Instant,
        step: impl FnOnce(&mut Connection) -> Result<(), IllegalEvent>,
    ) {
        let Some(connection) = self.connections.get_mut(&pair) else {
            return;
        };
        if step(connection).is_err() {
            let _ = connection.guest_gone(true, now);
        }
        let deadline = connection.deadline();
        self.wake_by(deadline);
        self.follow_up(pair);
    }

    /// After a step: passes on ends, notes what is owed, forgets what is over.
    fn follow_up(&mut self, pair: Pair) {
        let Some(connection) = self.connections.get_mut(&pair) else {
            return;
        };
        connection.tidy();
        if connection.is_gone() {
            self.forget(pair);
            return;
        }
        if connection.owes_packet() && !connection.place.in_outbox {
            connection.place.in_outbox = true;
            self.outbox.push_back(pair);
        }
        self.touch(pair);
    }

    /// Takes the connection off all lists, or a guest that opens and resets one pair for ever would make
    /// them grow.
    fn forget(&mut self, pair: Pair) {
        if let Some(connection) = self.connections.remove(&pair) {
            if connection.place.in_outbox {
                self.outbox.retain(|other| *other != pair);
            }
            if connection.place.in_line {
                self.line.retain(|other| *other != pair);
            }
        }
    }

    fn touch(&mut self, pair: Pair) {
        if let Some(connection) = self.connections.get_mut(&pair)
            && !connection.place.is_touched
        {
            connection.place.is_touched = true;
            self.touched.push(pair);
        }
    }

    fn stand_in_line(&mut self, pair: Pair) {
        if let Some(connection) = self.connections.get_mut(&pair)
            && !connection.place.in_line
        {
            connection.place.in_line = true;
            self.line.push_back(pair);
        }
    }
}

fn dial_refusal(pair: Pair, error: &std::io::Error) -> Refusal {
    Refusal::Dial {
        port: pair.host,
        error: error.kind(),
    }
}

mod time;

#[cfg(test)]
mod tests;
