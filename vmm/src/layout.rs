//! Where things are in the guest's physical address space.
//!
//! ```text
//! 0                                                3 GiB        4 GiB
//! ├ page tables, boot parameters, ACPI tables, kernel … ┤ BARs, APICs ├ the rest of memory …
//! ```

/// Pages for the boot CPU's first page tables, below everything a kernel uses that early.
pub(crate) const GDT: u64 = 0x500;
pub(crate) const BOOT_PARAMS: u64 = 0x7000;
pub(crate) const PML4: u64 = 0x9000;
pub(crate) const PDPT: u64 = 0xa000;
/// Four pages of 2 MiB entries: the first 4 GiB, mapped as they are.
pub(crate) const PAGE_DIRECTORIES: u64 = 0xb000;
pub(crate) const COMMAND_LINE: u64 = 0x20000;
/// What a stock x86_64 kernel reads of its command line.
pub(crate) const COMMAND_LINE_MAX: usize = 2048;
/// Kernels leave what follows to firmware.
pub(crate) const BASE_MEMORY_END: u64 = 0x9_f000;
/// Where a kernel looks for the root pointer of the ACPI tables, and the tables behind it.
pub(crate) const ACPI: u64 = 0xe0000;
pub(crate) const ACPI_MAX: u64 = 0x1_0000;
pub(crate) const HIGH_MEMORY: u64 = 0x10_0000;

/// Memory below the hole ends here; what is left over continues at 4 GiB.
pub(crate) const HOLE_START: u64 = 0xc000_0000;
pub(crate) const HOLE_END: u64 = 0x1_0000_0000;

/// BARs of PCI functions, one after the other.
pub(crate) const PCI_BARS: u64 = HOLE_START;
pub(crate) const IO_APIC: u32 = 0xfec0_0000;
pub(crate) const LOCAL_APIC: u32 = 0xfee0_0000;
/// KVM on Intel wants three pages of its own and one for an identity map, inside the hole.
pub(crate) const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
pub(crate) const KVM_TSS: usize = 0xfffb_d000;

/// A kernel may ask for its initial file system to end below this.
pub(crate) const INITRAMFS_MAX_END: u64 = 0x7fff_ffff;

/// Where the register of the next configuration access is named, and where it is accessed.
pub(crate) const PCI_ADDRESS_PORT: u16 = 0xcf8;
pub(crate) const PCI_DATA_PORT: u16 = 0xcfc;
/// The keyboard controller's command port, of which there is only the reset line.
pub(crate) const KEYBOARD_PORT: u16 = 0x64;
pub(crate) const KEYBOARD_PULSE_RESET: u8 = 0xfe;

pub(crate) const SERIAL_PORT: u16 = 0x3f8;
pub(crate) const SERIAL_PORTS: u16 = 8;
pub(crate) const SERIAL_IRQ: u32 = 4;

/// Power management: an event block nothing happens in, and the control register that switches off.
pub(crate) const PM_EVENT_PORT: u16 = 0x600;
pub(crate) const PM_CONTROL_PORT: u16 = 0x604;
pub(crate) const PM_EVENT_BYTES: u8 = 4;
pub(crate) const PM_CONTROL_BYTES: u8 = 2;
