//! What a run's records come to: what was reached, what was refused, a row for each.

mod rows;

use std::{collections::HashMap, net::IpAddr, path::Path};

use egress_policy::{
    EgressPolicy, Target,
    control::{Spent, What},
    link::{Id, Protocol},
};

use super::{
    journal::{
        self, Entry, Line, Note,
        total::{Open, Others, Reached, Refused, Subject, Total, Why},
    },
    words,
};
use crate::{SessionName, console};
use rows::Rows;

/// Flows that stand at once. `coffer-egress` allows a quarter; of one beyond, all is counted when it ends.
const MAX_FLOWS: usize = 4096;
/// Notes that are said again in each file, the latest. Few things are noted, but a process may die every ten seconds.
const MAX_NOTES: usize = 100;

#[derive(Debug, Default)]
pub(crate) struct Account {
    /// The one that came into force last.
    pub(crate) policy: Option<EgressPolicy>,
    pub(crate) notes: Vec<Note>,
    rows: Rows,
    /// Of the budgets, until the end of the run that was read last.
    spent: Spent,
    /// Those of the process that is.
    flows: HashMap<Id, Flow>,
    link: u32,
}

/// Whose row a flow counts for, and how much of it is there already.
#[derive(Debug)]
struct Flow {
    subject: Subject,
    address: Option<IpAddr>,
    sent: u64,
    received: u64,
}

impl Account {
    /// The lines that follow are of another run.
    pub(crate) fn next_run(&mut self) {
        self.flows.clear();
        self.link = 0;
        self.spent = Spent::default();
    }

    pub(crate) fn add(&mut self, line: &Line) {
        match line {
            Line::Start(start) => self.spend(start.spent.connections, start.spent.bytes),
            Line::Policy(policy) => self.policy = Some(policy.policy.clone()),
            Line::Note(note) => self.notes.push(note.clone()),
            Line::Entry(entry) => self.entry(entry),
            Line::Total(total) => self.total(total),
        }
    }

    pub(crate) fn reached(&self) -> &[Reached] {
        self.rows.reached()
    }

    pub(crate) fn refused(&self) -> &[Refused] {
        self.rows.refused()
    }

    pub(crate) fn others(&self) -> &Others {
        self.rows.others()
    }

    /// Of the session's budgets, by the run that was read last and all before it.
    pub(crate) fn spent(&self) -> Spent {
        self.spent
    }

    /// What a file that begins now says of all before it. Rows beyond the bounds are one from now on.
    pub(crate) fn totals(&mut self) -> Vec<Line> {
        self.rows.fold();
        self.notes.drain(..self.notes.len().saturating_sub(MAX_NOTES));
        let notes = self.notes.iter().cloned().map(Line::Note);
        let mut open: Vec<Open> = self
            .flows
            .iter()
            .map(|(id, flow)| flow.open(*id, self.link))
            .collect();
        open.sort_by_key(|open| open.flow);
        let totals = self.rows.totals().chain(open.into_iter().map(Total::Open));
        notes
            .chain(totals.map(|total| Line::Total(Box::new(total))))
            .collect()
    }

    fn entry(&mut self, entry: &Entry) {
        self.of_link(entry.link);
        let record = &entry.record;
        let unix_ms = record.unix_ms;
        match &record.what {
            // The connection that follows says more.
            What::Named { .. } => {}
            What::Opened { flow, address, .. } => self.opened(entry, *flow, *address),
            What::Carried { flow, sent, received } => {
                if self.is_known(*flow, &Subject::of(record)) {
                    self.carried(*flow, unix_ms, *sent, *received);
                }
            }
            What::Closed {
                flow, sent, received, ..
            } => {
                if self.is_known(*flow, &Subject::of(record)) {
                    self.carried(*flow, unix_ms, *sent, *received);
                    self.flows.remove(flow);
                } else {
                    self.count(&reached(Subject::of(record), None, (*sent, *received), unix_ms));
                }
            }
            What::Refused {
                reason,
                rule,
                address,
                count,
            } => {
                let rule = words::denying(*reason, rule.as_deref(), *address).map(str::to_owned);
                self.refuse(entry, Why::Refused(*reason), rule, *address, *count);
            }
            What::Dropped { reason, count } => self.refuse(entry, Why::Dropped(*reason), None, None, *count),
        }
    }

    /// What stood when a process died nobody ends.
    fn of_link(&mut self, link: u32) {
        if link != self.link {
            self.flows.clear();
            self.link = link;
        }
    }

