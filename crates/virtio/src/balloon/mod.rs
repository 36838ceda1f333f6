//! virtio-balloon: memory the guest does not need goes back to the host.
//!
//! Two ways: the owner sets a target and the guest gives up that many pages (inflate), or the guest
//! reports pages that happen to be free (reporting) without being asked. Either way the host drops their
//! content; the guest finds zeros when it uses them again. What the guest says is only ever taken as
//! permission to drop its own memory.
//!
//! Queues are numbered without gaps: Linux skips those whose feature is not offered (`vp_find_vqs` and
//! `vm_find_vqs` count only named queues), so without statistics and hints reporting is the third.

mod reclaim;
mod worker;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use self::worker::BalloonWorker;
use crate::{ActivateError, Activation, Device, DeviceKind, Interrupt, WorkerThread, config_space};

/// `VIRTIO_BALLOON_F_DEFLATE_ON_OOM`: a guest short of memory takes pages back rather than kill.
const F_DEFLATE_ON_OOM: u32 = 2;
/// `VIRTIO_BALLOON_F_REPORTING`.
const F_REPORTING: u32 = 5;

/// Inflate, deflate, reporting. Linux reports 32 ranges at once and refuses a smaller queue for them.
const QUEUE_SIZES: [u16; 3] = [128, 128, 128];
/// The queues every driver has; the third needs the reporting feature.
const NEEDED_QUEUES: usize = 2;

/// The unit of the balloon, whatever the host's pages are.
const PAGE_BYTES: u64 = 4096;
const PAGES_PER_MIB: u32 = 256;
/// Where `actual` lies in the configuration, behind `num_pages`.
const ACTUAL_OFFSET: usize = 4;

/// The balloon of a machine.
#[derive(Debug, Default)]
pub struct Balloon {
    state: Arc<State>,
    thread: Option<WorkerThread>,
}

/// Moves the balloon of a running machine.
#[derive(Clone, Debug)]
pub struct BalloonHandle {
    state: Arc<State>,
}

/// What was done at the guest's word, since the machine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BalloonCounts {
    /// Bytes dropped because the balloon grew over them.
    pub inflated_bytes: u64,
    /// Bytes dropped because the guest reported them free.
    pub reported_bytes: u64,
    /// Pages and ranges that made no sense and were left alone.
    pub ignored: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Pages the owner wants the balloon to hold.
    target: AtomicU32,
    /// Pages the driver says it holds.
    actual: AtomicU32,
    inflated_bytes: AtomicU64,
    reported_bytes: AtomicU64,
    ignored: AtomicU64,
    /// How to tell the driver of a new target; none before it is ready.
    driver: Mutex<Option<Arc<dyn Interrupt>>>,
}

impl Balloon {
    pub fn new() -> Self {
        Balloon::default()
    }

    pub fn handle(&self) -> BalloonHandle {
        BalloonHandle {
            state: Arc::clone(&self.state),
        }
    }
}

impl BalloonHandle {
    /// Asks the guest to give up `mib` of its memory in all. It does so when and as far as it can.
    pub fn set_target(&self, mib: u32) {
        let pages = mib.saturating_mul(PAGES_PER_MIB);
        self.state.target.store(pages, Ordering::Release);
        if let Some(driver) = self.state.driver().as_ref() {
            driver.signal();
        }
    }

    /// What the guest says it has given up. Only the host's own books say what that saves.
    pub fn held_mib(&self) -> u32 {
        self.state.actual.load(Ordering::Acquire) / PAGES_PER_MIB
    }

    pub fn counts(&self) -> BalloonCounts {
        BalloonCounts {
            inflated_bytes: self.state.inflated_bytes.load(Ordering::Relaxed),
            reported_bytes: self.state.reported_bytes.load(Ordering::Relaxed),
            ignored: self.state.ignored.load(Ordering::Relaxed),
        }
    }
}

impl State {
    fn driver(&self) -> std::sync::MutexGuard<'_, Option<Arc<dyn Interrupt>>> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for Balloon {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Balloon
    }

    fn features(&self) -> u64 {
        1 << F_DEFLATE_ON_OOM | 1 << F_REPORTING
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let [a, b, c, d] = self.state.target.load(Ordering::Acquire).to_le_bytes();
        let [e, f, g, h] = self.state.actual.load(Ordering::Acquire).to_le_bytes();
        config_space::read(&[a, b, c, d, e, f, g, h], offset, data);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        let mut actual = self.state.actual.load(Ordering::Acquire).to_le_bytes();
        for (index, byte) in data.iter().enumerate() {
            let target = offset
                .checked_add(index)
                .and_then(|at| at.checked_sub(ACTUAL_OFFSET))
                .and_then(|at| actual.get_mut(at));
            if let Some(target) = target {
                *target = *byte;
            }
        }
        self.state
            .actual
            .store(u32::from_le_bytes(actual), Ordering::Release);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let found = activation.queues.len();
        if found < NEEDED_QUEUES {
            return Err(ActivateError::MissingQueues {
                found,
                expected: NEEDED_QUEUES,
            });
        }
        let worker = BalloonWorker::new(activation.queues, Arc::clone(&self.state));
        let thread = WorkerThread::spawn("virtio-balloon", worker, activation.failures)
            .map_err(ActivateError::Thread)?;
        *self.state.driver() = Some(activation.config_changed);
        self.thread = Some(thread);
        Ok(())
    }

    fn reset(&mut self) {
        self.thread = None;
        *self.state.driver() = None;
        self.state.actual.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
