//! virtio-rng: the host kernel's random bytes, in measured amounts.
//!
//! A guest wants a few hundred bytes at boot and now and then a few more. One that wants gigabytes would
//! burn a host core beside its own, so [`budget`] makes it wait.

mod budget;
mod worker;

use self::worker::RngWorker;
use crate::{ActivateError, Activation, Device, DeviceKind, DeviceQueue, WorkerThread};

/// Linux has one request under way at a time.
const QUEUE_SIZE: u16 = 16;

/// The source of entropy of a machine.
#[derive(Debug, Default)]
pub struct Rng {
    thread: Option<WorkerThread>,
}

impl Rng {
    pub fn new() -> Self {
        Rng::default()
    }
}

impl Device for Rng {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Rng
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, _offset: usize, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let [queue] = <[DeviceQueue; 1]>::try_from(activation.queues).map_err(|queues| {
            ActivateError::MissingQueues {
                found: queues.len(),
                expected: 1,
            }
        })?;
        let thread = RngWorker::new(queue)
            .and_then(|worker| WorkerThread::spawn("virtio-rng", worker, activation.failures))
            .map_err(ActivateError::Thread)?;
        self.thread = Some(thread);
        Ok(())
    }

    fn reset(&mut self) {
        self.thread = None;
    }
}

#[cfg(test)]
mod tests;
