//! Registers as the boot protocol wants them: long mode, flat segments, the first 4 GiB mapped as they are.

use kvm_bindings::{Msrs, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::CpuError;
use crate::layout;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const FLAGS_RESERVED: u64 = 1 << 1;

const PAGE_PRESENT_WRITABLE: u64 = 0b11;
const PAGE_LARGE: u64 = 1 << 7;
const LARGE_PAGE: u64 = 2 << 20;
const ENTRIES: u64 = 512;
const DIRECTORIES: u64 = 4;

/// The selectors the boot protocol names: code at 0x10, data at 0x18.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const GDT_ENTRIES: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

const MSR_MISC_ENABLE: u32 = 0x1a0;
const MISC_FAST_STRINGS: u64 = 1;
const MSR_MTRR_DEFAULT: u32 = 0x2ff;
/// Memory type ranges on, and everything write-back.
const MTRR_WRITE_BACK: u64 = (1 << 11) | 6;

const FPU_CONTROL: u16 = 0x37f;
const SSE_CONTROL: u32 = 0x1f80;

const APIC_LINT0: usize = 0x350;
const APIC_LINT1: usize = 0x360;
const DELIVER_EXTERNAL: u32 = 0x700;
const DELIVER_NMI: u32 = 0x400;

/// The tables the boot CPU starts on; the kernel builds its own at once.
pub(crate) fn write_page_tables(memory: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    for (index, entry) in (0..).zip(GDT_ENTRIES) {
        memory.write_obj(entry, GuestAddress(layout::GDT + 8 * index))?;
    }
    memory.write_obj(layout::PDPT | PAGE_PRESENT_WRITABLE, GuestAddress(layout::PML4))?;
    for directory in 0..DIRECTORIES {
        let table = layout::PAGE_DIRECTORIES + 4096 * directory;
        memory.write_obj(
            table | PAGE_PRESENT_WRITABLE,
            GuestAddress(layout::PDPT + 8 * directory),
        )?;
        for entry in 0..ENTRIES {
            let page = (directory * ENTRIES + entry) * LARGE_PAGE;
            memory.write_obj(
                page | PAGE_PRESENT_WRITABLE | PAGE_LARGE,
                GuestAddress(table + 8 * entry),
            )?;
        }
    }
    Ok(())
}

pub(super) fn set_boot_state(vcpu: &VcpuFd, entry: GuestAddress) -> Result<(), CpuError> {
    let mut special = vcpu.get_sregs().map_err(CpuError::new("read the registers"))?;
    special.gdt.base = layout::GDT;
    special.gdt.limit = (GDT_ENTRIES.len() * 8 - 1) as u16;
    special.cs = code_segment();
    for segment in [
        &mut special.ds,
        &mut special.es,
        &mut special.fs,
        &mut special.gs,
        &mut special.ss,
    ] {
        *segment = data_segment();
    }
    special.cr0 = CR0_PE | CR0_ET | CR0_PG;
    special.cr3 = layout::PML4;
    special.cr4 = CR4_PAE;
    special.efer = EFER_LME | EFER_LMA;
    vcpu.set_sregs(&special)
        .map_err(CpuError::new("set the registers"))?;
    let general = kvm_regs {
        rflags: FLAGS_RESERVED,
        rip: entry.0,
        rsi: layout::BOOT_PARAMS,
        rsp: layout::BOOT_PARAMS,
        ..Default::default()
    };
    vcpu.set_regs(&general)
        .map_err(CpuError::new("set the registers"))
}

fn code_segment() -> kvm_segment {
    kvm_segment {
        selector: CODE,
        type_: 0xb,
        l: 1,
        db: 0,
        ..data_segment()
    }
}

fn data_segment() -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xf_ffff,
        selector: DATA,
        type_: 0x3,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    }
}

pub(super) fn set_msrs(vcpu: &VcpuFd) -> Result<(), CpuError> {
    let entry = |index, data| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    let entries = [
        entry(MSR_MISC_ENABLE, MISC_FAST_STRINGS),
        entry(MSR_MTRR_DEFAULT, MTRR_WRITE_BACK),
    ];
    for entry in entries {
        let msrs = Msrs::from_entries(&[entry]).map_err(|_| CpuError {
            act: "set an MSR",
            source: kvm_ioctls::Error::new(libc::EINVAL),
        })?;
        // A processor without one of these needs no setting for it.
        vcpu.set_msrs(&msrs).map_err(CpuError::new("set an MSR"))?;
    }
    Ok(())
}

pub(super) fn set_fpu(vcpu: &VcpuFd) -> Result<(), CpuError> {
    let fpu = kvm_fpu {
        fcw: FPU_CONTROL,
        mxcsr: SSE_CONTROL,
        ..Default::default()
    };
    vcpu.set_fpu(&fpu).map_err(CpuError::new("set the FPU"))
}

/// Legacy interrupts come in on pin 0, the NMI on pin 1, as firmware would have left them.
pub(super) fn set_local_interrupts(vcpu: &VcpuFd) -> Result<(), CpuError> {
    let mut apic = vcpu.get_lapic().map_err(CpuError::new("read the local APIC"))?;
    for (register, mode) in [(APIC_LINT0, DELIVER_EXTERNAL), (APIC_LINT1, DELIVER_NMI)] {
        for (offset, byte) in mode.to_le_bytes().into_iter().enumerate() {
            if let Some(target) = apic.regs.get_mut(register + offset) {
                *target = byte as libc::c_char;
            }
        }
    }
    vcpu.set_lapic(&apic).map_err(CpuError::new("set the local APIC"))
}
