//! What a machine and its `coffer-egress` say to each other, on a connected pair of AF_UNIX sockets that keeps
//! messages apart (SOCK_SEQPACKET). One message is one packet, encoded by [`encode`].
//!
//! The machine knows no rules. It asks about every name and every flow, and what it does not hear in time is a no.
//! The bytes of a flow do not travel here: [`ToEgress::Open`] brings one end of a stream pair of its own
//! (SCM_RIGHTS), and [`FromEgress::Opened`] says that from now on it carries the flow. The end of one direction is
//! `shutdown`, and the end of both is `close`; a flow that breaks is announced by [`FromEgress::Broken`] first.

use serde::{Deserialize, Serialize};

use crate::{HostName, Reason, Target};

/// Said first by both; a process of another version is refused.
pub const VERSION: u16 = 1;
/// A name of 253 bytes and a few numbers.
pub const MAX_MESSAGE: usize = 1024;

/// Names one flow or question of one machine; chosen by the machine, never used twice on one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Id(pub u64);

/// The kind of a guest's packet, for what asks or is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    Tcp,
    Udp,
    Icmp,
    /// Any other protocol of IP, by its number.
    Ip(u8),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToEgress {
    Hello {
        version: u16,
    },
    /// A DNS question for an address of this name. `port` is the guest's, of this protocol.
    Name {
        id: Id,
        name: HostName,
        protocol: Protocol,
        port: u16,
    },
    /// A TCP connection. One end of a stream pair comes with the message. `source` is the guest's port.
    Open {
        id: Id,
        source: u16,
        target: Target,
        port: u16,
    },
    /// Dropped or refused by the machine itself, `count` times since it was last said; for the record only.
    Dropped(Dropped),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    pub protocol: Protocol,
    pub target: Option<Target>,
    pub port: Option<u16>,
    pub source: Option<u16>,
    pub reason: DropReason,
    pub count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromEgress {
    Hello {
        version: u16,
    },
    /// The answer to [`ToEgress::Name`].
    Name {
        id: Id,
        allowed: bool,
    },
    /// The answers to [`ToEgress::Open`]: the far end is connected, or it never will be.
    Opened {
        id: Id,
    },
    Refused {
        id: Id,
        reason: Reason,
    },
    /// An open flow ends without an orderly end.
    Broken {
        id: Id,
    },
}

/// Why the machine itself answered a packet of its guest with an error, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DropReason {
    /// Not a frame, packet, segment or question that can be read.
    Malformed,
    /// A piece of a packet. Nothing here needs them: the largest packet fits the link.
    Fragment,
    /// IP options or extension headers that say where a packet is to go.
    SourceRoute,
    /// From an address that is not the guest's.
    Spoofed,
    /// UDP other than DNS and DHCP, QUIC with it.
    Udp,
    Icmp,
    /// Neither TCP, UDP nor ICMP.
    Protocol,
    Multicast,
    /// An address of the pool that stands for no name.
    Unnamed,
    /// A DNS question of a kind that is not answered.
    QuestionKind,
    /// A name that cannot be a host's.
    BadName,
    /// More than a limit allows: of flows, of those not yet open, of questions in a second.
    Limit,
}

/// `None` when the message is longer than a packet may be, which no message made here is.
pub fn encode<T: Serialize>(message: &T) -> Option<Vec<u8>> {
    let bytes = postcard::to_stdvec(message).ok()?;
    (bytes.len() <= MAX_MESSAGE).then_some(bytes)
}

/// `None` when these bytes are not exactly one message.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Some(message),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests;
