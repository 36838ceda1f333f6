//! The thread that hands out random bytes.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    rand::{GetRandomFlags, getrandom},
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};
use vm_memory::GuestMemoryMmap;

use super::budget::Budget;
use crate::{
    Chain, DeviceQueue, Poll, QueueError, Readiness, Worker, WorkerError,
    rate_limit::warn_limited,
    turn::{Turn, take_turn},
};

const KICK: u64 = 0;
const REFILLED: u64 = 1;

/// Bytes for one request, whatever it asks for: the device may give fewer, and the driver asks again.
pub(super) const MAX_ANSWER: usize = 4096;

#[derive(Debug)]
pub(super) struct RngWorker {
    queue: DeviceQueue,
    chain: Chain,
    budget: Budget,
    refilled: OwnedFd,
}

impl RngWorker {
    pub(super) fn new(queue: DeviceQueue) -> io::Result<Self> {
        Ok(RngWorker {
            queue,
            chain: Chain::default(),
            budget: Budget::full(Instant::now()),
            refilled: timerfd_create(
                TimerfdClockId::Monotonic,
                TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
            )?,
        })
    }

    /// Answers what waits; returns how long to wait when the budget is spent before that.
    pub(super) fn turn(&mut self, now: Instant) -> Result<Option<Duration>, QueueError> {
        let mut wait = None;
        let turn = take_turn(&mut self.queue, &mut self.chain, |memory, chain| {
            let len = chain.writable_len().min(MAX_ANSWER);
            match self.budget.pay(len as u64, now) {
                Ok(()) => Some(answer(memory, chain, len)),
                Err(time) => {
                    wait = Some(time);
                    None
                }
            }
        })?;
        Ok(wait.filter(|_| turn == Turn::PutOff))
    }

    fn wake_in(&self, wait: Duration) -> Result<(), WorkerError> {
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: wait.as_secs().cast_signed(),
                tv_nsec: wait.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.refilled, TimerfdTimerFlags::empty(), &once)
            .map(|_| ())
            .map_err(|source| WorkerError::Host {
                act: "cannot set a timer",
                source: source.into(),
            })
    }
}

impl Worker for RngWorker {
    fn start(&mut self, poll: &Poll) -> Result<(), WorkerError> {
        poll.add(self.queue.kick(), KICK, true, false)?;
        poll.add(&self.refilled, REFILLED, true, false)
    }

    fn ready(&mut self, _poll: &Poll, _token: u64, _readiness: Readiness) -> Result<(), WorkerError> {
        // Fails when it is the doorbell that rang; either way the queue is what to look at.
        let _ = rustix::io::read(&self.refilled, &mut [0; 8]);
        match self.turn(Instant::now())? {
            Some(wait) => self.wake_in(wait),
            None => Ok(()),
        }
    }
}

/// Fills the first `len` writable bytes; returns how many it could.
fn answer(memory: &GuestMemoryMmap, chain: &Chain, len: usize) -> u32 {
    let mut buffer = [0; MAX_ANSWER];
    let bytes = buffer.get_mut(..len).unwrap_or_default();
    let drawn = match rustix::io::retry_on_intr(|| getrandom(&mut *bytes, GetRandomFlags::empty())) {
        Ok(drawn) => drawn,
        Err(error) => {
            warn_limited!(%error, "host gives no random bytes");
            0
        }
    };
    let bytes = bytes.get(..drawn).unwrap_or_default();
    chain
        .write_at(memory, 0, bytes)
        .map_or(0, |written| written as u32)
}
