//! One connection: its state, its socket, and what it owes the guest.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvFlags, Shutdown, recv, shutdown},
};

use crate::{
    backlog::{Backlog, Sink, Source, Written, is_not_now},
    credit::Credit,
    limits::{CLOSE_TIMEOUT, CREDIT_PATIENCE, MAX_DISCARD, MAX_READ, MIN_READ},
    packet::{Directions, Op},
    refusal::Refusal,
    state::{Event, IllegalEvent, State},
};

/// What to wait for on a connection's socket. With neither, only its hang-up matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    pub read: bool,
    pub write: bool,
}

#[derive(Debug)]
pub(crate) struct Connection {
    state: State,
    socket: Option<OwnedFd>,
    credit: Credit,
    backlog: Backlog,
    /// The directions the guest shut down.
    heard: Directions,
    /// The directions the guest must learn we shut down, and those it has been told.
    shut: Directions,
    told: Directions,
    owes: Owes,
    /// No more to be written to the socket, and it knows.
    write_closed: bool,
    /// Bytes the next read asks for.
    appetite: usize,
    /// When a dial is given up, credit is asked for, or a close is given up.
    deadline: Option<Instant>,
    pub(crate) place: Place,
}

/// Packets due to the guest.
#[derive(Debug, Default)]
struct Owes {
    response: bool,
    reset: bool,
    credit_update: bool,
    credit_request: bool,
}

/// Where the mux has noted this connection.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(crate) in_outbox: bool,
    pub(crate) in_line: bool,
    pub(crate) is_touched: bool,
    pub(crate) watched: Option<Interest>,
}

