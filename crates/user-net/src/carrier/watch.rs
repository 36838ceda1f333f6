//! What the carrier waits for: descriptors, and a time.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Instant,
};

use rustix::{
    buffer::spare_capacity,
    event::epoll,
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};

use crate::FlowId;

/// Events taken from the kernel at once; more wait for the next turn.
const BATCH: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Mailbox,
    Link,
    Timer,
    Flow(FlowId),
}

impl Token {
    /// Flows are counted from small numbers on and never reach the end.
    fn number(self) -> u64 {
        match self {
            Token::Mailbox => u64::MAX,
            Token::Link => u64::MAX - 1,
            Token::Timer => u64::MAX - 2,
            Token::Flow(FlowId(number)) => number,
        }
    }

    fn from_number(number: u64) -> Self {
        match u64::MAX - number {
            0 => Token::Mailbox,
            1 => Token::Link,
            2 => Token::Timer,
            _ => Token::Flow(FlowId(number)),
        }
    }
}

/// An epoll descriptor that another loop waits for.
#[derive(Debug)]
pub(super) struct Watch {
    epoll: OwnedFd,
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Watch {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        })
    }

    pub(super) fn add(&self, fd: BorrowedFd<'_>, token: Token, flags: epoll::EventFlags) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token.number());
        Ok(epoll::add(&self.epoll, fd, data, flags)?)
    }

    pub(super) fn change(
        &self,
        fd: BorrowedFd<'_>,
        token: Token,
        flags: epoll::EventFlags,
    ) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token.number());
        Ok(epoll::modify(&self.epoll, fd, data, flags)?)
    }

    pub(super) fn remove(&self, fd: BorrowedFd<'_>) {
        // One that is not there is gone already.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// What is ready now.
    pub(super) fn ready(&self) -> Vec<(Token, epoll::EventFlags)> {
        let mut events = Vec::with_capacity(BATCH);
        let at_once = Timespec::default();
        // Interrupted: whoever waits for this descriptor comes back at once.
        let _ = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&at_once));
        let ready = events
            .iter()
            .map(|event| (Token::from_number(event.data.u64()), event.flags));
        ready.collect()
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// Rings at or before the time it was last set to. A time that moves away with every packet, as those of TCP do, costs
/// a wake-up for nothing now and then instead of a system call for each packet.
#[derive(Debug)]
pub(super) struct Timer {
    timer: OwnedFd,
    set: Option<Instant>,
}

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Timer {
            timer: timerfd_create(TimerfdClockId::Monotonic, flags)?,
            set: None,
        })
    }

    pub(super) fn set(&mut self, at: Option<Instant>) {
        let Some(at) = at.filter(|at| self.set.is_none_or(|set| *at < set)) else {
            return;
        };
        let wait = at.saturating_duration_since(Instant::now());
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: wait.as_secs().cast_signed(),
                // Zero would turn it off.
                tv_nsec: wait.subsec_nanos().max(1).into(),
            },
        };
        if timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).is_ok() {
            self.set = Some(at);
        }
    }

    pub(super) fn rang(&mut self) {
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
        self.set = None;
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}
