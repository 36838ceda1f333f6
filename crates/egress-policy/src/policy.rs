//! The decision.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{HostName, Rule, Target};

/// What a session may reach. Nothing, by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressPolicy {
    pub rules: Vec<Rule>,
    #[serde(default)]
    pub unknown: Unknown,
    /// Bytes, both ways together, and connections, that the session may use up.
    #[serde(default)]
    pub max_bytes: Option<u64>,
    #[serde(default)]
    pub max_connections: Option<u64>,
}

/// What happens to what no rule is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unknown {
    #[default]
    Refuse,
    /// Somebody is to be asked.
    Ask,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    Allow(&'a Rule),
    /// With the rule that says so, if one does.
    Refuse(Reason, Option<&'a Rule>),
    Ask,
}

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No rule allows it.
    NoRule,
    /// A rule denies it.
    Denied,
    /// Somebody would have to be asked, and nobody can be.
    NobodyToAsk,
    /// The name is allowed, and leads to an address that only a rule for that address allows.
    Metadata,
    Loopback,
    Private,
    LinkLocal,
    CarrierNat,
    Multicast,
    Unspecified,
    Reserved,
    /// The name leads to an address of this host.
    ThisHost,
    /// The name has no address.
    NoAddress,
    /// The resolver of this host did not answer.
    Resolver,
    /// The far end refused, was out of reach, or did not answer.
    ConnectionRefused,
    Unreachable,
    TimedOut,
    /// The proxy this host goes through is down or refused.
    Proxy,
    BudgetBytes,
    BudgetConnections,
    TooManyFlows,
    /// On port 443: what was said is not TLS.
    NotTls,
    /// No server name in the TLS hello, or another than was asked for, or one that is encrypted.
    NoServerName,
    OtherServerName,
    EncryptedHello,
    /// On port 80: what was said is not HTTP/1, or not in a way that can have only one meaning.
    NotHttp,
    AmbiguousHttp,
    /// No Host in a request, or another than was asked for, or a method that makes a tunnel.
    NoHost,
    OtherHost,
    Tunnel,
}

impl EgressPolicy {
    /// May this name be known to the guest? Yes when some port of it is allowed.
    pub fn decide_name(&self, _name: &HostName) -> Verdict<'_> {
        Verdict::Refuse(Reason::NoRule, None)
    }

    /// May the guest connect there? For a name, [`Self::decide_address`] has the last word on each of its addresses.
    pub fn decide(&self, _target: &Target, _port: u16) -> Verdict<'_> {
        Verdict::Refuse(Reason::NoRule, None)
    }

    /// May a connection that is allowed go to this address? `own` are the addresses of this host.
    pub fn decide_address(&self, _address: IpAddr, _port: u16, _own: &[IpAddr]) -> Result<(), Reason> {
        Err(Reason::Reserved)
    }
}
