//! A guest of seventy bytes that does what a real kernel does first and software hypervisors cannot:
//! fifty thousand rounds of a loop, SSE, `cmpxchg16b`, `xsave` and `xrstor`, in long mode.
//!
//! It runs in a process of its own, which may hang or die: [`run_here`] prints a line for each
//! [`Stage`] the guest passed, and the parent judges by the lines that came in time.
#![allow(unsafe_code, reason = "guest memory is mapped and handed to KVM by address")]

use std::{
    io::{self, Write},
    ptr::NonNull,
    time::{Duration, Instant},
};

use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, kvm_dtable, kvm_regs, kvm_segment, kvm_sregs, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use rustix::mm::{MapFlags, ProtFlags};

/// Rounds of the loop. Hardware needs some 50 µs for them, an emulator of single instructions seconds.
pub(super) const ROUNDS: u32 = 50_000;

/// What the guest tells by writing to a port, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Loop,
    Sse,
    CompareExchange16,
    Xrstor,
}

impl Stage {
    const ALL: [Stage; 4] = [Stage::Loop, Stage::Sse, Stage::CompareExchange16, Stage::Xrstor];

    pub(super) const LAST: Stage = Stage::Xrstor;

    pub(super) fn word(self) -> &'static str {
        match self {
            Stage::Loop => "loop",
            Stage::Sse => "sse",
            Stage::CompareExchange16 => "cmpxchg16b",
            Stage::Xrstor => "xrstor",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        Stage::ALL.into_iter().find(|stage| stage.word() == word)
    }

    /// The port, and the only right value in AL.
    fn expected(self) -> (u16, u8) {
        let sum = rounds();
        match self {
            Stage::Loop => (0x10, sum.to_le_bytes()[0]),
            Stage::Sse => (0x11, sum.wrapping_add(sum).to_le_bytes()[0]),
            Stage::CompareExchange16 => (0x12, 1),
            Stage::Xrstor => (0x13, 3),
        }
    }
}

/// The loop of the guest, here: what it must come to, and how long that takes without a VM.
fn rounds() -> u64 {
    let mut sum = 0u64;
    for left in (1..=ROUNDS).rev() {
        sum = std::hint::black_box(sum.wrapping_add(left.into()).rotate_right(3));
    }
    sum
}

pub(super) fn native_time() -> Duration {
    let start = Instant::now();
    std::hint::black_box(rounds());
    start.elapsed()
}

#[rustfmt::skip]
const CODE: [u8; 72] = [
    0xb9, 0x50, 0xc3, 0x00, 0x00,       //     mov ecx, 50000
    0x48, 0x01, 0xc8,                   // 1:  add rax, rcx
    0x48, 0xc1, 0xc8, 0x03,             //     ror rax, 3
    0xff, 0xc9,                         //     dec ecx
    0x75, 0xf5,                         //     jnz 1b
    0xe6, 0x10,                         //     out 0x10, al
    0x66, 0x48, 0x0f, 0x6e, 0xc0,       //     movq xmm0, rax
    0x66, 0x0f, 0xd4, 0xc0,             //     paddq xmm0, xmm0
    0x66, 0x48, 0x0f, 0x7e, 0xc0,       //     movq rax, xmm0
    0xe6, 0x11,                         //     out 0x11, al
    0x31, 0xc0,                         //     xor eax, eax
    0x31, 0xd2,                         //     xor edx, edx
    0xbb, 0x01, 0x00, 0x00, 0x00,       //     mov ebx, 1
    0x31, 0xc9,                         //     xor ecx, ecx
    0xf0, 0x48, 0x0f, 0xc7, 0x0f,       //     lock cmpxchg16b [rdi]
    0x0f, 0x94, 0xc0,                   //     setz al
    0xe6, 0x12,                         //     out 0x12, al
    0xb8, 0x03, 0x00, 0x00, 0x00,       //     mov eax, 3
    0x0f, 0x01, 0xd1,                   //     xsetbv
    0x0f, 0xae, 0x26,                   //     xsave [rsi]
    0x0f, 0xae, 0x2e,                   //     xrstor [rsi]
    0xe6, 0x13,                         //     out 0x13, al
    0xf4,                               //     hlt
];

