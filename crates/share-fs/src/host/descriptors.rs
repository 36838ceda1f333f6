//! Open files of the host, counted. A share may have more files than the process may have descriptors: nodes are
//! opened when needed and closed when others need it more.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// How a file was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Only as a place: to look below it, to name it, to open it again.
    Path,
    Read,
    Write,
    ReadWrite,
}

impl Access {
    pub(crate) fn reads(self) -> bool {
        matches!(self, Access::Read | Access::ReadWrite)
    }

    pub(crate) fn writes(self) -> bool {
        matches!(self, Access::Write | Access::ReadWrite)
    }

    /// Whether who has `self` need not open for `wanted`.
    pub(crate) fn serves(self, wanted: Access) -> bool {
        match wanted {
            Access::Path => true,
            Access::Read => self.reads(),
            Access::Write => self.writes(),
            Access::ReadWrite => self == Access::ReadWrite,
        }
    }
}

/// An open file of a node.
#[derive(Debug)]
pub(crate) struct Open {
    file: OwnedFd,
    pub(crate) access: Access,
    /// When it was last used, in milliseconds of the clock of [`now`].
    used: AtomicU64,
    budget: Arc<Budget>,
}

impl Open {
    pub(crate) fn new(file: OwnedFd, access: Access, budget: &Arc<Budget>) -> Arc<Self> {
        budget.open.fetch_add(1, Ordering::Relaxed);
        Arc::new(Open {
            file,
            access,
            used: AtomicU64::new(now()),
            budget: Arc::clone(budget),
        })
    }

    pub(crate) fn touch(&self) {
        self.used.store(now(), Ordering::Relaxed);
    }

    /// Milliseconds since it was last used.
    pub(crate) fn idle(&self) -> u64 {
        now().saturating_sub(self.used.load(Ordering::Relaxed))
    }
}

impl AsFd for Open {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.budget.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many descriptors all shares of a device may hold.
#[derive(Debug)]
pub(crate) struct Budget {
    open: AtomicUsize,
    pinned: AtomicUsize,
    limit: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Budget {
            open: AtomicUsize::new(0),
            pinned: AtomicUsize::new(0),
            limit,
        })
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.open.load(Ordering::Relaxed) >= self.limit
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// One more is to be held for good, on behalf of a file that could not be opened again. False: half of all are.
    pub(crate) fn pin(&self) -> bool {
        let fits = |pinned: usize| (pinned < self.limit / 2).then_some(pinned + 1);
        self.pinned
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .is_ok()
    }

    pub(crate) fn unpin(&self) {
        let _ = self
            .pinned
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |pinned| {
                pinned.checked_sub(1)
            });
    }
}

/// A clock for idleness: milliseconds, never backwards, a few milliseconds coarse.
pub(crate) fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    (time.tv_sec as u64)
        .saturating_mul(1000)
        .saturating_add(time.tv_nsec as u64 / 1_000_000)
}
