//! Whether requests are quick enough to be answered on the thread of a virtual CPU.
//!
//! ```text
//!            slow                 slow, and it waited
//!   Trusting ────▶ Watchful ───────────────────────▶ Cautious: workers answer
//!      ▲              │  ▲                               │
//!      └── COOL_DOWN ─┘  └────────── COOL_DOWN ──────────┘
//! ```
//! An answer may be late because the host's disk is, or because the host gave the processor to somebody else. Only
//! the first is a reason to leave the vCPU's thread, and telling them apart costs a system call before each answer:
//! so it is done only for a while after one was late. Pure: its clock is its caller's.

use std::time::{Duration, Instant};

/// Most answers take microseconds. A virtual CPU that is away for this long, now and then, is no worse off than one
/// whose host was busy.
const SLOW: Duration = Duration::from_millis(3);
/// How long a disk that was slow is taken to be slow: a virtual CPU finds out at most ten times a second.
const COOL_DOWN: Duration = Duration::from_millis(100);
/// An answer that has taken this long may never come, and one stuck virtual CPU is enough. Longer than a busy host
/// lets a thread wait for the processor as a rule.
const STUCK: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When each answer that should be quick was begun. As many as there are threads.
    under_way: Vec<Option<Instant>>,
    mood: Mood,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Trusting,
    Watchful {
        until: Instant,
    },
    Cautious {
        until: Instant,
    },
}

/// An answer under way.
#[derive(Debug)]
pub(super) struct Ticket {
    slot: usize,
    /// Whether the thread is to find out if it waits.
    pub(super) watched: bool,
}

impl Pace {
    /// Whether a virtual CPU may answer a request itself.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        self.settle(now);
        let stuck = |start: &Instant| now.saturating_duration_since(*start) > STUCK;
        !matches!(self.mood, Mood::Cautious { .. }) && !self.under_way.iter().flatten().any(stuck)
    }

    pub(super) fn begin(&mut self, now: Instant) -> Ticket {
        self.settle(now);
        let free = self.under_way.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.under_way.len());
        match self.under_way.get_mut(slot) {
            Some(start) => *start = Some(now),
            None => self.under_way.push(Some(now)),
        }
        Ticket {
            slot,
            watched: self.mood != Mood::Trusting,
        }
    }

    /// `waited`: the thread gave the processor away of its own accord. Means something if it was watched.
    pub(super) fn end(&mut self, ticket: &Ticket, now: Instant, waited: bool) {
        let start = self.under_way.get_mut(ticket.slot).and_then(Option::take);
        let slow = start.is_some_and(|start| now.saturating_duration_since(start) > SLOW);
        let until = now + COOL_DOWN;
        match self.mood {
            _ if !slow => {}
            _ if ticket.watched && waited => self.mood = Mood::Cautious { until },
            Mood::Trusting | Mood::Watchful { .. } => self.mood = Mood::Watchful { until },
            Mood::Cautious { .. } => {}
        }
    }

    fn settle(&mut self, now: Instant) {
        self.mood = match self.mood {
            Mood::Cautious { until } if now >= until => Mood::Watchful {
                until: until + COOL_DOWN,
            },
            mood => mood,
        };
        if matches!(self.mood, Mood::Watchful { until } if now >= until) {
            self.mood = Mood::Trusting;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(50);
    const LATE: Duration = Duration::from_millis(10);

    /// A pace and its clock.
    struct Clocked(Pace, Instant);

    impl Clocked {
        fn new() -> Self {
            Clocked(Pace::default(), Instant::now())
        }

        fn answer(&mut self, takes: Duration, waited: bool) {
            let ticket = self.0.begin(self.1);
            self.1 += takes;
            self.0.end(&ticket, self.1, waited);
        }

        fn allows(&mut self) -> bool {
            self.0.allows(self.1)
        }
    }

    #[test]
    fn quick_answers_stay_on_the_vcpu() {
        let mut pace = Clocked::new();
        for _ in 0..100 {
            pace.answer(QUICK, true);
            assert!(pace.allows());
        }
    }

    #[test]
    fn a_disk_that_is_slow_twice_moves_to_the_workers_and_comes_back() {
        let mut pace = Clocked::new();
        pace.answer(LATE, true);
        assert!(pace.allows(), "once may be chance");
        pace.answer(LATE, true);
        assert!(!pace.allows());
        pace.1 += COOL_DOWN;
        assert!(pace.allows());
        pace.answer(LATE, true);
        assert!(!pace.allows(), "it is still watched");
        pace.1 += 3 * COOL_DOWN;
        assert!(pace.allows());
        pace.answer(LATE, true);
        assert!(pace.allows(), "it was quick for long enough to be trusted");
    }

    #[test]
    fn a_busy_host_is_not_a_slow_disk() {
        let mut pace = Clocked::new();
        for _ in 0..10 {
            pace.answer(LATE, false);
            assert!(pace.allows());
        }
    }

    #[test]
    fn while_one_answer_is_stuck_no_other_vcpu_tries() {
        let mut pace = Clocked::new();
        let stuck = pace.0.begin(pace.1);
        assert!(pace.allows());
        pace.answer(QUICK, false);
        pace.1 += STUCK + QUICK;
        assert!(!pace.allows());
        pace.1 += 100 * COOL_DOWN;
        assert!(!pace.allows());
        pace.0.end(&stuck, pace.1, false);
        assert!(pace.allows());
    }

    #[test]
    fn answers_under_way_take_no_more_slots_than_there_are_at_once() {
        let mut pace = Clocked::new();
        for _ in 0..100 {
            let pair = [pace.0.begin(pace.1), pace.0.begin(pace.1)];
            pair.iter().for_each(|ticket| pace.0.end(ticket, pace.1, false));
        }
        assert_eq!(pace.0.under_way.len(), 2);
    }
}
