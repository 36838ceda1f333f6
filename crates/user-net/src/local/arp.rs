//! ARP: who has the gateway's address. Nothing is learnt from a packet, so there is no table to poison.

use egress_policy::{
    addresses::{GATEWAY_MAC, GATEWAY_V4, GUEST_V4},
    link::DropReason,
};
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetProtocol};

use super::ethernet_header;

/// The answer, if there is one to be given. Probes and announcements of addresses that are not ours get none.
pub(crate) fn answer(packet: &[u8], from: EthernetAddress) -> Result<Option<Vec<u8>>, DropReason> {
    let packet = ArpPacket::new_checked(packet).map_err(|_| DropReason::Malformed)?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).map_err(|_| DropReason::Malformed)?
    else {
        return Err(DropReason::Malformed);
    };
    // Without an address yet a guest probes from none.
    if source_protocol_addr != GUEST_V4 && !source_protocol_addr.is_unspecified() {
        return Err(DropReason::Spoofed);
    }
    if operation != ArpOperation::Request || target_protocol_addr != GATEWAY_V4 {
        return Ok(None);
    }
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: EthernetAddress(GATEWAY_MAC),
        source_protocol_addr: GATEWAY_V4,
        target_hardware_addr: source_hardware_addr,
        target_protocol_addr: source_protocol_addr,
    };
    let mut body = vec![0; reply.buffer_len()];
    reply.emit(&mut ArpPacket::new_unchecked(&mut body));
    let mut frame = ethernet_header(from, EthernetProtocol::Arp).to_vec();
    frame.extend_from_slice(&body);
    Ok(Some(frame))
}
