//! What a guest does that no longer cares for itself: all of its memory into the balloon, messages that stop
//! its CPUs, devices it pulled apart before. What is left is for the host to clear away.
#![allow(unsafe_code, reason = "a process is forked here")]

use std::{io, path::Path, thread, time::Duration};

use crate::{
    Kit,
    arena::BUFFERS,
    driver::{Descriptor, Device},
    messages,
    pci::Kind,
};

const ROUNDS: usize = 200;
const PAGES_PER_REQUEST: usize = 1024;
/// Page numbers of any small guest.
const PAGES: u64 = 0x4_0000;

pub(crate) fn attack(kit: &mut Kit) -> anyhow::Result<usize> {
    let rng = Device::take(Kind::Rng, 0)?;
    let balloon = Device::take(Kind::Balloon, 0)?;
    messages::set_control(&rng, 0x8000)?;
    for _ in 0..ROUNDS {
        // Of any kind: system management, non-maskable, initialisation.
        messages::program(
            &rng,
            0,
            0xfee0_0000 | kit.dice.below(4) << 12,
            kit.dice.roll() as u32,
            0,
        );
        messages::fire(&rng, &kit.arena, 0);
        let mut rings = balloon.set_up(&kit.arena, 0);
        for index in 0..PAGES_PER_REQUEST {
            kit.arena.write(BUFFERS + index * 4, kit.dice.below(PAGES) as u32);
        }
        let address = kit.arena.physical(BUFFERS);
        rings[0].describe(0, Descriptor::new(address, PAGES_PER_REQUEST as u32 * 4, 0, 0));
        rings[0].offer(0);
        balloon.notify(0);
    }
    Ok(ROUNDS)
}

/// Until the host puts a file where it needs no disk.
pub(crate) fn wait(_: &mut Kit) -> anyhow::Result<usize> {
    while !Path::new("/dev/shm/go").exists() {
        thread::sleep(Duration::from_millis(50));
    }
    Ok(0)
}

/// Leaves whoever started us, in a process of its own that stays in memory whatever becomes of the disk.
/// False in the one that is to end now.
pub(crate) fn detach() -> io::Result<bool> {
    // SAFETY: there is one thread still, so the copy may do all that the original may.
    match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {}
        _ => return Ok(false),
    }
    // SAFETY: takes no pointers.
    if unsafe { libc::setsid() } == -1 {
        return Err(io::Error::last_os_error());
    }
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    // SAFETY: takes no pointers.
    match unsafe { libc::mlockall(libc::MCL_CURRENT) } {
        0 => Ok(true),
        _ => Err(io::Error::last_os_error()),
    }
}
