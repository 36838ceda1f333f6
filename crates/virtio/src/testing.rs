//! Doubles for device tests: interrupts that count, failures that are kept.

pub(crate) mod driver;
pub(crate) mod hostile;

use std::{
    sync::{Condvar, Mutex},
    time::Duration,
};

use crate::{FailureSink, Interrupt};

/// Far longer than any device takes, so that only a broken one meets it.
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct CountedInterrupt {
    count: Mutex<usize>,
    signalled: Condvar,
}

impl CountedInterrupt {
    pub(crate) fn count(&self) -> usize {
        *self.count.lock().unwrap()
    }

    /// Waits until there were `count` interrupts in all.
    pub(crate) fn wait_for(&self, count: usize) {
        let (_guard, waited) = self
            .signalled
            .wait_timeout_while(self.count.lock().unwrap(), DEADLINE, |seen| *seen < count)
            .unwrap();
        assert!(!waited.timed_out(), "no interrupt number {count}");
    }
}

impl Interrupt for CountedInterrupt {
    fn signal(&self) {
        *self.count.lock().unwrap() += 1;
        self.signalled.notify_all();
    }
}

#[derive(Debug, Default)]
pub(crate) struct KeptFailures(pub(crate) Mutex<Vec<String>>);

impl FailureSink for KeptFailures {
    fn device_failed(&self, device: &str, reason: &str) {
        self.0.lock().unwrap().push(format!("{device}: {reason}"));
    }
}
