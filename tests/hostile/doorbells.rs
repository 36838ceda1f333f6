//! Doorbells rung from every CPU at once, where there are queues and where there are none.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::{
    Kit,
    dice::Dice,
    driver::{Device, NOTIFY},
    pci::Kind,
};

const STORM: Duration = Duration::from_millis(600);
const AREA: u64 = 0x1000;

pub(crate) fn attack(kit: &mut Kit) -> anyhow::Result<usize> {
    let devices = [
        Device::take(Kind::Rng, 0)?,
        Device::take(Kind::Balloon, 0)?,
        Device::take(Kind::Fs, 0)?,
    ];
    let mut rung = 0;
    for running in [true, false] {
        for device in &devices {
            device.reset();
            if running {
                device.set_up(&kit.arena, 0);
            }
        }
        rung += storm(&devices, &mut kit.dice);
        for device in &devices {
            device.must_work(&kit.arena)?;
        }
    }
    Ok(rung)
}

pub(crate) fn storm(devices: &[Device], dice: &mut Dice) -> usize {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let storms: Vec<_> = (0..cpus)
            .map(|cpu| {
                let mut dice = dice.split();
                scope.spawn(move || {
                    let mut here = CpuSet::new();
                    here.set(cpu);
                    // A CPU that is not there is no reason to be quiet.
                    let _ = sched_setaffinity(None, &here);
                    let (start, mut rung) = (Instant::now(), 0);
                    while start.elapsed() < STORM {
                        for device in devices {
                            let at = if dice.once_in(4) {
                                dice.below(AREA)
                            } else {
                                dice.below(4) * 4
                            };
                            let width = dice.pick(&[1, 2, 4, 8]);
                            device
                                .function
                                .bar
                                .write_wide(NOTIFY + at as usize, width, dice.roll());
                            rung += 1;
                        }
                    }
                    rung
                })
            })
            .collect();
        storms.into_iter().map(|storm| storm.join().unwrap_or(0)).sum()
    })
}
