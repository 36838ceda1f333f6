//! Puts a kernel, its initial file system and its parameters into guest memory, as the 64-bit Linux boot
//! protocol has it. No firmware: the boot CPU starts at the kernel's entry point in long mode.

mod acpi;
mod command_line;

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use linux_loader::{
    configurator::{BootConfigurator, BootParams, linux::LinuxBootConfigurator},
    loader::{
        self, KernelLoader, KernelLoaderResult,
        bootparam::{boot_e820_entry, boot_params, setup_header},
        bzimage::BzImage,
        elf::{self, Elf},
    },
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_api::MachineConfig;

use crate::layout;

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
const PAGE: u64 = 4096;
/// A loader that has no number of its own.
const UNKNOWN_LOADER: u8 = 0xff;
const ELF_MAGIC: [u8; 4] = *b"\x7fELF";
const BOOT_FLAG: u16 = 0xaa55;
const BOOT_HEADER: u32 = u32::from_le_bytes(*b"HdrS");
/// Kernels are built for physical addresses aligned to this.
const KERNEL_ALIGNMENT: u32 = 0x20_0000;
/// Where a bzImage's 64-bit entry lies behind its start.
const BZIMAGE_ENTRY_64: u64 = 0x200;

/// Fills `memory`; returns where the boot CPU starts.
pub(crate) fn load(config: &MachineConfig, memory: &GuestMemoryMmap) -> Result<GuestAddress, BootError> {
    let kernel = load_kernel(&config.kernel, memory, config.memory.mib())?;
    let low_end = config.memory.bytes().min(layout::HOLE_START);
    if kernel.result.kernel_end > low_end {
        return Err(BootError::MemoryTooSmall {
            needs_mib: kernel.result.kernel_end.div_ceil(1 << 20),
        });
    }
    let initramfs = match &config.initramfs {
        Some(path) => load_initramfs(path, memory, kernel.result.kernel_end, low_end)?,
        None => Initramfs::default(),
    };
    let text = command_line::build(&config.kernel_args);
    if text.len() >= layout::COMMAND_LINE_MAX {
        return Err(BootError::CommandLine { len: text.len() });
    }
    write(memory, text.as_bytes(), layout::COMMAND_LINE)?;
    write(memory, &[0], layout::COMMAND_LINE + text.len() as u64)?;
    write(memory, &acpi::tables(config.vcpus.count()), layout::ACPI)?;
    let params = parameters(&kernel, initramfs, config.memory.bytes(), text.len() as u32);
    LinuxBootConfigurator::write_bootparams(
        &BootParams::new(&params, GuestAddress(layout::BOOT_PARAMS)),
        memory,
    )
    .map_err(BootError::Parameters)?;
    Ok(kernel.entry)
}

struct Kernel {
    entry: GuestAddress,
    result: KernelLoaderResult,
}

fn load_kernel(path: &Path, memory: &GuestMemoryMmap, mib: u64) -> Result<Kernel, BootError> {
    let open = |source| BootError::Open {
        path: path.into(),
        source,
    };
    let mut file = File::open(path).map_err(open)?;
    if !file.metadata().map_err(open)?.is_file() {
        return Err(BootError::NotAKernel { path: path.into() });
    }
    let mut magic = [0; 4];
    file.read_exact(&mut magic)
        .map_err(|_| BootError::NotAKernel { path: path.into() })?;
    file.seek(SeekFrom::Start(0)).map_err(open)?;
    let high = Some(GuestAddress(layout::HIGH_MEMORY));
    let load = |source| match source {
        loader::Error::Elf(elf::Error::ReadKernelImage) => BootError::DoesNotFit {
            path: path.into(),
            mib,
        },
        source => BootError::Kernel {
            path: path.into(),
            source,
        },
    };
    if magic == ELF_MAGIC {
        let result = Elf::load(memory, None, &mut file, high).map_err(load)?;
        Ok(Kernel {
            entry: result.kernel_load,
            result,
        })
    } else {
        let mut result = BzImage::load(memory, None, &mut file, high)
            .map_err(|_| BootError::NotAKernel { path: path.into() })?;
        let header = result.setup_header.unwrap_or_default();
        // It unpacks itself into the room from its preferred address on.
        result.kernel_end = result
            .kernel_end
            .max(header.pref_address.saturating_add(header.init_size.into()));
        let entry = GuestAddress(result.kernel_load.0.saturating_add(BZIMAGE_ENTRY_64));
        Ok(Kernel { entry, result })
    }
}

#[derive(Clone, Copy, Default)]
struct Initramfs {
    address: u32,
    len: u32,
}

/// As high as the kernel allows, so that it is out of the way of whatever the kernel does first.
fn load_initramfs(
    path: &Path,
    memory: &GuestMemoryMmap,
    kernel_end: u64,
    low_end: u64,
) -> Result<Initramfs, BootError> {
    let open = |source| BootError::Open {
        path: path.into(),
        source,
    };
    let mut file = File::open(path).map_err(open)?;
    let len = file.metadata().map_err(open)?.len();
    let end = low_end.min(layout::INITRAMFS_MAX_END);
    let address = end
        .checked_sub(len)
        .map(|address| address / PAGE * PAGE)
        .filter(|address| *address >= kernel_end);
    let Some(address) = address else {
        return Err(BootError::MemoryTooSmall {
            needs_mib: (kernel_end.saturating_add(len)).div_ceil(1 << 20) + 1,
        });
    };
    memory
        .read_exact_volatile_from(GuestAddress(address), &mut file, len as usize)
        .map_err(|source| BootError::Initramfs {
            path: path.into(),
            source,
        })?;
    Ok(Initramfs {
        address: address as u32,
        len: len as u32,
    })
}

fn parameters(kernel: &Kernel, initramfs: Initramfs, memory: u64, command_line_len: u32) -> boot_params {
    let header = kernel.result.setup_header.unwrap_or(setup_header {
        boot_flag: BOOT_FLAG,
        header: BOOT_HEADER,
        kernel_alignment: KERNEL_ALIGNMENT,
        ..Default::default()
    });
    let hdr = setup_header {
        type_of_loader: UNKNOWN_LOADER,
        cmd_line_ptr: layout::COMMAND_LINE as u32,
        cmdline_size: command_line_len,
        ramdisk_image: initramfs.address,
        ramdisk_size: initramfs.len,
        ..header
    };
    let map = memory_map(memory);
    let mut params = boot_params {
        hdr,
        e820_entries: map.len() as u8,
        ..Default::default()
    };
    for (entry, (addr, size, r#type)) in params.e820_table.iter_mut().zip(map) {
        *entry = boot_e820_entry { addr, size, r#type };
    }
    params
}

/// Start, length and kind of each range the kernel is told of.
fn memory_map(memory: u64) -> Vec<(u64, u64, u32)> {
    let low_end = memory.min(layout::HOLE_START);
    let mut map = vec![
        (0, layout::BASE_MEMORY_END, E820_RAM),
        (layout::ACPI, layout::ACPI_MAX, E820_RESERVED),
        (layout::HIGH_MEMORY, low_end - layout::HIGH_MEMORY, E820_RAM),
    ];
    if memory > layout::HOLE_START {
        map.push((layout::HOLE_END, memory - layout::HOLE_START, E820_RAM));
    }
    map
}

fn write(memory: &GuestMemoryMmap, bytes: &[u8], address: u64) -> Result<(), BootError> {
    memory
        .write_slice(bytes, GuestAddress(address))
        .map_err(BootError::Memory)
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error("cannot open {}", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("not a kernel (neither an x86_64 ELF nor a bzImage): {}", path.display())]
    NotAKernel { path: PathBuf },
    #[error("cannot load kernel {}", path.display())]
    Kernel {
        path: PathBuf,
        source: linux_loader::loader::Error,
    },
    #[error("kernel is cut short, or needs more than {mib} MiB of memory: {}", path.display())]
    DoesNotFit { path: PathBuf, mib: u64 },
    #[error("cannot read initial file system {}", path.display())]
    Initramfs {
        path: PathBuf,
        source: vm_memory::GuestMemoryError,
    },
    #[error("memory too small: kernel and initial file system need at least {needs_mib} MiB")]
    MemoryTooSmall { needs_mib: u64 },
    #[error("kernel command line of {len} bytes, at most {}", layout::COMMAND_LINE_MAX - 1)]
    CommandLine { len: usize },
    #[error("boot parameters do not fit guest memory")]
    Parameters(#[source] linux_loader::configurator::Error),
    #[error("boot data does not fit guest memory")]
    Memory(#[source] vm_memory::GuestMemoryError),
}

#[cfg(test)]
mod tests;
