//! What becomes of a frame of the guest.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Instant,
};

use egress_policy::{
    Target,
    addresses::{GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST_V4, GUEST_V6},
    link::{DropReason, Dropped, Protocol},
};
use smoltcp::wire::{EthernetAddress, Icmpv6Message, IpProtocol, UdpPacket};

use super::{
    Event, Stack,
    packet::{Content, Ends, Frame, Packet, Rejected, kind, ports},
};
use crate::{
    FlowId,
    dns::{self, Asker, Handled, Place, Reply},
    limits::MAX_EVENTS,
    local::{
        arp, dhcp,
        icmp::{self, Refusal},
        ndp,
    },
    tcp::{Opening, Received},
};

/// What is done with a packet that goes nowhere.
enum Fate {
    Done,
    /// Recorded, and the guest waits in vain.
    Drop(DropReason),
    /// Recorded, and the guest is told.
    Refuse(DropReason, Refusal),
}

/// What frames cannot be for us. The switch of a real network would not bring them.
fn is_for_others(destination: EthernetAddress) -> bool {
    destination.is_unicast() && destination != EthernetAddress(GATEWAY_MAC)
}

impl Stack {
    pub(super) fn incoming(&mut self, frame: &[u8], now: Instant) {
        match Frame::parse(frame) {
            Err(rejected) => self.rejected(rejected, now),
            Ok(frame) if is_for_others(frame.destination) || !frame.source.is_unicast() => {}
            Ok(frame) => match &frame.content {
                Content::Arp(packet) => self.arp(packet, frame.source, now),
                Content::Ip(packet) => self.ip(packet, &frame, now),
            },
        }
    }

    fn rejected(&mut self, rejected: Rejected, now: Instant) {
        let dropped = Dropped {
            protocol: rejected.protocol,
            target: rejected.destination.map(|address| self.target(address)),
            port: None,
            source: None,
            reason: rejected.reason,
            count: 1,
        };
        self.drops.note(dropped, now);
    }

    fn arp(&mut self, packet: &[u8], from: EthernetAddress, now: Instant) {
        match arp::answer(packet, from) {
            Ok(reply) => self.replies.extend(reply),
            Err(reason) => self.rejected(Rejected::arp(reason), now),
        }
    }

    fn ip(&mut self, packet: &Packet<'_>, frame: &Frame<'_>, now: Instant) {
        let fate = match packet.ends {
            _ if is_group_management(packet) => Fate::Done,
            Ends::V4 { source, destination } if source.is_unspecified() && destination.is_broadcast() => {
                self.dhcp(packet, frame.source)
            }
            Ends::V6 { .. } if is_neighbor_discovery(packet) => self.neighbor(packet, frame.source),
            _ if is_group(packet.ends.destination()) => Fate::Drop(DropReason::Multicast),
            Ends::V4 { source, .. } if source != GUEST_V4 => Fate::Drop(DropReason::Spoofed),
            Ends::V6 { source, .. } if source != GUEST_V6 => Fate::Drop(DropReason::Spoofed),
            // To everybody on the cable, but to one address: no host takes that (RFC 1122, 3.3.6).
            _ if !frame.destination.is_unicast() => Fate::Drop(DropReason::Multicast),
            _ => {
                self.guest = frame.source;
                self.forward(packet, now)
            }
        };
        match fate {
            Fate::Done => {}
            Fate::Drop(reason) => self.note(packet, reason, now),
            Fate::Refuse(reason, refusal) => {
                self.note(packet, reason, now);
                if self.errors.take(now) {
                    self.replies.push(icmp::refusal(packet, refusal, self.guest));
                }
            }
        }
    }

    /// Between the guest's own address and one other.
    fn forward(&mut self, packet: &Packet<'_>, now: Instant) -> Fate {
        match (packet.protocol, packet.ends) {
            (IpProtocol::Tcp, _) => self.tcp(packet, now),
            (IpProtocol::Udp, _) => self.udp(packet, now),
            (IpProtocol::Icmp, Ends::V4 { .. }) | (IpProtocol::Icmpv6, Ends::V6 { .. }) => self.icmp(packet),
            _ => Fate::Refuse(DropReason::Protocol, Refusal::Prohibited),
        }
    }

