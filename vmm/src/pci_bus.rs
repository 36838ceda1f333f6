//! The PCI bus: configuration mechanism 1 for one bus, and the window its BARs lie in.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use virtio::{
    Device, FailureSink,
    pci::{BAR_BYTES, Doorbell, MsiSink, PciDevice},
};
use vm_memory::GuestMemoryMmap;

use crate::{
    coalesced::CoalescedRing,
    layout::{PCI_ADDRESS_PORT, PCI_BARS},
};

/// The address port: enable, bus, slot, function, register.
const ENABLE: u32 = 1 << 31;
/// On AMD's processors a kernel asks for registers beyond 256 by these bits. There are none: a function that
/// answered would have its whole extended space searched.
const EXTENDED: u32 = 0xf << 24;
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
    /// Writes of the address that have not been looked at.
    written: CoalescedRing,
    /// In the order of their slots and of their BARs. There is no host bridge among them: the ACPI tables say
    /// where the bus is, and who asks it for functions finds these.
    devices: Vec<PciDevice>,
}

impl PciBus {
    pub(crate) fn new(
        devices: Vec<Box<dyn Device>>,
        written: CoalescedRing,
        around: &Surroundings,
    ) -> io::Result<Self> {
        if devices.len() > SLOTS {
            return Err(io::Error::other("more devices than a PCI bus has slots"));
        }
        let device = |(index, device): (u32, Box<dyn Device>)| {
            let bar = PCI_BARS as u32 + index * BAR_BYTES;
            let Surroundings {
                memory,
                msi,
                failures,
            } = around.clone();
            PciDevice::new(device, bar, memory, msi, failures)
        };
        let devices = (0..).zip(devices).map(device).collect::<io::Result<_>>()?;
        Ok(PciBus {
            address: Mutex::new(0),
            written,
            devices,
        })
    }

    pub(crate) fn doorbells(&self) -> io::Result<Vec<Doorbell>> {
        let lists = self
            .devices
            .iter()
            .map(PciDevice::doorbells)
            .collect::<io::Result<Vec<_>>>()?;
        Ok(lists.into_iter().flatten().collect())
    }

    pub(crate) fn set_address(&self, offset: u16, data: &[u8]) {
        set_address(&mut self.latest_address(), offset.into(), data);
    }

    pub(crate) fn address(&self, data: &mut [u8]) {
        let word = self.latest_address().to_le_bytes();
        data.iter_mut().zip(word).for_each(|(byte, value)| *byte = value);
    }

    pub(crate) fn read_config(&self, offset: u16, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((device, register)) = self.selected() {
            device.read_config(register + usize::from(offset), data);
        }
    }

    pub(crate) fn write_config(&self, offset: u16, data: &[u8]) {
        if let Some((device, register)) = self.selected() {
            device.write_config(register + usize::from(offset), data);
        }
    }

    /// False when no BAR is there.
    pub(crate) fn read(&self, address: u64, data: &mut [u8]) -> bool {
        self.at(address)
            .map(|(device, offset)| device.read_bar(offset, data))
            .is_some()
    }

    pub(crate) fn write(&self, address: u64, data: &[u8]) -> bool {
        self.at(address)
            .map(|(device, offset)| device.write_bar(offset, data))
            .is_some()
    }

    /// Stops every device: when this returns none of their threads runs.
    pub(crate) fn shut_down(&self) {
        self.devices.iter().for_each(PciDevice::shut_down);
    }

    fn at(&self, address: u64) -> Option<(&PciDevice, u32)> {
        let offset = address.checked_sub(PCI_BARS)?;
        let index = usize::try_from(offset / u64::from(BAR_BYTES)).ok()?;
        Some((self.devices.get(index)?, (offset % u64::from(BAR_BYTES)) as u32))
    }

    /// The address with every write up to now, in order.
    fn latest_address(&self) -> MutexGuard<'_, u32> {
        let mut address = lock(&self.address);
        self.written.drain(|port, data| {
            set_address(&mut address, port.wrapping_sub(PCI_ADDRESS_PORT.into()), data);
        });
        address
    }

    /// Function and register the address port names, if that is on this bus.
    fn selected(&self) -> Option<(&PciDevice, usize)> {
        let address = *self.latest_address();
        let (bus, function) = ((address >> 16) & 0xff, (address >> 8) & 0x7);
        if address & ENABLE == 0 || address & EXTENDED != 0 || bus != 0 || function != 0 {
            return None;
        }
        let device = self.devices.get(((address >> 11) & 0x1f) as usize)?;
        Some((device, (address & 0xfc) as usize))
    }
}

/// Only a whole word is an address.
fn set_address(address: &mut u32, offset: u64, data: &[u8]) {
    if let (0, Ok(word)) = (offset, <[u8; 4]>::try_from(data)) {
        *address = u32::from_le_bytes(word);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
