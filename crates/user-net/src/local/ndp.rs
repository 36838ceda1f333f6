//! Neighbour discovery, IPv6's ARP: who has the gateway's addresses, and where is a router. Nothing is learnt here
//! either.
//!
//! The prefix is announced as on the link but not for making addresses: an address a guest made for itself would
//! not be [`GUEST_V6`], and nothing but that is listened to.

use std::net::Ipv6Addr;

use egress_policy::{
    addresses::{GATEWAY_MAC, GATEWAY_V6, GUEST_V6, MTU, PREFIX_V6},
    link::DropReason,
};
use smoltcp::wire::{EthernetAddress, Icmpv6Message, Icmpv6Packet, IpProtocol};

use super::ip_packet;
use crate::stack::packet::{Ends, Packet};

/// The gateway's link-local address, made of its MAC (RFC 4291, appendix A). Router advertisements come from it.
pub(crate) const GATEWAY_LINK_LOCAL: Ipv6Addr =
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0x00c0, 0xffff, 0xfee4, 0x0001);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: EthernetAddress = EthernetAddress([0x33, 0x33, 0, 0, 0, 1]);

/// As long as can be said (RFC 8319): this router speaks only when it is asked, and Linux asks only when the cable is
/// plugged in. Whoever gives the guest its address, which is never made of an advertisement, gives it a route as well.
const ROUTER_LIFETIME: u16 = u16::MAX;
const FOREVER: u32 = u32::MAX;

const ROUTER_SOLICITED_OVERRIDE: u8 = 0b1110_0000;
const ROUTER_OVERRIDE: u8 = 0b1010_0000;
const ON_LINK: u8 = 0b1000_0000;

/// Whether these are messages this module answers or ignores knowingly.
pub(crate) fn concerns(message: Icmpv6Message) -> bool {
    matches!(
        message,
        Icmpv6Message::RouterSolicit
            | Icmpv6Message::RouterAdvert
            | Icmpv6Message::NeighborSolicit
            | Icmpv6Message::NeighborAdvert
            | Icmpv6Message::Redirect
    )
}

/// The answer, if there is one to be given.
pub(crate) fn answer(packet: &Packet<'_>, from: EthernetAddress) -> Result<Option<Vec<u8>>, DropReason> {
    let Ends::V6 { source, .. } = packet.ends else {
        return Err(DropReason::Malformed);
    };
    if source != GUEST_V6 && !source.is_unicast_link_local() && !source.is_unspecified() {
        return Err(DropReason::Spoofed);
    }
    let message = Icmpv6Packet::new_checked(packet.payload).map_err(|_| DropReason::Malformed)?;
    // Whatever came through a router is not from this cable (RFC 4861, 7.1).
    if packet.hop_limit != 255 || message.msg_code() != 0 {
        return Err(DropReason::Malformed);
    }
    match message.msg_type() {
        Icmpv6Message::NeighborSolicit => Ok(neighbor(message.target_addr(), source, from)),
        Icmpv6Message::RouterSolicit => Ok(Some(router(source, from))),
        // Only a router says these, and the guest is none.
        Icmpv6Message::RouterAdvert | Icmpv6Message::Redirect => Err(DropReason::Spoofed),
        _ => Ok(None),
    }
}

fn neighbor(target: Ipv6Addr, asker: Ipv6Addr, from: EthernetAddress) -> Option<Vec<u8>> {
    if target != GATEWAY_V6 && target != GATEWAY_LINK_LOCAL {
        return None;
    }
    // One who asks from no address wants to take this one, and is told that it is taken.
    let (destination, to, flags) = if asker.is_unspecified() {
        (ALL_NODES, ALL_NODES_MAC, ROUTER_OVERRIDE)
    } else {
        (asker, from, ROUTER_SOLICITED_OVERRIDE)
    };
    let mut body = vec![Icmpv6Message::NeighborAdvert.into(), 0, 0, 0, flags, 0, 0, 0];
    body.extend_from_slice(&target.octets());
    body.extend_from_slice(&[2, 1]);
    body.extend_from_slice(&GATEWAY_MAC);
    Some(message(to, target, destination, body))
}

fn router(asker: Ipv6Addr, from: EthernetAddress) -> Vec<u8> {
    let (destination, to) = match asker.is_unspecified() {
        true => (ALL_NODES, ALL_NODES_MAC),
        false => (asker, from),
    };
    // Hop limit for the guest's packets; neither DHCPv6; reachable and retransmission times left to the guest.
    let mut body = vec![Icmpv6Message::RouterAdvert.into(), 0, 0, 0, 64, 0];
    body.extend_from_slice(&ROUTER_LIFETIME.to_be_bytes());
    body.extend_from_slice(&[0; 8]);
    source_link_layer(&mut body);
    mtu(&mut body);
    prefix(&mut body);
    resolver(&mut body);
    message(to, GATEWAY_LINK_LOCAL, destination, body)
}

fn source_link_layer(body: &mut Vec<u8>) {
    body.extend_from_slice(&[1, 1]);
    body.extend_from_slice(&GATEWAY_MAC);
}

fn mtu(body: &mut Vec<u8>) {
    body.extend_from_slice(&[5, 1, 0, 0]);
    body.extend_from_slice(&u32::from(MTU).to_be_bytes());
}

/// The gateway is the only neighbour.
fn prefix(body: &mut Vec<u8>) {
    body.extend_from_slice(&[3, 4, PREFIX_V6, ON_LINK]);
    body.extend_from_slice(&FOREVER.to_be_bytes());
    body.extend_from_slice(&FOREVER.to_be_bytes());
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&GATEWAY_V6.octets());
}

/// RFC 8106.
fn resolver(body: &mut Vec<u8>) {
    body.extend_from_slice(&[25, 3, 0, 0]);
    body.extend_from_slice(&FOREVER.to_be_bytes());
    body.extend_from_slice(&GATEWAY_V6.octets());
}

fn message(to: EthernetAddress, source: Ipv6Addr, destination: Ipv6Addr, mut body: Vec<u8>) -> Vec<u8> {
    Icmpv6Packet::new_unchecked(&mut body).fill_checksum(&source, &destination);
    ip_packet(to, Ends::V6 { source, destination }, IpProtocol::Icmpv6, &body)
}
