//! One flow's stream.
//!
//! Each direction ends by itself: the guest's FIN becomes a `shutdown`, the stream's end becomes a FIN. A stream that
//! is closed before both ended says that the flow broke, in either direction, and becomes a RST.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Instant,
};

use egress_policy::link::Id;
use rustix::{
    event::epoll,
    io::Errno,
    net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown},
};

use super::watch::{Token, Watch};
use crate::{FlowId, Stack};

/// Reads, and writes, before others have their turn: a megabyte or so each.
const PIECES_PER_TURN: usize = 4;

#[derive(Debug)]
pub(super) struct Flow {
    id: Id,
    stream: OwnedFd,
    from_guest: Direction,
    to_guest: Direction,
    watched: epoll::EventFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Open,
    /// The stream has no room, or nothing new; epoll says when that changes.
    Blocked,
    Ended,
}

pub(super) enum Step {
    Wait,
    Broken,
}

impl Flow {
    pub(super) fn new(id: Id, stream: OwnedFd) -> Self {
        Flow {
            id,
            stream,
            from_guest: Direction::Open,
            to_guest: Direction::Blocked,
            watched: epoll::EventFlags::empty(),
        }
    }

    pub(super) fn id(&self) -> Id {
        self.id
    }

    pub(super) fn ready(&mut self, ready: epoll::EventFlags) {
        let gone = epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        if ready.intersects(epoll::EventFlags::OUT | gone) && self.from_guest == Direction::Blocked {
            self.from_guest = Direction::Open;
        }
        if ready.intersects(epoll::EventFlags::IN | gone) && self.to_guest == Direction::Blocked {
            self.to_guest = Direction::Open;
        }
    }

    /// Moves what can be moved.
    pub(super) fn pump(&mut self, stack: &mut Stack, flow: FlowId, now: Instant) -> Step {
        let moved = self
            .pump_from_guest(stack, flow, now)
            .and_then(|()| self.pump_to_guest(stack, flow, now));
        match moved {
            Ok(()) => Step::Wait,
            Err(_) => Step::Broken,
        }
    }

    fn pump_from_guest(&mut self, stack: &mut Stack, flow: FlowId, now: Instant) -> Result<(), Errno> {
        while self.from_guest == Direction::Open {
            let unread = stack.unread(flow);
            if unread.is_empty() {
                if stack.guest_finished(flow) {
                    shutdown(&self.stream, Shutdown::Write)?;
                    self.from_guest = Direction::Ended;
                }
                break;
            }
            match send(&self.stream, unread, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => stack.consume(flow, sent, now),
                Err(Errno::AGAIN) => self.from_guest = Direction::Blocked,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn pump_to_guest(&mut self, stack: &mut Stack, flow: FlowId, now: Instant) -> Result<(), Errno> {
        for _ in 0..PIECES_PER_TURN {
            if self.to_guest != Direction::Open {
                return Ok(());
            }
            let room = stack.room(flow);
            if room.is_empty() {
                return Ok(());
            }
            match recv(&self.stream, room, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => {
                    self.to_guest = Direction::Ended;
                    stack.finish(flow, now);
                    if self.from_guest != Direction::Ended && self.is_closed() {
                        return Err(Errno::CONNRESET);
                    }
                }
                Ok((_, got)) => stack.produced(flow, got, now),
                Err(Errno::AGAIN) => self.to_guest = Direction::Blocked,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        if self.to_guest == Direction::Open {
            // Others first: epoll says at once that there is more.
            self.to_guest = Direction::Blocked;
        }
        Ok(())
    }

    /// The far end did not just end its direction, it is gone.
    fn is_closed(&self) -> bool {
        let mut look = [rustix::event::PollFd::new(
            &self.stream,
            rustix::event::PollFlags::empty(),
        )];
        let at_once = rustix::time::Timespec::default();
        let looked = rustix::event::poll(&mut look, Some(&at_once));
        looked.is_err()
            || look
                .iter()
                .any(|look| look.revents().contains(rustix::event::PollFlags::HUP))
    }

    /// Waits for what is blocked, and for nothing else: an end that nobody waits for would be told again and again.
    pub(super) fn settle(&mut self, watch: &Watch, flow: FlowId) -> io::Result<()> {
        let mut wanted = epoll::EventFlags::empty();
        wanted.set(epoll::EventFlags::OUT, self.from_guest == Direction::Blocked);
        // Open means here that there is no room to read into: the stack says when there is some.
        wanted.set(epoll::EventFlags::IN, self.to_guest == Direction::Blocked);
        if wanted == self.watched {
            return Ok(());
        }
        let (stream, token) = (self.stream.as_fd(), Token::Flow(flow));
        match (self.watched.is_empty(), wanted.is_empty()) {
            (true, false) => watch.add(stream, token, wanted)?,
            (false, true) => watch.remove(stream),
            _ => watch.change(stream, token, wanted)?,
        }
        self.watched = wanted;
        Ok(())
    }
}
