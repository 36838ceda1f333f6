//! The PCI bus: configuration mechanism 1 for one bus, and the window its BARs lie in.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use virtio::{
    Device, FailureSink,
    pci::{BAR_BYTES, Doorbell, HostBridge, MsiSink, PciDevice},
};
use vm_memory::GuestMemoryMmap;

use crate::layout::PCI_BARS;

/// The address port: enable, bus, slot, function, register.
const ENABLE: u32 = 1 << 31;
const SLOTS: usize = 32;

/// What devices share.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) memory: Arc<GuestMemoryMmap>,
    pub(crate) msi: Arc<dyn MsiSink>,
    pub(crate) failures: Arc<dyn FailureSink>,
}

#[derive(Debug)]
pub(crate) struct PciBus {
    address: Mutex<u32>,
    bridge: HostBridge,
    /// Slot n + 1 on the bus; its BAR is the n-th.
    devices: Vec<Mutex<PciDevice>>,
}

impl PciBus {
    pub(crate) fn new(devices: Vec<Box<dyn Device>>, around: &Surroundings) -> io::Result<Self> {
        if devices.len() >= SLOTS {
            return Err(io::Error::other("more devices than a PCI bus has slots"));
        }
        let device = |(index, device): (u32, Box<dyn Device>)| {
            let bar = PCI_BARS as u32 + index * BAR_BYTES;
            let Surroundings {
                memory,
                msi,
                failures,
            } = around.clone();
            PciDevice::new(device, bar, memory, msi, failures).map(Mutex::new)
        };
        let devices = (0..).zip(devices).map(device).collect::<io::Result<_>>()?;
        Ok(PciBus {
            address: Mutex::new(0),
            bridge: HostBridge::new(),
            devices,
        })
    }

    pub(crate) fn doorbells(&self) -> io::Result<Vec<Doorbell>> {
        let lists = self
            .devices
            .iter()
            .map(|device| lock(device).doorbells())
            .collect::<io::Result<Vec<_>>>()?;
        Ok(lists.into_iter().flatten().collect())
    }

    pub(crate) fn set_address(&self, offset: u16, data: &[u8]) {
        if let (0, Ok(word)) = (offset, <[u8; 4]>::try_from(data)) {
            *lock(&self.address) = u32::from_le_bytes(word);
        }
    }

    pub(crate) fn address(&self, data: &mut [u8]) {
        let word = lock(&self.address).to_le_bytes();
        data.iter_mut().zip(word).for_each(|(byte, value)| *byte = value);
    }

    pub(crate) fn read_config(&self, offset: u16, data: &mut [u8]) {
        data.fill(0xff);
        match self.selected() {
            Some((0, register)) => self.bridge.config().read(register + usize::from(offset), data),
            Some((slot, register)) => {
                if let Some(device) = self.devices.get(slot - 1) {
                    lock(device).read_config(register + usize::from(offset), data);
                }
            }
            None => {}
        }
    }

    pub(crate) fn write_config(&self, offset: u16, data: &[u8]) {
        if let Some((slot, register)) = self.selected()
            && let Some(device) = slot.checked_sub(1).and_then(|index| self.devices.get(index))
        {
            lock(device).write_config(register + usize::from(offset), data);
        }
    }

    /// False when no BAR is there.
    pub(crate) fn read(&self, address: u64, data: &mut [u8]) -> bool {
        self.at(address)
            .map(|(device, offset)| lock(device).read_bar(offset, data))
            .is_some()
    }

    pub(crate) fn write(&self, address: u64, data: &[u8]) -> bool {
        self.at(address)
            .map(|(device, offset)| lock(device).write_bar(offset, data))
            .is_some()
    }

    /// Stops every device: when this returns none of their threads runs.
    pub(crate) fn shut_down(&self) {
        self.devices.iter().for_each(|device| lock(device).shut_down());
    }

    fn at(&self, address: u64) -> Option<(&Mutex<PciDevice>, u32)> {
        let offset = address.checked_sub(PCI_BARS)?;
        let index = usize::try_from(offset / u64::from(BAR_BYTES)).ok()?;
        Some((self.devices.get(index)?, (offset % u64::from(BAR_BYTES)) as u32))
    }

    /// Slot and register the address port names, if that is on this bus.
    fn selected(&self) -> Option<(usize, usize)> {
        let address = *lock(&self.address);
        let (bus, function) = ((address >> 16) & 0xff, (address >> 8) & 0x7);
        let here = address & ENABLE != 0 && bus == 0 && function == 0;
        here.then_some((((address >> 11) & 0x1f) as usize, (address & 0xfc) as usize))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