impl Connection {
    pub(crate) fn dialing(window: u32, deadline: Instant) -> Self {
        Connection {
            state: State::Dialing,
            socket: None,
            credit: Credit::new(window),
            backlog: Backlog::default(),
            heard: Directions::default(),
            shut: Directions::default(),
            told: Directions::default(),
            owes: Owes::default(),
            write_closed: false,
            appetite: MIN_READ,
            deadline: Some(deadline),
            place: Place::default(),
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Bytes of the guest that wait here for the host.
    pub(crate) fn held(&self) -> usize {
        self.backlog.len()
    }

    /// Nothing is left to do.
    pub(crate) fn is_gone(&self) -> bool {
        self.state == State::Draining && self.socket.is_none() && !self.owes.reset
    }

    /// What to wait for; `None` where waiting would only spin, or where there is nothing to wait on.
    pub(crate) fn interest(&self) -> Option<Interest> {
        self.socket.as_ref()?;
        let interest = Interest {
            read: !self.place.in_line && self.quota() > 0,
            write: !self.backlog.is_empty(),
        };
        let watches_hang_up = self.state == State::UpOnly;
        (interest.read || interest.write || watches_hang_up).then_some(interest)
    }

    pub(crate) fn connected(&mut self, socket: OwnedFd) -> Result<(), IllegalEvent> {
        self.state = self.state.after(Event::Connected)?;
        self.socket = Some(socket);
        self.deadline = None;
        self.owes.response = true;
        Ok(())
    }

    /// Takes in the credit a packet brought. True when the guest takes data again after it took none.
    pub(crate) fn hear(&mut self, buf_alloc: u32, fwd_cnt: u32) -> Result<bool, Refusal> {
        let before = self.quota();
        self.credit.hear(buf_alloc, fwd_cnt)?;
        let reopened = before == 0 && self.quota() > 0;
        if reopened {
            self.deadline = None;
            self.owes.credit_request = false;
        }
        Ok(reopened)
    }

    pub(crate) fn owe_credit_update(&mut self) {
        self.owes.credit_update = true;
    }
}

/// From the guest to the host.
impl Connection {
    /// The guest sent `len` bytes. True when they may be written to the host; false when nobody there
    /// wants them.
    pub(crate) fn accept(&mut self, len: u32) -> Result<bool, Refusal> {
        if self.heard.send || self.state == State::Dialing {
            return Err(Refusal::UnexpectedData);
        }
        self.credit.receive(len)?;
        let wanted = self.state.is_up_open() && len > 0;
        if !wanted {
            self.credit.deliver(len);
        }
        Ok(wanted)
    }

    pub(crate) fn write(&mut self, source: &impl Source, now: Instant) -> Result<(), IllegalEvent> {
        let written = match &self.socket {
            Some(socket) if self.state.is_up_open() => self.backlog.write(socket.as_fd(), source),
            _ => Written::Bytes(source.len()),
        };
        self.account(written, now)
    }

    pub(crate) fn flush(&mut self, now: Instant) -> Result<(), IllegalEvent> {
        let written = match &self.socket {
            Some(socket) if !self.backlog.is_empty() => self.backlog.flush(socket.as_fd()),
            _ => return Ok(()),
        };
        self.account(written, now)
    }

    fn account(&mut self, written: Written, now: Instant) -> Result<(), IllegalEvent> {
        match written {
            Written::Bytes(len) => self.credit.deliver(len.try_into().unwrap_or(u32::MAX)),
            Written::Refused => self.host_takes_no_more(now)?,
        }
        Ok(())
    }

    fn host_takes_no_more(&mut self, now: Instant) -> Result<(), IllegalEvent> {
        self.backlog.clear();
        self.credit.deliver(self.credit.held());
        self.shut.receive = true;
        self.happen(Event::UpEnded, now)
    }

    /// The guest shut these directions down, perhaps on top of others before.
    pub(crate) fn guest_shut(&mut self, directions: Directions, now: Instant) -> Result<(), IllegalEvent> {
        self.heard = self.heard.and(directions);
        if self.heard == Directions::BOTH {
            self.owes.reset = true;
            return self.happen(Event::GuestGone, now);
        }
        if directions.send {
            self.happen(Event::UpEnded, now)?;
        }
        if directions.receive {
            self.shut_socket(Shutdown::Read);
            self.happen(Event::DownEnded, now)?;
        }
        Ok(())
    }

    /// The guest left: `answer` it with a reset unless it sent one itself. What it sent before still
    /// goes to the host.
    pub(crate) fn guest_gone(&mut self, answer: bool, now: Instant) -> Result<(), IllegalEvent> {
        self.owes.reset = answer;
        self.happen(Event::GuestGone, now)
    }
}

/// From the host to the guest.
impl Connection {
    /// How many bytes a read may ask for now; 0 when the guest takes none.
    pub(crate) fn quota(&self) -> usize {
        if self.socket.is_none() || !self.state.is_down_open() || self.owes.response {
            return 0;
        }
        self.appetite.min(self.credit.available() as usize)
    }

    /// Reads from the host into `sink`; returns how many bytes are for the guest.
    pub(crate) fn read(&mut self, sink: &mut impl Sink, now: Instant) -> Result<u32, IllegalEvent> {
        let asked = sink.len().min(self.quota());
        let Some(socket) = &self.socket else {
            return Ok(0);
        };
        if asked == 0 {
            return Ok(0);
        }
        match sink.receive(socket.as_fd()) {
            Ok(0) => self.host_sends_no_more(now).map(|()| 0),
            Ok(len) => Ok(self.sent(len, asked, now)),
            Err(error) if is_not_now(&error) => Ok(0),
            Err(_) => self.host_sends_no_more(now).map(|()| 0),
        }
    }

    fn sent(&mut self, len: usize, asked: usize, now: Instant) -> u32 {
        if len >= asked {
            self.appetite = (self.appetite * 4).min(MAX_READ);
        } else if len < asked / 4 {
            self.appetite = (self.appetite / 2).max(MIN_READ);
        }
        let sent = len.try_into().unwrap_or(u32::MAX);
        self.credit.send(sent);
        if self.credit.available() == 0 {
            self.deadline = Some(now + CREDIT_PATIENCE);
        }
        sent
    }

    /// The deadline has passed.
    pub(crate) fn expire(&mut self, now: Instant) -> Result<(), IllegalEvent> {
        self.deadline = None;
        match self.state {
            State::Dialing | State::Closing => self.guest_gone(true, now),
            State::Open | State::DownOnly => {
                self.owes.credit_request = true;
                Ok(())
            }
            State::UpOnly | State::Draining => Ok(()),
        }
    }

    fn host_sends_no_more(&mut self, now: Instant) -> Result<(), IllegalEvent> {
        self.shut.send = true;
        self.happen(Event::DownEnded, now)?;
        if self.socket().is_some_and(has_hung_up) {
            self.host_gone(now)?;
        }
        Ok(())
    }

    /// The socket hung up. While it may still hold bytes for the guest, that is for a read to find out.
    pub(crate) fn hung_up(&mut self, now: Instant) -> Result<(), IllegalEvent> {
        if self.state == State::UpOnly {
            self.host_gone(now)?;
        }
        Ok(())
    }

    fn host_gone(&mut self, now: Instant) -> Result<(), IllegalEvent> {
        self.backlog.clear();
        self.credit.deliver(self.credit.held());
        self.happen(Event::HostGone, now)
    }
}

/// What follows from a step.
impl Connection {
    fn happen(&mut self, event: Event, now: Instant) -> Result<(), IllegalEvent> {
        let before = self.state;
        self.state = before.after(event)?;
        if before != self.state {
            match self.state {
                State::Closing => {
                    self.shut = Directions::BOTH;
                    self.deadline = Some(now + CLOSE_TIMEOUT);
                }
                State::Draining => {
                    // A host that writes instead of reading would otherwise wait for us, and we for it.
                    self.shut_socket(Shutdown::Read);
                    self.deadline = None;
                    self.owes = Owes {
                        reset: self.owes.reset,
                        ..Owes::default()
                    };
                }
                State::Dialing | State::Open | State::UpOnly | State::DownOnly => {}
            }
        }
        Ok(())
    }

    /// Passes ends on to the socket once all bytes before them are written.
    pub(crate) fn tidy(&mut self) {
        if self.credit.news_due() {
            self.owes.credit_update = true;
        }
        if !self.backlog.is_empty() || self.socket.is_none() {
            return;
        }
        let is_over = matches!(self.state, State::Closing | State::Draining);
        if (is_over || self.heard.send) && !self.write_closed {
            self.write_closed = true;
            self.shut_socket(Shutdown::Write);
        }
        if is_over {
            self.discard_unread();
            self.socket = None;
        }
    }

    fn shut_socket(&self, how: Shutdown) {
        if let Some(socket) = &self.socket {
            // It fails only where the host already left, and then there is nobody to tell.
            let _ = shutdown(socket, how);
        }
    }

    /// Empties the socket of bytes the guest no longer wants, so that closing it is an end and not an error.
    fn discard_unread(&self) {
        self.shut_socket(Shutdown::Read);
        let Some(socket) = &self.socket else { return };
        let mut scrap = [0u8; 16 * 1024];
        let mut dropped = 0;
        while dropped < MAX_DISCARD {
            match recv(socket, &mut scrap, RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(_) => return,
                Ok((len, _)) => dropped += len,
            }
        }
    }

    pub(crate) fn owes_packet(&self) -> bool {
        if self.state == State::Draining {
            return self.owes.reset;
        }
        self.owes.response || self.owes.credit_update || self.owes.credit_request || self.shut != self.told
    }

    /// The next packet due, which the caller will deliver.
    pub(crate) fn next_op(&mut self) -> Option<Op> {
        if std::mem::take(&mut self.owes.reset) {
            return Some(Op::Reset);
        }
        if self.state == State::Draining {
            return None;
        }
        if std::mem::take(&mut self.owes.response) {
            return Some(Op::Response);
        }
        if self.shut != self.told {
            self.told = self.shut;
            return Some(Op::Shutdown(self.told));
        }
        if std::mem::take(&mut self.owes.credit_request) {
            return Some(Op::CreditRequest);
        }
        std::mem::take(&mut self.owes.credit_update).then_some(Op::CreditUpdate)
    }

    /// Our window and delivered count, for a header about to go out.
    pub(crate) fn announce(&mut self) -> (u32, u32) {
        self.owes.credit_update = false;
        self.credit.announce()
    }
}

fn has_hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}
