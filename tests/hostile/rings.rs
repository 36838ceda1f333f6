//! Descriptors and rings that loop, overlap, point nowhere, promise too much, and change while they are read.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Kit,
    arena::{Arena, BUFFERS, TABLE},
    dice::Dice,
    driver::{
        Descriptor, Device, EVENT_IDX, INDIRECT, INDIRECT_DESC, NEXT, RING_SIZE, Ring, WRITE, address,
        describe_at,
    },
    pci::Kind,
};

/// A device that will not answer has stopped serving the ring; one that will does so within this.
const GLANCE: Duration = Duration::from_millis(3);
const RACE: Duration = Duration::from_millis(700);
const RANDOM_ROUNDS: usize = 16;

/// One wrong thing to do with a ring.
pub(crate) type Blow = fn(&mut Ring<'_>, &mut Dice);

pub(crate) const BLOWS: &[Blow] = &[
    // Loops of one, of two, of all.
    |ring, dice| loop_of(ring, 1, dice),
    |ring, dice| loop_of(ring, 2, dice),
    |ring, dice| loop_of(ring, RING_SIZE, dice),
    // Everything over everything, the ring itself included.
    |ring, dice| {
        let places = [ring.at, ring.avail(), ring.used(), BUFFERS];
        let at = ring.arena.physical(dice.pick(&places));
        chain(ring, dice, |_, dice| (at, dice.below(0x4000) as u32));
    },
    |ring, dice| chain(ring, dice, |arena, dice| (address(arena, dice), 4096)),
    |ring, dice| {
        chain(ring, dice, |arena, dice| {
            (address(arena, dice), dice.edge() as u32)
        });
    },
    |ring, dice| chain(ring, dice, |arena, _| (arena.physical(BUFFERS), 0)),
    // Together more than a chain may hold, from an address that has that much behind it or not.
    |ring, dice| chain(ring, dice, |_, _| (0x10_0000, u32::MAX)),
    // One link leads out of the table.
    |ring, dice| {
        let address = ring.arena.physical(BUFFERS);
        let next = dice.pick(&[RING_SIZE, 0x7fff, 0xffff]);
        ring.describe(0, Descriptor::new(address, 64, NEXT | WRITE, next));
        ring.offer(0);
    },
    // Heads out of the table, and one head many times.
    |ring, _| (0..RING_SIZE).for_each(|index| ring.offer(0xffff - index)),
    |ring, dice| {
        let address = ring.arena.physical(BUFFERS);
        ring.describe(3, Descriptor::new(address, dice.below(5000) as u32, WRITE, 0));
        (0..RING_SIZE).for_each(|_| ring.offer(3));
    },
    // The index jumps ahead, back, and just past the ring.
    |ring, _| ring.set_index(ring.index().wrapping_sub(1)),
    |ring, _| ring.set_index(ring.index().wrapping_add(RING_SIZE + 1)),
    |ring, _| ring.set_index(ring.index().wrapping_add(0x8000)),
    // Tables: in themselves, in each other, of odd sizes, nowhere, and as large as a table can be.
    |ring, dice| {
        table(ring, dice, 64, |arena| {
            Descriptor::new(arena.physical(TABLE), 64, INDIRECT, 0)
        });
    },
    |ring, dice| {
        let bytes = dice.pick(&[0, 1, 15, 17, 0x8000_0000, u32::MAX]);
        table(ring, dice, bytes, small);
    },
    |ring, dice| {
        let address = address(ring.arena, dice);
        ring.describe(0, Descriptor::new(address, 4096, INDIRECT, 0));
        ring.offer(0);
    },
    |ring, dice| {
        table(ring, dice, 0xf_fff0, |_| Descriptor {
            flags: WRITE,
            ..Descriptor::default()
        });
    },
    |ring, dice| table(ring, dice, 0xf_fff0, small),
    |ring, dice| {
        table(ring, dice, 0xf_fff0, |arena| Descriptor {
            flags: 0,
            ..small(arena)
        });
    },
    |ring, dice| {
        table(ring, dice, 0xf_fff0, |arena| Descriptor {
            len: 0x1_0000,
            ..small(arena)
        });
    },
];

pub(crate) fn attack(kit: &mut Kit) -> anyhow::Result<usize> {
    let mut attacks = 0;
    for kind in [Kind::Rng, Kind::Balloon, Kind::Fs] {
        let device = Device::take(kind, 0)?;
        for queue in 0..usize::from(device.queues()) {
            attacks += all_blows(&device, queue, kit);
            device.must_work(&kit.arena)?;
        }
        attacks += any_blows(&device, kit);
        device.must_work(&kit.arena)?;
    }
    let balloon = Device::take(Kind::Balloon, 0)?;
    attacks += pages_not_ours(&balloon, kit);
    balloon.must_work(&kit.arena)?;
    Ok(attacks)
}

/// Each blow against a device that was fine before it.
pub(crate) fn all_blows(device: &Device, queue: usize, kit: &mut Kit) -> usize {
    for blow in BLOWS {
        let features = INDIRECT_DESC | if kit.dice.once_in(2) { EVENT_IDX } else { 0 };
        let mut rings = device.set_up(&kit.arena, features);
        if let Some(ring) = rings.get_mut(queue) {
            blow(ring, &mut kit.dice);
            device.notify(queue as u16);
            ring.wait(ring.index(), GLANCE);
        }
    }
    device.reset();
    BLOWS.len()
}

/// Blows in any order, several before the device looks, on whatever the last ones left.
pub(crate) fn any_blows(device: &Device, kit: &mut Kit) -> usize {
    let Kit { arena, dice } = kit;
    let mut attacks = 0;
    for _ in 0..RANDOM_ROUNDS {
        let mut rings = device.set_up(arena, INDIRECT_DESC);
        let queue = dice.below(rings.len() as u64) as usize;
        for _ in 0..=dice.below(4) {
            dice.pick(BLOWS)(&mut rings[queue], dice);
            attacks += 1;
            if dice.once_in(2) {
                device.notify(queue as u16);
            }
        }
        device.notify(queue as u16);
    }
    device.reset();
    attacks
}

fn loop_of(ring: &mut Ring<'_>, len: u16, dice: &mut Dice) {
    let flags = NEXT | dice.pick(&[0, WRITE]);
    for index in 0..len {
        let address = ring.arena.physical(BUFFERS) + u64::from(index) * 64;
        ring.describe(index, Descriptor::new(address, 64, flags, (index + 1) % len));
    }
    ring.offer(0);
}

/// A chain as long as the ring, of these addresses and lengths, in directions as they fall.
fn chain(ring: &mut Ring<'_>, dice: &mut Dice, piece: impl Fn(&Arena, &mut Dice) -> (u64, u32)) {
    for index in 0..RING_SIZE {
        let (address, len) = piece(ring.arena, dice);
        let last = index + 1 == RING_SIZE;
        let write = if dice.once_in(8) { 0 } else { WRITE };
        let flags = write | if last { 0 } else { NEXT };
        ring.describe(index, Descriptor::new(address, len, flags, index + 1));
    }
    ring.offer(0);
}

/// All of the ring offers one indirect table of `bytes`, which is full of one kind of entry.
pub(crate) fn table(ring: &mut Ring<'_>, dice: &mut Dice, bytes: u32, entry: fn(&Arena) -> Descriptor) {
    let arena = ring.arena;
    let entry = entry(arena);
    let entries = (bytes / 16).min(0xffff) as u16;
    for index in 0..entries {
        let next = index.wrapping_add(1);
        let flags = entry.flags | NEXT;
        describe_at(
            arena,
            TABLE + usize::from(index) * 16,
            Descriptor { flags, next, ..entry },
        );
    }
    // Some links lead elsewhere.
    for _ in 0..entries / 1000 {
        let from = dice.below(entries.into()) as usize;
        arena.write(TABLE + from * 16 + 14, dice.roll() as u16);
    }
    for index in 0..RING_SIZE {
        ring.describe(index, Descriptor::new(arena.physical(TABLE), bytes, INDIRECT, 0));
        ring.offer(index);
    }
}

fn small(arena: &Arena) -> Descriptor {
    Descriptor {
        address: arena.physical(BUFFERS),
        len: 1,
        flags: WRITE,
        next: 0,
    }
}

/// Page numbers and reports outside the guest, over the device's own rings, and too many of them.
fn pages_not_ours(balloon: &Device, kit: &mut Kit) -> usize {
    const INFLATE: usize = 0;
    const REPORTING: usize = 2;
    let Kit { arena, dice } = kit;
    for round in 0..8u32 {
        let mut rings = balloon.set_up(arena, 0);
        let page = (arena.physical(0) >> 12) as u32;
        for at in 0..0x4000 {
            let number = dice.pick(&[
                u32::MAX,
                0xc_0000,
                0xf_ffff,
                0x8000_0000,
                page,
                page + 1,
                page + 2,
            ]);
            arena.write(BUFFERS + at * 4, number);
        }
        let len = dice.pick(&[1, 3, 4, 4096, 0x1_0000]) + round;
        let address = arena.physical(BUFFERS);
        rings[INFLATE].describe(0, Descriptor::new(address, len, 0, 0));
        rings[INFLATE].offer(0);
        balloon.notify(INFLATE as u16);
        let own = arena.physical(rings[REPORTING].at);
        for ring in rings.iter_mut().skip(REPORTING) {
            ring.describe(0, Descriptor::new(own, 0x4000, WRITE, 0));
            ring.offer(0);
        }
        balloon.notify(REPORTING as u16);
    }
    balloon.reset();
    16
}

/// A second CPU changes descriptors, indices and tables as fast as it can while the device reads them.
pub(crate) fn race(kit: &mut Kit) -> anyhow::Result<usize> {
    let mut rounds = 0;
    for (kind, queue) in [
        (Kind::Rng, 0),
        (Kind::Balloon, 1),
        (Kind::Balloon, 2),
        (Kind::Fs, 0),
        (Kind::Fs, 1),
    ] {
        let device = Device::take(kind, 0)?;
        rounds += race_on(&device, queue, kit);
        device.must_work(&kit.arena)?;
    }
    Ok(rounds)
}

pub(crate) fn race_on(device: &Device, queue: usize, kit: &mut Kit) -> usize {
    let (arena, stop) = (&kit.arena, AtomicBool::new(false));
    let (mut other, dice) = (kit.dice.split(), &mut kit.dice);
    let mut rounds = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                scribble(arena, queue, &mut other);
            }
        });
        let start = Instant::now();
        while start.elapsed() < RACE {
            let mut rings = device.set_up(arena, INDIRECT_DESC);
            let ring = &mut rings[queue];
            for _ in 0..64 {
                let flags = dice.pick(&[WRITE, NEXT, INDIRECT]);
                let len = dice.pick(&[64, 4096, 0x1000]);
                let (address, next) = (arena.physical(BUFFERS), dice.below(RING_SIZE.into()) as u16);
                ring.describe(next, Descriptor::new(address, len, flags, next));
                ring.offer(next);
                device.notify(queue as u16);
            }
            rounds += 64;
        }
        stop.store(true, Ordering::Relaxed);
    });
    device.reset();
    rounds
}

/// One change to one field of a ring or of the table.
fn scribble(arena: &Arena, queue: usize, dice: &mut Dice) {
    let ring = crate::arena::RINGS + queue * crate::arena::RING_BYTES;
    let base = dice.pick(&[ring, TABLE]) + dice.below(RING_SIZE.into()) as usize * 16;
    match dice.below(6) {
        0 => arena.write(base, address(arena, dice)),
        1 => arena.write(base + 8, dice.edge() as u32),
        2 => arena.write(base + 12, dice.roll() as u16 & 7),
        3 => arena.write(base + 14, dice.below(20) as u16),
        4 => arena.write(
            ring + 0x1004 + dice.below(RING_SIZE.into()) as usize * 2,
            dice.below(20) as u16,
        ),
        // Now and then, or every round would end at once.
        _ if dice.once_in(2000) => arena.write(ring + 0x1002, dice.roll() as u16),
        _ => {}
    }
}
