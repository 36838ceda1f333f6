//! Requests and their answers, on whatever thread comes along.
//!
//! A queue has a lock, held to take a request and to put an answer back, not while the answer is made: threads
//! that serve one queue do so side by side, out of order. Whenever the lock is let go the driver has been told to
//! ring for the next request there is, so each one is known to somebody: to the thread that the driver rings on, or
//! to one that has just seen that there is more and calls a worker for it. What a worker is called for stays in the
//! ring until it comes, which is what bounds the work that can pile up here.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use fuse::{Answered, FileSystem, Peek, Server, Weight};
use vm_memory::GuestMemoryMmap;

use super::{
    pace::{Pace, Ticket},
    request::{Request, Room},
    waits::waits_so_far,
};
use crate::{Chain, DeviceQueue, QueueError, rate_limit::warn_limited};

/// Requests answered before a thread looks at other things: a virtual CPU at its guest, which could otherwise keep
/// it here for good, a worker at whether it is to end.
const REQUESTS_PER_VISIT: usize = 32;

/// The queue of FORGETs. They never wait for a disk, and nobody in the guest waits for them: after the first the
/// driver is not told to ring, and they are taken many at a time, by whoever comes along or by a worker soon after.
/// `rm -rf` would otherwise leave the guest once more for every file.
const HIPRIO: usize = 0;
/// FORGETs that are worth taking on the way. A quarter of their queue, so it does not fill up.
const MANY_FORGETS: u16 = 64;
/// How long FORGETs may lie. An unmount waits for the last.
const SWEEP_AFTER: Duration = Duration::from_millis(5);

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Vcpu,
    Worker,
}

pub(super) struct Service<F> {
    server: Arc<Server<F>>,
    memory: Arc<GuestMemoryMmap>,
    lanes: Vec<Mutex<Lane>>,
    pace: Mutex<Pace>,
    calls: Mutex<Calls>,
    called: Condvar,
    /// FORGETs come in without a ring; a worker is going to look for them.
    forgetting: AtomicBool,
}

/// One queue.
struct Lane {
    queue: DeviceQueue,
    /// Chains with nothing in them, so that serving does not allocate. As many as threads were here at once.
    spare: Vec<Chain>,
    /// The driver broke the ring's rules: it is left alone until the next reset.
    broken: bool,
}

impl Lane {
    /// The driver rings from the first request on; there are none before it knows that the device runs.
    fn new(mut queue: DeviceQueue) -> Self {
        let broken = queue.unmute().is_err();
        Lane {
            queue,
            spare: Vec::new(),
            broken,
        }
    }
}

/// Queues that want a worker, each once.
#[derive(Debug, Default)]
struct Calls {
    waiting: VecDeque<usize>,
    /// When to look for FORGETs.
    sweep_at: Option<Instant>,
    /// A worker waits for that moment.
    timed: bool,
    closed: bool,
}

/// A request as it was taken from its queue.
struct Taken {
    chain: Chain,
    /// Another one is behind it, and the driver may not ring for that.
    more: bool,
    ticket: Option<Ticket>,
}

impl<F: FileSystem> Service<F> {
    pub(super) fn new(
        server: Arc<Server<F>>,
        memory: Arc<GuestMemoryMmap>,
        queues: Vec<DeviceQueue>,
    ) -> Self {
        Service {
            server,
            memory,
            lanes: queues.into_iter().map(Lane::new).map(Mutex::new).collect(),
            pace: Mutex::default(),
            calls: Mutex::default(),
            called: Condvar::new(),
            forgetting: AtomicBool::new(false),
        }
    }

    /// Answers what waits in the queue of this number, if there is one, or sees to it that it is answered.
    pub(super) fn visit(&self, index: usize, place: Place) {
        let Some(lane) = self.lanes.get(index) else {
            return;
        };
        let visited = match index {
            HIPRIO => self.forget(lane, place),
            _ => self.serve(index, lane, place),
        };
        if let Err(error) = visited {
            lock(lane).broken = true;
            warn_limited!(%error, queue = index, "file system queue stopped: its driver broke the rules");
        }
    }

    fn serve(&self, index: usize, lane: &Mutex<Lane>, place: Place) -> Result<(), QueueError> {
        for _ in 0..REQUESTS_PER_VISIT {
            if !self.answer_one(index, lane, place)? {
                self.forget_many();
                return Ok(());
            }
        }
        self.call(index);
        Ok(())
    }

    /// On the way: FORGETs that have piled up.
    fn forget_many(&self) {
        if !self.forgetting.load(Ordering::Relaxed) {
            return;
        }
        let Some(lane) = self.lanes.get(HIPRIO) else {
            return;
        };
        let many = |waiting: u16| waiting >= MANY_FORGETS;
        if lock(lane).queue.waiting().is_ok_and(many) {
            self.visit(HIPRIO, Place::Vcpu);
        }
    }

    /// Takes all FORGETs there are. The driver is told to ring again when a worker has looked for more in vain.
    fn forget(&self, lane: &Mutex<Lane>, place: Place) -> Result<(), QueueError> {
        let found = self.take_forgets(lane)?;
        let done = place == Place::Worker && !found && !lock(lane).queue.unmute()?;
        self.forgetting.store(!done, Ordering::Relaxed);
        if !done {
            self.sweep_later();
        }
        Ok(())
    }

