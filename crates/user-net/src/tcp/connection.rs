//! One connection, ended by smoltcp.
//!
//! ```text
//!            accept()        the guest's ACK
//! (waiting) ─────────▶ handshake ─────────▶ open ─────────▶ over
//!                          │                  │    both FINs acknowledged, all bytes consumed
//!                          └── RST, silence ──┴──▶ over (broken)
//! ```
//!
//! smoltcp asserts what a peer can break, so a segment is held against what the connection knows of itself before it
//! gets there ([`Connection::is_plausible`]). It also keeps a connection in TIME-WAIT and then throws away what is
//! unread; here a connection that both sides ended is not touched any more, and is gone once all is consumed.

mod guard;
mod passage;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage},
    socket::tcp::{Socket, SocketBuffer, State},
    wire::{HardwareAddress, IpAddress, IpCidr},
};

use super::{
    clock::Clock,
    port::Port,
    segment::{Ends, Segment},
};
use crate::{
    Offloads,
    limits::{GUEST_SILENCE, WORTHWHILE_ROOM},
};

/// Between two FINs of our own making.
const FIN_INTERVAL: Duration = Duration::from_secs(1);
/// smoltcp names a time that has come although it has nothing to do then; it is not asked more often than that.
const TIMER_FLOOR: Duration = Duration::from_millis(10);

pub(super) struct Connection {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    ends: Ends,
    offloads: Offloads,
    clock: Clock,
    /// The sequence number of the first byte that is not consumed.
    unread_at: u32,
    /// That of the guest's FIN.
    guest_end: Option<u32>,
    /// What smoltcp believes of its window is true. After the SYN it believes too much of it.
    window_said: bool,
    /// The highest sequence number we sent, plus one.
    sent: u32,
    /// No more is written. The FIN follows when all of it is acknowledged: smoltcp with both FINs in its hands does not
    /// hear when the guest's window opens again.
    finishing: bool,
    /// The writer found no room, and hears when there is some.
    stuffed: bool,
    over: Option<Over>,
    heard: Instant,
    challenged: Option<Instant>,
    fin_at: Option<Instant>,
    /// Made at once, for packets that are answered at once.
    replies: VecDeque<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Done,
    Broken,
}

/// What a segment changed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct News {
    pub(super) opened: bool,
    pub(super) readable: bool,
    pub(super) writable: bool,
}

impl Connection {
    /// Answers the SYN that was kept. `None` if smoltcp would not.
    pub(super) fn accept(
        syn: &[u8],
        ends: Ends,
        buffer: usize,
        (offloads, seed): (Offloads, u64),
        (clock, now): (Clock, Instant),
    ) -> Option<Self> {
        let first = Segment::parse(syn)?.seq();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut outgoing = Vec::new();
        let mut port = Port {
            incoming: None,
            outgoing: &mut outgoing,
        };
        let mut interface = Interface::new(config, &mut port, clock.at(now));
        let address = IpAddress::from(ends.far.ip());
        let whole = if ends.far.is_ipv4() { 32 } else { 128 };
        interface.update_ip_addrs(|addresses| {
            // It has room for two.
            let _ = addresses.push(IpCidr::new(address, whole));
        });
        let mut sockets = SocketSet::new(vec![SocketStorage::EMPTY]);
        let handle = sockets.add(listener(buffer, ends.far)?);
        let mut connection = Connection {
            interface,
            sockets,
            handle,
            ends,
            offloads,
            clock,
            unread_at: first.wrapping_add(1),
            guest_end: None,
            window_said: false,
            sent: 0,
            finishing: false,
            stuffed: true,
            over: None,
            heard: now,
            challenged: None,
            fin_at: None,
            replies: VecDeque::new(),
        };
        connection.ingress(syn, now);
        (connection.state() == State::SynReceived).then_some(connection)
    }

    pub(super) fn receive(&mut self, packet: &[u8], segment: &Segment<'_>, now: Instant) -> News {
        if segment.opens() && self.is_open() {
            self.challenge(now);
        }
        if self.state() == State::Closed || !self.is_plausible(segment) || self.is_blind_reset(segment, now) {
            return News::default();
        }
        let (was_open, unread, had_ended) = (self.is_open(), self.unread_len(), self.guest_end.is_some());
        self.ingress(packet, now);
        self.heard = now;
        self.note_end(segment, now);
        self.close_if_done();
        News {
            opened: !was_open && self.is_open(),
            readable: self.unread_len() > unread || self.guest_end.is_some() && !had_ended,
            writable: self.has_new_room(),
        }
    }

    /// Writes the next packet to the end of `packet`; false when there is none.
    pub(super) fn transmit(&mut self, packet: &mut Vec<u8>, now: Instant) -> bool {
        if self.fin_at.is_some_and(|at| at <= now) {
            self.repeat_fin();
        }
        if let Some(reply) = self.replies.pop_front() {
            packet.extend_from_slice(&reply);
            return true;
        }
        !self.is_quiet() && self.egress(packet, now)
    }

    pub(super) fn unread(&mut self) -> &[u8] {
        self.socket_mut().peek(usize::MAX).unwrap_or_default()
    }

    pub(super) fn consume(&mut self, count: usize) {
        let taken = self.socket_mut().recv(|bytes| {
            let count = count.min(bytes.len());
            (count, count)
        });
        let taken = u32::try_from(taken.unwrap_or(0)).unwrap_or(0);
        self.unread_at = self.unread_at.wrapping_add(taken);
    }

