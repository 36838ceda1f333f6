//! A limit on log lines that a guest can cause: so many in an interval, the rest only counted.
//!
//! Whoever can make the host write a line can fill its disk with lines. A line that comes through says how
//! many before it did not. The limits of [`warn_limited`] belong to the process, which is one guest's: a
//! limit of a device's thread would be new each time the guest resets the device.

use std::time::{Duration, Instant};

/// Lets `burst` events through in each interval `per`.
#[derive(Debug)]
pub struct RateLimit {
    burst: u32,
    per: Duration,
    window: Option<Instant>,
    passed: u32,
    suppressed: u64,
}

impl RateLimit {
    pub const fn new(burst: u32, per: Duration) -> Self {
        RateLimit {
            burst,
            per,
            window: None,
            passed: 0,
            suppressed: 0,
        }
    }

    /// Enough lines to see what goes wrong in a guest, few enough that a log keeps for weeks.
    pub const fn for_guest_faults() -> Self {
        RateLimit::new(8, Duration::from_secs(60))
    }

    /// `Some` when the event may be told of, with the number of those that were not since the last one.
    pub fn allow(&mut self) -> Option<u64> {
        self.allow_at(Instant::now())
    }

    fn allow_at(&mut self, now: Instant) -> Option<u64> {
        let open = self
            .window
            .is_some_and(|start| now.saturating_duration_since(start) < self.per);
        if !open {
            self.window = Some(now);
            self.passed = 0;
        }
        if self.passed >= self.burst {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.passed += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// `tracing::warn!` through a [`RateLimit`] of its own: `warn_limited!(%error, "text")`.
macro_rules! warn_limited {
    ($($arg:tt)+) => {{
        static LIMIT: std::sync::Mutex<$crate::RateLimit> =
            std::sync::Mutex::new($crate::RateLimit::for_guest_faults());
        let allowed = LIMIT.lock().unwrap_or_else(std::sync::PoisonError::into_inner).allow();
        if let Some(suppressed) = allowed {
            tracing::warn!(suppressed, $($arg)+);
        }
    }};
}
pub(crate) use warn_limited;

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_burst_passes_and_the_rest_is_counted_for_the_next_interval() {
        let mut limit = RateLimit::new(2, MINUTE);
        let start = Instant::now();
        assert_eq!(limit.allow_at(start), Some(0));
        assert_eq!(limit.allow_at(start), Some(0));
        for _ in 0..5 {
            assert_eq!(limit.allow_at(start + MINUTE / 2), None);
        }
        assert_eq!(limit.allow_at(start + MINUTE), Some(5));
        assert_eq!(limit.allow_at(start + MINUTE), Some(0));
        assert_eq!(limit.allow_at(start + MINUTE), None);
    }

    #[test]
    fn a_clock_that_steps_back_opens_no_new_interval() {
        let mut limit = RateLimit::new(1, MINUTE);
        let start = Instant::now() + MINUTE;
        assert_eq!(limit.allow_at(start), Some(0));
        assert_eq!(limit.allow_at(start - MINUTE), None);
    }
}
