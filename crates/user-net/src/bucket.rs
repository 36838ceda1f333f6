//! So many a second, and not more than so many at once.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Bucket {
    interval: Duration,
    burst: u32,
    tokens: u32,
    filled: Instant,
}

impl Bucket {
    pub(crate) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        Bucket {
            interval: Duration::from_secs(1) / per_second.max(1),
            burst,
            tokens: burst,
            filled: now,
        }
    }

    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }

    /// Whole tokens only; what is left of the time counts for the next.
    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled);
        let earned = u32::try_from(passed.as_nanos() / self.interval.as_nanos().max(1)).unwrap_or(u32::MAX);
        if earned >= self.burst.saturating_sub(self.tokens) {
            self.tokens = self.burst;
            self.filled = self.filled.max(now);
        } else {
            self.tokens = self.tokens.saturating_add(earned);
            self.filled += self.interval * earned;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_granted_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, 3, start);
        let mut taken = |at: Duration| (0..100).filter(|_| bucket.take(start + at)).count();
        assert_eq!(taken(Duration::ZERO), 3);
        assert_eq!(taken(Duration::from_millis(99)), 0);
        assert_eq!(taken(Duration::from_millis(100)), 1);
        assert_eq!(taken(Duration::from_millis(399)), 2);
        assert_eq!(taken(Duration::from_millis(400)), 1);
        assert_eq!(taken(Duration::from_secs(3600)), 3);
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_grants_nothing() {
        let start = Instant::now() + Duration::from_secs(5);
        let mut bucket = Bucket::new(10, 1, start);
        assert!(bucket.take(start));
        assert!(!bucket.take(start - Duration::from_secs(5)));
        assert!(!bucket.take(start));
    }
}
