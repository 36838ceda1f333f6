//! What sockets and clocks make happen.

use std::time::Instant;

use super::{Mux, dial_refusal};
use crate::{Pair, Refusal, connection::Connection, dial::Dialled, limits::DIAL_RETRY, state::State};

impl Mux {
    /// The socket takes bytes again.
    pub fn writable(&mut self, pair: Pair, now: Instant) {
        self.with(pair, now, |connection| connection.flush(now));
    }

    /// The other end of the socket is closed.
    pub fn hung_up(&mut self, pair: Pair, now: Instant) {
        self.with(pair, now, |connection| connection.hung_up(now));
    }

    /// Does what is due by now; returns what must be logged.
    pub fn expire(&mut self, now: Instant) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        if self.wake.is_none_or(|wake| wake > now) {
            return refusals;
        }
        self.wake = None;
        let due: Vec<Pair> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.deadline().is_some())
            .map(|(pair, _)| *pair)
            .collect();
        let mut busy = Vec::new();
        for pair in due {
            match self.connections.get(&pair).map(Connection::state) {
                Some(State::Dialing) => refusals.extend(self.redial(pair, &mut busy, now)),
                Some(_) => self.expire_if_late(pair, now),
                None => {}
            }
        }
        refusals
    }

    /// Tries a dial again, unless the listener turned another away just now.
    fn redial(&mut self, pair: Pair, busy: &mut Vec<u32>, now: Instant) -> Option<Refusal> {
        let late = self.is_late(pair, now);
        let dialled = if busy.contains(&pair.host) {
            Dialled::Busy
        } else {
            self.routes.dial(pair.host)
        };
        match dialled {
            Dialled::Connected(socket) => {
                self.with(pair, now, |connection| connection.connected(socket));
                None
            }
            Dialled::Busy if !late => {
                busy.push(pair.host);
                self.wake_by(Some(now + DIAL_RETRY));
                None
            }
            Dialled::Busy => {
                self.with(pair, now, |connection| connection.expire(now));
                Some(dial_refusal(pair, &std::io::ErrorKind::TimedOut.into()))
            }
            Dialled::Failed(error) => {
                self.with(pair, now, |connection| connection.expire(now));
                Some(dial_refusal(pair, &error))
            }
        }
    }

    fn expire_if_late(&mut self, pair: Pair, now: Instant) {
        if self.is_late(pair, now) {
            self.with(pair, now, |connection| connection.expire(now));
        } else {
            let deadline = self.connections.get(&pair).and_then(Connection::deadline);
            self.wake_by(deadline);
        }
    }

    fn is_late(&self, pair: Pair, now: Instant) -> bool {
        self.connections
            .get(&pair)
            .and_then(Connection::deadline)
            .is_some_and(|deadline| deadline <= now)
    }

    pub(super) fn wake_by(&mut self, deadline: Option<Instant>) {
        self.wake = match (self.wake, deadline) {
            (Some(wake), Some(deadline)) => Some(wake.min(deadline)),
            (wake, deadline) => wake.or(deadline),
        };
    }
}
