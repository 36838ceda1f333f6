//! The balloon's thread: turns page numbers and reports into ranges, and drops them.

use std::sync::{Arc, atomic::Ordering};

use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::{PAGE_BYTES, State, reclaim::drop_pages};
use crate::{
    Chain, DeviceQueue, Poll, QueueError, Readiness, Worker, WorkerError, rate_limit::warn_limited,
    turn::take_turn,
};

/// The queues by their place, which is also their token; the one between them is for deflating.
const INFLATE: usize = 0;
const REPORTING: usize = 2;

/// Page numbers read from one request; Linux sends 256.
pub(super) const MAX_PFNS: usize = 1024;
const PFN_BYTES: usize = 4;
/// Ranges taken from one report; Linux sends 32.
pub(super) const MAX_RANGES: usize = 128;

#[derive(Debug)]
pub(super) struct BalloonWorker {
    queues: Vec<DeviceQueue>,
    chain: Chain,
    state: Arc<State>,
}

impl BalloonWorker {
    pub(super) fn new(queues: Vec<DeviceQueue>, state: Arc<State>) -> Self {
        BalloonWorker {
            queues,
            chain: Chain::default(),
            state,
        }
    }

    pub(super) fn turn(&mut self, index: usize) -> Result<(), QueueError> {
        let Some(queue) = self.queues.get_mut(index) else {
            return Ok(());
        };
        let state = &self.state;
        let mut ignored = 0;
        take_turn(queue, &mut self.chain, |memory, chain| {
            ignored += match index {
                INFLATE => inflate(state, memory, chain),
                REPORTING => report(state, memory, chain),
                // The guest takes pages back by using them; there is nothing to do.
                _ => 0,
            };
            Some(0)
        })?;
        if ignored > 0 {
            state.ignored.fetch_add(ignored, Ordering::Relaxed);
            warn_limited!(ignored, "balloon driver named pages that are not its own");
        }
        Ok(())
    }
}

impl Worker for BalloonWorker {
    fn start(&mut self, poll: &Poll) -> Result<(), WorkerError> {
        for (token, queue) in (0..).zip(&self.queues) {
            poll.add(queue.kick(), token, true, false)?;
        }
        Ok(())
    }

    fn ready(&mut self, _poll: &Poll, token: u64, _readiness: Readiness) -> Result<(), WorkerError> {
        self.turn(usize::try_from(token).unwrap_or(usize::MAX))?;
        Ok(())
    }
}

/// Drops the pages whose numbers the request holds; returns how many it left alone.
fn inflate(state: &State, memory: &GuestMemoryMmap, chain: &Chain) -> u64 {
    let mut bytes = [0; MAX_PFNS * PFN_BYTES];
    let Ok(found) = chain.read_at(memory, 0, &mut bytes) else {
        return 1;
    };
    let beyond = (chain.readable_len() - found).div_ceil(PFN_BYTES) as u64;
    let (pfns, _) = bytes.get(..found).unwrap_or_default().as_chunks::<PFN_BYTES>();
    let mut ignored = beyond;
    for run in runs(pfns.iter().map(|pfn| u32::from_le_bytes(*pfn))) {
        match drop_pages(
            memory,
            GuestAddress(run.first * PAGE_BYTES),
            run.count * PAGE_BYTES,
        ) {
            Some(bytes) => {
                state.inflated_bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            None => ignored += run.count,
        }
    }
    ignored
}

/// Drops the ranges of the report, which are its writable buffers; returns how many it left alone.
fn report(state: &State, memory: &GuestMemoryMmap, chain: &Chain) -> u64 {
    let mut ignored = chain.writable().len().saturating_sub(MAX_RANGES) as u64;
    for range in chain.writable().iter().take(MAX_RANGES) {
        match drop_pages(memory, range.address, range.len as u64) {
            Some(bytes) => {
                state.reported_bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            None => ignored += 1,
        }
    }
    ignored
}

/// Neighbouring pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) count: u64,
}

/// Joins page numbers that follow each other, up or down, so that each run is one system call.
pub(super) fn runs(pfns: impl Iterator<Item = u32>) -> impl Iterator<Item = Run> {
    let mut pfns = pfns.map(u64::from).peekable();
    std::iter::from_fn(move || {
        let first = pfns.next()?;
        let mut run = Run { first, count: 1 };
        while let Some(next) = pfns.peek() {
            if *next == run.first + run.count {
                run.count += 1;
            } else if *next + 1 == run.first {
                run.first = *next;
                run.count += 1;
            } else {
                break;
            }
            pfns.next();
        }
        Some(run)
    })
}
