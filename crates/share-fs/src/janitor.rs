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

/// Rung when something was opened that must not stay open: with every request of some kinds, so while the janitor is up
/// and about it costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    /// The janitor will look again within a round.
    rung: AtomicBool,
    thread: std::sync::OnceLock<Thread>,
}

impl Bell {
    pub(crate) fn ring(&self) {
        if !self.rung.load(Ordering::Acquire)
            && !self.rung.swap(true, Ordering::AcqRel)
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
                if !rung.rung.load(Ordering::Acquire) {
                    thread::park();
                    continue;
                }
                thread::park_timeout(ROUND);
                // Whoever rings from here on may have opened what this look misses.
                rung.rung.swap(false, Ordering::AcqRel);
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

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Instant};

    use super::*;

    #[test]
    fn rung_all_the_time_it_looks_once_a_round_and_once_more_at_the_end() {
        let bell = Arc::<Bell>::default();
        let (looks, seen) = mpsc::channel();
        let _janitor = Janitor::start(Arc::clone(&bell), move || {
            let _ = looks.send(());
            false
        });
        let begin = Instant::now();
        while begin.elapsed() < 5 * ROUND {
            bell.ring();
            thread::yield_now();
        }
        let often = seen.try_iter().count();
        assert!((1..=6).contains(&often), "{often} looks");
        bell.ring();
        assert_eq!(
            seen.recv_timeout(100 * ROUND),
            Ok(()),
            "what was opened last is seen to"
        );
        // The last look may have begun before the last ring.
        let _ = seen.recv_timeout(2 * ROUND);
        assert!(
            seen.recv_timeout(3 * ROUND).is_err(),
            "then there is nothing to do"
        );
    }
}
