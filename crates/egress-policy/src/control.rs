//! What the host bridge tells `coffer-egress`, and what it hears back: a line of JSON each.
//!
//! The first line on standard input is a [`Config`]; each later one is a [`Request`]. Standard input is also the
//! lifeline: when it closes, the owner is gone and the process ends. Standard output carries [`Event`]s.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{
    EgressPolicy, Reason, Target,
    link::{DropReason, Id, Protocol},
};

/// A reader refuses a configuration of any other version.
pub const CONFIG_VERSION: u32 = 1;
/// The longest line: a policy with a few sets of a thousand rules each, or a long hosts file.
pub const MAX_LINE: usize = 4 << 20;
/// The descriptor on which the process finds its end of the link to the machine.
pub const LINK_DESCRIPTOR: i32 = 3;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub version: u32,
    pub policy: EgressPolicy,
    pub resolver: ResolverConfig,
    pub upstream: Upstream,
    /// Already used of the policy's budgets, by a process before this one.
    #[serde(default)]
    pub spent: Spent,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Takes effect on the next question; live flows it no longer allows are cut.
    Policy {
        policy: EgressPolicy,
    },
    Resolver {
        resolver: ResolverConfig,
    },
}

/// How this host finds addresses: what its `resolv.conf` and `hosts` say, read by the bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolverConfig {
    /// With the port, which is 53 everywhere but in a test.
    pub nameservers: Vec<SocketAddr>,
    /// Names are lower case.
    pub hosts: Vec<(IpAddr, Vec<String>)>,
}

/// The proxies this host goes through, as `HTTPS_PROXY` and its kin say: `http://` (CONNECT), `socks5://`,
/// `socks5h://`, with a user and password or without. They hold secrets, so they stand in no record and no log.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// For port 80.
    pub http: Option<String>,
    /// For every other port.
    pub https: Option<String>,
    /// Names, `.suffixes`, addresses and ranges that are reached without it.
    pub no_proxy: Vec<String>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream")
            .field("http", &self.http.is_some())
            .field("https", &self.https.is_some())
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

/// What a session has used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    pub bytes: u64,
    pub connections: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The policy is in force and the link is served. Said at the start, and for each [`Request::Policy`].
    Ready,
    Record(Record),
    /// The last line, for a person.
    Failed {
        why: String,
    },
}

/// One thing that happened, as it is kept. The bridge adds whose it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub unix_ms: u64,
    /// The guest's port, for finding out who asked.
    pub source: Option<u16>,
    pub protocol: Protocol,
    pub target: Option<Target>,
    pub port: Option<u16>,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum What {
    /// A DNS question that was answered with an address of the pool. Nothing was sent for it.
    Named { rule: String },
    /// A connection stands. The address is the far end's, or the proxy's.
    Opened { flow: Id, address: IpAddr, rule: String },
    /// How much a flow has carried until now; said now and then of one that lives long.
    Carried { flow: Id, sent: u64, received: u64 },
    Closed {
        flow: Id,
        sent: u64,
        received: u64,
        end: End,
    },
    /// A question, a connection, or what was said on one, that was not allowed.
    Refused {
        reason: Reason,
        rule: Option<String>,
        /// The address that was refused, where a name had been allowed.
        address: Option<IpAddr>,
        /// Times the same was refused, when not each is told.
        count: u64,
    },
    /// Dropped by the machine, before anybody was asked.
    Dropped { reason: DropReason, count: u64 },
}

/// How a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Both sides had said all they had to say.
    Done,
    /// The far end broke it.
    Remote,
    /// The guest broke it.
    Guest,
    /// What was said on it is not allowed; a refusal says why.
    Refused,
    /// A rule changed.
    Cut,
    /// A budget is spent.
    Budget,
    /// Nothing was said for too long.
    Idle,
}

#[cfg(test)]
mod tests;