/// Where things lie in the guest's 64 KiB.
const MEMORY: usize = 0x10000;
const PAGE_TABLES: u64 = 0x1000;
const CODE_AT: u64 = 0x4000;
const PAIR_AT: u64 = 0x5000;
const XSAVE_AT: u64 = 0x6000;

const CR0_PE_NE_PG: u64 = 1 | 1 << 5 | 1 << 31;
const CR4_PAE_OSFXSR_OSXSAVE: u64 = 1 << 5 | 1 << 9 | 1 << 18;
const EFER_LME_LMA: u64 = 1 << 8 | 1 << 10;

/// Runs the guest to its end, a line on standard output for each stage it passed.
pub(super) fn run_here() -> io::Result<()> {
    let memory = Memory::new()?;
    let kvm = Kvm::new()?;
    let vm = kvm.create_vm()?;
    // Older Intel processors need it for what comes before long mode; elsewhere it is no ioctl.
    let _ = vm.set_tss_address(0xfffb_d000);
    memory.register(&vm)?;
    let mut cpu = vm.create_vcpu(0)?;
    cpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
    enter_long_mode(&cpu)?;
    let start = Instant::now();
    for stage in Stage::ALL {
        let said = match cpu.run()? {
            VcpuExit::IoOut(port, data) => (port, data.first().copied().unwrap_or_default()),
            exit => return Err(io::Error::other(format!("{exit:?} before {}", stage.word()))),
        };
        if said != stage.expected() {
            return Err(io::Error::other(format!("wrong result of {}", stage.word())));
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{} {}", stage.word(), start.elapsed().as_micros())?;
        out.flush()?;
    }
    Ok(())
}

fn enter_long_mode(cpu: &VcpuFd) -> io::Result<()> {
    let data = kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: 16,
        type_: 3,
        present: 1,
        s: 1,
        g: 1,
        db: 1,
        ..Default::default()
    };
    let code = kvm_segment {
        selector: 8,
        type_: 11,
        l: 1,
        db: 0,
        ..data
    };
    let nothing = kvm_dtable::default();
    let before = cpu.get_sregs()?;
    cpu.set_sregs(&kvm_sregs {
        cs: code,
        ds: data,
        es: data,
        ss: data,
        gdt: nothing,
        idt: nothing,
        cr0: CR0_PE_NE_PG,
        cr3: PAGE_TABLES,
        cr4: CR4_PAE_OSFXSR_OSXSAVE,
        efer: EFER_LME_LMA,
        ..before
    })?;
    cpu.set_regs(&kvm_regs {
        rip: CODE_AT,
        rdi: PAIR_AT,
        rsi: XSAVE_AT,
        rflags: 2,
        ..Default::default()
    })?;
    Ok(())
}

/// The guest's memory, and ours until the guest runs.
struct Memory(NonNull<u8>);

impl Memory {
    fn new() -> io::Result<Self> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new anonymous mapping at an address of the kernel's choice overlaps nothing.
        let address = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), MEMORY, protection, flags) }?;
        let memory = Memory(NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?);
        let present_writable = 3;
        let large_page = 1 << 7;
        memory.put(PAGE_TABLES, &(0x2000u64 | present_writable).to_le_bytes());
        memory.put(0x2000, &(0x3000u64 | present_writable).to_le_bytes());
        memory.put(0x3000, &(large_page | present_writable).to_le_bytes());
        memory.put(CODE_AT, &CODE);
        Ok(memory)
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        let at = usize::try_from(at).unwrap_or(MEMORY);
        assert!(at + bytes.len() <= MEMORY, "the guest's layout is in its memory");
        // SAFETY: the range was just checked to lie in the mapping.
        let to = unsafe { self.0.as_ptr().add(at) };
        // SAFETY: the mapping is writable, lives as long as the process, and nothing else refers to it
        // before the guest runs; `bytes` is no part of it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    fn register(&self, vm: &VmFd) -> io::Result<()> {
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: MEMORY as u64,
            userspace_addr: self.0.as_ptr() as u64,
        };
        // SAFETY: the mapping is never unmapped, so it outlives the VM, and we do not touch it again.
        unsafe { vm.set_user_memory_region(region) }?;
        Ok(())
    }
}
