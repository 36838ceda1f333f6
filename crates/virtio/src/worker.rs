//! The thread behind a device: an epoll loop that ends when it is told to.

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    thread::JoinHandle,
};

use rustix::{
    buffer::spare_capacity,
    event::{EventfdFlags, epoll, eventfd},
};

use crate::{FailureSink, QueueError, rate_limit::warn_limited};

/// Events taken from the kernel at once; more wait for the next round.
const BATCH: usize = 64;
/// Device code nests a few frames and keeps its buffers on the heap.
const STACK_BYTES: usize = 256 * 1024;
/// The token of the loop's own stop event; a worker's own tokens lie below.
const STOP: u64 = u64::MAX;

/// What a device does on its thread.
pub trait Worker: Send + 'static {
    /// Registers what to wait for. Called once, on the thread.
    fn start(&mut self, poll: &Poll) -> Result<(), WorkerError>;

    /// Something registered under `token` became ready.
    fn ready(&mut self, poll: &Poll, token: u64, readiness: Readiness) -> Result<(), WorkerError>;

    /// Everything that became ready together has been seen to: time for what is better done once for all
    /// of it.
    fn settle(&mut self, _poll: &Poll) -> Result<(), WorkerError> {
        Ok(())
    }
}

/// Why a worker ends before it is stopped.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The guest's doing: its device is dead until it resets it, and nobody else is told.
    #[error("driver broke the rules")]
    Driver(#[from] QueueError),
    /// Ours: the machine's owner is told.
    #[error("{act}")]
    Host { act: &'static str, source: io::Error },
}

/// What a file descriptor is ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness(epoll::EventFlags);

impl Readiness {
    pub fn readable(self) -> bool {
        self.0.intersects(
            epoll::EventFlags::IN
                | epoll::EventFlags::HUP
                | epoll::EventFlags::ERR
                | epoll::EventFlags::RDHUP,
        )
    }

    pub fn writable(self) -> bool {
        self.0
            .intersects(epoll::EventFlags::OUT | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
    }

    pub fn hung_up(self) -> bool {
        self.0.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR)
    }
}

/// The descriptors a worker waits for.
#[derive(Debug)]
pub struct Poll {
    epoll: OwnedFd,
}

impl Poll {
    fn new() -> io::Result<Self> {
        Ok(Poll {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        })
    }

    pub fn add(&self, fd: impl AsFd, token: u64, read: bool, write: bool) -> Result<(), WorkerError> {
        let added = epoll::add(
            &self.epoll,
            fd,
            epoll::EventData::new_u64(token),
            interest(read, write),
        );
        added.map_err(cannot_wait)
    }

    pub fn change(&self, fd: impl AsFd, token: u64, read: bool, write: bool) -> Result<(), WorkerError> {
        let changed = epoll::modify(
            &self.epoll,
            fd,
            epoll::EventData::new_u64(token),
            interest(read, write),
        );
        changed.map_err(cannot_wait)
    }

    /// Forgets a descriptor; one that was never added is no error.
    pub fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }
}

fn cannot_wait(source: rustix::io::Errno) -> WorkerError {
    WorkerError::Host {
        act: "cannot wait for a descriptor",
        source: source.into(),
    }
}

fn interest(read: bool, write: bool) -> epoll::EventFlags {
    let mut flags = epoll::EventFlags::empty();
    flags.set(epoll::EventFlags::IN, read);
    flags.set(epoll::EventFlags::OUT, write);
    flags
}

/// A running worker; stopped and joined when dropped.
pub struct WorkerThread {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl WorkerThread {
    pub fn spawn<W: Worker>(
        name: &'static str,
        worker: W,
        failures: Arc<dyn FailureSink>,
    ) -> io::Result<Self> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let stopped = stop.try_clone()?;
        let poll = Poll::new()?;
        let body = move || match run(worker, &poll, stopped.as_fd()) {
            Ok(()) => {}
            Err(WorkerError::Driver(error)) => {
                warn_limited!(device = name, %error, "device stopped: its driver broke the rules");
            }
            Err(WorkerError::Host { act, source }) => {
                failures.device_failed(name, &format!("{act}: {source}"));
            }
        };
        let thread = std::thread::Builder::new()
            .name(name.into())
            .stack_size(STACK_BYTES)
            .spawn(body)?;
        Ok(WorkerThread {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for WorkerThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerThread").finish_non_exhaustive()
    }
}

fn run<W: Worker>(mut worker: W, poll: &Poll, stop: BorrowedFd<'_>) -> Result<(), WorkerError> {
    poll.add(stop, STOP, true, false)?;
    worker.start(poll)?;
    let mut events = Vec::with_capacity(BATCH);
    loop {
        events.clear();
        match epoll::wait(&poll.epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(source) => {
                return Err(WorkerError::Host {
                    act: "cannot wait for events",
                    source: source.into(),
                });
            }
        }
        for event in &events {
            match event.data.u64() {
                STOP => return Ok(()),
                token => worker.ready(poll, token, Readiness(event.flags))?,
            }
        }
        worker.settle(poll)?;
    }
}