    pub(super) fn guest_finished(&self) -> bool {
        self.guest_end.is_some() && self.unread_len() == 0
    }

    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.finishing {
            return &mut [];
        }
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        let room = socket.send(|space| (0, space)).unwrap_or_default();
        self.stuffed = room.is_empty();
        room
    }

    pub(super) fn produced(&mut self, count: usize, now: Instant) {
        if self.finishing {
            return;
        }
        self.start_listening(now);
        // What is more than there was room for was put nowhere.
        let _ = self.socket_mut().send(|space| (count.min(space.len()), ()));
    }

    pub(super) fn finish(&mut self, now: Instant) {
        self.start_listening(now);
        self.finishing = true;
        self.close_if_done();
    }

    /// A RST, if the guest still believes in the connection.
    pub(super) fn abort(&mut self, now: Instant) {
        self.replies.clear();
        if !self.is_quiet() {
            self.socket_mut().abort();
            self.reply(now);
        }
        self.over = Some(Over::Broken);
    }

    /// Of each way.
    pub(super) fn buffer(&self) -> usize {
        self.socket().recv_capacity()
    }

    /// Set once there is nothing left to do but to say [`Self::last_words`].
    pub(super) fn over(&self) -> Option<Over> {
        self.over
            .or_else(|| (self.is_quiet() && self.unread_len() == 0).then_some(Over::Done))
    }

    pub(super) fn last_words(self) -> impl Iterator<Item = Vec<u8>> {
        self.replies.into_iter()
    }

    /// When it wants to be asked for a packet again; meant for one that just had none.
    pub(super) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        if self.is_quiet() {
            return None;
        }
        match self.interface.poll_at(self.clock.at(now), &self.sockets) {
            Some(at) => Some(self.clock.instant(at).max(now + TIMER_FLOOR)),
            None if self.owes() => {
                self.fin_at = Some(now + FIN_INTERVAL);
                self.fin_at
            }
            None => None,
        }
    }

    /// The guest owes an acknowledgement and says nothing at all.
    pub(super) fn is_forsaken(&self, now: Instant) -> bool {
        self.owes() && now.saturating_duration_since(self.heard) >= GUEST_SILENCE
    }
}

impl Connection {
    fn is_open(&self) -> bool {
        !matches!(self.state(), State::Listen | State::SynSent | State::SynReceived)
    }

    /// Both directions ended, and there is nothing left to send.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self.state(), State::Closed | State::TimeWait)
    }

    /// The guest's next sequence number.
    fn expected(&self) -> u32 {
        let unread = u32::try_from(self.unread_len()).unwrap_or(u32::MAX);
        let next = self.unread_at.wrapping_add(unread);
        next.wrapping_add(u32::from(self.guest_end.is_some()))
    }

    /// The number after the last byte there is room for.
    fn edge(&self) -> u32 {
        let capacity = u32::try_from(self.socket().recv_capacity()).unwrap_or(u32::MAX);
        self.unread_at.wrapping_add(capacity)
    }

    /// What the segment ended: a direction, or all.
    fn note_end(&mut self, segment: &Segment<'_>, now: Instant) {
        match self.state() {
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait
                if self.guest_end.is_none() =>
            {
                self.guest_end = Some(self.expected());
            }
            // Where smoltcp goes back to when the handshake is broken off.
            State::Listen => self.over = Some(Over::Broken),
            State::Closed if segment.is_reset() => self.over = Some(Over::Broken),
            _ => {}
        }
        if self.state() == State::TimeWait {
            // Now, since later means too late: smoltcp is not asked again.
            self.reply(now);
        }
    }

    fn close_if_done(&mut self) {
        if self.finishing && self.is_open() && self.socket().send_queue() == 0 {
            self.socket_mut().close();
        }
    }

    fn has_new_room(&mut self) -> bool {
        let socket = self.socket();
        let free = socket.send_capacity().saturating_sub(socket.send_queue());
        let worthwhile = WORTHWHILE_ROOM.min(socket.send_capacity() / 2);
        let is_new = self.stuffed && !self.finishing && socket.may_send() && free >= worthwhile;
        self.stuffed &= !is_new;
        is_new
    }

    /// Sent and not acknowledged.
    fn owes(&self) -> bool {
        let is_ending = matches!(self.state(), State::FinWait1 | State::Closing | State::LastAck);
        is_ending || self.socket().send_queue() > 0
    }

    /// The silence of a guest that owed nothing does not count.
    fn start_listening(&mut self, now: Instant) {
        if !self.owes() {
            self.heard = now;
        }
    }

    fn unread_len(&self) -> usize {
        self.socket().recv_queue()
    }

    fn state(&self) -> State {
        self.socket().state()
    }

    pub(super) fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }

    fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }
}

fn listener(buffer: usize, far: SocketAddr) -> Option<Socket<'static>> {
    // Zeroed, so that it is not there before it is used.
    let empty = || SocketBuffer::new(vec![0; buffer]);
    let mut socket = Socket::new(empty(), empty());
    socket.set_nagle_enabled(false);
    // Whoever asks for packets takes many from the guest first, so that acknowledgements gather by themselves.
    socket.set_ack_delay(None);
    socket.listen((IpAddress::from(far.ip()), far.port())).ok()?;
    Some(socket)
}
