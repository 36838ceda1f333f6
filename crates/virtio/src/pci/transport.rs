//! A virtio device as a PCI function: what its configuration space and its BAR do.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use virtio_bindings::{
    bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
    virtio_config::VIRTIO_F_VERSION_1,
};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{
    MsiSink,
    common::{CommonConfig, Transition},
    config_space::{ConfigSpace, Identity},
    msix::{Msix, Vector},
};
use crate::{
    ActivateError, Activation, Device, DeviceKind, DeviceQueue, FailureSink, Ring, rate_limit::warn_limited,
};

/// The size of a function's BAR.
pub const BAR_BYTES: u32 = 0x8000;

const COMMON: u32 = 0x0000;
const ISR: u32 = 0x1000;
const DEVICE: u32 = 0x2000;
const NOTIFY: u32 = 0x3000;
const MSIX_TABLE: u32 = 0x4000;
const MSIX_PENDING: u32 = 0x5000;
const AREA: u32 = 0x1000;
/// Each queue rings at an address of its own, so that one ioeventfd a queue tells them apart.
const NOTIFY_STRIDE: u32 = 4;

const CAPABILITY_VENDOR: u8 = 0x09;
const CAPABILITY_MSIX: u8 = 0x11;
const CFG_COMMON: u8 = 1;
const CFG_NOTIFY: u8 = 2;
const CFG_ISR: u8 = 3;
const CFG_DEVICE: u8 = 4;

const VIRTIO_VENDOR: u16 = 0x1af4;
const VIRTIO_DEVICE_BASE: u16 = 0x1040;

const RING_FEATURES: u64 =
    (1 << VIRTIO_F_VERSION_1) | (1 << VIRTIO_RING_F_EVENT_IDX) | (1 << VIRTIO_RING_F_INDIRECT_DESC);

/// Where a driver rings for one queue, and what becomes readable when it does.
#[derive(Debug)]
pub struct Doorbell {
    pub address: u64,
    pub kick: EventFd,
}

/// A function on the bus. Its registers have a lock; the doorbells of a device that answers them itself do not
/// take it.
pub struct PciDevice {
    registers: Mutex<Registers>,
    ring: Option<Arc<dyn Ring>>,
}

impl PciDevice {
    /// Puts `device` on the bus with its BAR at `bar`.
    pub fn new(
        device: Box<dyn Device>,
        bar: u32,
        memory: Arc<GuestMemoryMmap>,
        sink: Arc<dyn MsiSink>,
        failures: Arc<dyn FailureSink>,
    ) -> io::Result<Self> {
        let ring = device.ring();
        let registers = Registers::new(device, bar, memory, sink, failures)?;
        Ok(PciDevice {
            registers: Mutex::new(registers),
            ring,
        })
    }

    /// The doorbells to wire to the bus, in the order of the queues; none if the device answers them itself.
    pub fn doorbells(&self) -> io::Result<Vec<Doorbell>> {
        match self.ring {
            Some(_) => Ok(Vec::new()),
            None => self.registers().doorbells(),
        }
    }

    pub fn read_config(&self, at: usize, data: &mut [u8]) {
        self.registers().config.read(at, data);
    }

    pub fn write_config(&self, at: usize, data: &[u8]) {
        self.registers().write_config(at, data);
    }

    pub fn read_bar(&self, offset: u32, data: &mut [u8]) {
        self.registers().read_bar(offset, data);
    }

    pub fn write_bar(&self, offset: u32, data: &[u8]) {
        match &self.ring {
            Some(ring) if area(offset) == NOTIFY => ring.rung(rung_queue(offset)),
            _ => self.registers().write_bar(offset, data),
        }
    }

    /// Stops the device; the machine is going away.
    pub fn shut_down(&self) {
        self.registers().reset();
    }

    #[cfg(test)]
    pub(super) fn msix_for_tests(&self) -> Arc<Msix> {
        self.registers().msix.clone()
    }

    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Registers {
    device: Box<dyn Device>,
    config: ConfigSpace,
    msix_control: usize,
    msix: Arc<Msix>,
    common: CommonConfig,
    bar: u32,
    kicks: Vec<EventFd>,
    memory: Arc<GuestMemoryMmap>,
    failures: Arc<dyn FailureSink>,
}

impl Registers {
    fn new(
        device: Box<dyn Device>,
        bar: u32,
        memory: Arc<GuestMemoryMmap>,
        sink: Arc<dyn MsiSink>,
        failures: Arc<dyn FailureSink>,
    ) -> io::Result<Self> {
        let sizes = device.queue_sizes();
        // One vector a queue and one for configuration changes.
        let vectors = sizes.len() + 1;
        let kicks = sizes
            .iter()
            .map(|_| EventFd::new(EFD_NONBLOCK))
            .collect::<io::Result<Vec<_>>>()?;
        let common = CommonConfig::new(device.features() | RING_FEATURES, sizes);
        let mut config = ConfigSpace::new(identity(device.kind()));
        config.set_bar0(bar, BAR_BYTES);
        // In the order a driver looks for them: each step along the list is an exit.
        for (kind, area) in [
            (CFG_COMMON, COMMON),
            (CFG_ISR, ISR),
            (CFG_NOTIFY, NOTIFY),
            (CFG_DEVICE, DEVICE),
        ] {
            config.add_capability(CAPABILITY_VENDOR, &virtio_capability(kind, area));
        }
        let msix_at = config.add_capability(
            CAPABILITY_MSIX,
            &Msix::capability(vectors, MSIX_TABLE, MSIX_PENDING),
        );
        config.allow(msix_at + 2, &Msix::CONTROL_WRITABLE.to_le_bytes());
        let msix = Arc::new(Msix::new(vectors, sink));
        Ok(Registers {
            device,
            config,
            msix_control: msix_at + 2,
            msix,
            common,
            bar,
            kicks,
            memory,
            failures,
        })
    }

