//! A driver in so far as an attack needs one: it can do things right, and lets itself be made to do them wrong.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::{
    arena::{Arena, BUFFERS, RING_BYTES, RINGS},
    cable,
    dice::Dice,
    mount,
    pci::{Function, Kind},
};

/// Registers of the common configuration.
pub(crate) mod register {
    pub(crate) const DRIVER_FEATURE_SELECT: usize = 0x08;
    pub(crate) const DRIVER_FEATURE: usize = 0x0c;
    pub(crate) const CONFIG_VECTOR: usize = 0x10;
    pub(crate) const QUEUES: usize = 0x12;
    pub(crate) const STATUS: usize = 0x14;
    pub(crate) const QUEUE_SELECT: usize = 0x16;
    pub(crate) const QUEUE_SIZE: usize = 0x18;
    pub(crate) const QUEUE_VECTOR: usize = 0x1a;
    pub(crate) const QUEUE_ENABLE: usize = 0x1c;
    pub(crate) const QUEUE_DESCRIPTORS: usize = 0x20;
    pub(crate) const QUEUE_DRIVER: usize = 0x28;
    pub(crate) const QUEUE_DEVICE: usize = 0x30;
}

pub(crate) const DEVICE_CONFIG: usize = 0x2000;
pub(crate) const NOTIFY: usize = 0x3000;
pub(crate) const NOTIFY_STRIDE: usize = 4;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

pub(crate) const INDIRECT_DESC: u64 = 1 << 28;
pub(crate) const EVENT_IDX: u64 = 1 << 29;
pub(crate) const VERSION_1: u64 = 1 << 32;

pub(crate) const DRIVER_OK: u8 = 4;
/// Rings fit a page each, and every device but the source of entropy takes at least this.
pub(crate) const RING_SIZE: u16 = 16;
/// An honest request on an emulated machine under attack.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) kind: Kind,
    pub(crate) function: Function,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

/// Where a queue is said to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) size: u16,
    pub(crate) descriptors: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
}

/// A queue laid out in the arena.
#[derive(Debug)]
pub(crate) struct Ring<'a> {
    pub(crate) arena: &'a Arena,
    pub(crate) at: usize,
    pub(crate) size: u16,
    next: u16,
}

impl Device {
    pub(crate) fn take(kind: Kind, index: usize) -> anyhow::Result<Self> {
        Ok(Device {
            kind,
            function: Function::take(kind, index)?,
        })
    }

    pub(crate) fn queues(&self) -> u16 {
        self.function.bar.read(register::QUEUES)
    }

    pub(crate) fn status(&self) -> u8 {
        self.function.bar.read(register::STATUS)
    }

    pub(crate) fn set_status(&self, status: u8) {
        self.function.bar.write(register::STATUS, status);
    }

    pub(crate) fn reset(&self) {
        self.set_status(0);
    }

    pub(crate) fn negotiate(&self, features: u64) {
        self.set_status(1);
        self.set_status(3);
        for (half, shift) in [(0u32, 0), (1, 32)] {
            self.function.bar.write(register::DRIVER_FEATURE_SELECT, half);
            self.function
                .bar
                .write(register::DRIVER_FEATURE, (features >> shift) as u32);
        }
        self.set_status(11);
    }

    pub(crate) fn set_queue(&self, queue: u16, layout: Layout) {
        let bar = &self.function.bar;
        bar.write(register::QUEUE_SELECT, queue);
        bar.write(register::QUEUE_SIZE, layout.size);
        let addresses = [
            (register::QUEUE_DESCRIPTORS, layout.descriptors),
            (register::QUEUE_DRIVER, layout.driver),
            (register::QUEUE_DEVICE, layout.device),
        ];
        for (at, address) in addresses {
            bar.write(at, address as u32);
            bar.write(at + 4, (address >> 32) as u32);
        }
        bar.write(register::QUEUE_ENABLE, 1u16);
    }

    pub(crate) fn notify(&self, queue: u16) {
        self.function
            .bar
            .write(NOTIFY + usize::from(queue) * NOTIFY_STRIDE, queue);
    }

