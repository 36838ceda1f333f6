//! Ports and addresses: who answers an access that KVM does not answer itself.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU16, Ordering},
};

use crate::{
    console::SerialPort,
    layout::{
        KEYBOARD_PORT, KEYBOARD_PULSE_RESET, PCI_ADDRESS_PORT, PCI_DATA_PORT, PM_CONTROL_PORT, PM_EVENT_PORT,
        SERIAL_PORT, SERIAL_PORTS,
    },
    pci_bus::PciBus,
};

/// Nothing can be written and something is always there to read: a kernel that looks for a controller gives up
/// at once, and one that waits for it to take the reset command need not wait.
const KEYBOARD_STATUS: u8 = 0xfd;
/// The battery-backed clock reads as zero, which is a time, if none anybody has: a kernel would wait a second
/// for ones.
const CMOS_DATA: u16 = 0x71;

/// Power management is always under the operating system's control.
const PM_ENABLED: u8 = 1;
/// The sleep bit of the control register's upper half. Off is the only sleep there is.
const PM_SLEEP: u8 = 1 << 5;

/// What an access leads to besides its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    Reset,
    PowerOff,
}

#[derive(Debug)]
pub(crate) struct Bus {
    serial: Mutex<SerialPort>,
    pci: PciBus,
    /// Which power events the kernel wants to hear of. It reads back what it wrote; none ever comes.
    events_enabled: AtomicU16,
}

impl Bus {
    pub(crate) fn new(serial: SerialPort, pci: PciBus) -> Self {
        Bus {
            serial: Mutex::new(serial),
            pci,
            events_enabled: AtomicU16::new(0),
        }
    }

    pub(crate) fn pci(&self) -> &PciBus {
        &self.pci
    }

    pub(crate) fn port_in(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        match (port, data) {
            (SERIAL_PORT..SERIAL_END, [byte]) => *byte = self.serial().read((port - SERIAL_PORT) as u8),
            (PCI_ADDRESS_PORT, data) => self.pci.address(data),
            (PCI_DATA_PORT..PCI_END, data) => self.pci.read_config(port - PCI_DATA_PORT, data),
            (KEYBOARD_PORT, [byte]) => *byte = KEYBOARD_STATUS,
            (CMOS_DATA, [byte]) => *byte = 0,
            (PM_EVENT_PORT..PM_ENABLE_PORT, data) => data.fill(0),
            (PM_ENABLE_PORT, data) => {
                let enabled = self.events_enabled.load(Ordering::Relaxed).to_le_bytes();
                data.fill(0);
                data.iter_mut()
                    .zip(enabled)
                    .for_each(|(byte, value)| *byte = value);
            }
            (PM_CONTROL_PORT, [low, rest @ ..]) => {
                *low = PM_ENABLED;
                rest.fill(0);
            }
            _ => {}
        }
    }

    pub(crate) fn port_out(&self, port: u16, data: &[u8]) -> Effect {
        match (port, data) {
            (SERIAL_PORT..SERIAL_END, [byte]) => {
                // The log counts what it loses; there is nobody else to tell.
                let _ = self.serial().write((port - SERIAL_PORT) as u8, *byte);
            }
            (KEYBOARD_PORT, [KEYBOARD_PULSE_RESET]) => return Effect::Reset,
            (PM_ENABLE_PORT, [low, high]) => {
                self.events_enabled
                    .store(u16::from_le_bytes([*low, *high]), Ordering::Relaxed);
            }
            (PM_CONTROL_PORT, [_, high]) if high & PM_SLEEP != 0 => return Effect::PowerOff,
            (PCI_ADDRESS_PORT..PCI_DATA_PORT, data) => self.pci.set_address(port - PCI_ADDRESS_PORT, data),
            (PCI_DATA_PORT..PCI_END, data) => self.pci.write_config(port - PCI_DATA_PORT, data),
            _ => {}
        }
        Effect::None
    }

    pub(crate) fn memory_read(&self, address: u64, data: &mut [u8]) {
        if !self.pci.read(address, data) {
            data.fill(0xff);
        }
    }

    pub(crate) fn memory_write(&self, address: u64, data: &[u8]) {
        self.pci.write(address, data);
    }

    fn serial(&self) -> std::sync::MutexGuard<'_, SerialPort> {
        self.serial.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const SERIAL_END: u16 = SERIAL_PORT + SERIAL_PORTS;
const PCI_END: u16 = PCI_DATA_PORT + 4;
const PM_ENABLE_PORT: u16 = PM_EVENT_PORT + 2;
