//! A guest that drives our virtio devices by hand.
//!
//! Root in a guest needs no kernel of its own to be hostile: it takes a device from its driver, maps the
//! registers, finds out where its own memory lies, and says to the device whatever it likes. This program
//! does, phase by phase, and after each says whether the device still serves an honest driver. What must
//! hold on the other side is checked there, in `lab_hostile.rs` and `lab_network_hostile.rs`, which run this.
//!
//! ```text
//! hostile SEED PHASE...          each phase by name; what follows from SEED can be repeated
//! hostile SEED --console PHASE...  in the background, with its words on the console: for when nothing else is left
//! ```

mod arena;
mod babble;
mod cable;
mod dice;
mod disk;
mod doorbells;
mod driver;
mod escapes;
mod folders;
mod forgeries;
mod hoards;
mod messages;
mod mount;
mod packets;
mod pci;
mod ports;
mod registers;
mod rings;
mod ruin;
mod swaps;
mod words;

use std::{
    env,
    fs::OpenOptions,
    io::Write,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::{arena::Arena, dice::Dice};

/// What an attack has at hand.
pub(crate) struct Kit {
    pub(crate) arena: Arena,
    pub(crate) dice: Dice,
}

/// Returns how many attacks it made. It fails when a device does not do what it must.
type Phase = fn(&mut Kit) -> anyhow::Result<usize>;

const PHASES: &[(&str, Phase)] = &[
    ("registers", registers::attack),
    ("rings", rings::attack),
    ("races", rings::race),
    ("doorbells", doorbells::attack),
    ("messages", messages::attack),
    ("ports", ports::attack),
    ("folders", folders::attack),
    ("names", escapes::names),
    ("links", escapes::links),
    ("swaps", swaps::swaps),
    ("rewrites", swaps::rewrites),
    ("kinds", forgeries::kinds),
    ("nodes", forgeries::nodes),
    ("hoards", hoards::attack),
    ("babble", babble::attack),
    ("frames", cable::frames),
    ("headers", cable::headers),
    ("room", cable::room),
    ("resets", cable::resets),
    ("cable-rings", cable::rings),
    ("cable-back", cable::give_back),
    // While these have the device no word gets out but on the console.
    ("floods", packets::floods),
    ("lengths", packets::lengths),
    ("credit", packets::credit),
    ("hoard", packets::hoard),
    ("packets", packets::packets),
    ("buffers", packets::buffers),
    ("packet-rings", packets::rings),
    ("give-back", packets::give_back),
    // No command starts after these two.
    ("scratch", disk::attack_scratch),
    ("image", disk::attack_image),
    ("wait", ruin::wait),
    // The last: the guest does not outlive it.
    ("ruin", ruin::attack),
];

/// The answer to the command that started us must be through before we take the device it goes over.
const ANSWER_IS_THROUGH: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match start(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hostile: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &[String]) -> anyhow::Result<()> {
    let [seed, phases @ ..] = args else {
        bail!("usage: hostile SEED [--console] PHASE...");
    };
    let seed = seed.parse().context("SEED is a number")?;
    match phases {
        [console, phases @ ..] if console == "--console" => on_console(seed, phases),
        phases => run(seed, phases, &mut std::io::stdout()),
    }
}

/// Answers at once and goes on by itself.
fn on_console(seed: u64, phases: &[String]) -> anyhow::Result<()> {
    let mut console = OpenOptions::new()
        .write(true)
        .open("/dev/console")
        .context("no console")?;
    if !ruin::detach()? {
        return Ok(());
    }
    std::thread::sleep(ANSWER_IS_THROUGH);
    if let Err(error) = run(seed, phases, &mut console) {
        writeln!(console, "\nhostile: {error:#}")?;
    }
    Ok(())
}

fn run(seed: u64, phases: &[String], out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "\nhostile: seed {seed}")?;
    let mut kit = Kit {
        arena: Arena::new().context("no memory to attack from")?,
        dice: Dice::new(seed),
    };
    for name in phases {
        let (_, phase) = PHASES
            .iter()
            .find(|(known, _)| known == name)
            .with_context(|| format!("no phase {name}"))?;
        writeln!(out, "hostile: {name} begins")?;
        let start = Instant::now();
        let attacks = phase(&mut kit).with_context(|| format!("{name} FAILED, seed {seed}"))?;
        writeln!(
            out,
            "hostile: {name} done, {attacks} attacks, {:.1?}",
            start.elapsed()
        )?;
    }
    writeln!(out, "hostile: all done")?;
    Ok(())
}
