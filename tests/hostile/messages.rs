//! The MSI-X table: scribbled over, masked and unmasked under fire, aimed where no CPU listens.
//!
//! Not yet with the messages that stop or reset a CPU; [`crate::ruin`] has those.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::{
    Kit,
    arena::{Arena, BUFFERS},
    dice::Dice,
    driver::{Descriptor, Device, RING_SIZE, Ring, VERSION_1, WRITE, register},
    pci::Kind,
};

pub(crate) const TABLE: usize = 0x4000;
const PENDING: usize = 0x5000;
const ENTRY: usize = 16;
const CONTROL: usize = 12;
const LOCAL_APIC: u32 = 0xfee0_0000;
/// A vector Linux gives to devices. Nobody listens there, which it says once or twice.
const VECTOR: u32 = 0x5a;
const ENABLE: u16 = 0x8000;
const MASK_ALL: u16 = 0x4000;

const SCRIBBLES: usize = 1000;
const STORM: usize = 250;

pub(crate) fn attack(kit: &mut Kit) -> anyhow::Result<usize> {
    let rng = Device::take(Kind::Rng, 0)?;
    let mut attacks = scribble(&rng, &mut kit.dice);
    for vector in [0, 1, 2, 3, 63, 64, 0x7ff, 0xfffe, 0xffff] {
        fire(&rng, &kit.arena, vector);
        attacks += 1;
    }
    attacks += aim_nowhere(&rng, kit)?;
    attacks += mask_under_fire(&rng, kit)?;
    set_control(&rng, 0)?;
    rng.must_work(&kit.arena)?;
    Ok(attacks)
}

pub(crate) fn set_control(device: &Device, control: u16) -> anyhow::Result<()> {
    device
        .function
        .write_config(device.function.msix_control()?, &control.to_le_bytes())?;
    Ok(())
}

pub(crate) fn program(device: &Device, vector: usize, address: u64, data: u32, control: u32) {
    let at = TABLE + vector * ENTRY;
    device.function.bar.write(at, address as u32);
    device.function.bar.write(at + 4, (address >> 32) as u32);
    device.function.bar.write(at + 8, data);
    device.function.bar.write(at + CONTROL, control);
}

/// With MSI-X off, anything may be written anywhere in table and pending bits.
fn scribble(device: &Device, dice: &mut Dice) -> usize {
    for _ in 0..SCRIBBLES {
        let area = dice.pick(&[TABLE, TABLE, PENDING]);
        let near = dice.pick(&[0x40, 0x1000]);
        device.function.bar.write_wide(
            area + dice.below(near) as usize,
            dice.pick(&[1, 2, 4, 8]),
            dice.edge(),
        );
        device
            .function
            .bar
            .read_wide(area + dice.below(near) as usize, dice.pick(&[1, 2, 4, 8]));
    }
    SCRIBBLES
}

/// A request whose answer is told by `vector`.
pub(crate) fn fire(device: &Device, arena: &Arena, vector: u16) {
    device.reset();
    device.negotiate(VERSION_1);
    let bar = &device.function.bar;
    bar.write(register::QUEUE_SELECT, 0u16);
    bar.write(register::QUEUE_VECTOR, vector);
    bar.write(register::CONFIG_VECTOR, vector);
    let mut ring = Ring::new(arena, 0, RING_SIZE);
    device.start(std::slice::from_ref(&ring));
    for index in 0..RING_SIZE {
        ring.describe(index, Descriptor::new(arena.physical(BUFFERS), 8, WRITE, 0));
        ring.offer(index);
    }
    device.notify(0);
}

fn aim_nowhere(device: &Device, kit: &mut Kit) -> anyhow::Result<usize> {
    set_control(device, ENABLE)?;
    let aims = [
        0,
        u64::from(LOCAL_APIC) | 0xff << 12,
        1 << 32,
        0xffff_ff00_fee0_0000,
        0xc000_0000,
        !0xfff,
    ];
    for aim in aims {
        program(device, 0, aim, VECTOR, 0);
        // Vectors below sixteen are no vectors.
        program(device, 1, aim, kit.dice.below(16) as u32, 0);
        fire(device, &kit.arena, 0);
        fire(device, &kit.arena, 1);
    }
    Ok(2 * aims.len())
}

fn mask_under_fire(device: &Device, kit: &mut Kit) -> anyhow::Result<usize> {
    let stop = AtomicBool::new(false);
    for vector in 0..2 {
        program(device, vector, LOCAL_APIC.into(), VECTOR, 1);
    }
    let (arena, dice) = (&kit.arena, &mut kit.dice);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fire(device, arena, 0);
            }
        });
        let result = (0..STORM).try_for_each(|round| {
            device.function.bar.write(
                TABLE + CONTROL + dice.below(2) as usize * ENTRY,
                dice.roll() as u32 & 1,
            );
            if round % 10 == 0 {
                set_control(device, dice.pick(&[0, ENABLE, ENABLE | MASK_ALL]))?;
            }
            anyhow::Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        result
    })?;
    Ok(STORM)
}
