//! Disks: requests of any type, sector and length, and a device that must stay within its file.

use anyhow::ensure;

use crate::{
    Kit,
    arena::{BUFFER_BYTES, BUFFERS},
    dice::Dice,
    driver::{DEVICE_CONFIG, Descriptor, Device, NEXT, PATIENCE, Ring, WRITE},
    pci::Kind,
    rings::{all_blows, any_blows, race_on},
};

const IN: u32 = 0;
const OUT: u32 = 1;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const FINE: u8 = 0;
/// Nothing the device answers.
const UNANSWERED: u8 = 0xee;

const HEADER: usize = BUFFERS;
const STATUS: usize = BUFFERS + 16;
const DATA: usize = BUFFERS + 4096;
const REQUESTS: usize = 100;

/// The image, which all sessions share and nobody may write.
pub(crate) fn attack_image(kit: &mut Kit) -> anyhow::Result<usize> {
    let disk = Device::take(Kind::Block, 0)?;
    disk.must_work(&kit.arena)?;
    for kind in [OUT, DISCARD, WRITE_ZEROES] {
        let mut rings = disk.set_up(&kit.arena, 0);
        let status = request(&disk, &mut rings[0], kind, 0, 512)?;
        ensure!(status != FINE, "request {kind} to a read-only disk succeeded");
    }
    outside(&disk, kit)?;
    (0..REQUESTS).for_each(|_| nonsense(&disk, kit));
    disk.must_work(&kit.arena)?;
    Ok(3 + REQUESTS)
}

pub(crate) fn attack_scratch(kit: &mut Kit) -> anyhow::Result<usize> {
    let disk = Device::take(Kind::Block, 1)?;
    disk.must_work(&kit.arena)?;
    outside(&disk, kit)?;
    (0..REQUESTS).for_each(|_| nonsense(&disk, kit));
    disk.must_work(&kit.arena)?;
    let mut attacks = REQUESTS + all_blows(&disk, 0, kit) + any_blows(&disk, kit);
    disk.must_work(&kit.arena)?;
    attacks += race_on(&disk, 0, kit);
    disk.must_work(&kit.arena)?;
    Ok(attacks)
}

/// What lies outside the disk can be neither read nor written.
fn outside(disk: &Device, kit: &mut Kit) -> anyhow::Result<()> {
    let sectors: u64 = disk.function.bar.read(DEVICE_CONFIG);
    let mut rings = disk.set_up(&kit.arena, 0);
    for sector in [
        sectors,
        sectors - 1,
        sectors + 1,
        1 << 55,
        u64::MAX / 512,
        u64::MAX - 1,
        u64::MAX,
    ] {
        for kind in [IN, OUT] {
            let status = request(disk, &mut rings[0], kind, sector, 1024)?;
            ensure!(
                status != FINE,
                "request {kind} of two sectors at {sector} of {sectors} succeeded"
            );
        }
    }
    let status = request(disk, &mut rings[0], IN, sectors - 2, 1024)?;
    ensure!(status == FINE, "the last two sectors cannot be read: {status}");
    Ok(())
}

fn request(disk: &Device, ring: &mut Ring<'_>, kind: u32, sector: u64, len: u32) -> anyhow::Result<u8> {
    let arena = ring.arena;
    arena.write(HEADER, kind);
    arena.write(HEADER + 8, sector);
    arena.write(STATUS, UNANSWERED);
    let data = if kind == IN { WRITE } else { 0 };
    let at = |at, len, flags, next| Descriptor::new(arena.physical(at), len, flags, next);
    ring.describe(0, at(HEADER, 16, NEXT, 1));
    ring.describe(1, at(DATA, len, data | NEXT, 2));
    ring.describe(2, at(STATUS, 1, WRITE, 0));
    ring.offer(0);
    disk.notify(0);
    ensure!(
        ring.wait(ring.index(), PATIENCE),
        "request {kind} at {sector} is not answered"
    );
    Ok(arena.read(STATUS))
}

/// Any type, sector, ranges, number and size of pieces; often enough nearly right.
fn nonsense(disk: &Device, kit: &mut Kit) {
    let Kit { arena, dice } = kit;
    let mut rings = disk.set_up(arena, 0);
    let ring = &mut rings[0];
    for word in (0..4096).step_by(8) {
        arena.write(DATA + word, nearly(dice));
    }
    arena.write(
        HEADER,
        dice.pick(&[IN, OUT, 4, 8, DISCARD, WRITE_ZEROES, 14, u32::MAX]),
    );
    arena.write(HEADER + 8, nearly(dice));
    let pieces = 1 + dice.below(ring.size.into()) as u16;
    let turn = dice.below(u64::from(pieces) + 1) as u16;
    for index in 0..pieces {
        let (offset, len) = match index {
            0 => (HEADER, dice.pick(&[0, 1, 15, 16, 16, 16, 16, 17])),
            _ => (
                DATA + dice.below(0x1000) as usize,
                dice.pick(&[0, 1, 16, 511, 512, 4096, (BUFFER_BYTES / 2) as u32]),
            ),
        };
        let write = if index >= turn { WRITE } else { 0 };
        let flags = write | if index + 1 < pieces { NEXT } else { 0 };
        ring.describe(
            index,
            Descriptor::new(arena.physical(offset), len, flags, index + 1),
        );
    }
    for _ in 0..=dice.below(8) {
        ring.offer(0);
    }
    disk.notify(0);
}

/// Small numbers, and now and then one at an edge.
fn nearly(dice: &mut Dice) -> u64 {
    if dice.once_in(4) {
        dice.edge()
    } else {
        dice.below(4096)
    }
}
