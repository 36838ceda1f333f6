//! What a run's records come to: what was reached, what was refused, a row for each.

use std::{collections::HashMap, net::IpAddr};

use egress_policy::{
    EgressPolicy, Target,
    control::{Record, Spent, What},
    link::{Id, Protocol},
};

use super::{
    journal::{Entry, Line, Note},
    words,
};
use crate::console;

#[derive(Debug, Default)]
pub(crate) struct Account {
    /// The one that came into force last.
    pub(crate) policy: Option<EgressPolicy>,
    pub(crate) notes: Vec<Note>,
    pub(crate) reached: Vec<Reached>,
    pub(crate) refused: Vec<Refused>,
    flows: HashMap<(usize, u32, Id), Flow>,
    rows: HashMap<Key, usize>,
    /// Which of several runs is being read.
    run: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) what: String,
    pub(crate) address: Option<IpAddr>,
    pub(crate) connections: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) last_unix_ms: u64,
    pub(crate) by: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) what: String,
    /// A rule of this text would let it through.
    pub(crate) rule: Option<String>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) times: u64,
    pub(crate) why: &'static str,
    pub(crate) last_unix_ms: u64,
    pub(crate) by: Option<String>,
}

/// How much of a flow is in its row already.
#[derive(Debug)]
struct Flow {
    row: usize,
    sent: u64,
    received: u64,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Key {
    Reached(String, Option<IpAddr>),
    Refused(String, Option<IpAddr>, &'static str),
}

impl Account {
    /// The lines that follow are of another run.
    pub(crate) fn next_run(&mut self) {
        self.run += 1;
    }

    pub(crate) fn add(&mut self, line: Line) {
        match line {
            Line::Start(_) => {}
            Line::Policy(policy) => self.policy = Some(policy.policy),
            Line::Note(note) => self.notes.push(note),
            Line::Entry(entry) => self.entry(&entry),
        }
    }

    /// Of the runs that were read.
    pub(crate) fn spent(&self) -> Spent {
        let add = |sum: Spent, row: &Reached| Spent {
            bytes: sum.bytes.saturating_add(row.sent).saturating_add(row.received),
            connections: sum.connections.saturating_add(row.connections),
        };
        self.reached.iter().fold(Spent::default(), add)
    }

    fn entry(&mut self, entry: &Entry) {
        let record = &entry.record;
        match &record.what {
            // The connection that follows says more.
            What::Named { .. } => {}
            What::Opened { flow, address, .. } => {
                let row = self.reached_row(record, Some(*address));
                self.flows.insert((self.run, entry.link, *flow), Flow::new(row));
                if let Some(reached) = self.reached.get_mut(row) {
                    reached.connections = reached.connections.saturating_add(1);
                    note_by(&mut reached.by, entry);
                }
            }
            What::Carried { flow, sent, received } => {
                self.carried(entry, *flow, *sent, *received);
            }
            What::Closed {
                flow, sent, received, ..
            } => {
                self.carried(entry, *flow, *sent, *received);
                self.flows.remove(&(self.run, entry.link, *flow));
            }
            What::Refused {
                reason,
                address,
                count,
                ..
            } => {
                let rule = words::a_rule_helps(*reason).then(|| rule_for(record)).flatten();
                self.refused(entry, reason.text(), rule, *address, *count);
            }
            What::Dropped { reason, count } => self.refused(entry, reason.text(), None, None, *count),
        }
    }

    fn carried(&mut self, entry: &Entry, flow: Id, sent: u64, received: u64) {
        let key = (self.run, entry.link, flow);
        // Its beginning may have been in a file that is gone.
        if !self.flows.contains_key(&key) {
            let row = self.reached_row(&entry.record, None);
            self.flows.insert(key, Flow::new(row));
        }
        let Some(flow) = self.flows.get_mut(&key) else {
            return;
        };
        if let Some(row) = self.reached.get_mut(flow.row) {
            row.sent = row.sent.saturating_add(sent.saturating_sub(flow.sent));
            row.received = row
                .received
                .saturating_add(received.saturating_sub(flow.received));
            row.last_unix_ms = row.last_unix_ms.max(entry.record.unix_ms);
        }
        (flow.sent, flow.received) = (sent, received);
    }

    fn reached_row(&mut self, record: &Record, address: Option<IpAddr>) -> usize {
        let what = what(record);
        let index = *self
            .rows
            .entry(Key::Reached(what.clone(), address))
            .or_insert(self.reached.len());
        if index == self.reached.len() {
            self.reached.push(Reached {
                what,
                address,
                connections: 0,
                sent: 0,
                received: 0,
                last_unix_ms: 0,
                by: None,
            });
        }
        if let Some(row) = self.reached.get_mut(index) {
            row.last_unix_ms = row.last_unix_ms.max(record.unix_ms);
        }
        index
    }

    fn refused(
        &mut self,
        entry: &Entry,
        why: &'static str,
        rule: Option<String>,
        address: Option<IpAddr>,
        count: u64,
    ) {
        let what = what(&entry.record);
        let index = *self
            .rows
            .entry(Key::Refused(what.clone(), address, why))
            .or_insert(self.refused.len());
        if index == self.refused.len() {
            self.refused.push(Refused {
                what,
                rule,
                address,
                times: 0,
                why,
                last_unix_ms: 0,
                by: None,
            });
        }
        if let Some(row) = self.refused.get_mut(index) {
            row.times = row.times.saturating_add(count);
            row.last_unix_ms = row.last_unix_ms.max(entry.record.unix_ms);
            note_by(&mut row.by, entry);
        }
    }
}

impl Flow {
    fn new(row: usize) -> Self {
        Flow {
            row,
            sent: 0,
            received: 0,
        }
    }
}

/// The last one that is known; one that is likely only where none is.
fn note_by(row: &mut Option<String>, entry: &Entry) {
    let known = entry.by.as_ref().is_some_and(|by| by.pid.is_some());
    if known || row.is_none() {
        *row = by_text(entry).or_else(|| row.take());
    }
}

/// In parentheses where it is only likely.
pub(crate) fn by_text(entry: &Entry) -> Option<String> {
    let by = entry.by.as_ref()?;
    let command = console::one_line(&by.command);
    Some(match by.pid {
        Some(pid) if command.is_empty() => format!("pid {pid}"),
        Some(_) => command,
        None => format!("({command})"),
    })
}

/// `example.com:443`, `[2001:db8::1]:22`, `udp 192.0.2.1:123`.
pub(crate) fn what(record: &Record) -> String {
    let place = match (&record.target, record.port) {
        (Some(target), port) => place(target, port),
        (None, Some(port)) => format!("port {port}"),
        (None, None) => "-".to_owned(),
    };
    let place = console::one_line(&place);
    match (record.protocol, &record.target) {
        (Protocol::Tcp, _) => place,
        // A name that was asked for.
        (Protocol::Udp, Some(Target::Name(_))) => place,
        (Protocol::Udp, _) => format!("udp {place}"),
        (Protocol::Icmp, _) => format!("icmp {place}"),
        (Protocol::Ip(number), _) => format!("ip protocol {number} {place}"),
    }
}

pub(crate) fn place(target: &Target, port: Option<u16>) -> String {
    match (target, port) {
        (target, None) => target.to_string(),
        (Target::Address(IpAddr::V6(address)), Some(port)) => format!("[{address}]:{port}"),
        (target, Some(port)) => format!("{target}:{port}"),
    }
}

/// What is typed to allow it.
fn rule_for(record: &Record) -> Option<String> {
    Some(place(record.target.as_ref()?, record.port))
}

#[cfg(test)]
mod tests;
