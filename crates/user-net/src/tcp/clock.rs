//! Our time and smoltcp's.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    pub(super) fn new(start: Instant) -> Self {
        Clock { start }
    }

    pub(super) fn at(self, now: Instant) -> smoltcp::time::Instant {
        let micros = now.saturating_duration_since(self.start).as_micros();
        smoltcp::time::Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    pub(super) fn instant(self, at: smoltcp::time::Instant) -> Instant {
        self.start + Duration::from_micros(u64::try_from(at.total_micros()).unwrap_or(0))
    }
}
