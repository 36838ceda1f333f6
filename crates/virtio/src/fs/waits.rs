//! How often this thread has waited for something.

#![allow(
    unsafe_code,
    reason = "what a thread has used has no safe wrapper here, and is a structure the kernel fills"
)]

use std::mem::MaybeUninit;

/// Times the calling thread gave the processor away of its own accord: for a disk, not because its time was up.
pub(super) fn waits_so_far() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is a valid place for the structure, for the time of the call.
    let _ = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    // SAFETY: zeroes are a valid `rusage`, and whatever the kernel wrote is too.
    unsafe { usage.assume_init() }.ru_nvcsw
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    #[test]
    fn a_thread_that_waits_is_seen_to() {
        let (ask, asked) = mpsc::channel::<()>();
        let (answer, answered) = mpsc::channel::<()>();
        let other = thread::spawn(move || asked.iter().for_each(|()| answer.send(()).unwrap()));
        let before = waits_so_far();
        for _ in 0..1000 {
            ask.send(()).unwrap();
            answered.recv().unwrap();
        }
        assert!(waits_so_far() > before);
        drop(ask);
        other.join().unwrap();
    }
}