    fn doorbells(&self) -> io::Result<Vec<Doorbell>> {
        let base = u64::from(self.bar) + u64::from(NOTIFY);
        let doorbell = |(index, kick): (usize, &EventFd)| {
            let address = base + index as u64 * u64::from(NOTIFY_STRIDE);
            Ok(Doorbell {
                address,
                kick: kick.try_clone()?,
            })
        };
        self.kicks.iter().enumerate().map(doorbell).collect()
    }

    fn write_config(&mut self, at: usize, data: &[u8]) {
        let before = self.config.u16_at(self.msix_control);
        self.config.write(at, data);
        let after = self.config.u16_at(self.msix_control);
        if before != after {
            self.msix.set_control(after);
        }
    }

    fn read_bar(&mut self, offset: u32, data: &mut [u8]) {
        let at = (offset % AREA) as usize;
        match area(offset) {
            COMMON => self.common.read(at, data),
            DEVICE => self.device.read_config(at, data),
            MSIX_TABLE => self.msix.read_table(at, data),
            MSIX_PENDING => self.msix.read_pending(at, data),
            // The ISR stays zero: there is no interrupt pin to share, MSI-X says which queue it is.
            _ => data.fill(0),
        }
    }

    fn write_bar(&mut self, offset: u32, data: &[u8]) {
        let at = (offset % AREA) as usize;
        match area(offset) {
            COMMON => match self.common.write(at, data) {
                Transition::None => {}
                Transition::Activate => self.activate(),
                Transition::Reset => self.reset(),
            },
            DEVICE => self.device.write_config(at, data),
            NOTIFY => self.ring(rung_queue(offset)),
            MSIX_TABLE => self.msix.write_table(at, data),
            _ => {}
        }
    }

    /// A doorbell that did not come in over its ioeventfd.
    fn ring(&self, queue: usize) {
        if let Some(kick) = self.kicks.get(queue) {
            let _ = kick.write(1);
        }
    }

    fn activate(&mut self) {
        if let Err(error) = self.try_activate() {
            warn_limited!(device = ?self.device.kind(), %error, "device not started");
            self.common.needs_reset();
        }
    }

    fn try_activate(&mut self) -> Result<(), ActivateError> {
        let queues = self.take_queues();
        let expected = self.common.queues.iter().filter(|queue| queue.enabled).count();
        if queues.len() != expected || expected == 0 {
            return Err(ActivateError::MissingQueues {
                found: queues.len(),
                expected,
            });
        }
        self.device.activate(Activation {
            memory: self.memory.clone(),
            features: self.common.accepted() & !RING_FEATURES,
            queues,
            config_changed: self.vector(self.common.config_vector),
            failures: self.failures.clone(),
        })
    }

    fn take_queues(&self) -> Vec<DeviceQueue> {
        let event_idx = self.common.accepted() & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
        // Up to the first that is not: a queue's place among those given to the device is its number.
        let enabled = self
            .common
            .queues
            .iter()
            .zip(&self.kicks)
            .take_while(|(queue, _)| queue.enabled);
        enabled
            .filter_map(|(queue, kick)| {
                let kick = kick.try_clone().ok()?;
                DeviceQueue::new(
                    queue.ring(event_idx)?,
                    self.memory.clone(),
                    kick,
                    self.vector(queue.vector),
                )
            })
            .collect()
    }

    fn reset(&mut self) {
        self.device.reset();
        self.common.reset();
        self.msix.clear_pending();
        // A ring from before the reset is not a ring for the next driver.
        for kick in &self.kicks {
            let _ = kick.read();
        }
    }

    fn vector(&self, number: u16) -> Arc<Vector> {
        Arc::new(Vector {
            msix: self.msix.clone(),
            number,
        })
    }
}

impl fmt::Debug for PciDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registers = self.registers();
        f.debug_struct("PciDevice")
            .field("kind", &registers.device.kind())
            .field("bar", &registers.bar)
            .finish_non_exhaustive()
    }
}

fn area(offset: u32) -> u32 {
    offset - offset % AREA
}

/// The queue whose doorbell lies at `offset`.
fn rung_queue(offset: u32) -> usize {
    (offset % AREA / NOTIFY_STRIDE) as usize
}

fn identity(kind: DeviceKind) -> Identity {
    let class = match kind {
        DeviceKind::Net => [0x02, 0x00, 0x00],
        DeviceKind::Block => [0x01, 0x80, 0x00],
        DeviceKind::Vsock => [0x07, 0x80, 0x00],
        // Mass storage of another kind, which is what others call it.
        DeviceKind::Fs => [0x01, 0x80, 0x00],
        DeviceKind::Rng | DeviceKind::Balloon => [0xff, 0x00, 0x00],
    };
    let id = kind.virtio_id();
    Identity {
        vendor: VIRTIO_VENDOR,
        device: VIRTIO_DEVICE_BASE + id,
        subsystem: id,
        class,
        revision: 1,
    }
}

/// The body of a virtio capability: where in BAR 0 a structure lies. Doorbells add their stride.
fn virtio_capability(kind: u8, offset: u32) -> Vec<u8> {
    let stride = (kind == CFG_NOTIFY).then_some(NOTIFY_STRIDE);
    let len: u8 = if stride.is_some() { 20 } else { 16 };
    let mut body = vec![len, kind, 0, 0, 0, 0];
    body.extend_from_slice(&offset.to_le_bytes());
    body.extend_from_slice(&AREA.to_le_bytes());
    body.extend(stride.iter().flat_map(|stride| stride.to_le_bytes()));
    body
}
