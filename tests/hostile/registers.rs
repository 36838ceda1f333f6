//! Registers written in every wrong way: nonsense in the status, queues changed under a running device, rings
//! where no ring can be, accesses of any width at any offset.

use anyhow::ensure;

use crate::{
    Kit,
    arena::Arena,
    dice::Dice,
    driver::{
        DRIVER_OK, Descriptor, Device, INDIRECT_DESC, Layout, PATIENCE, RING_SIZE, Ring, VERSION_1, WRITE,
        register,
    },
    pci::{BAR_BYTES, Kind},
};

const WIDTHS: [u64; 4] = [1, 2, 4, 8];
const FAILURES: usize = 600;
const ODD_ACCESSES: usize = 800;

pub(crate) fn attack(kit: &mut Kit) -> anyhow::Result<usize> {
    let mut attacks = 0;
    for kind in [Kind::Rng, Kind::Balloon, Kind::Fs] {
        let device = Device::take(kind, 0)?;
        device.must_work(&kit.arena)?;
        attacks += status_nonsense(&device, &mut kit.dice);
        device.must_work(&kit.arena)?;
        attacks += rings_nowhere(&device, kit)?;
        device.must_work(&kit.arena)?;
        attacks += odd_accesses(&device, &mut kit.dice);
        device.must_work(&kit.arena)?;
    }
    let rng = Device::take(Kind::Rng, 0)?;
    attacks += fail_again_and_again(&rng);
    attacks += change_what_is_frozen(&rng, kit)?;
    rng.must_work(&kit.arena)?;
    Ok(attacks)
}

fn status_nonsense(device: &Device, dice: &mut Dice) -> usize {
    for status in 0..=u8::MAX {
        device.set_status(if dice.once_in(2) {
            status
        } else {
            dice.roll() as u8
        });
    }
    // Ready without features, without queues, twice, and while it asks for a reset.
    device.reset();
    for status in [DRIVER_OK, 15, 15, 64 | 15, 128, 255] {
        device.set_status(status);
    }
    device.negotiate(u64::MAX);
    device.set_status(15);
    device.reset();
    256 + 7
}

/// Each time there is something to log.
fn fail_again_and_again(device: &Device) -> usize {
    for _ in 0..FAILURES {
        device.reset();
        device.negotiate(VERSION_1);
        device.set_status(15);
    }
    FAILURES
}

/// None of these may make the device start, or touch anything.
fn rings_nowhere(device: &Device, kit: &mut Kit) -> anyhow::Result<usize> {
    let good = Ring::new(&kit.arena, 0, RING_SIZE).layout();
    let page = kit.arena.physical(0);
    let mut wrong = Vec::new();
    for address in [
        0xc000_0000,
        0xd000_0000,
        0xfee0_0000,
        1 << 40,
        u64::MAX - 4095,
        u64::MAX - 15,
        page + 1,
    ] {
        wrong.push(Layout {
            descriptors: address,
            ..good
        });
        wrong.push(Layout {
            driver: address | 1,
            ..good
        });
        wrong.push(Layout {
            device: address | 2,
            ..good
        });
    }
    for size in [0, 3, 17, 0x7fff, 0x8000, 0xffff] {
        wrong.push(Layout { size, ..good });
    }
    let attacks = wrong.len();
    for layout in wrong {
        start(device, layout);
        ensure!(device.status() != 15, "{:?} runs with {layout:x?}", device.kind);
        device.notify(0);
    }
    // On top of each other they are the guest's own mess, and the device may run into it.
    for layout in [
        Layout {
            driver: page,
            device: page,
            ..good
        },
        Layout {
            device: good.driver,
            ..good
        },
    ] {
        start(device, layout);
        kit.arena.write(2, kit.dice.roll() as u16);
        device.notify(0);
    }
    device.reset();
    Ok(attacks + 2)
}

fn start(device: &Device, layout: Layout) {
    device.reset();
    device.negotiate(VERSION_1 | INDIRECT_DESC);
    for queue in 0..device.queues() {
        device.set_queue(queue, layout);
    }
    device.set_status(15);
}

fn odd_accesses(device: &Device, dice: &mut Dice) -> usize {
    for _ in 0..ODD_ACCESSES {
        // Half of them where the registers are.
        let end = dice.pick(&[0x40, BAR_BYTES as u64]);
        let (at, width) = (dice.below(end) as usize, dice.pick(&WIDTHS));
        if dice.once_in(2) {
            device.function.bar.read_wide(at, width);
        } else {
            device.function.bar.write_wide(at, width, dice.edge());
        }
    }
    ODD_ACCESSES
}

const FROZEN: [(usize, u64); 9] = [
    (register::QUEUE_SIZE, 2),
    (register::QUEUE_VECTOR, 2),
    (register::QUEUE_ENABLE, 2),
    (register::QUEUE_DESCRIPTORS, 4),
    (register::QUEUE_DESCRIPTORS + 4, 4),
    (register::QUEUE_DRIVER, 4),
    (register::QUEUE_DEVICE, 4),
    (register::DRIVER_FEATURE, 4),
    (register::CONFIG_VECTOR, 2),
];

fn change_what_is_frozen(device: &Device, kit: &mut Kit) -> anyhow::Result<usize> {
    let Kit { arena, dice } = kit;
    let mut rings = device.set_up(arena, 0);
    let bar = &device.function.bar;
    bar.write(register::QUEUE_SELECT, 0u16);
    let before = FROZEN.map(|(at, width)| bar.read_wide(at, width));
    for round in 0..20 {
        for (at, width) in FROZEN {
            let value = if round == 0 { u64::MAX } else { dice.edge() };
            bar.write_wide(at, if dice.once_in(4) { 8 } else { width }, value);
        }
        if round % 5 == 0 {
            device.set_status(15);
        }
    }
    let after = FROZEN.map(|(at, width)| bar.read_wide(at, width));
    ensure!(
        before == after,
        "registers of a running device changed: {before:x?} to {after:x?}"
    );
    serves(device, arena, &mut rings)?;
    Ok(20 * FROZEN.len())
}

/// The ring it was given first is the ring it uses.
fn serves(device: &Device, arena: &Arena, rings: &mut [Ring<'_>]) -> anyhow::Result<()> {
    let at = crate::arena::BUFFERS;
    arena.fill(at, 64, 0);
    for ring in rings.iter_mut().take(1) {
        ring.describe(0, Descriptor::new(arena.physical(at), 64, WRITE, 0));
        ring.offer(0);
        device.notify(0);
        ensure!(
            ring.wait(1, PATIENCE),
            "the ring given before it ran is no longer served"
        );
    }
    Ok(())
}
