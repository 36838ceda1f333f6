//! The thread that moves packets.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::Arc,
    time::Instant,
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use vm_memory::GuestMemoryMmap;
use vsock_mux::{Interest, Mux, Pair, Received, Refusal, Watch};

use super::{
    rx::RxRing,
    tx::{TakenPacket, TxRing},
};
use crate::{DeviceQueue, Poll, QueueError, Readiness, Worker, WorkerError, rate_limit::warn_limited};

/// Tokens of our own; those of connections lie below, for none has host port `u32::MAX`.
const RX: u64 = u32::MAX as u64 * (1 << 32);
const TX: u64 = RX + 1;
const TIMER: u64 = RX + 2;

/// Packets taken before the thread looks at its other events again.
const PACKETS_PER_TURN: usize = 256;

/// Times per turn that buffers the driver adds meanwhile are looked at, before other events have their turn.
const REFILLS_PER_TURN: usize = 4;

/// Pieces of one packet or buffer: Linux sends up to 18 and offers two. A chain could have 65,535, which
/// would make us keep megabytes for each.
pub(super) const MAX_SEGMENTS: usize = 64;

pub(super) struct Queues {
    pub(super) rx: DeviceQueue,
    pub(super) tx: DeviceQueue,
    pub(super) event: DeviceQueue,
}

#[derive(Debug)]
pub(super) struct VsockWorker {
    mux: Mux,
    rx: RxRing,
    tx: TxRing,
    /// Nothing is ever sent here, so its buffers just stay offered.
    _event: DeviceQueue,
    memory: Arc<GuestMemoryMmap>,
    timer: OwnedFd,
    armed: Option<Instant>,
}

impl VsockWorker {
    pub(super) fn new(mux: Mux, queues: Queues, memory: Arc<GuestMemoryMmap>) -> io::Result<Self> {
        Ok(VsockWorker {
            mux,
            rx: RxRing::new(queues.rx),
            tx: TxRing::new(queues.tx),
            _event: queues.event,
            memory,
            timer: timerfd_create(
                TimerfdClockId::Monotonic,
                TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
            )?,
            armed: None,
        })
    }
}

impl Worker for VsockWorker {
    fn start(&mut self, poll: &Poll) -> Result<(), WorkerError> {
        poll.add(self.rx.0.queue.kick(), RX, true, false)?;
        poll.add(self.tx.queue.kick(), TX, true, false)?;
        poll.add(&self.timer, TIMER, true, false)
    }

    fn ready(&mut self, _poll: &Poll, token: u64, readiness: Readiness) -> Result<(), WorkerError> {
        match token {
            RX => self.rx.0.queue.kick().hush(),
            TX => self.take_packets()?,
            TIMER => self.expire(),
            token => self.serve(Pair::from_token(token), readiness)?,
        }
        Ok(())
    }

    fn settle(&mut self, poll: &Poll) -> Result<(), WorkerError> {
        self.deliver()?;
        self.mux.settle(&mut Watched(poll))?;
        self.arm()?;
        self.tx.signal()?;
        self.rx.0.signal()?;
        Ok(())
    }
}

#[cfg(test)]
impl VsockWorker {
    /// One round without sockets.
    pub(super) fn turn(&mut self) -> Result<(), QueueError> {
        self.rx.0.queue.kick().hush();
        self.take_packets()?;
        self.deliver()
    }
}

/// From the guest.
impl VsockWorker {
    fn take_packets(&mut self) -> Result<(), QueueError> {
        let now = Instant::now();
        self.tx.queue.kick().hush();
        self.tx.queue.mute()?;
        for _ in 0..PACKETS_PER_TURN {
            match self.tx.take(&self.memory)? {
                Some(Ok(packet)) => self.receive(packet, now)?,
                Some(Err(bad)) => warn_limited!(%bad, "vsock chain dropped"),
                None => {
                    self.write_batch(now)?;
                    if !self.tx.queue.unmute()? {
                        return Ok(());
                    }
                    self.tx.queue.mute()?;
                }
            }
        }
        self.write_batch(now)?;
        self.tx.queue.kick().ring();
        Ok(())
    }

    fn receive(&mut self, packet: TakenPacket, now: Instant) -> Result<(), QueueError> {
        if !self.tx.continues_batch(&packet.header) {
            self.write_batch(now)?;
        }
        match self.mux.receive(&packet.header, packet.available, now) {
            Ok(Received::Data { len, .. }) => {
                if self.tx.gather(packet, len) {
                    self.write_batch(now)?;
                }
                return Ok(());
            }
            Ok(Received::Done) => {}
            Err(refusal) => self.log(&refusal),
        }
        self.tx.finish(packet)
    }

