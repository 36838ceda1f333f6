//! Pings of the gateway, and errors that say "no" so that nobody waits.

use egress_policy::addresses::MTU;
use smoltcp::wire::{EthernetAddress, Icmpv4Packet, Icmpv6Packet, IpProtocol};

use super::{ETHERNET_HEADER, ip_packet};
use crate::stack::packet::{Ends, Packet};

/// Why not, in the words that make programs give up at once. Both are hard errors to a connected socket of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// ECONNREFUSED. What UDP gets: every resolver, NTP or QUIC client knows it and tries the next thing (TCP),
    /// while EACCES and EHOSTUNREACH of the other are reported as a broken network or not at all.
    Port,
    /// EHOSTUNREACH, of IPv6 EACCES; ping says "Packet filtered". What everything else gets.
    Prohibited,
}

const ECHO_V4: (u8, u8) = (8, 0);
const ECHO_V6: (u8, u8) = (128, 129);
const HEADER: usize = 8;
/// Of the packet that is refused: what fits into the smallest packet every host takes (RFC 1812, RFC 4443).
const MAX_QUOTE_V4: usize = 576 - 20 - HEADER;
const MAX_QUOTE_V6: usize = 1280 - 40 - HEADER;

/// The answer to a ping. None where it would be longer than what the cable carries, which a guest should not have sent.
pub(crate) fn pong(packet: &Packet<'_>, to: EthernetAddress) -> Option<Vec<u8>> {
    let (request, reply) = match packet.ends {
        Ends::V4 { .. } => ECHO_V4,
        Ends::V6 { .. } => ECHO_V6,
    };
    let mut body = packet.payload.to_vec();
    match body.get_mut(..HEADER)? {
        [kind, 0, ..] if *kind == request => *kind = reply,
        _ => return None,
    }
    let pong = message(packet.ends.reversed(), to, body);
    (pong.len() <= ETHERNET_HEADER + usize::from(MTU)).then_some(pong)
}

/// Whether this is itself an error or another answer, which are never answered (RFC 1122, RFC 4443).
pub(crate) fn is_question(packet: &Packet<'_>) -> bool {
    const QUESTIONS_V4: [u8; 4] = [8, 13, 15, 17];
    let kind = packet.payload.first();
    match packet.ends {
        Ends::V4 { .. } => kind.is_some_and(|kind| QUESTIONS_V4.contains(kind)),
        Ends::V6 { .. } => kind.is_some_and(|kind| *kind == ECHO_V6.0 || *kind == 139),
    }
}

/// The error that refuses a packet.
pub(crate) fn refusal(refused: &Packet<'_>, refusal: Refusal, to: EthernetAddress) -> Vec<u8> {
    let (kind, code, most) = match (refused.ends, refusal) {
        (Ends::V4 { .. }, Refusal::Port) => (3, 3, MAX_QUOTE_V4),
        (Ends::V4 { .. }, Refusal::Prohibited) => (3, 13, MAX_QUOTE_V4),
        (Ends::V6 { .. }, Refusal::Port) => (1, 4, MAX_QUOTE_V6),
        (Ends::V6 { .. }, Refusal::Prohibited) => (1, 1, MAX_QUOTE_V6),
    };
    let quote = refused.whole.get(..most).unwrap_or(refused.whole);
    let mut body = vec![kind, code, 0, 0, 0, 0, 0, 0];
    body.extend_from_slice(quote);
    message(from_gateway(refused.ends), to, body)
}

/// Errors come from the gateway, not from the far end: that is who says no.
fn from_gateway(ends: Ends) -> Ends {
    use egress_policy::addresses::{GATEWAY_V4, GATEWAY_V6};
    match ends {
        Ends::V4 { source, .. } => Ends::V4 {
            source: GATEWAY_V4,
            destination: source,
        },
        Ends::V6 { source, .. } => Ends::V6 {
            source: GATEWAY_V6,
            destination: source,
        },
    }
}

fn message(ends: Ends, to: EthernetAddress, mut body: Vec<u8>) -> Vec<u8> {
    let protocol = match ends {
        Ends::V4 { .. } => {
            Icmpv4Packet::new_unchecked(&mut body).fill_checksum();
            IpProtocol::Icmp
        }
        Ends::V6 { source, destination } => {
            Icmpv6Packet::new_unchecked(&mut body).fill_checksum(&source, &destination);
            IpProtocol::Icmpv6
        }
    };
    ip_packet(to, ends, protocol, &body)
}
