//! The I/O around the stack: questions go to `coffer-egress` over a link, the bytes of flows over a stream of
//! AF_UNIX each.
//!
//! ```text
//!  frames ◀──▶ Stack ── Name, Open + a stream's far end ──▶ Link ──▶ coffer-egress
//!                └──── bytes ◀──▶ flow's stream (ours) ◀─────────────▶ flow's stream (its)
//! ```
//!
//! Without a link every name is unknown and every connection refused, and when a link goes, so do its flows.

mod flow;
mod link;
mod mailbox;
mod watch;

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Instant,
};

use egress_policy::link::{FromEgress, Id, ToEgress};
use rustix::{
    event::epoll,
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
};

use self::{
    flow::{Flow, Step},
    link::{Link, LinkError},
    mailbox::Mailbox,
    watch::{Timer, Token, Watch},
};
use crate::{Event, FlowId, Network, Offloads, QueryId, Stack};

pub use self::mailbox::Links;

/// Messages of the link looked at before flows have their turn again.
const MESSAGES_PER_TURN: usize = 64;

/// A guest's network, all of it.
#[derive(Debug)]
pub struct Carrier {
    stack: Stack,
    mailbox: Mailbox,
    link: Option<Link>,
    link_is_full: bool,
    /// Who waits for which answer. A link's numbers are never used twice, the stack's begin anew with each driver.
    asked: HashMap<Id, Asked>,
    flows: HashMap<FlowId, Flow>,
    last_id: u64,
    watch: Watch,
    timer: Timer,
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    Name(QueryId),
    Flow(FlowId),
}

impl Carrier {
    /// A network that leads nowhere until a link comes through the other half.
    pub fn new() -> io::Result<(Self, Links)> {
        let (mailbox, links) = mailbox::pair()?;
        let (watch, timer) = (Watch::new()?, Timer::new()?);
        watch.add(mailbox.as_fd(), Token::Mailbox, epoll::EventFlags::IN)?;
        watch.add(timer.as_fd(), Token::Timer, epoll::EventFlags::IN)?;
        let carrier = Carrier {
            stack: Stack::new(Offloads::default(), Instant::now()),
            mailbox,
            link: None,
            link_is_full: false,
            asked: HashMap::new(),
            flows: HashMap::new(),
            last_id: 0,
            watch,
            timer,
        };
        Ok((carrier, links))
    }
}

impl Network for Carrier {
    fn connect(&mut self, offloads: Offloads) {
        self.flows.clear();
        self.asked.clear();
        self.stack = Stack::new(offloads, Instant::now());
    }

    fn wake(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }

    fn turn(&mut self) {
        let now = Instant::now();
        for (token, ready) in self.watch.ready() {
            match token {
                Token::Mailbox => self.take_link(now),
                Token::Link => {
                    self.flush_link(now);
                    self.hear(now);
                }
                Token::Timer => {
                    self.timer.rang();
                    self.stack.expire(now);
                }
                Token::Flow(flow) => self.serve(flow, ready, now),
            }
        }
        self.settle(now);
    }

    fn receive(&mut self, frame: &[u8]) {
        let now = Instant::now();
        self.stack.receive(frame, now);
        self.settle(now);
    }

    fn transmit(&mut self, frame: &mut Vec<u8>) -> bool {
        let now = Instant::now();
        if self.stack.transmit(frame, now) {
            return true;
        }
        // What room in the guest made possible may make another frame.
        self.settle(now);
        self.stack.transmit(frame, now)
    }
}

/// The link.
impl Carrier {
    fn take_link(&mut self, now: Instant) {
        let Some(descriptor) = self.mailbox.take() else {
            return;
        };
        self.lose_link(now);
        self.link_is_full = false;
        match Link::new(descriptor) {
            Ok(link)
                if self
                    .watch
                    .add(link.as_fd(), Token::Link, epoll::EventFlags::IN)
                    .is_ok() =>
            {
                self.link = Some(link);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "link to coffer-egress refused"),
        }
    }

    fn flush_link(&mut self, now: Instant) {
        if let Some(Err(error)) = self.link.as_mut().map(Link::flush) {
            tracing::warn!(%error, "link to coffer-egress lost");
            self.lose_link(now);
        }
    }

    /// Room on the link is of interest while something waits for it.
    fn watch_link(&mut self) {
        let Some(link) = &self.link else {
            return;
        };
        if self.link_is_full != link.is_waiting() {
            self.link_is_full = link.is_waiting();
            let mut wanted = epoll::EventFlags::IN;
            wanted.set(epoll::EventFlags::OUT, self.link_is_full);
            let _ = self.watch.change(link.as_fd(), Token::Link, wanted);
        }
    }

