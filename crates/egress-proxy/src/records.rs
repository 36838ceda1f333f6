//! What is kept of what happens, and how often the same is said.
//!
//! A connection that stands is always told, and always told to have ended: none is opened while there is no room to
//! say so. What was asked, refused or dropped is told the first time; the same within a while is counted, and so is
//! what comes faster than anybody reads.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use egress_policy::{
    Reason, Target,
    control::{Event, Record, What},
    link::{DropReason, Dropped, Protocol},
};

use crate::{
    control::Events,
    limits::{MAX_TALLIES, NAMED_WINDOW, REFUSED_WINDOW, TOLD_A_SECOND, TOLD_BURST},
};

#[derive(Debug)]
pub(crate) struct Records {
    events: Events,
    tallies: RefCell<HashMap<Key, Tally>>,
    /// What is not told apart; few, because a key has no more than a reason.
    others: RefCell<HashMap<Key, Tally>>,
    tokens: Cell<u32>,
    refilled: Cell<Instant>,
}

/// Who asked for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) source: Option<u16>,
    pub(crate) protocol: Protocol,
    pub(crate) target: Option<Target>,
    pub(crate) port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Named {
        rule: String,
    },
    Refused {
        reason: Reason,
        rule: Option<String>,
        address: Option<IpAddr>,
    },
    Dropped(DropReason),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    protocol: Protocol,
    target: Option<Target>,
    port: Option<u16>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
struct Tally {
    since: Instant,
    source: Option<u16>,
    /// Not told yet.
    count: u64,
}

impl Records {
    pub(crate) fn new(events: Events) -> Self {
        Records {
            events,
            tallies: RefCell::default(),
            others: RefCell::default(),
            tokens: Cell::new(TOLD_BURST),
            refilled: Cell::new(Instant::now()),
        }
    }

    /// May something begin that will have to be told?
    pub(crate) fn has_room(&self) -> bool {
        self.events.has_room()
    }

    /// Of a flow that stands; told in any case.
    pub(crate) fn flow(&self, subject: Subject, what: What) {
        self.events.push(Event::Record(record(subject, what)));
    }

    pub(crate) fn named(&self, subject: Subject, rule: String) {
        self.count(subject, Kind::Named { rule }, 1);
    }

    pub(crate) fn refused(
        &self,
        subject: Subject,
        reason: Reason,
        rule: Option<String>,
        address: Option<IpAddr>,
    ) {
        let kind = Kind::Refused {
            reason,
            rule,
            address,
        };
        self.count(subject, kind, 1);
    }

    pub(crate) fn dropped(&self, dropped: Dropped) {
        let subject = Subject {
            source: dropped.source,
            protocol: dropped.protocol,
            target: dropped.target,
            port: dropped.port,
        };
        self.count(subject, Kind::Dropped(dropped.reason), dropped.count);
    }

    /// Tells what has been counted long enough and forgets what has not come again.
    pub(crate) fn tick(&self) {
        self.refill();
        for tallies in [&self.tallies, &self.others] {
            tallies.borrow_mut().retain(|key, tally| self.keep(key, tally));
        }
    }

    /// Tells all that has been counted.
    pub(crate) fn finish(&self) {
        for tallies in [&self.tallies, &self.others] {
            for (key, tally) in tallies.borrow_mut().drain() {
                self.tell(&key, &tally);
            }
        }
    }

    fn count(&self, subject: Subject, kind: Kind, count: u64) {
        let key = Key {
            protocol: subject.protocol,
            target: subject.target,
            port: subject.port,
            kind,
        };
        let mut tally = Tally {
            since: Instant::now(),
            source: subject.source,
            count,
        };
        let mut tallies = self.tallies.borrow_mut();
        if let Some(known) = tallies.get_mut(&key) {
            known.count = known.count.saturating_add(count);
        } else if tallies.len() < MAX_TALLIES && self.take_token() {
            if self.events.has_room() {
                self.tell(&key, &tally);
                tally.count = 0;
            }
            tallies.insert(key, tally);
        } else {
            let other = Tally {
                count: 0,
                source: None,
                ..tally
            };
            let mut others = self.others.borrow_mut();
            let known = others.entry(key.without_details()).or_insert(other);
            known.count = known.count.saturating_add(count);
        }
    }

