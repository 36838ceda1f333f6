//! PCI configuration space, through the kernel and by its ports, and other ports besides.
#![allow(unsafe_code, reason = "ports are read and written by instruction")]

use std::{arch::asm, io};

use anyhow::{Context, ensure};

use crate::{
    Kit,
    dice::Dice,
    driver::{Device, register},
    pci::Kind,
};

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const BAR0: u64 = 0x10;
const FUZZ: usize = 300;

pub(crate) fn attack(kit: &mut Kit) -> anyhow::Result<usize> {
    let rng = Device::take(Kind::Rng, 0)?;
    move_bar(&rng)?;
    rng.must_work(&kit.arena)?;
    let control = rng.function.msix_control()?;
    for _ in 0..FUZZ {
        let at = kit.dice.below(256);
        let bytes = kit.dice.edge().to_le_bytes();
        let width = kit.dice.pick(&[1, 2, 4]).min(256 - at as usize);
        rng.function.write_config(at, &bytes[..width])?;
    }
    // On with what the table happens to hold would be a message to anywhere.
    rng.function.write_config(control, &[0, 0])?;
    rng.must_work(&kit.arena)?;
    allow_ports().context("no access to ports")?;
    by_mechanism(rng.function.slot, &mut kit.dice);
    rng.function.write_config(control, &[0, 0])?;
    around(&mut kit.dice);
    rng.must_work(&kit.arena)?;
    Ok(3 * FUZZ + MOVES.len())
}

const MOVES: [u32; 8] = [
    0,
    u32::MAX,
    0xc000_0000,
    0xfee0_0000,
    0xfec0_0000,
    0x10_0000,
    0xffff_8000,
    0xd000_0007,
];

/// The BAR says that it moved. It must answer where it was, or what the VMM wired to it comes apart.
fn move_bar(device: &Device) -> anyhow::Result<()> {
    let before: [u8; 4] = device.function.read_config(BAR0)?;
    let queues = device.queues();
    for to in MOVES {
        device.function.write_config(BAR0, &to.to_le_bytes())?;
        device.function.write_config(4, &[0, 0])?;
        ensure!(device.queues() == queues, "the BAR left its place for {to:#x}");
        device.function.bar.write(register::QUEUE_SELECT, 0u16);
    }
    device.function.write_config(BAR0, &before)?;
    device.function.write_config(4, &[6, 0])?;
    Ok(())
}

/// Any function of any bus by address and data port; writes only to the one that is ours, or to none.
fn by_mechanism(slot: u8, dice: &mut Dice) {
    for _ in 0..FUZZ {
        let is_ours = dice.once_in(2);
        let function = if is_ours {
            u32::from(slot) << 11
        } else {
            dice.roll() as u32 & 0x00ff_ff00
        };
        let enable = if dice.once_in(8) { 0 } else { 1 << 31 };
        write_port(ADDRESS, 4, enable | function | dice.below(256) as u32);
        let (port, width) = (DATA + dice.below(4) as u16, dice.pick(&[1, 2, 4]));
        read_port(port, width);
        let is_elsewhere = function & 0x00ff_0700 != 0;
        if is_ours || is_elsewhere {
            write_port(port, width, dice.edge() as u32);
        }
        // Narrow writes to the address port, but for the byte that resets the machine.
        write_port(
            dice.pick(&[ADDRESS, ADDRESS + 2, ADDRESS + 3]),
            1,
            dice.roll() as u32,
        );
    }
}

/// Ports nobody answers on, and those that do but for what ends the machine.
fn around(dice: &mut Dice) {
    const HARMLESS: [u16; 8] = [0x70, 0x71, 0x80, 0x600, 0x602, 0x604, 0x5658, 0xfffc];
    for _ in 0..FUZZ {
        let width = dice.pick(&[1, 2, 4]);
        // An access may not reach past the last port: the CPU refuses that to a program.
        read_port(dice.roll() as u16 & !3 | 0x1000, width);
        read_port(dice.pick(&HARMLESS), width);
        // Without the bit that means sleep.
        write_port(dice.pick(&HARMLESS), width, dice.roll() as u32 & !0x2020_2020);
    }
}

fn allow_ports() -> io::Result<()> {
    // SAFETY: the call changes what this thread may do and no memory.
    if unsafe { libc::iopl(3) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn write_port(port: u16, width: u32, value: u32) {
    match width {
        // SAFETY: a port is not memory; `allow_ports` came first.
        1 => unsafe { asm!("out dx, al", in("dx") port, in("al") value as u8, options(nomem, nostack)) },
        // SAFETY: as above.
        2 => unsafe { asm!("out dx, ax", in("dx") port, in("ax") value as u16, options(nomem, nostack)) },
        // SAFETY: as above.
        _ => unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack)) },
    }
}

fn read_port(port: u16, width: u32) {
    match width {
        // SAFETY: as in `write_port`.
        1 => unsafe { asm!("in al, dx", in("dx") port, out("al") _, options(nomem, nostack)) },
        // SAFETY: as above.
        2 => unsafe { asm!("in ax, dx", in("dx") port, out("ax") _, options(nomem, nostack)) },
        // SAFETY: as above.
        _ => unsafe { asm!("in eax, dx", in("dx") port, out("eax") _, options(nomem, nostack)) },
    }
}