    fn tcp(&mut self, packet: &Packet<'_>, now: Instant) -> Fate {
        match self.flows.receive(packet.whole, now) {
            Received::Known => Fate::Done,
            Received::Refused(reason) => Fate::Drop(reason),
            Received::Opening(opening) => match self.opening(&opening, now) {
                Ok(()) => Fate::Done,
                Err(reason) => {
                    self.flows.refuse(opening.flow, now);
                    Fate::Drop(reason)
                }
            },
        }
    }

    fn opening(&mut self, opening: &Opening, now: Instant) -> Result<(), DropReason> {
        let Opening {
            flow,
            source,
            destination,
        } = *opening;
        let (target, place) = match destination.ip() {
            gateway if is_gateway(gateway) => {
                return self.open_resolver(flow, source.port(), destination, now);
            }
            address => match Place::of(address) {
                Some(place) => {
                    let name = self.resolver.names.name(place).ok_or(DropReason::Unnamed)?;
                    (Target::Name(name.clone()), Some(place))
                }
                None => (Target::Address(address), None),
            },
        };
        if self.events.len() >= MAX_EVENTS {
            return Err(DropReason::Limit);
        }
        if let Some(place) = place {
            self.resolver.names.hold(place);
        }
        self.told.insert(flow, place);
        self.events.push_back(Event::Open {
            flow,
            source: source.port(),
            target,
            port: destination.port(),
        });
        Ok(())
    }

    /// Nothing of the gateway listens but its resolver.
    fn open_resolver(
        &mut self,
        flow: FlowId,
        source: u16,
        destination: SocketAddr,
        now: Instant,
    ) -> Result<(), DropReason> {
        if destination.port() != dns::PORT {
            return Err(DropReason::Unnamed);
        }
        self.streams.open(flow, source, &mut self.flows, now);
        Ok(())
    }

    fn udp(&mut self, packet: &Packet<'_>, now: Instant) -> Fate {
        let Ok(datagram) = UdpPacket::new_checked(packet.payload) else {
            return Fate::Drop(DropReason::Malformed);
        };
        match datagram.dst_port() {
            dns::PORT if is_gateway(packet.ends.destination()) => {
                let asker = Asker::Udp {
                    answer: packet.ends.reversed(),
                    port: datagram.src_port(),
                };
                let (protocol, port) = (Protocol::Udp, datagram.src_port());
                self.question(datagram.payload(), asker, (protocol, port), now);
                Fate::Done
            }
            // A client that renews its lease.
            dhcp::SERVER_PORT if packet.ends.destination() == GATEWAY_V4 => self.dhcp(packet, self.guest),
            _ => Fate::Refuse(DropReason::Udp, Refusal::Port),
        }
    }

    fn icmp(&mut self, packet: &Packet<'_>) -> Fate {
        let to_gateway = is_gateway(packet.ends.destination());
        if to_gateway && let Some(pong) = icmp::pong(packet, self.guest) {
            self.replies.push(pong);
            return Fate::Done;
        }
        match icmp::is_question(packet) {
            true => Fate::Refuse(DropReason::Icmp, Refusal::Prohibited),
            // An error about something we sent, most of all an answer that nobody waits for any more.
            false if to_gateway => Fate::Done,
            false => Fate::Drop(DropReason::Icmp),
        }
    }

    fn neighbor(&mut self, packet: &Packet<'_>, from: EthernetAddress) -> Fate {
        match ndp::answer(packet, from) {
            Ok(reply) => {
                self.replies.extend(reply);
                Fate::Done
            }
            Err(reason) => Fate::Drop(reason),
        }
    }

    fn dhcp(&mut self, packet: &Packet<'_>, from: EthernetAddress) -> Fate {
        let Ends::V4 { source, .. } = packet.ends else {
            return Fate::Drop(DropReason::Malformed);
        };
        if packet.protocol != IpProtocol::Udp {
            return Fate::Drop(DropReason::Multicast);
        }
        let Ok(datagram) = UdpPacket::new_checked(packet.payload) else {
            return Fate::Drop(DropReason::Malformed);
        };
        if (datagram.src_port(), datagram.dst_port()) != (dhcp::CLIENT_PORT, dhcp::SERVER_PORT) {
            return Fate::Drop(DropReason::Multicast);
        }
        match dhcp::answer(datagram.payload()) {
            Ok(reply) => {
                self.replies
                    .extend(reply.and_then(|reply| dhcp::frame(&reply, source, from)));
                Fate::Done
            }
            Err(reason) => Fate::Drop(reason),
        }
    }
}

