//! The common configuration: feature negotiation, device status, queue set-up.
//!
//! ```text
//!          ACKNOWLEDGE|DRIVER       FEATURES_OK            DRIVER_OK
//!   Reset ────────────────▶ features ─────────▶ queues ─────────────▶ Running: features and
//!     ▲                                                               queues are frozen
//!     └───────────────────────── status = 0 ────────────────────────────────┘
//! ```

use virtio_queue::{Queue, QueueT};

use super::msix::NO_VECTOR;

pub(crate) const ACKNOWLEDGE: u8 = 1;
pub(crate) const DRIVER: u8 = 2;
pub(crate) const DRIVER_OK: u8 = 4;
pub(crate) const FEATURES_OK: u8 = 8;
pub(crate) const NEEDS_RESET: u8 = 64;
pub(crate) const FAILED: u8 = 128;

/// What a driver sets up of one queue.
#[derive(Debug)]
pub(crate) struct QueueSetup {
    pub(crate) max_size: u16,
    pub(crate) size: u16,
    pub(crate) vector: u16,
    pub(crate) enabled: bool,
    descriptors: u64,
    driver: u64,
    device: u64,
}

impl QueueSetup {
    fn new(max_size: u16) -> Self {
        QueueSetup {
            max_size,
            size: max_size,
            vector: NO_VECTOR,
            enabled: false,
            descriptors: 0,
            driver: 0,
            device: 0,
        }
    }

    /// The ring the driver described; `None` when size or alignment is not what virtio allows. Whether it
    /// lies in guest memory is asked by whoever takes it.
    pub(crate) fn ring(&self, event_idx: bool) -> Option<Queue> {
        let mut ring = Queue::new(self.max_size).ok()?;
        ring.try_set_size(self.size).ok()?;
        ring.try_set_desc_table_address(vm_memory::GuestAddress(self.descriptors))
            .ok()?;
        ring.try_set_avail_ring_address(vm_memory::GuestAddress(self.driver))
            .ok()?;
        ring.try_set_used_ring_address(vm_memory::GuestAddress(self.device))
            .ok()?;
        ring.set_event_idx(event_idx);
        ring.set_ready(true);
        Some(ring)
    }
}

/// What a write to the status register asks of the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    None,
    Activate,
    Reset,
}

#[derive(Debug)]
pub(crate) struct CommonConfig {
    offered: u64,
    accepted: u64,
    offered_half: u32,
    accepted_half: u32,
    pub(crate) config_vector: u16,
    status: u8,
    /// Bumped whenever the device configuration changes under the driver.
    pub(crate) generation: u8,
    selected: u16,
    pub(crate) queues: Vec<QueueSetup>,
}

impl CommonConfig {
    pub(crate) fn new(offered: u64, sizes: &[u16]) -> Self {
        CommonConfig {
            offered,
            accepted: 0,
            offered_half: 0,
            accepted_half: 0,
            config_vector: NO_VECTOR,
            status: 0,
            generation: 0,
            selected: 0,
            queues: sizes.iter().map(|size| QueueSetup::new(*size)).collect(),
        }
    }

    pub(crate) fn reset(&mut self) {
        let sizes: Vec<u16> = self.queues.iter().map(|queue| queue.max_size).collect();
        *self = CommonConfig {
            generation: self.generation,
            ..CommonConfig::new(self.offered, &sizes)
        };
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }

    pub(crate) fn running(&self) -> bool {
        self.status & DRIVER_OK != 0
    }

    pub(crate) fn needs_reset(&mut self) {
        self.status |= NEEDS_RESET;
    }

