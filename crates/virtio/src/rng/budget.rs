//! How many random bytes a guest may have by now: a token bucket.

use std::time::{Duration, Instant};

/// Far above what a booting guest asks for at once.
pub(super) const BURST: u64 = 64 * 1024;
/// Refill, about a thousandth of what the host kernel makes per core.
pub(super) const BYTES_PER_SECOND: u64 = 1024 * 1024;
/// Every request costs at least this, so that a guest cannot ask for single bytes at full speed either:
/// 4096 requests a second.
pub(super) const MIN_COST: u64 = 256;

#[derive(Debug)]
pub(super) struct Budget {
    bytes: u64,
    counted: Instant,
}

impl Budget {
    pub(super) fn full(now: Instant) -> Self {
        Budget {
            bytes: BURST,
            counted: now,
        }
    }

    /// Pays for `len` bytes, at most [`BURST`], or says how long to wait until that can be paid.
    pub(super) fn pay(&mut self, len: u64, now: Instant) -> Result<(), Duration> {
        let cost = len.clamp(MIN_COST, BURST);
        self.refill(now);
        match self.bytes.checked_sub(cost) {
            Some(left) => {
                self.bytes = left;
                Ok(())
            }
            None => Err(time_to_refill(cost - self.bytes)),
        }
    }

    fn refill(&mut self, now: Instant) {
        let nanos = now.saturating_duration_since(self.counted).as_nanos();
        let earned = nanos.saturating_mul(u128::from(BYTES_PER_SECOND)) / NANOS_PER_SECOND;
        if earned == 0 {
            return;
        }
        let earned = u64::try_from(earned).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(earned).min(BURST);
        self.counted = now;
    }
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

fn time_to_refill(bytes: u64) -> Duration {
    Duration::from_nanos((bytes * 1_000_000_000).div_ceil(BYTES_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut budget = Budget::full(start);
        assert_eq!(budget.pay(BURST, start), Ok(()));
        let wait = budget.pay(4096, start).unwrap_err();
        assert_eq!(wait, Duration::from_secs(1) / 256);
        assert_eq!(budget.pay(4096, start + wait), Ok(()));
        assert!(budget.pay(1, start + wait).is_err());
    }

    #[test]
    fn an_hour_of_silence_earns_no_more_than_a_burst() {
        let start = Instant::now();
        let mut budget = Budget::full(start);
        let later = start + Duration::from_secs(3600);
        assert_eq!(budget.pay(BURST, later), Ok(()));
        assert!(budget.pay(1, later).is_err());
    }

    #[test]
    fn asking_for_nothing_is_not_free() {
        let start = Instant::now();
        let mut budget = Budget::full(start);
        let free = (0..u64::MAX).take_while(|_| budget.pay(0, start).is_ok()).count();
        assert_eq!(free as u64, BURST / MIN_COST);
    }
}
