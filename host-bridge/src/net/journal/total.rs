//! What all lines of a run until now come to: said at the head of a file, as those before it are lost in the end.

use std::net::IpAddr;

use egress_policy::{
    Reason, Target,
    control::Record,
    link::{DropReason, Id, Protocol},
};
use serde::{Deserialize, Serialize};

use super::By;

/// A row for each thing that was reached or refused, however often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "total", rename_all = "kebab-case")]
pub(crate) enum Total {
    Reached(Reached),
    Open(Open),
    Refused(Refused),
    Others(Others),
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Subject {
    pub(crate) protocol: Protocol,
    pub(crate) target: Option<Target>,
    pub(crate) port: Option<u16>,
}

impl Subject {
    pub(crate) fn of(record: &Record) -> Self {
        Subject {
            protocol: record.protocol,
            target: record.target.clone(),
            port: record.port,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reached {
    #[serde(flatten)]
    pub(crate) subject: Subject,
    /// None where only the end of a flow is known.
    pub(crate) address: Option<IpAddr>,
    pub(crate) connections: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// The last time.
    pub(crate) unix_ms: u64,
    pub(crate) by: Option<By>,
}

/// A flow that still stands. What it carried is in the row of what it reached, and what is said of it later counts from
/// its beginning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Open {
    #[serde(flatten)]
    pub(crate) subject: Subject,
    pub(crate) address: Option<IpAddr>,
    pub(crate) link: u32,
    pub(crate) flow: Id,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    #[serde(flatten)]
    pub(crate) subject: Subject,
    pub(crate) why: Why,
    /// The one that denies it.
    pub(crate) rule: Option<String>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) count: u64,
    /// The last time.
    pub(crate) unix_ms: u64,
    pub(crate) by: Option<By>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Why {
    Refused(Reason),
    Dropped(DropReason),
}

impl Why {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Why::Refused(reason) => reason.text(),
            Why::Dropped(reason) => reason.text(),
        }
    }
}

/// All that has no row of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Others {
    pub(crate) connections: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) refused: u64,
    /// The last time.
    pub(crate) unix_ms: u64,
}

impl Others {
    pub(crate) fn add(&mut self, more: &Others) {
        self.connections = self.connections.saturating_add(more.connections);
        self.sent = self.sent.saturating_add(more.sent);
        self.received = self.received.saturating_add(more.received);
        self.refused = self.refused.saturating_add(more.refused);
        self.unix_ms = self.unix_ms.max(more.unix_ms);
    }
}
