//! What the agent says for itself goes to the kernel's log, and so to the console the host keeps.
//!
//! A clean boot says nothing: every character on a serial console is an exit of the virtual machine.
//! What a command or a broken host can cause is limited in rate.

use std::{
    fmt::Display,
    fs::File,
    io::Write,
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

use crate::{Error, failure::escaped, lock::lock};

/// Messages said at once before the limit bites: enough for every step of a boot that goes wrong.
const BURST: u32 = 20;

/// And one more each of these from then on.
const REFILL: Duration = Duration::from_secs(1);

/// Characters of a message. The kernel cuts records near 1 KiB; shorter keeps one message one record.
const MAX_LINE: usize = 600;

static KERNEL_LOG: OnceLock<File> = OnceLock::new();
static LIMIT: Mutex<Option<Limit>> = Mutex::new(None);

/// From here on messages go to the kernel's log; before, and in tests, to standard error.
pub(crate) fn use_kernel_log() {
    if let Ok(file) = File::options().write(true).open("/dev/kmsg") {
        let _ = KERNEL_LOG.set(file);
    }
}

pub(crate) fn warn(message: impl Display) {
    let now = Instant::now();
    let allowed = lock(&LIMIT).get_or_insert_with(|| Limit::new(now)).allow(now);
    if allowed {
        write("<4>", &message);
    }
}

/// The one line of a machine that cannot go on. Never limited.
pub fn report_fatal(error: &Error) {
    write("<2>", &with_causes(error));
}

pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        line = format!("{line}: {source}");
        cause = source.source();
    }
    line
}

fn write(level: &str, message: &dyn Display) {
    let text = escaped(message.to_string().chars().take(MAX_LINE));
    match KERNEL_LOG.get() {
        Some(mut log) => drop(log.write_all(format!("{level}coffer-agent: {text}\n").as_bytes())),
        None => eprintln!("coffer-agent: {text}"),
    }
}

#[derive(Debug)]
struct Limit {
    left: u32,
    refilled: Instant,
}

impl Limit {
    fn new(now: Instant) -> Self {
        Limit {
            left: BURST,
            refilled: now,
        }
    }

    fn allow(&mut self, now: Instant) -> bool {
        if now.duration_since(self.refilled) >= REFILL {
            self.left = (self.left + 1).min(BURST);
            self.refilled = now;
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_messages_is_cut_to_a_burst_and_then_to_one_a_second() {
        let start = Instant::now();
        let mut limit = Limit::new(start);
        assert_eq!((0..1000).filter(|_| limit.allow(start)).count(), 20);
        let later = start + REFILL;
        assert_eq!((0..1000).filter(|_| limit.allow(later)).count(), 1);
    }
}