/// Questions to the resolver.
impl Stack {
    /// Reads what connections to the resolver have to say, and answers what can be answered.
    pub(super) fn serve_streams(&mut self, now: Instant) {
        while let Some(asked) = self.streams.turn(&mut self.flows, now) {
            let asker = Asker::Tcp { flow: asked.flow };
            self.question(&asked.message, asker, (Protocol::Tcp, asked.port), now);
        }
    }

    fn question(&mut self, message: &[u8], asker: Asker, (protocol, port): (Protocol, u16), now: Instant) {
        let Handled { reply, dropped } = self.resolver.ask(message, asker, now);
        let reason = dropped.as_ref().map(|(reason, _)| *reason);
        if let Some((reason, name)) = dropped {
            let dropped = Dropped {
                protocol,
                target: name.map(Target::Name),
                port: Some(dns::PORT),
                source: Some(port),
                reason,
                count: 1,
            };
            self.drops.note(dropped, now);
        }
        match (reply, asker) {
            // On a connection one who asks nonsense, or too much, can be told to stop.
            (Reply::Now(_) | Reply::Nothing, Asker::Tcp { flow }) if is_a_nuisance(reason) => {
                self.streams.cut(flow, &mut self.flows, now);
            }
            (Reply::Now(answer), asker) => self.send_answer(asker, &answer, now),
            (Reply::Nothing, _) => {}
            (Reply::Ask(query, _), _) if self.events.len() >= MAX_EVENTS => {
                let answers = self.resolver.failed(query);
                self.send_answers(answers, now);
            }
            (Reply::Ask(query, name), _) => self.events.push_back(Event::Name {
                query,
                name,
                protocol,
                port,
            }),
        }
    }
}

/// For the record.
impl Stack {
    fn note(&mut self, packet: &Packet<'_>, reason: DropReason, now: Instant) {
        let ports = ports(packet);
        let dropped = Dropped {
            protocol: kind(packet.protocol),
            target: Some(self.target(packet.ends.destination())),
            port: ports.map(|(_, destination)| destination),
            source: ports.map(|(source, _)| source),
            reason,
            count: 1,
        };
        self.drops.note(dropped, now);
    }

    pub(super) fn target(&self, address: IpAddr) -> Target {
        let name = Place::of(address).and_then(|place| self.resolver.names.name(place));
        name.cloned().map_or(Target::Address(address), Target::Name)
    }
}

fn is_a_nuisance(reason: Option<DropReason>) -> bool {
    matches!(reason, Some(DropReason::Malformed | DropReason::Limit))
}

fn is_gateway(address: IpAddr) -> bool {
    address == GATEWAY_V4 || address == GATEWAY_V6
}

/// Addresses that mean many, and the one that means none.
fn is_group(address: IpAddr) -> bool {
    address == Ipv4Addr::BROADCAST || address.is_multicast() || address.is_unspecified()
}

fn is_neighbor_discovery(packet: &Packet<'_>) -> bool {
    let message = packet.payload.first().map(|kind| Icmpv6Message::from(*kind));
    packet.protocol == IpProtocol::Icmpv6 && message.is_some_and(ndp::concerns)
}

/// Hosts announce what groups they listen to without being asked; there is no group here.
fn is_group_management(packet: &Packet<'_>) -> bool {
    const LISTENER_REPORTS: [u8; 3] = [131, 132, 143];
    match packet.ends {
        Ends::V4 { destination, .. } => packet.protocol == IpProtocol::Igmp && destination.is_multicast(),
        Ends::V6 { .. } if packet.extended => packet
            .payload
            .get(8)
            .is_some_and(|kind| LISTENER_REPORTS.contains(kind)),
        Ends::V6 { .. } => false,
    }
}
