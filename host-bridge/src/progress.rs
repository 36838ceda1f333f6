//! One line on standard error, on a terminal only, and only once something takes its time.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use crate::output;

/// Shorter than this nobody wonders.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs `work`; says what is going on, and for how long already, while it lasts.
pub(crate) async fn watched<T>(what: &str, quiet: bool, work: impl Future<Output = T>) -> T {
    if quiet || !output::stderr_is_terminal() {
        return work.await;
    }
    let start = Instant::now();
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + PATIENCE, PATIENCE);
    let mut line = output::StatusLine::default();
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => line.show(&format!("{what} … {} s", start.elapsed().as_secs())),
        }
    }
}
