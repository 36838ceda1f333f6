//! A thread that closes what nobody has used for a while, and sleeps when there is nothing of that kind.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::Duration,
};

/// Between two looks at what is idle: well below the time after which something counts as idle.
const ROUND: Duration = Duration::from_millis(100);
const STACK_BYTES: usize = 128 * 1024;

/// Rung when something was opened that must not stay open.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    thread: std::sync::OnceLock<Thread>,
}

impl Bell {
    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

#[derive(Debug)]
pub(crate) struct Janitor {
    bell: Arc<Bell>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Janitor {
    /// `tidy` says whether something is left to be looked at again. Without a thread to spare things stay open for
    /// longer, which does no harm to the guest.
    pub(crate) fn start(bell: Arc<Bell>, tidy: impl Fn() -> bool + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (rung, stopped) = (Arc::clone(&bell), Arc::clone(&stop));
        let body = move || {
            while !stopped.load(Ordering::Acquire) {
                if !rung.rung.swap(false, Ordering::AcqRel) {
                    thread::park();
                    continue;
                }
                thread::park_timeout(ROUND);
                if tidy() {
                    rung.rung.store(true, Ordering::Release);
                }
            }
        };
        let thread = thread::Builder::new()
            .name("share-janitor".into())
            .stack_size(STACK_BYTES)
            .spawn(body)
            .ok();
        if let Some(thread) = &thread {
            let _ = bell.thread.set(thread.thread().clone());
        }
        Janitor { bell, stop, thread }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.bell.rung.store(true, Ordering::Release);
        let Some(thread) = self.thread.take() else { return };
        thread.thread().unpark();
        // The janitor itself may hold the last of what it tidies, and then this is its own thread.
        if thread.thread().id() != thread::current().id() {
            let _ = thread.join();
        }
    }
}
