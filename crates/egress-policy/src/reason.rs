//! Why not.

use serde::{Deserialize, Serialize};

use crate::link::DropReason;

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
    /// The HTTP proxy this host goes through makes no tunnel there.
    ProxyTunnel,
}

impl Reason {
    /// A phrase for a person.
    pub fn text(self) -> &'static str {
        match self {
            Reason::NoRule => "no rule allows it",
            Reason::Denied => "a rule denies it",
            Reason::NobodyToAsk => "no rule is about it, and nobody can be asked",
            Reason::Metadata => {
                "a metadata service of a cloud; only a rule for exactly that address allows it"
            }
            Reason::Loopback => "a loopback address; only a rule for that range allows it",
            Reason::Private => "a private address; only a rule for that range allows it",
            Reason::LinkLocal => "a link-local address; only a rule for that range allows it",
            Reason::CarrierNat => "an address behind a carrier's NAT; only a rule for that range allows it",
            Reason::Multicast => "a multicast address; only a rule for that range allows it",
            Reason::Unspecified => "an address that means no host, or this one",
            Reason::Reserved => "a reserved address; only a rule for that range allows it",
            Reason::ThisHost => "an address of this host; only a rule for exactly that address allows it",
            Reason::NoAddress => "the name has no address",
            Reason::Resolver => "the resolver of this host did not answer",
            Reason::ConnectionRefused => "the far end refused",
            Reason::Unreachable => "the far end is out of reach",
            Reason::TimedOut => "the far end did not answer",
            Reason::Proxy => "the proxy of this host is down or refused",
            Reason::BudgetBytes => "the session's bytes are used up",
            Reason::BudgetConnections => "the session's connections are used up",
            Reason::TooManyFlows => "too many connections at once",
            Reason::NotTls => "not TLS, on a port for TLS",
            Reason::NoServerName => "no server name in the TLS hello",
            Reason::OtherServerName => "another server name in the TLS hello than was asked for",
            Reason::EncryptedHello => "the server name in the TLS hello is encrypted",
            Reason::NotHttp => "not HTTP/1, on a port for HTTP",
            Reason::AmbiguousHttp => "an HTTP request that can be read in two ways",
            Reason::NoHost => "no Host in an HTTP request",
            Reason::OtherHost => "another Host in an HTTP request than was asked for",
            Reason::Tunnel => "an HTTP request for a tunnel",
            Reason::ProxyTunnel => {
                "the proxy of this host refuses a tunnel (CONNECT) to that name or port; many allow port 443 only"
            }
        }
    }
}

impl DropReason {
    /// A phrase for a person.
    pub fn text(self) -> &'static str {
        match self {
            DropReason::Malformed => "cannot be read",
            DropReason::Fragment => "a piece of a packet",
            DropReason::SourceRoute => "says itself where it is to go",
            DropReason::Spoofed => "from an address that is not the guest's",
            DropReason::Udp => "UDP; only names are asked for with it",
            DropReason::Icmp => "ICMP; only the gateway answers",
            DropReason::Protocol => "neither TCP, UDP nor ICMP",
            DropReason::Multicast => "to a multicast or broadcast address",
            DropReason::Unnamed => "to an address that stands for no name",
            DropReason::QuestionKind => "a DNS question of a kind that is not answered",
            DropReason::BadName => "a name that no host has",
            DropReason::Limit => "more at once than a limit allows",
        }
    }
}
