//! A virtio function on the PCI bus, taken away from its kernel driver.
#![allow(unsafe_code, reason = "registers are mapped here")]

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    ptr,
};

use anyhow::Context;
use rustix::mm::{MapFlags, ProtFlags, mmap};

use crate::words::Mapping;

/// All of the BAR, as the VMM lays it out.
pub(crate) const BAR_BYTES: usize = 0x8000;
const VIRTIO_VENDOR: &str = "0x1af4";
const VIRTIO_DEVICE_BASE: u16 = 0x1040;
const MSIX: u8 = 0x11;
const FIRST_CAPABILITY: u64 = 0x34;

/// Device types by their virtio number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Net = 1,
    Block = 2,
    Rng = 4,
    Balloon = 5,
    Vsock = 19,
    Fs = 26,
}

#[derive(Debug)]
pub(crate) struct Function {
    /// Slot on the only bus.
    pub(crate) slot: u8,
    pub(crate) bar: Mapping,
    name: String,
    config: File,
}

impl Function {
    /// The `index`-th function of this kind, without a driver from now on.
    pub(crate) fn take(kind: Kind, index: usize) -> anyhow::Result<Self> {
        let path = find(kind, index)?.with_context(|| format!("no {kind:?} number {index}"))?;
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        if path.join("driver").exists() {
            fs::write(path.join("driver/unbind"), &name).with_context(|| format!("cannot unbind {name}"))?;
        }
        let slot = name
            .get(8..10)
            .and_then(|slot| u8::from_str_radix(slot, 16).ok())
            .context("odd name")?;
        let config = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path.join("config"))
            .context("no config space")?;
        let function = Function {
            slot,
            bar: map(&path.join("resource0")).context("cannot map the BAR")?,
            name,
            config,
        };
        function.write_config(4, &[6, 0])?;
        Ok(function)
    }

    /// Lets the kernel have it again.
    pub(crate) fn give_back(&self) -> anyhow::Result<()> {
        fs::write("/sys/bus/pci/drivers/virtio-pci/bind", &self.name).context("cannot bind it again")
    }

    pub(crate) fn read_config<const N: usize>(&self, at: u64) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.config.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    pub(crate) fn write_config(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.config.write_all_at(bytes, at)
    }

    /// Where message control of MSI-X lies.
    pub(crate) fn msix_control(&self) -> anyhow::Result<u64> {
        let [mut at] = self.read_config(FIRST_CAPABILITY)?;
        for _ in 0..64 {
            let [id, next] = self.read_config(at.into())?;
            if id == MSIX {
                return Ok(u64::from(at) + 2);
            }
            at = next;
        }
        anyhow::bail!("no MSI-X capability")
    }
}

fn find(kind: Kind, index: usize) -> anyhow::Result<Option<PathBuf>> {
    let device = format!("{:#06x}", VIRTIO_DEVICE_BASE + kind as u16);
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/bus/pci/devices")? {
        let path = entry?.path();
        let says = |file: &str| {
            fs::read_to_string(path.join(file))
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        if says("vendor") == VIRTIO_VENDOR && says("device") == device {
            found.push(path);
        }
    }
    found.sort();
    Ok(found.into_iter().nth(index))
}

fn map(resource: &Path) -> io::Result<Mapping> {
    let sync = rustix::fs::OFlags::SYNC.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(sync)
        .open(resource)?;
    let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
    // SAFETY: a new mapping where the kernel likes it replaces nothing.
    let base = unsafe { mmap(ptr::null_mut(), BAR_BYTES, access, flags, &file, 0) }?;
    // SAFETY: just mapped, never unmapped, and given to nobody else.
    Ok(unsafe { Mapping::new(base.cast(), BAR_BYTES) })
}
