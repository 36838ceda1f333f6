//! What was dropped, told apart by kind and said at most once a second each.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use egress_policy::{
    Target,
    link::{DropReason, Dropped, Protocol},
};

use crate::limits::{DROP_INTERVAL, MAX_DROP_KINDS};

#[derive(Debug, Default)]
pub(crate) struct Drops {
    /// Those said since the last sweep, and how often they came again.
    kinds: HashMap<Kind, Again>,
    ready: VecDeque<Dropped>,
    sweep: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    protocol: Protocol,
    target: Option<Target>,
    port: Option<u16>,
    reason: DropReason,
}

#[derive(Debug, Default)]
struct Again {
    count: u64,
    source: Option<u16>,
}

impl Drops {
    /// `dropped.count` times more of its kind.
    pub(crate) fn note(&mut self, dropped: Dropped, now: Instant) {
        self.sweep.get_or_insert(now + DROP_INTERVAL);
        let Dropped { source, count, .. } = dropped;
        let kind = self.told_apart(Kind {
            protocol: dropped.protocol,
            target: dropped.target,
            port: dropped.port,
            reason: dropped.reason,
        });
        if let Some(again) = self.kinds.get_mut(&kind) {
            again.count = again.count.saturating_add(count);
            again.source = source;
            return;
        }
        self.ready.push_back(kind.report(count, source));
        self.kinds.insert(kind, Again::default());
    }

    pub(crate) fn next(&mut self) -> Option<Dropped> {
        self.ready.pop_front()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.sweep
    }

    /// Says what came again, and forgets what did not.
    pub(crate) fn expire(&mut self, now: Instant) {
        if self.sweep.is_none_or(|sweep| now < sweep) {
            return;
        }
        // Nobody fetches them: go on counting.
        if self.ready.is_empty() {
            let ready = &mut self.ready;
            self.kinds.retain(|kind, again| {
                let more = again.count > 0;
                if more {
                    ready.push_back(kind.report(again.count, again.source));
                }
                *again = Again::default();
                more
            });
        }
        self.sweep = (!self.kinds.is_empty()).then(|| now + DROP_INTERVAL);
    }

    /// When there are too many kinds, targets and ports no longer matter. What is left are a few thousand at the
    /// very most: protocols times reasons.
    fn told_apart(&self, kind: Kind) -> Kind {
        if self.kinds.len() < MAX_DROP_KINDS || self.kinds.contains_key(&kind) {
            return kind;
        }
        Kind {
            target: None,
            port: None,
            ..kind
        }
    }
}

impl Kind {
    fn report(&self, count: u64, source: Option<u16>) -> Dropped {
        Dropped {
            protocol: self.protocol,
            target: self.target.clone(),
            port: self.port,
            source,
            reason: self.reason,
            count,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    fn udp(port: u16) -> Dropped {
        Dropped {
            protocol: Protocol::Udp,
            target: Some(Target::Address(Ipv4Addr::new(192, 0, 2, 1).into())),
            port: Some(port),
            source: Some(5000),
            reason: DropReason::Udp,
            count: 1,
        }
    }

    fn drain(drops: &mut Drops) -> Vec<Dropped> {
        std::iter::from_fn(|| drops.next()).collect()
    }

    #[test]
    fn the_first_is_said_at_once_and_the_rest_once_a_second() {
        let start = Instant::now();
        let mut drops = Drops::default();
        (0..10).for_each(|_| drops.note(udp(443), start));
        assert_eq!(drain(&mut drops), [udp(443)]);
        drops.expire(start);
        assert_eq!(drain(&mut drops), []);

        let later = drops.deadline().unwrap();
        assert_eq!(later, start + DROP_INTERVAL);
        drops.expire(later);
        assert_eq!(drain(&mut drops), [Dropped { count: 9, ..udp(443) }]);

        // Nothing more came: it is forgotten, and new again after that.
        drops.expire(later + DROP_INTERVAL);
        assert_eq!(drops.deadline(), None);
        drops.note(udp(443), later + DROP_INTERVAL * 2);
        assert_eq!(drain(&mut drops), [udp(443)]);
    }

    #[test]
    fn a_flood_of_kinds_is_counted_together() {
        let start = Instant::now();
        let mut drops = Drops::default();
        (0..60_000).for_each(|port| drops.note(udp(port), start));
        let said = drain(&mut drops);
        assert_eq!(said.len(), MAX_DROP_KINDS + 1);
        drops.expire(start + Duration::from_secs(1));
        let again = drain(&mut drops);
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].target, None);
        assert_eq!(said.len() as u64 - 1 + 1 + again[0].count, 60_000);
    }

    #[test]
    fn nothing_grows_when_nobody_listens() {
        let start = Instant::now();
        let mut drops = Drops::default();
        for second in 0..100 {
            (0..1000).for_each(|port| drops.note(udp(port), start + Duration::from_secs(second)));
            drops.expire(start + Duration::from_secs(second));
        }
        assert!(drops.ready.len() <= MAX_DROP_KINDS + 1);
    }
}
