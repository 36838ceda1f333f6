//! What a session has used up, and what it was refused, as its records tell.

use std::collections::HashMap;

use egress_policy::{
    Reason, Target,
    control::{Record, Spent, What},
    link::Id,
};

/// Things refused that are remembered for the note after a command; the records have them all.
const MAX_REFUSALS: usize = 64;
/// Flows that are open at once. `coffer-egress` allows fewer; what is beyond is not counted twice, but late.
const MAX_FLOWS: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Tally {
    /// By flows that are closed.
    closed: Spent,
    open: HashMap<Id, u64>,
    refusals: Vec<Refusal>,
}

/// Something the guest wanted and did not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub target: Target,
    /// None when not even its name was told.
    pub port: Option<u16>,
    pub reason: Reason,
}

impl Tally {
    pub(super) fn new(spent: Spent) -> Self {
        Tally {
            closed: spent,
            ..Tally::default()
        }
    }

    pub(super) fn spent(&self) -> Spent {
        let open = self
            .open
            .values()
            .fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        Spent {
            bytes: self.closed.bytes.saturating_add(open),
            ..self.closed
        }
    }

    pub(super) fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }

    pub(super) fn count(&mut self, record: &Record) {
        match &record.what {
            What::Opened { flow, .. } => {
                self.closed.connections = self.closed.connections.saturating_add(1);
                if self.open.len() < MAX_FLOWS {
                    self.open.insert(*flow, 0);
                }
            }
            What::Carried { flow, sent, received } => {
                if let Some(bytes) = self.open.get_mut(flow) {
                    *bytes = sent.saturating_add(*received);
                }
            }
            What::Closed {
                flow, sent, received, ..
            } => {
                self.open.remove(flow);
                let bytes = sent.saturating_add(*received);
                self.closed.bytes = self.closed.bytes.saturating_add(bytes);
            }
            What::Refused { reason, .. } => self.refused(record, *reason),
            What::Named { .. } | What::Dropped { .. } => {}
        }
    }

    /// The process is gone and its flows with it: what they had carried when it last said so is spent.
    pub(super) fn process_gone(&mut self) {
        self.closed = self.spent();
        self.open.clear();
    }

    fn refused(&mut self, record: &Record, reason: Reason) {
        let Some(target) = &record.target else {
            return;
        };
        // A name that is not told has no port yet: the port is the resolver's.
        let refusal = Refusal {
            target: target.clone(),
            port: record.port,
            reason,
        };
        if self.refusals.len() < MAX_REFUSALS && !self.refusals.contains(&refusal) {
            self.refusals.push(refusal);
        }
    }
}

#[cfg(test)]
mod tests;
