//! What a guest may add to a folder.

use std::{
    os::fd::AsFd,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
};

use fuse::{Reply, WriteFlags};
use rustix::{fs::StatFs, io::Errno};

use super::{Found, Open};
use crate::Limits;

/// What a guest leaves free on the host's file system, or two percent of it if that is less: a full disk is the
/// host's problem, not the guest's.
pub(crate) const RESERVE_BYTES: u64 = 1 << 30;
const RESERVE_PERCENT: u64 = 2;
/// Bytes written between two looks at how full the file system is.
const LOOK_EVERY: i64 = 16 << 20;

#[derive(Debug)]
pub(crate) struct Quota {
    limits: Limits,
    /// By how much the guest has made files larger, less what it has taken away again.
    bytes: AtomicU64,
    files: AtomicU64,
    /// Bytes that may be written before the file system is looked at again.
    until_look: AtomicI64,
}

impl Quota {
    pub(crate) fn new(limits: Limits) -> Self {
        Quota {
            limits,
            bytes: AtomicU64::new(0),
            files: AtomicU64::new(0),
            until_look: AtomicI64::new(0),
        }
    }

    pub(crate) fn before_write(&self, file: &Open, offset: u64, len: usize, flags: WriteFlags) -> Reply<()> {
        let len = len as u64;
        let crowded = self.is_crowded(file, len)?;
        if !crowded && self.limits.bytes.is_none() {
            return Ok(());
        }
        let found = Found::of(file.as_fd(), false)?;
        let size = found.size();
        if crowded && found.has_holes() {
            // What is written into a hole takes room too.
            return Err(Errno::NOSPC);
        }
        let offset = if flags.contains(WriteFlags::APPEND) {
            size
        } else {
            offset
        };
        self.grow(size, offset.saturating_add(len), crowded)
    }

    pub(crate) fn before_truncate(&self, file: &Open, size: u64) -> Reply<()> {
        if self.limits.bytes.is_none() {
            // A longer file has a hole at its end, which takes no room.
            return Ok(());
        }
        let old = Found::of(file.as_fd(), false)?.size();
        if size < old {
            self.give_back(old - size);
            return Ok(());
        }
        self.grow(old, size, false)
    }

    pub(crate) fn before_allocate(&self, file: &Open, end: u64, len: u64) -> Reply<()> {
        // What is allocated may be behind the end, so it counts in full.
        if self.is_crowded(file, len)? {
            return Err(Errno::NOSPC);
        }
        if self.limits.bytes.is_none() {
            return Ok(());
        }
        let size = Found::of(file.as_fd(), false)?.size();
        self.grow(size, end.max(size.saturating_add(len)), false)
    }

    /// Attributes take room too, if not much: a share with a limit of bytes and none left takes no more of them.
    pub(crate) fn before_xattr(&self) -> Reply<()> {
        match self.limits.bytes {
            Some(limit) if self.bytes.load(Ordering::Relaxed) >= limit => Err(Errno::DQUOT),
            _ => Ok(()),
        }
    }

    pub(crate) fn before_making(&self) -> Reply<()> {
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

    fn grow(&self, size: u64, end: u64, crowded: bool) -> Reply<()> {
        let growth = end.saturating_sub(size);
        if growth == 0 {
            return Ok(());
        }
        if crowded {
            return Err(Errno::NOSPC);
        }
        let Some(limit) = self.limits.bytes else {
            return Ok(());
        };
        let fits = |used: u64| used.checked_add(growth).filter(|total| *total <= limit);
        self.bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map(|_| ())
            .map_err(|_| Errno::DQUOT)
    }

    /// Whether no more than the host's reserve is left; looked at now and then.
    fn is_crowded(&self, file: &Open, len: u64) -> Reply<bool> {
        let len = i64::try_from(len).map_err(|_| Errno::FBIG)?;
        if self.until_look.fetch_sub(len.max(1), Ordering::Relaxed) > len {
            return Ok(false);
        }
        let status = rustix::fs::fstatfs(file)?;
        let available = status.f_bavail.saturating_mul(block_size(&status));
        let spare = i64::try_from(available.saturating_sub(reserve(&status))).unwrap_or(i64::MAX);
        self.until_look.store(LOOK_EVERY.min(spare), Ordering::Relaxed);
        Ok(status.f_blocks > 0 && spare < len)
    }
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
