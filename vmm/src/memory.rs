//! Guest memory: private anonymous pages, given to KVM as they are.

use std::sync::Arc;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::{
    Address, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, mmap::FromRangesError,
};
use vmm_api::MemoryMib;

use crate::layout::{HOLE_END, HOLE_START};

/// Memory for the guest, with the hole below 4 GiB left free. No page is touched yet.
pub(crate) fn allocate(size: MemoryMib) -> Result<Arc<GuestMemoryMmap>, MemoryError> {
    let memory = GuestMemoryMmap::from_ranges(&ranges(size.bytes())).map_err(|source| MemoryError::Map {
        mib: size.mib(),
        source,
    })?;
    Ok(Arc::new(memory))
}

/// Address and length of each stretch of memory.
pub(crate) fn ranges(bytes: u64) -> Vec<(GuestAddress, usize)> {
    let low = bytes.min(HOLE_START);
    let high = bytes - low;
    let mut ranges = vec![(GuestAddress(0), low as usize)];
    if high > 0 {
        ranges.push((GuestAddress(HOLE_END), high as usize));
    }
    ranges
}

/// Makes `memory` the physical memory of `vm`.
#[allow(unsafe_code, reason = "KVM is given host addresses")]
pub(crate) fn give_to_kvm(vm: &VmFd, memory: &GuestMemoryMmap) -> Result<(), MemoryError> {
    for (slot, region) in memory.iter().enumerate() {
        let host = memory
            .get_host_address(region.start_addr())
            .map_err(|_| MemoryError::NoAddress)?;
        let slot = kvm_userspace_memory_region {
            slot: slot as u32,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: host as u64,
        };
        // SAFETY:
        // - the range is one whole mapping of `memory`, so it is valid for its length;
        // - the machine keeps `memory` in an `Arc` that outlives its VM;
        // - nothing on the host holds a reference into it: all access goes through vm-memory.
        unsafe { vm.set_user_memory_region(slot) }.map_err(MemoryError::Kvm)?;
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum MemoryError {
    #[error("cannot map {mib} MiB of guest memory")]
    Map { mib: u64, source: FromRangesError },
    #[error("guest memory has no host address")]
    NoAddress,
    #[error("KVM does not take the guest's memory")]
    Kvm(#[source] kvm_ioctls::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_beyond_three_gib_continues_above_the_hole() {
        assert_eq!(ranges(64 << 20), [(GuestAddress(0), 64 << 20)]);
        assert_eq!(ranges(3 << 30), [(GuestAddress(0), 3 << 30)]);
        assert_eq!(
            ranges(5 << 30),
            [(GuestAddress(0), 3 << 30), (GuestAddress(4 << 30), 2 << 30)]
        );
    }
}