    /// The registers as virtio 1.2, section 4.1.4.3, lays them out.
    pub(crate) fn read(&self, at: usize, data: &mut [u8]) {
        let queue = self.queues.get(usize::from(self.selected));
        let half =
            |value: u64, half: u32| (value >> (32 * u64::from(half.min(1)))) as u32 * u32::from(half < 2);
        let (value, width): (u64, usize) = match at {
            0x00 => (self.offered_half.into(), 4),
            0x04 => (half(self.offered, self.offered_half).into(), 4),
            0x08 => (self.accepted_half.into(), 4),
            0x0c => (half(self.accepted, self.accepted_half).into(), 4),
            0x10 => (self.config_vector.into(), 2),
            0x12 => (self.queues.len() as u64, 2),
            0x14 => (self.status.into(), 1),
            0x15 => (self.generation.into(), 1),
            0x16 => (self.selected.into(), 2),
            0x18 => (queue.map_or(0, |queue| queue.size).into(), 2),
            0x1a => (queue.map_or(NO_VECTOR, |queue| queue.vector).into(), 2),
            0x1c => (queue.is_some_and(|queue| queue.enabled).into(), 2),
            0x1e => (self.selected.into(), 2),
            0x20 => (queue.map_or(0, |queue| queue.descriptors), 8),
            0x24 => (queue.map_or(0, |queue| queue.descriptors >> 32), 4),
            0x28 => (queue.map_or(0, |queue| queue.driver), 8),
            0x2c => (queue.map_or(0, |queue| queue.driver >> 32), 4),
            0x30 => (queue.map_or(0, |queue| queue.device), 8),
            0x34 => (queue.map_or(0, |queue| queue.device >> 32), 4),
            _ => (0, 0),
        };
        data.fill(0);
        let n = width.min(data.len());
        if let (Some(target), Some(source)) = (data.get_mut(..n), value.to_le_bytes().get(..n)) {
            target.copy_from_slice(source);
        }
    }

    pub(crate) fn write(&mut self, at: usize, data: &[u8]) -> Transition {
        let mut bytes = [0; 8];
        let n = data.len().min(8);
        bytes[..n].copy_from_slice(&data[..n]);
        let value = u64::from_le_bytes(bytes);
        match at {
            0x00 => self.offered_half = value as u32,
            0x08 => self.accepted_half = value as u32,
            0x14 => return self.set_status(value as u8),
            0x16 => self.selected = value as u16,
            _ if self.running() => {}
            0x0c if self.status & FEATURES_OK == 0 => self.accept(value as u32),
            0x10 => self.config_vector = value as u16,
            _ => self.set_queue(at, n, value),
        }
        Transition::None
    }

    fn accept(&mut self, word: u32) {
        let shift = match self.accepted_half {
            0 => 0,
            1 => 32,
            _ => return,
        };
        let others = self.accepted & !(u64::from(u32::MAX) << shift);
        self.accepted = others | (u64::from(word) << shift);
    }

    fn set_queue(&mut self, at: usize, width: usize, value: u64) {
        let Some(queue) = self.queues.get_mut(usize::from(self.selected)) else {
            return;
        };
        match (at, width) {
            (0x18, _) => queue.size = value as u16,
            (0x1a, _) => queue.vector = value as u16,
            (0x1c, _) => queue.enabled = value == 1,
            (0x20 | 0x24, _) => set_word(&mut queue.descriptors, at - 0x20, width, value),
            (0x28 | 0x2c, _) => set_word(&mut queue.driver, at - 0x28, width, value),
            (0x30 | 0x34, _) => set_word(&mut queue.device, at - 0x30, width, value),
            _ => {}
        }
    }

    fn set_status(&mut self, status: u8) -> Transition {
        if status == 0 {
            return Transition::Reset;
        }
        let added = status & !self.status;
        self.status |= added & (ACKNOWLEDGE | DRIVER | FAILED);
        if added & FEATURES_OK != 0 && self.accepted & !self.offered == 0 && self.accepted & VERSION_1 != 0 {
            self.status |= FEATURES_OK;
        }
        if added & DRIVER_OK != 0 && self.status & FEATURES_OK != 0 {
            self.status |= DRIVER_OK;
            return Transition::Activate;
        }
        Transition::None
    }
}

/// A driver that does not know the modern interface cannot drive this one.
pub(crate) const VERSION_1: u64 = 1 << 32;

fn set_word(register: &mut u64, offset: usize, width: usize, value: u64) {
    *register = match (offset, width) {
        (0, 8) => value,
        (0, _) => (*register & !u64::from(u32::MAX)) | (value & u64::from(u32::MAX)),
        _ => (*register & u64::from(u32::MAX)) | (value << 32),
    };
}
