//! What a guest may add to a folder.

use std::{
    os::fd::AsFd,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use fuse::Reply;
use rustix::{fs::StatFs, io::Errno};

use super::{Found, HostFs, Identity, Open, nodes::Slot};
use crate::Limits;

/// What a guest leaves free on the host's file system, or two percent of it if that is less: a full disk is the
/// host's problem, not the guest's.
pub(crate) const RESERVE_BYTES: u64 = 1 << 30;
/// Of its bytes, and of its inodes.
const RESERVE_PERCENT: u64 = 2;
/// Bytes written between two looks at how full the file system is.
const LOOK_EVERY: i64 = 16 << 20;
/// What a new file, directory, link or attribute counts for in that: a block, which a directory or a long link takes
/// at once. So 4,096 of them are made between two looks, fewer where inodes run out.
const MADE_BYTES: u64 = 4096;

/// Files whose sizes may change at once where they are counted: more than a guest has queues.
const STRIPES: u64 = 64;

/// What an operation makes of a file's size at most.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Growth {
    /// It reaches to here, if not further.
    To(u64),
    /// It is so much longer.
    By(u64),
}

impl Growth {
    fn of(self, size: u64) -> u64 {
        match self {
            Growth::To(end) => end.saturating_sub(size),
            Growth::By(len) => len,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Quota {
    limits: Limits,
    /// By how much the guest has made files larger, less what it has taken away again.
    bytes: AtomicU64,
    files: AtomicU64,
    /// Bytes that may be written before the file system is looked at again.
    until_look: AtomicI64,
    /// By inode.
    stripes: [Mutex<()>; STRIPES as usize],
    names: Mutex<()>,
}

impl Quota {
    pub(crate) fn new(limits: Limits) -> Self {
        Quota {
            limits,
            bytes: AtomicU64::new(0),
            files: AtomicU64::new(0),
            until_look: AtomicI64::new(0),
            stripes: [const { Mutex::new(()) }; STRIPES as usize],
            names: Mutex::default(),
        }
    }

    /// A write of `len` bytes that makes a file so much larger.
    pub(crate) fn before_write(&self, file: &Open, growth: Growth, len: u64) -> Reply<()> {
        if !self.is_crowded(file, len)? {
            return Ok(());
        }
        let found = Found::of(file.as_fd(), false)?;
        // What is written into a hole takes room too.
        if found.has_holes() || growth.of(found.size()) > 0 {
            return Err(Errno::NOSPC);
        }
        Ok(())
    }

    pub(crate) fn before_allocate(&self, file: &Open, end: u64, len: u64, keep_size: bool) -> Reply<()> {
        // What is allocated may be in a hole, so it counts in full.
        if self.is_crowded(file, len)? {
            return Err(Errno::NOSPC);
        }
        // Files count by their size, and room behind the end would not.
        if keep_size && self.counts_bytes() && end > size(file)? {
            return Err(Errno::OPNOTSUPP);
        }
        Ok(())
    }

    /// Does what makes a file larger or smaller, and counts what came of it. Nobody else may change the file's size
    /// meanwhile: see [`HostFs::alone`].
    pub(crate) fn resizing<T>(
        &self,
        file: &Open,
        growth: Growth,
        act: impl FnOnce() -> Reply<T>,
    ) -> Reply<T> {
        let Some(limit) = self.limits.bytes else {
            return act();
        };
        let before = size(file)?;
        let most = before.saturating_add(growth.of(before));
        self.claim(most - before, limit)?;
        let done = act();
        // It may have failed, or done a part. What cannot be looked at counts in full.
        let after = size(file).unwrap_or(most);
        self.give_back(most.saturating_sub(after));
        done
    }

    /// Attributes take room too, if not much: a share with a limit of bytes and none left takes no more of them.
    pub(crate) fn before_xattr(&self, file: &Open, len: u64) -> Reply<()> {
        if self.is_crowded(file, len.max(MADE_BYTES))? {
            return Err(Errno::NOSPC);
        }
        match self.limits.bytes {
            Some(limit) if self.bytes.load(Ordering::Relaxed) >= limit => Err(Errno::DQUOT),
            _ => Ok(()),
        }
    }

    pub(crate) fn before_making(&self, directory: &Open) -> Reply<()> {
        let spare = self.look_at_times(directory, MADE_BYTES)?;
        if spare.is_some_and(|spare| spare.bytes < MADE_BYTES || spare.inodes == 0) {
            return Err(Errno::NOSPC);
        }
        let Some(limit) = self.limits.files else {
            return Ok(());
        };
        if self.files.fetch_add(1, Ordering::Relaxed) >= limit {
            self.unmade();
            return Err(Errno::DQUOT);
        }
        Ok(())
    }

    /// A file the guest asked for was not made, or is gone again.
    pub(crate) fn unmade(&self) {
        if self.limits.files.is_some() {
            let _ = self
                .files
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |files| {
                    Some(files.saturating_sub(1))
                });
        }
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.limits.bytes.is_some() || self.limits.files.is_some()
    }

    /// See [`HostFs::alone`].
    pub(crate) fn alone(&self, identity: Identity) -> Option<MutexGuard<'_, ()>> {
        let stripe = self.stripes.get((identity.inode % STRIPES) as usize)?;
        self.is_limited()
            .then(|| stripe.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Held while a name is looked at and then taken from its file, so that it is that file which loses it. Taken
    /// before [`Quota::alone`].
    pub(crate) fn names(&self) -> Option<MutexGuard<'_, ()>> {
        self.is_limited()
            .then(|| self.names.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn counts_bytes(&self) -> bool {
        self.limits.bytes.is_some()
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        let _ = self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                Some(used.saturating_sub(bytes))
            });
    }

    /// Blocks the guest may still fill, as it is told.
    pub(crate) fn available(&self, status: &StatFs) -> u64 {
        let block = block_size(status);
        let spare = status.f_bavail.saturating_sub(reserve(status) / block);
        match self.limits.bytes {
            Some(limit) => spare.min(limit.saturating_sub(self.bytes.load(Ordering::Relaxed)) / block),
            None => spare,
        }
    }

    /// Files the guest may still make, as it is told.
    pub(crate) fn available_files(&self, status: &StatFs) -> u64 {
        let spare = status.f_ffree.saturating_sub(reserved_inodes(status));
        match self.limits.files {
            // A file system that does not count them says 0.
            Some(limit) if status.f_files > 0 => {
                spare.min(limit.saturating_sub(self.files.load(Ordering::Relaxed)))
            }
            _ => spare,
        }
    }

    fn claim(&self, growth: u64, limit: u64) -> Reply<()> {
        if growth == 0 {
            return Ok(());
        }
        let fits = |used: u64| used.checked_add(growth).filter(|total| *total <= limit);
        self.bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map(|_| ())
            .map_err(|_| Errno::DQUOT)
    }

    /// Whether no more than the host's reserve is left; looked at now and then.
    fn is_crowded(&self, file: &Open, len: u64) -> Reply<bool> {
        let spare = self.look_at_times(file, len)?;
        Ok(spare.is_some_and(|spare| spare.bytes < len))
    }

    /// What the host can spare, if `len` bytes more are reason to look again.
    fn look_at_times(&self, file: &Open, len: u64) -> Reply<Option<Spare>> {
        let len = i64::try_from(len).map_err(|_| Errno::FBIG)?;
        if self.until_look.fetch_sub(len.max(1), Ordering::Relaxed) > len {
            return Ok(None);
        }
        let spare = Spare::of(&rustix::fs::fstatfs(file)?);
        let soon = spare.bytes.min(spare.inodes.saturating_mul(MADE_BYTES));
        let soon = i64::try_from(soon).unwrap_or(i64::MAX);
        self.until_look.store(LOOK_EVERY.min(soon), Ordering::Relaxed);
        Ok(Some(spare))
    }
}

/// What a file system has beyond the host's reserve. One that does not count bytes or inodes has no end of them.
#[derive(Clone, Copy, Debug)]
struct Spare {
    bytes: u64,
    inodes: u64,
}

impl Spare {
    fn of(status: &StatFs) -> Self {
        let bytes = status.f_bavail.saturating_mul(block_size(status));
        let counted = |total: u64, spare: u64| if total > 0 { spare } else { u64::MAX };
        Spare {
            bytes: counted(status.f_blocks, bytes.saturating_sub(reserve(status))),
            inodes: counted(
                status.f_files,
                status.f_ffree.saturating_sub(reserved_inodes(status)),
            ),
        }
    }
}

impl HostFs {
    /// Held while the size of a file, or whether it has names left, is looked at and then changed: otherwise two
    /// requests at once would count the same bytes. `None` when nothing is limited.
    pub(super) fn alone(&self, slot: Slot) -> Reply<Option<MutexGuard<'_, ()>>> {
        if !self.quota.is_limited() {
            return Ok(None);
        }
        let node = self.nodes().get(slot).map(|node| node.identity);
        Ok(self.quota.alone(node.ok_or(Errno::STALE)?))
    }
}

fn size(file: &Open) -> Reply<u64> {
    Ok(Found::of(file.as_fd(), false)?.size())
}

fn block_size(status: &StatFs) -> u64 {
    u64::try_from(status.f_bsize).unwrap_or(1).max(1)
}

/// Bytes that stay the host's.
fn reserve(status: &StatFs) -> u64 {
    (status.f_blocks / 100 * RESERVE_PERCENT)
        .saturating_mul(block_size(status))
        .min(RESERVE_BYTES)
}

/// Inodes that stay the host's.
fn reserved_inodes(status: &StatFs) -> u64 {
    status.f_files / 100 * RESERVE_PERCENT
}
