//! Giving ranges of guest memory back to the host.

#![allow(
    unsafe_code,
    reason = "dropping the content of mapped memory is a system call on its address"
)]

use rustix::mm::{Advice, madvise};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::PAGE_BYTES;

/// Drops the content of the whole pages within `len` bytes from `start` on, and returns their bytes. `None`
/// when they do not lie in one region of guest memory, or the host will not drop them.
pub(super) fn drop_pages(memory: &GuestMemoryMmap, start: GuestAddress, len: u64) -> Option<u64> {
    let first = start.0.checked_next_multiple_of(PAGE_BYTES)?;
    let end = start.0.checked_add(len)? / PAGE_BYTES * PAGE_BYTES;
    let bytes = end.checked_sub(first).filter(|bytes| *bytes > 0)?;
    let slice = memory
        .get_slice(GuestAddress(first), usize::try_from(bytes).ok()?)
        .ok()?;
    let host = slice.ptr_guard_mut();
    // SAFETY:
    // - the range is mapped, whole and ours, as `get_slice` has checked; it stays so while `memory` lives;
    // - it becomes zeros under whoever reads it, which guest memory may at any time: no Rust reference to
    //   it exists, and the guest itself, or its devices at its request, are all that use it;
    // - a host address that is no page boundary is an error, not a wider range.
    unsafe { madvise(host.as_ptr().cast(), host.len(), Advice::LinuxDontNeed) }.ok()?;
    Some(bytes)
}
