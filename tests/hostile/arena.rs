//! Two megabytes of memory whose physical address is known and stays: one huge page, locked.
//!
//! ```text
//! 0x000000  rings, 0x4000 each       0x100000  an indirect table of up to 65,536 descriptors
//! 0x010000  buffers
//! ```
#![allow(unsafe_code, reason = "memory is mapped here")]

use std::{fs, fs::File, io, ops::Deref, os::unix::fs::FileExt, ptr};

use anyhow::{Context, bail};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous};

use crate::words::Mapping;

pub(crate) const RINGS: usize = 0;
pub(crate) const RING_BYTES: usize = 0x4000;
pub(crate) const BUFFERS: usize = 0x1_0000;
pub(crate) const BUFFER_BYTES: usize = TABLE - BUFFERS;
pub(crate) const TABLE: usize = 0x10_0000;

const HUGE: usize = 2 << 20;
const PAGE: usize = 4096;
/// A fragmented guest may not have one at once.
const TRIES: usize = 16;

#[derive(Debug)]
pub(crate) struct Arena {
    memory: Mapping,
    physical: u64,
}

impl Arena {
    pub(crate) fn new() -> anyhow::Result<Self> {
        // A small guest has these off. What cannot be set may be right already.
        let _ = fs::write("/sys/kernel/mm/transparent_hugepage/enabled", "always");
        let _ = fs::write("/sys/kernel/mm/transparent_hugepage/defrag", "always");
        let _ = fs::write("/proc/sys/vm/compact_unevictable_allowed", "0");
        for _ in 0..TRIES {
            let base = huge().context("cannot map a huge page")?;
            if let Some(physical) = contiguous(base)? {
                // SAFETY: `huge` mapped this for good and gave it to nobody else.
                let memory = unsafe { Mapping::new(base, HUGE) };
                return Ok(Arena { memory, physical });
            }
            let _ = fs::write("/proc/sys/vm/compact_memory", "1");
        }
        bail!("no huge page in {TRIES} tries");
    }

    /// Where the device finds what lies at `offset`.
    pub(crate) fn physical(&self, offset: usize) -> u64 {
        self.physical + offset as u64
    }
}

impl Deref for Arena {
    type Target = Mapping;

    fn deref(&self) -> &Mapping {
        &self.memory
    }
}

/// Maps, aligned, touched and locked, two megabytes that never go away.
fn huge() -> io::Result<*mut u8> {
    let flags = MapFlags::PRIVATE;
    // SAFETY: a new mapping where the kernel likes it replaces nothing.
    let twice = unsafe {
        mmap_anonymous(
            ptr::null_mut(),
            2 * HUGE,
            ProtFlags::READ | ProtFlags::WRITE,
            flags,
        )
    }?;
    let base = twice.wrapping_byte_add(twice.align_offset(HUGE));
    // SAFETY: the range lies in the mapping just made, and this advice changes no content.
    unsafe { madvise(base, HUGE, Advice::LinuxHugepage) }?;
    // SAFETY: as above.
    unsafe { mlock(base, HUGE) }?;
    Ok(base.cast())
}

/// The physical address, if all pages follow each other.
fn contiguous(base: *mut u8) -> anyhow::Result<Option<u64>> {
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;
    let pagemap = File::open("/proc/self/pagemap").context("cannot open the page map")?;
    let mut entries = vec![0; HUGE / PAGE * 8];
    pagemap.read_exact_at(&mut entries, base.addr() as u64 / PAGE as u64 * 8)?;
    let (entries, _) = entries.as_chunks::<8>();
    let frames: Vec<u64> = entries
        .iter()
        .map(|entry| u64::from_le_bytes(*entry))
        .filter(|e| e & PRESENT != 0)
        .map(|e| e & FRAME)
        .collect();
    let first = frames.first().copied().unwrap_or(0);
    let follow = frames
        .iter()
        .zip(first..)
        .all(|(frame, expected)| *frame == expected);
    Ok((first != 0 && follow && frames.len() == HUGE / PAGE).then_some(first * PAGE as u64))
}
