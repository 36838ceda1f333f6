//! Work that may hang, done elsewhere, so that whoever wants it need not hang with it.

use std::{
    sync::mpsc::{self, SendError},
    thread,
    time::Duration,
};

/// Does `act` on a thread of its own, and returns what came of it if that is within `deadline`. What comes later
/// goes to `late`: it is always one or the other. `None` also when there is no thread to be had.
pub(crate) fn run<T: Send + 'static>(
    name: &str,
    deadline: Duration,
    act: impl FnOnce() -> T + Send + 'static,
    late: impl FnOnce(T) + Send + 'static,
) -> Option<T> {
    // Without room in between, sending succeeds only if somebody receives.
    let (done, outcome) = mpsc::sync_channel(0);
    let body = move || {
        if let Err(SendError(missed)) = done.send(act()) {
            late(missed);
        }
    };
    thread::Builder::new().name(name.into()).spawn(body).ok()?;
    outcome.recv_timeout(deadline).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn what_is_done_in_time_is_returned() {
        assert_eq!(run("test", LONG, || 7, |_| panic!("it is not late")), Some(7));
    }

    #[test]
    fn what_is_late_is_not_lost() {
        let (go, told) = mpsc::channel();
        let (late, missed) = mpsc::channel();
        let act = move || told.recv().unwrap();
        let outcome = run("test", Duration::from_millis(1), act, move |value: u32| {
            late.send(value).unwrap();
        });
        assert_eq!(outcome, None);
        go.send(7).unwrap();
        assert_eq!(missed.recv_timeout(LONG).unwrap(), 7);
    }
}
