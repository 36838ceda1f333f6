//! Rows that things are added up in, and how many of them a new file takes along.

use std::{collections::HashMap, net::IpAddr};

use crate::net::journal::{
    By,
    total::{Others, Reached, Refused, Subject, Total, Why},
};

/// Rows a new file takes along of what was reached, those that carried most. A build reaches tens of places; at three
/// kilobytes a row at the very most it is less than half a file.
pub(super) const MAX_REACHED: usize = 1000;
/// The same of what was refused, which a guest can make up: the first of them.
pub(super) const MAX_REFUSED: usize = 500;

#[derive(Debug, Default)]
pub(super) struct Rows {
    reached: Vec<Reached>,
    refused: Vec<Refused>,
    others: Others,
    places: HashMap<Key, usize>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Key {
    Reached(Subject, Option<IpAddr>),
    Refused(Subject, Option<IpAddr>, Why, Option<String>),
}

impl Rows {
    pub(super) fn reached(&self) -> &[Reached] {
        &self.reached
    }

    pub(super) fn refused(&self) -> &[Refused] {
        &self.refused
    }

    pub(super) fn others(&self) -> &Others {
        &self.others
    }

    pub(super) fn add_reached(&mut self, more: &Reached) {
        let next = self.reached.len();
        let index = *self.places.entry(key_of_reached(more)).or_insert(next);
        match self.reached.get_mut(index) {
            None => self.reached.push(more.clone()),
            Some(row) => {
                row.connections = row.connections.saturating_add(more.connections);
                row.sent = row.sent.saturating_add(more.sent);
                row.received = row.received.saturating_add(more.received);
                row.unix_ms = row.unix_ms.max(more.unix_ms);
                note_by(&mut row.by, more.by.as_ref());
            }
        }
    }

    pub(super) fn add_refused(&mut self, more: &Refused) {
        let next = self.refused.len();
        let index = *self.places.entry(key_of_refused(more)).or_insert(next);
        match self.refused.get_mut(index) {
            None => self.refused.push(more.clone()),
            Some(row) => {
                row.count = row.count.saturating_add(more.count);
                row.unix_ms = row.unix_ms.max(more.unix_ms);
                note_by(&mut row.by, more.by.as_ref());
            }
        }
    }

    pub(super) fn add_others(&mut self, more: &Others) {
        self.others.add(more);
    }

    /// Adds up in one row what is beyond the bounds.
    pub(super) fn fold(&mut self) {
        if self.reached.len() > MAX_REACHED {
            self.reached
                .sort_by_key(|row| std::cmp::Reverse(row.sent.saturating_add(row.received)));
        }
        let reached = self.reached.drain(MAX_REACHED.min(self.reached.len())..);
        reached.for_each(|row| self.others.add(&others_of_reached(&row)));
        let refused = self.refused.drain(MAX_REFUSED.min(self.refused.len())..);
        refused.for_each(|row| self.others.add(&others_of_refused(&row)));
        let reached = self.reached.iter().map(key_of_reached).enumerate();
        let refused = self.refused.iter().map(key_of_refused).enumerate();
        self.places = reached.chain(refused).map(|(index, key)| (key, index)).collect();
    }

    pub(super) fn totals(&self) -> impl Iterator<Item = Total> {
        let others = Some(&self.others).filter(|others| **others != Others::default());
        let reached = self.reached.iter().cloned().map(Total::Reached);
        let refused = self.refused.iter().cloned().map(Total::Refused);
        reached.chain(refused).chain(others.cloned().map(Total::Others))
    }
}

fn key_of_reached(row: &Reached) -> Key {
    Key::Reached(row.subject.clone(), row.address)
}

fn key_of_refused(row: &Refused) -> Key {
    Key::Refused(row.subject.clone(), row.address, row.why, row.rule.clone())
}

fn others_of_reached(row: &Reached) -> Others {
    Others {
        connections: row.connections,
        sent: row.sent,
        received: row.received,
        refused: 0,
        unix_ms: row.unix_ms,
    }
}

fn others_of_refused(row: &Refused) -> Others {
    Others {
        refused: row.count,
        unix_ms: row.unix_ms,
        ..Others::default()
    }
}

/// The last one that is known; one that is likely only where none is.
fn note_by(row: &mut Option<By>, by: Option<&By>) {
    let known = by.is_some_and(|by| by.pid.is_some());
    if known || row.is_none() {
        *row = by.cloned().or_else(|| row.take());
    }
}
