//! The flows that live, as policy, budgets and clocks see them.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    net::IpAddr,
    rc::Rc,
    time::Instant,
};

use egress_policy::{
    Reason, Target,
    control::End,
    link::{Id, Protocol},
};
use tokio::sync::Notify;

use crate::{
    limits::{CARRIED_INTERVAL, CHUNK, HALF_IDLE_DEADLINE, IDLE_DEADLINE, MANY_FLOWS, SMALL_CHUNK},
    records::Subject,
};

/// A flow that stands or is about to.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) id: Id,
    pub(crate) source: u16,
    pub(crate) target: Target,
    pub(crate) port: u16,
    /// Where it leads, once it stands; not for what goes through a proxy, whose address nobody asked for.
    pub(crate) address: OnceCell<IpAddr>,
    pub(crate) sent: Cell<u64>,
    pub(crate) received: Cell<u64>,
    pub(crate) half_closed: Cell<bool>,
    opened: Cell<bool>,
    active: Cell<Instant>,
    told: Cell<(Instant, u64)>,
    ended: Cell<Option<Ended>>,
    cut: Notify,
}

/// Why a flow is made to end from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) end: End,
    /// What a flow that does not stand yet is refused with.
    pub(crate) reason: Reason,
}

impl Live {
    pub(crate) fn new(id: Id, source: u16, target: Target, port: u16) -> Self {
        Live {
            id,
            source,
            target,
            port,
            address: OnceCell::new(),
            sent: Cell::new(0),
            received: Cell::new(0),
            half_closed: Cell::new(false),
            opened: Cell::new(false),
            active: Cell::new(Instant::now()),
            told: Cell::new((Instant::now(), 0)),
            ended: Cell::new(None),
            cut: Notify::new(),
        }
    }

    pub(crate) fn subject(&self) -> Subject {
        Subject {
            source: Some(self.source),
            protocol: Protocol::Tcp,
            target: Some(self.target.clone()),
            port: Some(self.port),
        }
    }

    pub(crate) fn open(&self) {
        self.opened.set(true);
        self.active.set(Instant::now());
    }

    pub(crate) fn is_open(&self) -> bool {
        self.opened.get()
    }

    pub(crate) fn count_sent(&self, bytes: usize) {
        self.sent.set(self.sent.get().saturating_add(bytes as u64));
    }

    pub(crate) fn count_received(&self, bytes: usize) {
        self.received
            .set(self.received.get().saturating_add(bytes as u64));
    }

    pub(crate) fn carried(&self) -> u64 {
        self.sent.get().saturating_add(self.received.get())
    }

    /// Ends the flow, now or as soon as it looks.
    pub(crate) fn cut(&self, end: End, reason: Reason) {
        self.ended.set(Some(Ended { end, reason }));
        self.cut.notify_one();
    }

    pub(crate) async fn until_cut(&self) -> Ended {
        loop {
            if let Some(ended) = self.ended.get() {
                return ended;
            }
            self.cut.notified().await;
        }
    }

    /// Looked at once a second. True when it is time to say how much was carried.
    pub(crate) fn tick(&self, now: Instant) -> bool {
        if !self.opened.get() {
            return false;
        }
        let carried = self.carried();
        let (at, told) = self.told.get();
        if carried != told && now.duration_since(at) >= CARRIED_INTERVAL {
            self.told.set((now, carried));
            self.active.set(now);
            return true;
        }
        let deadline = if self.half_closed.get() {
            HALF_IDLE_DEADLINE
        } else {
            IDLE_DEADLINE
        };
        if carried == told && now.duration_since(at.max(self.active.get())) >= deadline {
            self.cut(End::Idle, Reason::TimedOut);
        }
        false
    }
}

#[derive(Debug, Default)]
pub(crate) struct Flows(RefCell<HashMap<Id, Rc<Live>>>);

impl Flows {
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// False when there is one of that number.
    pub(crate) fn add(&self, flow: &Rc<Live>) -> bool {
        self.0.borrow_mut().insert(flow.id, Rc::clone(flow)).is_none()
    }

    pub(crate) fn remove(&self, id: Id) {
        self.0.borrow_mut().remove(&id);
    }

    pub(crate) fn all(&self) -> Vec<Rc<Live>> {
        self.0.borrow().values().cloned().collect()
    }

    /// How much one of them reads at once.
    pub(crate) fn chunk(&self) -> usize {
        if self.len() < MANY_FLOWS {
            CHUNK
        } else {
            SMALL_CHUNK
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Live {
        let live = Live::new(Id(1), 1, Target::Address(IpAddr::from([192, 0, 2, 1])), 1);
        live.open();
        live
    }

    fn end_after(live: &Live, silence: std::time::Duration) -> Option<End> {
        live.tick(Instant::now() + silence);
        live.ended.get().map(|ended| ended.end)
    }

    #[test]
    fn a_flow_on_which_nothing_is_said_ends_sooner_when_one_side_has_finished() {
        let flow = live();
        assert_eq!(end_after(&flow, HALF_IDLE_DEADLINE), None);
        assert_eq!(end_after(&flow, IDLE_DEADLINE), Some(End::Idle));
        let flow = live();
        flow.half_closed.set(true);
        assert_eq!(end_after(&flow, HALF_IDLE_DEADLINE), Some(End::Idle));
    }

    #[test]
    fn what_carries_is_not_idle_and_says_how_much_once() {
        let flow = live();
        let later = Instant::now() + IDLE_DEADLINE;
        flow.count_sent(5);
        assert!(flow.tick(later));
        assert!(!flow.tick(later + CARRIED_INTERVAL));
        assert_eq!(flow.ended.get(), None);
    }
}