    fn keep(&self, key: &Key, tally: &mut Tally) -> bool {
        if tally.since.elapsed() < key.kind.window() {
            return true;
        }
        if tally.count == 0 {
            return false;
        }
        if self.events.has_room() {
            self.tell(key, tally);
            tally.count = 0;
            tally.since = Instant::now();
        }
        true
    }

    fn tell(&self, key: &Key, tally: &Tally) {
        if tally.count == 0 {
            return;
        }
        let subject = Subject {
            source: tally.source,
            protocol: key.protocol,
            target: key.target.clone(),
            port: key.port,
        };
        let what = key.kind.clone().what(tally.count);
        self.events.push(Event::Record(record(subject, what)));
    }

    fn take_token(&self) -> bool {
        let tokens = self.tokens.get();
        self.tokens.set(tokens.saturating_sub(1));
        tokens > 0
    }

    fn refill(&self) {
        if self.refilled.get().elapsed() >= Duration::from_secs(1) {
            self.refilled.set(Instant::now());
            self.tokens
                .set(self.tokens.get().saturating_add(TOLD_A_SECOND).min(TOLD_BURST));
        }
    }
}

impl Key {
    fn without_details(self) -> Self {
        let kind = match self.kind {
            Kind::Named { .. } => Kind::Named { rule: String::new() },
            Kind::Refused { reason, .. } => Kind::Refused {
                reason,
                rule: None,
                address: None,
            },
            dropped @ Kind::Dropped(_) => dropped,
        };
        Key {
            protocol: self.protocol,
            target: None,
            port: None,
            kind,
        }
    }
}

impl Kind {
    fn window(&self) -> Duration {
        match self {
            Kind::Named { .. } => NAMED_WINDOW,
            Kind::Refused { .. } | Kind::Dropped(_) => REFUSED_WINDOW,
        }
    }

    fn what(self, count: u64) -> What {
        match self {
            Kind::Named { rule } => What::Named { rule },
            Kind::Refused {
                reason,
                rule,
                address,
            } => What::Refused {
                reason,
                rule,
                address,
                count,
            },
            Kind::Dropped(reason) => What::Dropped { reason, count },
        }
    }
}

fn record(subject: Subject, what: What) -> Record {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Record {
        unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        source: subject.source,
        protocol: subject.protocol,
        target: subject.target,
        port: subject.port,
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(name: &str) -> Subject {
        Subject {
            source: Some(7),
            protocol: Protocol::Udp,
            target: Some(Target::Name(name.to_owned().try_into().unwrap())),
            port: None,
        }
    }

    fn refused(events: &[Event]) -> Vec<u64> {
        let count = |event: &Event| match event {
            Event::Record(Record {
                what: What::Refused { count, .. },
                ..
            }) => *count,
            other => panic!("{other:?}"),
        };
        events.iter().map(count).collect()
    }

    #[test]
    fn a_guest_that_invents_names_fills_no_disk_and_each_is_counted() {
        const ASKED: u64 = 100_000;
        let events = Events::default();
        let records = Records::new(events.clone());
        for n in 0..ASKED {
            records.refused(subject(&format!("x{n}.test")), Reason::NoRule, None, None);
        }
        records.finish();
        let told = refused(&events.take());
        assert!(told.len() <= TOLD_BURST as usize + 1, "{} told", told.len());
        assert_eq!(told.iter().sum::<u64>(), ASKED);
    }

    #[test]
    fn what_nobody_reads_is_counted_and_told_later() {
        let events = Events::default();
        let records = Records::new(events.clone());
        let opened = || What::Carried {
            flow: egress_policy::link::Id(1),
            sent: 0,
            received: 0,
        };
        while records.has_room() {
            records.flow(subject("a.test"), opened());
        }
        for _ in 0..3 {
            records.refused(subject("b.test"), Reason::NoRule, None, None);
        }
        events.take();
        records.finish();
        assert_eq!(refused(&events.take()), [3]);
    }

    #[test]
    fn what_is_about_different_things_is_told_apart() {
        let events = Events::default();
        let records = Records::new(events.clone());
        records.refused(subject("a.test"), Reason::NoRule, None, None);
        records.refused(subject("b.test"), Reason::NoRule, None, None);
        records.refused(subject("a.test"), Reason::Denied, None, None);
        records.refused(subject("a.test"), Reason::NoRule, None, None);
        assert_eq!(refused(&events.take()), [1, 1, 1]);
        records.finish();
        assert_eq!(refused(&events.take()), [1]);
    }
}