    fn write_batch(&mut self, now: Instant) -> Result<(), QueueError> {
        if let Some((pair, gathered)) = self.tx.batch(&self.memory)? {
            self.mux.write(pair, &gathered, now);
        }
        self.tx.finish_batch()
    }

    fn log(&self, refusal: &Refusal) {
        // A packet that crossed the end of its connection is nothing to write about.
        if *refusal != Refusal::NoConnection {
            warn_limited!(%refusal, "vsock packet refused");
        }
    }
}

/// To the guest.
impl VsockWorker {
    fn serve(&mut self, pair: Pair, readiness: Readiness) -> Result<(), QueueError> {
        let now = Instant::now();
        if readiness.writable() {
            self.mux.writable(pair, now);
        }
        if readiness.readable() {
            self.carry(pair, now)?;
        }
        if readiness.hung_up() {
            self.mux.hung_up(pair, now);
        }
        Ok(())
    }

    /// Carries data of one connection to the guest, one read of it. False when there is no room.
    fn carry(&mut self, pair: Pair, now: Instant) -> Result<bool, QueueError> {
        let quota = self.mux.quota(pair);
        if quota == 0 {
            return Ok(true);
        }
        let mut room = self.rx.room(&self.memory, quota)?;
        if vsock_mux::Sink::is_empty(&room) {
            self.mux.starve(pair);
            return Ok(false);
        }
        let len = self.mux.read(pair, &mut room, now);
        if len > 0 {
            let header = self.mux.data_header(pair, len);
            self.rx.send_data(&self.memory, header, len)?;
        }
        Ok(true)
    }

    /// Delivers what waits for buffers, as far as there are any; else asks the driver to ring when it has
    /// added some.
    fn deliver(&mut self) -> Result<(), QueueError> {
        for _ in 0..REFILLS_PER_TURN {
            let has_room = self.deliver_packets()? && self.deliver_data()?;
            if has_room || !self.rx.0.queue.unmute()? {
                return Ok(());
            }
            self.rx.0.queue.mute()?;
        }
        self.rx.0.queue.kick().ring();
        Ok(())
    }

    /// False when there was no room for all.
    fn deliver_packets(&mut self) -> Result<bool, QueueError> {
        while self.mux.has_packet() {
            if !self.rx.has_buffer()? {
                return Ok(false);
            }
            if let Some(header) = self.mux.next_packet() {
                self.rx.send_control(&self.memory, &header)?;
            }
        }
        Ok(true)
    }

    /// Gives each connection that waits its turn. False when there was no room for all.
    fn deliver_data(&mut self) -> Result<bool, QueueError> {
        let now = Instant::now();
        while let Some(pair) = self.mux.next_in_line() {
            if !self.carry(pair, now)? {
                return Ok(false);
            }
        }
        // Reading may have found ends, which the guest must be told of.
        self.deliver_packets()
    }

    fn expire(&mut self) {
        // Fails when the timer was set anew since it fired.
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
        self.armed = None;
        for refusal in self.mux.expire(Instant::now()) {
            self.log(&refusal);
        }
    }

    fn arm(&mut self) -> Result<(), WorkerError> {
        let deadline = self.mux.deadline();
        if deadline == self.armed {
            return Ok(());
        }
        self.armed = deadline;
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: deadline.map_or(Timespec::default(), until),
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)
            .map(|_| ())
            .map_err(|source| WorkerError::Host {
                act: "cannot set a timer",
                source: source.into(),
            })
    }
}

/// How long until `deadline`, and never zero, which would turn the timer off.
fn until(deadline: Instant) -> Timespec {
    let wait = deadline.saturating_duration_since(Instant::now());
    Timespec {
        tv_sec: wait.as_secs().cast_signed(),
        tv_nsec: wait.subsec_nanos().max(1).into(),
    }
}

struct Watched<'a>(&'a Poll);

impl Watch for Watched<'_> {
    type Error = WorkerError;

    fn watch(
        &mut self,
        socket: BorrowedFd<'_>,
        pair: Pair,
        before: Option<Interest>,
        after: Option<Interest>,
    ) -> Result<(), WorkerError> {
        match (before, after) {
            (None, Some(after)) => self.0.add(socket, pair.token(), after.read, after.write),
            (Some(_), Some(after)) => self.0.change(socket, pair.token(), after.read, after.write),
            (_, None) => {
                self.0.remove(socket);
                Ok(())
            }
        }
    }
}
