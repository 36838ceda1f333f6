//! Writes that KVM keeps for later instead of leaving the guest for each.
//!
//! The PCI address port is written before every access to the data port and means nothing until then, so KVM
//! puts those writes into a ring and whoever answers the data port reads them first. It halves the exits of a
//! bus scan, which is most of the exits of a boot.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use kvm_bindings::{KVM_COALESCED_MMIO_PAGE_OFFSET, kvm_coalesced_mmio, kvm_coalesced_mmio_ring};
use kvm_ioctls::VcpuFd;

const PAGE: usize = 4096;
/// As many entries as KVM fits behind the ring's two counters.
const ENTRIES: u32 = ((PAGE - size_of::<kvm_coalesced_mmio_ring>()) / size_of::<kvm_coalesced_mmio>()) as u32;

/// The ring all virtual CPUs of a machine share.
#[derive(Debug)]
pub(crate) struct CoalescedRing {
    page: NonNull<kvm_coalesced_mmio_ring>,
}

#[allow(unsafe_code, reason = "the ring is a page shared with the kernel")]
impl CoalescedRing {
    /// Any virtual CPU of the machine leads to it.
    pub(crate) fn of(vcpu: &VcpuFd) -> io::Result<Self> {
        // SAFETY: the descriptor is borrowed from `vcpu`, which is open for this call.
        let fd = unsafe { BorrowedFd::borrow_raw(vcpu.as_raw_fd()) };
        let (read, write) = (rustix::mm::ProtFlags::READ, rustix::mm::ProtFlags::WRITE);
        let offset = u64::from(KVM_COALESCED_MMIO_PAGE_OFFSET) * PAGE as u64;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let page = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                PAGE,
                read | write,
                rustix::mm::MapFlags::SHARED,
                fd,
                offset,
            )
        }?;
        let page = NonNull::new(page.cast()).ok_or_else(|| io::Error::other("the ring is at no address"))?;
        Ok(CoalescedRing { page })
    }

    /// Hands over what has been written since the last call, oldest first. Its caller is the only reader at
    /// a time: the bus holds a lock.
    pub(crate) fn drain(&self, mut write: impl FnMut(u64, &[u8])) {
        loop {
            let first = self.first().load(Ordering::Relaxed) % ENTRIES;
            let last = self.last().load(Ordering::Acquire) % ENTRIES;
            if first == last {
                return;
            }
            let entry = self.entry(first);
            let len = (entry.len as usize).min(entry.data.len());
            write(entry.phys_addr, entry.data.get(..len).unwrap_or_default());
            self.first().store((first + 1) % ENTRIES, Ordering::Release);
        }
    }

    fn first(&self) -> &AtomicU32 {
        // SAFETY: `page` is mapped as long as `self` lives, and the field lies in it.
        let first = unsafe { &raw mut (*self.page.as_ptr()).first };
        // SAFETY: aligned as the page is, and only ever accessed atomically, here and in the kernel.
        unsafe { AtomicU32::from_ptr(first) }
    }

    fn last(&self) -> &AtomicU32 {
        // SAFETY: as for `first`.
        let last = unsafe { &raw mut (*self.page.as_ptr()).last };
        // SAFETY: as for `first`.
        unsafe { AtomicU32::from_ptr(last) }
    }

    /// A copy of an entry the kernel has finished and does not touch until `first` has passed it.
    fn entry(&self, index: u32) -> kvm_coalesced_mmio {
        // SAFETY: the entries begin behind the two counters, in the same page.
        let entries = unsafe { self.page.as_ptr().add(1) }.cast::<kvm_coalesced_mmio>();
        // SAFETY: `index` is below `ENTRIES`, so this entry lies in the page.
        let entry = unsafe { entries.add(index as usize) };
        // SAFETY: the kernel published the entry before the `last` that was read with acquire.
        unsafe { entry.read_volatile() }
    }
}

#[allow(unsafe_code, reason = "the mapping is ours to end")]
impl Drop for CoalescedRing {
    fn drop(&mut self) {
        // SAFETY: mapped by `of` with this length, and no reference into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.page.as_ptr().cast(), PAGE) };
    }
}

// SAFETY: the page belongs to no thread, and its counters are atomic.
#[allow(unsafe_code, reason = "the ring is a page shared with the kernel")]
unsafe impl Send for CoalescedRing {}
// SAFETY: as above; `drain` is the bus's to serialise, and without that entries are read twice, nothing worse.
#[allow(unsafe_code, reason = "the ring is a page shared with the kernel")]
unsafe impl Sync for CoalescedRing {}