    fn take_forgets(&self, lane: &Mutex<Lane>) -> Result<bool, QueueError> {
        let mut lane = lock(lane);
        let lane = &mut *lane;
        if lane.broken {
            return Ok(false);
        }
        lane.queue.mute()?;
        let mut chain = lane.spare.pop().unwrap_or_default();
        let mut taken = 0;
        while taken < lane.queue.size() && lane.queue.pop(&mut chain)? {
            let written = self.answer(&chain);
            lane.queue.push(chain.head(), written)?;
            taken += 1;
        }
        lane.spare.push(chain);
        if taken > 0 {
            lane.queue.signal()?;
        }
        Ok(taken > 0)
    }

    fn sweep_later(&self) {
        let mut calls = lock(&self.calls);
        calls.sweep_at = Some(Instant::now() + SWEEP_AFTER);
        if !calls.timed {
            self.called.notify_one();
        }
    }

    /// For a worker: waits for a queue to be served. `None` when there will be no more.
    pub(super) fn next_call(&self) -> Option<usize> {
        let mut calls = lock(&self.calls);
        loop {
            if calls.closed {
                return None;
            }
            let now = Instant::now();
            let due = calls.sweep_at.is_some_and(|at| at <= now);
            if let Some(index) = calls.waiting.pop_front() {
                self.hand_over_clock(&calls);
                return Some(index);
            }
            if due {
                calls.sweep_at = None;
                return Some(HIPRIO);
            }
            calls = match calls.sweep_at {
                Some(at) if !calls.timed => {
                    calls.timed = true;
                    let waited = self.called.wait_timeout(calls, at - now);
                    let (mut calls, _) = waited.unwrap_or_else(PoisonError::into_inner);
                    calls.timed = false;
                    calls
                }
                _ => self.called.wait(calls).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// A worker that goes to serve a queue may have been the one with an eye on the clock.
    fn hand_over_clock(&self, calls: &Calls) {
        if calls.sweep_at.is_some() && !calls.timed {
            self.called.notify_one();
        }
    }

    /// Sends the workers home.
    pub(super) fn close(&self) {
        lock(&self.calls).closed = true;
        self.called.notify_all();
    }

    fn call(&self, index: usize) {
        let mut calls = lock(&self.calls);
        if !calls.waiting.contains(&index) {
            calls.waiting.push_back(index);
            self.called.notify_one();
        }
    }

    /// False when there is nothing to answer here.
    fn answer_one(&self, index: usize, lane: &Mutex<Lane>, place: Place) -> Result<bool, QueueError> {
        let Some(taken) = self.take(index, lane, place)? else {
            return Ok(false);
        };
        // A request that others are about to wait for in vain if this one is late.
        if taken.more {
            self.call(index);
        }
        let watched = taken.ticket.as_ref().is_some_and(|ticket| ticket.watched);
        let before = if watched { waits_so_far() } else { 0 };
        let written = self.answer(&taken.chain);
        if let Some(ticket) = &taken.ticket {
            let waited = watched && waits_so_far() > before;
            lock(&self.pace).end(ticket, Instant::now(), waited);
        }
        let mut lane = lock(lane);
        lane.queue.push(taken.chain.head(), written)?;
        lane.spare.push(taken.chain);
        lane.queue.signal()?;
        Ok(true)
    }

    fn take(&self, index: usize, lane: &Mutex<Lane>, place: Place) -> Result<Option<Taken>, QueueError> {
        let mut lane = lock(lane);
        let lane = &mut *lane;
        if lane.broken {
            return Ok(None);
        }
        let mut chain = lane.spare.pop().unwrap_or_default();
        if !lane.queue.pop(&mut chain)? {
            lane.spare.push(chain);
            return Ok(None);
        }
        let Some(ticket) = self.admit(self.weigh(&chain), place) else {
            lane.queue.unpop();
            lane.spare.push(chain);
            self.call(index);
            return Ok(None);
        };
        let more = lane.queue.unmute()?;
        Ok(Some(Taken { chain, more, ticket }))
    }

    /// What the request says it is: good enough to choose a thread by.
    fn weigh(&self, chain: &Chain) -> Weight {
        let mut header = [0; Peek::BYTES];
        match chain.read_at(&self.memory, 0, &mut header) {
            Ok(Peek::BYTES) => Peek::at(&header).map_or(Weight::Quick, Peek::weight),
            _ => Weight::Quick,
        }
    }

    /// `None` when the request is not to be answered at this place; else its ticket, if it needs one.
    fn admit(&self, weight: Weight, place: Place) -> Option<Option<Ticket>> {
        match (weight, place) {
            (Weight::Slow, Place::Vcpu) => None,
            (Weight::Slow, Place::Worker) => Some(None),
            (Weight::Quick, place) => {
                let mut pace = lock(&self.pace);
                let now = Instant::now();
                (place == Place::Worker || pace.allows(now)).then(|| Some(pace.begin(now)))
            }
        }
    }

    /// Returns how much was written to the chain.
    fn answer(&self, chain: &Chain) -> u32 {
        let mut request = Request::new(&self.memory, chain);
        let mut room = Room::new(&self.memory, chain);
        match self.server.answer(&mut request, &mut room) {
            Answered::Reply(len) => u32::try_from(len).unwrap_or(u32::MAX),
            Answered::Silence => 0,
            Answered::Broken => {
                warn_limited!("driver sent what is no file system request");
                0
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