    /// Everything as it should be: reset, negotiated, all queues empty, running.
    pub(crate) fn set_up<'a>(&self, arena: &'a Arena, features: u64) -> Vec<Ring<'a>> {
        self.reset();
        self.negotiate(VERSION_1 | features);
        let rings: Vec<_> = (0..self.queues().min(4))
            .map(|queue| Ring::new(arena, queue, RING_SIZE))
            .collect();
        self.start(&rings);
        rings
    }

    /// From negotiated to running.
    pub(crate) fn start(&self, rings: &[Ring<'_>]) {
        for (queue, ring) in (0..).zip(rings) {
            self.set_queue(queue, ring.layout());
        }
        self.set_status(15);
    }

    /// An honest request, answered as it should be.
    pub(crate) fn must_work(&self, arena: &Arena) -> anyhow::Result<()> {
        let mut rings = self.set_up(arena, 0);
        ensure!(
            self.status() == 15,
            "{:?} does not start: status {:#x}",
            self.kind,
            self.status()
        );
        let (queue, request) = match self.kind {
            Kind::Rng => (0, vec![(64, WRITE)]),
            // Taking pages back, which needs nothing done.
            Kind::Balloon => (1, vec![(4, 0)]),
            // Asking for the serial number.
            Kind::Block => (0, vec![(16, 0), (20, WRITE), (1, WRITE)]),
            Kind::Vsock => return Ok(()),
            Kind::Net => return cable::must_work(self, arena),
            Kind::Fs => {
                mount::must_work(self, arena)?;
                self.reset();
                return Ok(());
            }
        };
        arena.fill(BUFFERS, 4096, 0);
        arena.write(BUFFERS, 8u32);
        let ring = rings.get_mut(queue).context("too few queues")?;
        for (index, (len, flags)) in (0..).zip(&request) {
            let last = usize::from(index) + 1 == request.len();
            let address = arena.physical(BUFFERS + usize::from(index) * 1024);
            let flags = if last { *flags } else { flags | NEXT };
            ring.describe(index, Descriptor::new(address, *len, flags, index + 1));
        }
        ring.offer(0);
        self.notify(queue as u16);
        ensure!(
            ring.wait(1, PATIENCE),
            "{:?} does not answer an honest request",
            self.kind
        );
        let answer: [u64; 2] = match self.kind {
            Kind::Rng => [arena.read(BUFFERS), arena.read(BUFFERS + 8)],
            Kind::Block => [arena.read(BUFFERS + 1024), 1],
            _ => [1, 1],
        };
        ensure!(
            answer.iter().all(|word| *word != 0),
            "{:?} answers with nothing",
            self.kind
        );
        self.reset();
        Ok(())
    }
}

impl Descriptor {
    pub(crate) fn new(address: u64, len: u32, flags: u16, next: u16) -> Self {
        Descriptor {
            address,
            len,
            flags,
            next,
        }
    }
}

impl<'a> Ring<'a> {
    /// An empty ring of at most 256.
    pub(crate) fn new(arena: &'a Arena, queue: u16, size: u16) -> Self {
        let at = RINGS + usize::from(queue) * RING_BYTES;
        for word in (at..at + RING_BYTES).step_by(8) {
            arena.write(word, 0u64);
        }
        Ring {
            arena,
            at,
            size,
            next: 0,
        }
    }

    pub(crate) fn layout(&self) -> Layout {
        Layout {
            size: self.size,
            descriptors: self.arena.physical(self.at),
            driver: self.arena.physical(self.avail()),
            device: self.arena.physical(self.used()),
        }
    }

    pub(crate) fn avail(&self) -> usize {
        self.at + 0x1000
    }

    pub(crate) fn used(&self) -> usize {
        self.at + 0x2000
    }

    pub(crate) fn describe(&self, index: u16, descriptor: Descriptor) {
        describe_at(self.arena, self.at + usize::from(index) * 16, descriptor);
    }

    /// Makes available whatever begins at `head`.
    pub(crate) fn offer(&mut self, head: u16) {
        let slot = self.avail() + 4 + usize::from(self.next % self.size) * 2;
        self.arena.write(slot, head);
        self.next = self.next.wrapping_add(1);
        self.set_index(self.next);
    }

    pub(crate) fn index(&self) -> u16 {
        self.next
    }

    pub(crate) fn set_index(&self, index: u16) {
        self.arena.write(self.avail() + 2, index);
    }

    pub(crate) fn used_index(&self) -> u16 {
        self.arena.read(self.used() + 2)
    }

    /// Waits until the device has answered up to `index`.
    pub(crate) fn wait(&self, index: u16, patience: Duration) -> bool {
        let start = Instant::now();
        while self.used_index() != index {
            if start.elapsed() > patience {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }
}

pub(crate) fn describe_at(arena: &Arena, at: usize, descriptor: Descriptor) {
    arena.write(at, descriptor.address);
    arena.write(at + 8, descriptor.len);
    arena.write(at + 12, descriptor.flags);
    arena.write(at + 14, descriptor.next);
}

/// Addresses that are not ours to name, and some that are.
pub(crate) fn address(arena: &Arena, dice: &mut Dice) -> u64 {
    let outside = [
        0xc000_0000,
        0xc000_3000,
        0xd000_0000,
        0xfee0_0000,
        0xffff_f000,
        0x100_0000_0000,
        0x7fff_ffff_ffff_f000,
        u64::MAX - 4095,
        u64::MAX,
    ];
    if dice.once_in(2) {
        dice.pick(&outside)
    } else {
        arena.physical(BUFFERS) + dice.below(0x1_0000)
    }
}
