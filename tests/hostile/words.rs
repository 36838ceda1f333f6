//! Memory that somebody else reads and writes at the same time: mapped, bounded, accessed one instruction at a
//! time, at any alignment.
#![allow(
    unsafe_code,
    reason = "registers and shared memory are accessed by instruction, not by reference"
)]

use std::arch::asm;

/// What one instruction moves.
pub(crate) trait Word: Copy {
    const BYTES: usize;

    fn cut(value: u64) -> Self;

    /// # Safety
    ///
    /// `at` points to mapped, readable memory of `BYTES` bytes.
    unsafe fn load(at: *const u8) -> Self;

    /// # Safety
    ///
    /// `at` points to mapped, writable memory of `BYTES` bytes that no Rust reference covers.
    unsafe fn store(at: *mut u8, value: Self);
}

macro_rules! word {
    ($type:ty, $class:ident, $load:literal, $store:literal) => {
        impl Word for $type {
            const BYTES: usize = size_of::<$type>();

            fn cut(value: u64) -> Self {
                value as $type
            }

            unsafe fn load(at: *const u8) -> Self {
                let value: $type;
                // SAFETY: the caller says that the memory may be read; nothing else is touched.
                unsafe { asm!($load, out($class) value, in(reg) at, options(nostack, preserves_flags, readonly)) };
                value
            }

            unsafe fn store(at: *mut u8, value: Self) {
                // SAFETY: the caller says that the memory may be written; nothing else is touched.
                unsafe { asm!($store, in($class) value, in(reg) at, options(nostack, preserves_flags)) };
            }
        }
    };
}

word!(u8, reg_byte, "mov {0}, byte ptr [{1}]", "mov byte ptr [{1}], {0}");
word!(u16, reg, "mov {0:x}, word ptr [{1}]", "mov word ptr [{1}], {0:x}");
word!(
    u32,
    reg,
    "mov {0:e}, dword ptr [{1}]",
    "mov dword ptr [{1}], {0:e}"
);
word!(
    u64,
    reg,
    "mov {0:r}, qword ptr [{1}]",
    "mov qword ptr [{1}], {0:r}"
);

/// A mapping that stays for as long as the program lives.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: *mut u8,
    len: usize,
}

// SAFETY: it is only ever accessed by single instructions, at the risk of whoever says what is there.
unsafe impl Sync for Mapping {}
// SAFETY: as above; the mapping belongs to the process, not to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// # Safety
    ///
    /// `base` is mapped, readable and writable, for `len` bytes and for as long as the program lives, and no
    /// Rust reference covers it.
    pub(crate) unsafe fn new(base: *mut u8, len: usize) -> Self {
        Mapping { base, len }
    }

    /// What lies outside reads as zero: attacks may aim anywhere, this program must not fault.
    pub(crate) fn read<W: Word>(&self, at: usize) -> W {
        if !self.holds::<W>(at) {
            return W::cut(0);
        }
        // SAFETY: `holds` has checked that the bytes lie in the mapping, which `new` was promised.
        unsafe { W::load(self.base.wrapping_add(at)) }
    }

    pub(crate) fn write<W: Word>(&self, at: usize, value: W) {
        if self.holds::<W>(at) {
            // SAFETY: as in `read`.
            unsafe { W::store(self.base.wrapping_add(at), value) };
        }
    }

    /// A write of 1, 2, 4 or 8 bytes.
    pub(crate) fn write_wide(&self, at: usize, width: u64, value: u64) {
        match width {
            1 => self.write(at, value as u8),
            2 => self.write(at, value as u16),
            4 => self.write(at, value as u32),
            _ => self.write(at, value),
        }
    }

    pub(crate) fn read_wide(&self, at: usize, width: u64) -> u64 {
        match width {
            1 => self.read::<u8>(at).into(),
            2 => self.read::<u16>(at).into(),
            4 => self.read::<u32>(at).into(),
            _ => self.read(at),
        }
    }

    pub(crate) fn fill(&self, at: usize, len: usize, byte: u8) {
        (at..at + len).for_each(|at| self.write(at, byte));
    }

    fn holds<W: Word>(&self, at: usize) -> bool {
        at.checked_add(W::BYTES).is_some_and(|end| end <= self.len)
    }
}
