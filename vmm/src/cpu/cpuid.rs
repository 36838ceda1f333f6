//! CPUID: the host's features as KVM offers them, with the topology of this machine and no other.
//!
//! One socket, one thread a core, and every cache level said to be shared as it is in such a machine.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::Kvm;

const HYPERVISOR: u32 = 1 << 31;
const TSC_DEADLINE: u32 = 1 << 24;
const HYPER_THREADING: u32 = 1 << 28;
/// `CmpLegacy`: AMD's word for several cores in a package.
const AMD_MULTI_CORE: u32 = 1 << 1;
const AMD_TOPOLOGY_EXTENSIONS: u32 = 1 << 22;
const AMD_PERFORMANCE_COUNTERS: u32 = (1 << 23) | (1 << 24) | (1 << 28);
const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;

pub(crate) fn supported(kvm: &Kvm) -> Result<CpuId, kvm_ioctls::Error> {
    kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
}

/// Turns what KVM supports into what virtual CPU `index` of `count` is.
pub(crate) fn describe(ids: &mut CpuId, index: u32, count: u32) {
    let topology = Topology {
        index,
        count,
        bits: u32::BITS - (count - 1).leading_zeros(),
    };
    for entry in ids.as_mut_slice() {
        topology.apply(entry);
    }
}

struct Topology {
    index: u32,
    count: u32,
    /// Bits of an APIC id that number the cores.
    bits: u32,
}

impl Topology {
    fn apply(&self, entry: &mut kvm_cpuid_entry2) {
        match entry.function {
            0x1 => self.features(entry),
            0x4 => self.intel_cache(entry),
            // Power management is the host's business.
            0x6 => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (1 << 2, 0, 0, 0),
            // No performance counters: they leak across guests and cost every kernel its probing.
            0xa | 0x8000_0022 => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
            0xb | 0x1f => self.levels(entry),
            0x8000_0001 => self.amd_features(entry),
            0x8000_0008 => entry.ecx = (self.bits << 12) | (self.count - 1),
            0x8000_001d => self.amd_cache(entry),
            0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (self.index, self.index & 0xff, 0),
            _ => {}
        }
    }

    fn features(&self, entry: &mut kvm_cpuid_entry2) {
        entry.ecx |= HYPERVISOR | TSC_DEADLINE;
        let logical = (1 << self.bits) & 0xff;
        entry.ebx = (entry.ebx & 0xffff) | (logical << 16) | (self.index << 24);
        set(&mut entry.edx, HYPER_THREADING, self.count > 1);
    }

    fn amd_features(&self, entry: &mut kvm_cpuid_entry2) {
        set(&mut entry.ecx, AMD_MULTI_CORE, self.count > 1);
        entry.ecx &= !AMD_PERFORMANCE_COUNTERS;
        entry.ecx |= AMD_TOPOLOGY_EXTENSIONS & if self.count > 1 { u32::MAX } else { entry.ecx };
    }

    /// Levels one and two belong to a core, what lies above to all.
    fn intel_cache(&self, entry: &mut kvm_cpuid_entry2) {
        if entry.eax & 0x1f == 0 {
            return;
        }
        let level = (entry.eax >> 5) & 0x7;
        let sharing = if level > 2 { (1u32 << self.bits) - 1 } else { 0 };
        let cores = (1u32 << self.bits) - 1;
        entry.eax = (entry.eax & 0x3fff) | (sharing << 14) | (cores << 26);
    }

    fn amd_cache(&self, entry: &mut kvm_cpuid_entry2) {
        if entry.eax & 0x1f == 0 {
            return;
        }
        let level = (entry.eax >> 5) & 0x7;
        let sharing = if level > 2 { self.count - 1 } else { 0 };
        entry.eax = (entry.eax & !(0xfff << 14)) | (sharing << 14);
    }

    fn levels(&self, entry: &mut kvm_cpuid_entry2) {
        (entry.eax, entry.ebx, entry.ecx) = match entry.index {
            0 => (0, 1, LEVEL_THREAD << 8),
            1 => (self.bits, self.count, 1 | (LEVEL_CORE << 8)),
            other => (0, 0, other & 0xff),
        };
        entry.edx = self.index;
    }
}

fn set(register: &mut u32, bit: u32, on: bool) {
    *register = if on { *register | bit } else { *register & !bit };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(function: u32, leaf: u32, index: u32, count: u32) -> kvm_cpuid_entry2 {
        let entry = kvm_cpuid_entry2 {
            function,
            index: leaf,
            ..Default::default()
        };
        let mut ids = CpuId::from_entries(&[entry]).unwrap();
        describe(&mut ids, index, count);
        ids.as_slice()[0]
    }

    #[test]
    fn every_processor_has_an_apic_id_of_its_own_and_all_one_package() {
        for count in [1, 2, 3, 8, 31, 32] {
            for index in 0..count {
                assert_eq!(described(1, 0, index, count).ebx >> 24, index);
                assert_eq!(described(0xb, 1, index, count).edx, index);
                let shift = described(0xb, 1, index, count).eax;
                assert_eq!(index >> shift, 0, "{index} of {count} in package 0");
            }
        }
    }

    #[test]
    fn one_processor_alone_needs_no_bits_to_number_it() {
        assert_eq!(described(0xb, 1, 0, 1).eax, 0);
        assert_eq!(described(1, 0, 0, 1).edx & HYPER_THREADING, 0);
        assert_eq!(described(0xb, 1, 0, 5).eax, 3);
    }
}