    fn opened(&mut self, entry: &Entry, flow: Id, address: IpAddr) {
        let subject = Subject::of(&entry.record);
        self.count(&Reached {
            connections: 1,
            by: entry.by.clone(),
            ..reached(subject.clone(), Some(address), (0, 0), entry.record.unix_ms)
        });
        if self.flows.len() < MAX_FLOWS {
            self.flows.insert(flow, Flow::new(subject, Some(address)));
        }
    }

    /// Its beginning may have been in a file that is gone.
    fn is_known(&mut self, flow: Id, subject: &Subject) -> bool {
        if !self.flows.contains_key(&flow) && self.flows.len() < MAX_FLOWS {
            self.flows.insert(flow, Flow::new(subject.clone(), None));
        }
        self.flows.contains_key(&flow)
    }

    fn carried(&mut self, flow: Id, unix_ms: u64, sent: u64, received: u64) {
        let Some(flow) = self.flows.get_mut(&flow) else {
            return;
        };
        let new = (
            sent.saturating_sub(flow.sent),
            received.saturating_sub(flow.received),
        );
        (flow.sent, flow.received) = (sent, received);
        let more = reached(flow.subject.clone(), flow.address, new, unix_ms);
        self.count(&more);
    }

    fn count(&mut self, more: &Reached) {
        self.spend(more.connections, more.sent.saturating_add(more.received));
        self.rows.add_reached(more);
    }

    fn spend(&mut self, connections: u64, bytes: u64) {
        self.spent.connections = self.spent.connections.saturating_add(connections);
        self.spent.bytes = self.spent.bytes.saturating_add(bytes);
    }

    fn refuse(&mut self, entry: &Entry, why: Why, rule: Option<String>, address: Option<IpAddr>, count: u64) {
        self.rows.add_refused(&Refused {
            subject: Subject::of(&entry.record),
            why,
            rule,
            address,
            count,
            unix_ms: entry.record.unix_ms,
            by: entry.by.clone(),
        });
    }

    fn total(&mut self, total: &Total) {
        match total {
            Total::Reached(row) => self.count(row),
            Total::Refused(row) => self.rows.add_refused(row),
            Total::Others(others) => {
                self.spend(others.connections, others.sent.saturating_add(others.received));
                self.rows.add_others(others);
            }
            Total::Open(open) => {
                self.of_link(open.link);
                self.flows.insert(open.flow, Flow::of(open));
            }
        }
    }
}

impl Flow {
    fn new(subject: Subject, address: Option<IpAddr>) -> Self {
        Flow {
            subject,
            address,
            sent: 0,
            received: 0,
        }
    }

    fn of(open: &Open) -> Self {
        Flow {
            sent: open.sent,
            received: open.received,
            ..Flow::new(open.subject.clone(), open.address)
        }
    }

    fn open(&self, flow: Id, link: u32) -> Open {
        Open {
            subject: self.subject.clone(),
            address: self.address,
            link,
            flow,
            sent: self.sent,
            received: self.received,
        }
    }
}

fn reached(subject: Subject, address: Option<IpAddr>, (sent, received): (u64, u64), unix_ms: u64) -> Reached {
    Reached {
        subject,
        address,
        connections: 0,
        sent,
        received,
        unix_ms,
        by: None,
    }
}

/// What a session had spent of its budgets when its latest run was last written to; for one whose owner did not live to
/// note it. `None` where that run is of a session before it, of the same name, or cannot be read.
pub(crate) fn spent_by_record(directory: &Path, session: &SessionName, made_unix_ms: u64) -> Option<Spent> {
    let run = journal::run_of(directory, Some(session)).ok()??;
    if run.started_unix_ms < made_unix_ms {
        return None;
    }
    let mut account = Account::default();
    let lines = run.lines().ok()?;
    let lines = lines.iter().filter_map(|line| journal::parse(line));
    lines.for_each(|line| account.add(&line));
    Some(account.spent())
}

/// `example.com:443`, `[2001:db8::1]:22`, `udp 192.0.2.1:123`.
pub(crate) fn what(subject: &Subject) -> String {
    let place = match (&subject.target, subject.port) {
        (Some(target), port) => place(target, port),
        (None, Some(port)) => format!("port {port}"),
        (None, None) => "-".to_owned(),
    };
    let place = console::one_line(&place);
    match (subject.protocol, &subject.target) {
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

/// What is typed to allow what was refused, where that would help.
pub(crate) fn helping_rule(row: &Refused) -> Option<String> {
    match row.why {
        Why::Refused(reason) if words::a_rule_helps(reason) => {
            Some(place(row.subject.target.as_ref()?, row.subject.port))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
