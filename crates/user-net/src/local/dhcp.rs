//! DHCP for guests that do not get their addresses from the agent: one lease, always the same, to whoever asks.
//! Nothing is kept, so a flood of requests takes nothing from anybody.

use std::net::Ipv4Addr;

use egress_policy::{
    addresses::{GATEWAY_V4, GUEST_V4, MTU, PREFIX_V4},
    link::DropReason,
};
use smoltcp::wire::{DhcpMessageType, DhcpPacket, EthernetAddress};

use super::udp_packet;
use crate::stack::packet::Ends;

pub(crate) const SERVER_PORT: u16 = 67;
pub(crate) const CLIENT_PORT: u16 = 68;

/// Nobody else wants the address.
const LEASE_SECONDS: u32 = 7 * 24 * 3600;

const MAGIC: u32 = 0x6382_5363;
/// Of BOOTP; some clients drop what is shorter.
const MIN_MESSAGE: usize = 300;

const SUBNET_MASK: u8 = 1;
const ROUTER: u8 = 3;
const RESOLVER: u8 = 6;
const INTERFACE_MTU: u8 = 26;
const REQUESTED_ADDRESS: u8 = 50;
const LEASE_TIME: u8 = 51;
const MESSAGE_TYPE: u8 = 53;
const SERVER: u8 = 54;
const RENEWAL_TIME: u8 = 58;
const REBINDING_TIME: u8 = 59;
const CLIENT_IDENTIFIER: u8 = 61;
const END: u8 = 255;

/// What of a client's message matters.
#[derive(Debug, Default)]
struct Asked<'a> {
    kind: Option<u8>,
    address: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    identifier: Option<&'a [u8]>,
}

/// The answer, if there is one to be given.
pub(crate) fn answer(message: &[u8]) -> Result<Option<Vec<u8>>, DropReason> {
    let packet = DhcpPacket::new_checked(message).map_err(|_| DropReason::Malformed)?;
    if message.first_chunk::<3>() != Some(&[1, 1, 6]) || packet.magic_number() != MAGIC {
        return Err(DropReason::Malformed);
    }
    let asked = Asked::read(&packet);
    let kind = asked.kind.ok_or(DropReason::Malformed)?;
    Ok(verdict(DhcpMessageType::from(kind), &asked, packet.client_ip())
        .and_then(|verdict| write(verdict, &packet, &asked)))
}

impl<'a> Asked<'a> {
    fn read(packet: &'a DhcpPacket<&'a [u8]>) -> Self {
        let mut asked = Asked::default();
        for option in packet.options() {
            match (option.kind, option.data) {
                (MESSAGE_TYPE, [kind]) => asked.kind = Some(*kind),
                (REQUESTED_ADDRESS, &[a, b, c, d]) => asked.address = Some(Ipv4Addr::new(a, b, c, d)),
                (SERVER, &[a, b, c, d]) => asked.server = Some(Ipv4Addr::new(a, b, c, d)),
                (CLIENT_IDENTIFIER, identifier) => asked.identifier = Some(identifier),
                _ => {}
            }
        }
        asked
    }
}

fn verdict(kind: DhcpMessageType, asked: &Asked<'_>, current: Ipv4Addr) -> Option<DhcpMessageType> {
    if asked.server.is_some_and(|server| server != GATEWAY_V4) {
        return None;
    }
    match kind {
        DhcpMessageType::Discover => Some(DhcpMessageType::Offer),
        DhcpMessageType::Inform => Some(DhcpMessageType::Ack),
        DhcpMessageType::Request => {
            let wanted = asked.address.unwrap_or(current);
            let ours = wanted == GUEST_V4 || wanted.is_unspecified();
            Some(if ours {
                DhcpMessageType::Ack
            } else {
                DhcpMessageType::Nak
            })
        }
        _ => None,
    }
}

fn write(verdict: DhcpMessageType, packet: &DhcpPacket<&[u8]>, asked: &Asked<'_>) -> Option<Vec<u8>> {
    let refused = verdict == DhcpMessageType::Nak;
    let inform = asked.kind == Some(DhcpMessageType::Inform.into());
    let address = if refused || inform {
        Ipv4Addr::UNSPECIFIED
    } else {
        GUEST_V4
    };
    let mut reply = vec![0; 240];
    let mut header = DhcpPacket::new_unchecked(&mut reply);
    header.set_opcode(smoltcp::wire::DhcpOpCode::Reply);
    header.set_hardware_type(smoltcp::wire::ArpHardware::Ethernet);
    header.set_hardware_len(6);
    header.set_transaction_id(packet.transaction_id());
    header.set_flags(packet.flags());
    header.set_client_ip(if refused {
        Ipv4Addr::UNSPECIFIED
    } else {
        packet.client_ip()
    });
    header.set_your_ip(address);
    header.set_client_hardware_address(packet.client_hardware_address());
    header.set_magic_number(MAGIC);
    let mut options = Options(reply);
    options.add(MESSAGE_TYPE, &[verdict.into()])?;
    options.add(SERVER, &GATEWAY_V4.octets())?;
    if !refused {
        options.network()?;
    }
    if !refused && !inform {
        options.lease()?;
    }
    if let Some(identifier) = asked.identifier {
        options.add(CLIENT_IDENTIFIER, identifier)?;
    }
    Some(options.end())
}

struct Options(Vec<u8>);

impl Options {
    fn add(&mut self, kind: u8, data: &[u8]) -> Option<()> {
        self.0.extend_from_slice(&[kind, u8::try_from(data.len()).ok()?]);
        self.0.extend_from_slice(data);
        Some(())
    }

    fn network(&mut self) -> Option<()> {
        let mask = u32::MAX << (32 - u32::from(PREFIX_V4));
        self.add(SUBNET_MASK, &mask.to_be_bytes())?;
        self.add(ROUTER, &GATEWAY_V4.octets())?;
        self.add(RESOLVER, &GATEWAY_V4.octets())?;
        self.add(INTERFACE_MTU, &MTU.to_be_bytes())
    }

    fn lease(&mut self) -> Option<()> {
        self.add(LEASE_TIME, &LEASE_SECONDS.to_be_bytes())?;
        self.add(RENEWAL_TIME, &(LEASE_SECONDS / 2).to_be_bytes())?;
        self.add(REBINDING_TIME, &(LEASE_SECONDS / 8 * 7).to_be_bytes())
    }

    fn end(mut self) -> Vec<u8> {
        self.0.push(END);
        self.0.resize(self.0.len().max(MIN_MESSAGE), 0);
        self.0
    }
}

/// To everybody when the client has no address yet, else to it.
pub(crate) fn frame(reply: &[u8], client: Ipv4Addr, to: EthernetAddress) -> Option<Vec<u8>> {
    let (destination, to) = match client == GUEST_V4 {
        true => (GUEST_V4, to),
        false => (Ipv4Addr::BROADCAST, EthernetAddress::BROADCAST),
    };
    let ends = Ends::V4 {
        source: GATEWAY_V4,
        destination,
    };
    udp_packet(to, ends, (SERVER_PORT, CLIENT_PORT), reply)
}