    fn hear(&mut self, now: Instant) {
        for _ in 0..MESSAGES_PER_TURN {
            let heard = match &mut self.link {
                Some(link) => link.receive(),
                None => return,
            };
            match heard {
                Ok(Some(message)) => self.answered(&message, now),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "link to coffer-egress lost");
                    return self.lose_link(now);
                }
            }
        }
    }

    fn answered(&mut self, message: &FromEgress, now: Instant) {
        match message {
            // The link has seen to it.
            FromEgress::Hello { .. } => {}
            FromEgress::Name { id, allowed } => {
                if let Some(Asked::Name(query)) = self.asked.remove(id) {
                    self.stack.name_decided(query, *allowed, now);
                }
            }
            FromEgress::Opened { id } => {
                if let Some(Asked::Flow(flow)) = self.asked.get(id).copied() {
                    self.stack.accept(flow, now);
                    self.pump(flow, now);
                }
            }
            FromEgress::Refused { id, .. } | FromEgress::Broken { id } => {
                if let Some(Asked::Flow(flow)) = self.asked.get(id).copied() {
                    self.end(flow, now);
                }
            }
        }
    }

    /// A `coffer-egress` that is gone has taken the far end of every flow with it.
    fn lose_link(&mut self, now: Instant) {
        if let Some(link) = self.link.take() {
            self.watch.remove(link.as_fd());
        }
        for (_, asked) in std::mem::take(&mut self.asked) {
            match asked {
                Asked::Name(query) => self.stack.name_decided(query, false, now),
                Asked::Flow(flow) => self.end(flow, now),
            }
        }
    }

    /// Asks, and remembers who did. False when nobody can be asked.
    fn ask(
        &mut self,
        who: Asked,
        question: impl FnOnce(Id) -> ToEgress,
        beside: Option<OwnedFd>,
    ) -> Option<Id> {
        let link = self.link.as_mut()?;
        self.last_id += 1;
        let id = Id(self.last_id);
        match link.send(&question(id), beside) {
            Ok(()) => {
                self.asked.insert(id, who);
                Some(id)
            }
            // Full: it is busy or stuck. That it is gone is seen when it is read.
            Err(LinkError::Io(_) | LinkError::Closed) => None,
            Err(error) => {
                tracing::warn!(%error, "cannot ask coffer-egress");
                None
            }
        }
    }
}

/// Flows and what else the stack wants.
impl Carrier {
    /// Does what the stack asks for until it asks no more, and sets the timer for what it will want later.
    fn settle(&mut self, now: Instant) {
        while let Some(event) = self.stack.next_event() {
            match event {
                Event::Name {
                    query,
                    name,
                    protocol,
                    port,
                } => {
                    let question = |id| ToEgress::Name {
                        id,
                        name,
                        protocol,
                        port,
                    };
                    if self.ask(Asked::Name(query), question, None).is_none() {
                        self.stack.name_decided(query, false, now);
                    }
                }
                Event::Open {
                    flow,
                    source,
                    target,
                    port,
                } => {
                    let question = |id| ToEgress::Open {
                        id,
                        source,
                        target,
                        port,
                    };
                    if self.open(flow, question).is_none() {
                        self.stack.refuse(flow, now);
                    }
                }
                Event::Readable(flow) | Event::Writable(flow) => self.pump(flow, now),
                Event::Closed { flow, .. } => self.forget(flow),
                Event::Dropped(dropped) => {
                    if let Some(link) = self.link.as_mut().filter(|link| !link.is_waiting()) {
                        // For the record only; one that has no room for it has enough to record.
                        let _ = link.send(&ToEgress::Dropped(dropped), None);
                    }
                }
            }
        }
        self.watch_link();
        self.timer.set(self.stack.deadline());
    }

    fn open(&mut self, flow: FlowId, question: impl FnOnce(Id) -> ToEgress) -> Option<()> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
        let id = self.ask(Asked::Flow(flow), question, Some(theirs))?;
        self.flows.insert(flow, Flow::new(id, ours));
        Some(())
    }

    /// Something is ready at the flow's stream.
    fn serve(&mut self, flow: FlowId, ready: epoll::EventFlags, now: Instant) {
        if let Some(known) = self.flows.get_mut(&flow) {
            known.ready(ready);
        }
        self.pump(flow, now);
    }

    fn pump(&mut self, flow: FlowId, now: Instant) {
        let Some(known) = self.flows.get_mut(&flow) else {
            return;
        };
        match known.pump(&mut self.stack, flow, now) {
            Step::Wait => {
                if known.settle(&self.watch, flow).is_err() {
                    self.end(flow, now);
                }
            }
            Step::Broken => self.end(flow, now),
        }
    }

    /// RST to the guest, and the stream closed.
    fn end(&mut self, flow: FlowId, now: Instant) {
        self.stack.refuse(flow, now);
        self.forget(flow);
    }

    /// Closing a stream that is not finished tells the other end that the flow broke.
    fn forget(&mut self, flow: FlowId) {
        if let Some(known) = self.flows.remove(&flow) {
            self.asked.remove(&known.id());
        }
    }
}

#[cfg(test)]
mod tests;
