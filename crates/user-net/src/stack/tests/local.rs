//! What the gateway answers itself: ARP, NDP, DHCP, pings.

use egress_policy::addresses::{MTU, PREFIX_V6};
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetProtocol,
        Icmpv6Packet, Icmpv6Repr, NdiscPrefixInfoFlags, NdiscRepr, UdpPacket,
    },
};

use super::*;
use crate::{
    limits::{MAX_REPLIES, MAX_REPLY_BYTES},
    local::ndp::GATEWAY_LINK_LOCAL,
};

const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99);

fn arp(operation: ArpOperation, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(GUEST_MAC),
        source_protocol_addr: sender,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let mut body = vec![0; repr.buffer_len()];
    repr.emit(&mut ArpPacket::new_unchecked(&mut body));
    let mut frame = ethernet(0x0806, &body);
    frame[..6].copy_from_slice(EthernetAddress::BROADCAST.as_bytes());
    frame
}

#[test]
fn the_gateway_says_who_it_is() {
    for sender in [GUEST_V4, Ipv4Addr::UNSPECIFIED] {
        let mut cable = Cable::new();
        cable.send(&arp(ArpOperation::Request, sender, GATEWAY_V4));
        let frame = cable.frame();
        let ethernet = smoltcp::wire::EthernetFrame::new_checked(frame.as_slice()).unwrap();
        assert_eq!(ethernet.ethertype(), EthernetProtocol::Arp);
        assert_eq!(ethernet.dst_addr(), EthernetAddress(GUEST_MAC));
        let reply = ArpRepr::parse(&ArpPacket::new_checked(ethernet.payload()).unwrap()).unwrap();
        let expected = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: EthernetAddress(GATEWAY_MAC),
            source_protocol_addr: GATEWAY_V4,
            target_hardware_addr: EthernetAddress(GUEST_MAC),
            target_protocol_addr: sender,
        };
        assert_eq!(reply, expected);
        assert_eq!(cable.events(), []);
    }
}

#[test]
fn arp_for_others_is_not_answered_and_spoofing_poisons_nothing() {
    let mut cable = Cable::new();
    let other = Ipv4Addr::new(198, 18, 0, 9);
    cable.expect_silence(&arp(ArpOperation::Request, GUEST_V4, other));
    cable.expect_silence(&arp(ArpOperation::Request, Ipv4Addr::UNSPECIFIED, GUEST_V4));
    cable.expect_silence(&arp(ArpOperation::Request, GUEST_V4, GUEST_V4));
    cable.expect_silence(&arp(ArpOperation::Reply, GUEST_V4, GATEWAY_V4));
    cable.expect_drop(
        &arp(ArpOperation::Request, GATEWAY_V4, GATEWAY_V4),
        DropReason::Spoofed,
    );
    cable.send(&arp(ArpOperation::Reply, other, GATEWAY_V4));
    cable.send(&arp(ArpOperation::Request, other, GATEWAY_V4));
    assert_eq!(cable.frames(), Vec::<Vec<u8>>::new());
    let mut cut = arp(ArpOperation::Request, GUEST_V4, GATEWAY_V4);
    cut.truncate(30);
    cable.expect_drop(&cut, DropReason::Malformed);
    let mut token_ring = arp(ArpOperation::Request, GUEST_V4, GATEWAY_V4);
    token_ring[15] = 6;
    cable.send(&token_ring);
    assert_eq!(cable.frames(), Vec::<Vec<u8>>::new());

    cable.send(&ping(to(GATEWAY_V4), b"x"));
    assert_eq!(read(&cable.frame()).0, EthernetAddress(GUEST_MAC));
}

fn ndp(source: Ipv6Addr, destination: Ipv6Addr, repr: NdiscRepr<'_>) -> Vec<u8> {
    let repr = Icmpv6Repr::Ndisc(repr);
    let mut body = vec![0; repr.buffer_len()];
    let mut packet = Icmpv6Packet::new_unchecked(&mut body);
    repr.emit(
        &source,
        &destination,
        &mut packet,
        &ChecksumCapabilities::default(),
    );
    ip(Ends::V6 { source, destination }, IpProtocol::Icmpv6, &body)
}

fn solicit(source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let repr = NdiscRepr::NeighborSolicit {
        target_addr: target,
        lladdr: None,
    };
    ndp(source, "ff02::1:ff00:1".parse().unwrap(), repr)
}

fn icmpv6(frame: &[u8]) -> (EthernetAddress, Ends, Vec<u8>) {
    let (to, ends, protocol, payload) = read(frame);
    let Ends::V6 { source, destination } = ends else {
        panic!();
    };
    assert_eq!((protocol, frame[14 + 7]), (IpProtocol::Icmpv6, 255));
    let packet = Icmpv6Packet::new_checked(payload.as_slice()).unwrap();
    assert!(packet.verify_checksum(&source, &destination));
    (to, ends, payload)
}

#[test]
fn the_gateway_says_who_it_is_in_ipv6() {
    for source in [GUEST_V6, LINK_LOCAL] {
        for target in [GATEWAY_V6, GATEWAY_LINK_LOCAL] {
            let mut cable = Cable::new();
            cable.send(&solicit(source, target));
            let (to, ends, payload) = icmpv6(&cable.frame());
            assert_eq!(to, EthernetAddress(GUEST_MAC));
            assert_eq!(
                ends,
                Ends::V6 {
                    source: target,
                    destination: source
                }
            );
            let packet = Icmpv6Packet::new_checked(payload.as_slice()).unwrap();
            let NdiscRepr::NeighborAdvert {
                flags,
                target_addr,
                lladdr,
            } = NdiscRepr::parse(&packet).unwrap()
            else {
                panic!();
            };
            assert_eq!((flags.bits(), target_addr), (0b1110_0000, target));
            assert_eq!(lladdr.unwrap().as_bytes()[..6], GATEWAY_MAC);
            assert_eq!(cable.events(), []);
        }
    }
}

#[test]
fn who_wants_the_gateways_address_hears_that_it_is_taken() {
    let mut cable = Cable::new();
    cable.send(&solicit(Ipv6Addr::UNSPECIFIED, GATEWAY_V6));
    let (to, ends, _) = icmpv6(&cable.frame());
    assert_eq!(to, EthernetAddress([0x33, 0x33, 0, 0, 0, 1]));
    assert_eq!(ends.destination(), "ff02::1".parse::<IpAddr>().unwrap());
    cable.expect_silence(&solicit(Ipv6Addr::UNSPECIFIED, GUEST_V6));
    cable.expect_silence(&solicit(GUEST_V6, "fdc0:ffe4::3".parse().unwrap()));
}

#[test]
fn spoofed_neighbors_and_routers_are_ignored() {
    let mut cable = Cable::new();
    let all = "ff02::1".parse().unwrap();
    let advert = NdiscRepr::NeighborAdvert {
        flags: smoltcp::wire::NdiscNeighborFlags::OVERRIDE,
        target_addr: GATEWAY_V6,
        lladdr: None,
    };
    cable.expect_silence(&ndp(GUEST_V6, all, advert));
    let redirect = NdiscRepr::Redirect {
        target_addr: LINK_LOCAL,
        dest_addr: GUEST_V6,
        lladdr: None,
        redirected_hdr: None,
    };
    cable.expect_drop(&ndp(GUEST_V6, GATEWAY_V6, redirect), DropReason::Spoofed);
    let foreign = solicit("fdc0:ffe4::7".parse().unwrap(), GATEWAY_V6);
    cable.expect_drop(&foreign, DropReason::Spoofed);
    cable.send(&solicit(GATEWAY_V6, GATEWAY_V6));
    assert_eq!(cable.frames(), Vec::<Vec<u8>>::new());

    let mut routed = solicit(GUEST_V6, GATEWAY_V6);
    routed[14 + 7] = 254;
    let mut cut = solicit(GUEST_V6, GATEWAY_V6);
    cut.truncate(14 + 40 + 12);
    cut[14 + 5] = 12;
    cable.events();
    cable.expect_drop(&routed, DropReason::Malformed);
    cable.send(&cut);
    assert_eq!(cable.frames(), Vec::<Vec<u8>>::new());
}

#[test]
fn a_router_is_announced_to_who_asks() {
    for (source, expected) in [
        (LINK_LOCAL, LINK_LOCAL),
        (GUEST_V6, GUEST_V6),
        (Ipv6Addr::UNSPECIFIED, "ff02::1".parse().unwrap()),
    ] {
        let mut cable = Cable::new();
        let all_routers = "ff02::2".parse().unwrap();
        cable.send(&ndp(
            source,
            all_routers,
            NdiscRepr::RouterSolicit { lladdr: None },
        ));
        let (_, ends, payload) = icmpv6(&cable.frame());
        assert_eq!(
            ends,
            Ends::V6 {
                source: GATEWAY_LINK_LOCAL,
                destination: expected
            }
        );
        let packet = Icmpv6Packet::new_checked(payload.as_slice()).unwrap();
        let NdiscRepr::RouterAdvert {
            flags,
            router_lifetime,
            mtu,
            prefix_info,
            lladdr,
            ..
        } = NdiscRepr::parse(&packet).unwrap()
        else {
            panic!();
        };
        assert!(flags.is_empty() && router_lifetime.secs() > 0);
        assert_eq!(mtu, Some(MTU.into()));
        assert_eq!(lladdr.unwrap().as_bytes()[..6], GATEWAY_MAC);
        let prefix = prefix_info.unwrap();
        assert_eq!((prefix.prefix, prefix.prefix_len), (GATEWAY_V6, PREFIX_V6));
        assert_eq!(
            prefix.flags,
            NdiscPrefixInfoFlags::ON_LINK,
            "no addresses are made of it"
        );
        let resolver = [&[25, 3, 0, 0, 255, 255, 255, 255], GATEWAY_V6.octets().as_slice()].concat();
        assert!(payload.ends_with(&resolver));
        assert_eq!(cable.events(), []);
    }
}

const CLIENT_MAC: EthernetAddress = EthernetAddress(GUEST_MAC);

fn dhcp_repr(kind: DhcpMessageType) -> DhcpRepr<'static> {
    DhcpRepr {
        message_type: kind,
        transaction_id: 0xfeed_beef,
        secs: 0,
        client_hardware_address: CLIENT_MAC,
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: false,
        requested_ip: None,
        client_identifier: Some(CLIENT_MAC),
        server_identifier: None,
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    }
}

fn dhcp(repr: &DhcpRepr<'_>) -> Vec<u8> {
    let mut message = vec![0; repr.buffer_len()];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut message)).unwrap();
    dhcp_datagram(&message)
}

fn dhcp_datagram(message: &[u8]) -> Vec<u8> {
    let ends = Ends::V4 {
        source: Ipv4Addr::UNSPECIFIED,
        destination: Ipv4Addr::BROADCAST,
    };
    from_guest(udp_packet(EthernetAddress::BROADCAST, ends, (68, 67), message).unwrap())
}

/// The reply of the only server: what kind, for which address, and whether it gives a lease.
fn lease(frame: &[u8]) -> (DhcpMessageType, Ipv4Addr, bool) {
    let (_, ends, _, payload) = read(frame);
    assert_eq!(ends.reversed().destination(), GATEWAY_V4);
    let datagram = UdpPacket::new_checked(payload.as_slice()).unwrap();
    assert_eq!((datagram.src_port(), datagram.dst_port()), (67, 68));
    assert!(datagram.payload().len() >= 300);
    let packet = DhcpPacket::new_checked(datagram.payload()).unwrap();
    let repr = DhcpRepr::parse(&packet).unwrap();
    assert_eq!(
        (repr.transaction_id, repr.client_hardware_address),
        (0xfeed_beef, CLIENT_MAC)
    );
    assert_eq!(repr.server_identifier, Some(GATEWAY_V4));
    assert_eq!(repr.client_identifier, Some(CLIENT_MAC));
    if repr.message_type != DhcpMessageType::Nak {
        assert_eq!(repr.router, Some(GATEWAY_V4));
        assert_eq!(repr.subnet_mask, Some(Ipv4Addr::BROADCAST));
        assert_eq!(repr.dns_servers.unwrap().as_slice(), [GATEWAY_V4]);
        let mtu = packet.options().find(|option| option.kind == 26).unwrap();
        assert_eq!(mtu.data, MTU.to_be_bytes());
    }
    let lasts = repr.lease_duration.is_some_and(|seconds| seconds >= 24 * 3600);
    (repr.message_type, repr.your_ip, lasts)
}

#[test]
fn whoever_asks_for_an_address_gets_the_only_one() {
    let mut cable = Cable::new();
    cable.send(&dhcp(&dhcp_repr(DhcpMessageType::Discover)));
    assert_eq!(lease(&cable.frame()), (DhcpMessageType::Offer, GUEST_V4, true));
    let mut request = dhcp_repr(DhcpMessageType::Request);
    request.requested_ip = Some(GUEST_V4);
    request.server_identifier = Some(GATEWAY_V4);
    cable.send(&dhcp(&request));
    let frame = cable.frame();
    assert_eq!(read(&frame).0, EthernetAddress::BROADCAST);
    assert_eq!(lease(&frame), (DhcpMessageType::Ack, GUEST_V4, true));
    cable.send(&dhcp(&dhcp_repr(DhcpMessageType::Inform)));
    assert_eq!(
        lease(&cable.frame()),
        (DhcpMessageType::Ack, Ipv4Addr::UNSPECIFIED, false)
    );
    assert_eq!(cable.events(), []);
}

#[test]
fn a_lease_is_renewed_from_the_address_it_is_for() {
    let mut cable = Cable::new();
    let mut renewal = dhcp_repr(DhcpMessageType::Request);
    renewal.client_ip = GUEST_V4;
    let mut message = vec![0; renewal.buffer_len()];
    renewal
        .emit(&mut DhcpPacket::new_unchecked(&mut message))
        .unwrap();
    cable.send(&from_guest(
        udp_packet(EthernetAddress(GATEWAY_MAC), to(GATEWAY_V4), (68, 67), &message).unwrap(),
    ));
    let frame = cable.frame();
    assert_eq!(read(&frame).0, EthernetAddress(GUEST_MAC));
    assert_eq!(read(&frame).1.destination(), GUEST_V4);
    assert_eq!(lease(&frame), (DhcpMessageType::Ack, GUEST_V4, true));
}

#[test]
fn another_address_is_refused_and_another_server_left_alone() {
    let mut cable = Cable::new();
    let mut request = dhcp_repr(DhcpMessageType::Request);
    request.requested_ip = Some(Ipv4Addr::new(192, 0, 2, 7));
    cable.send(&dhcp(&request));
    assert_eq!(
        lease(&cable.frame()),
        (DhcpMessageType::Nak, Ipv4Addr::UNSPECIFIED, false)
    );
    request.server_identifier = Some(Ipv4Addr::new(192, 0, 2, 1));
    cable.expect_silence(&dhcp(&request));
    for kind in [
        DhcpMessageType::Release,
        DhcpMessageType::Decline,
        DhcpMessageType::Unknown(99),
    ] {
        cable.send(&dhcp(&dhcp_repr(kind)));
        assert_eq!(cable.frames(), Vec::<Vec<u8>>::new(), "{kind:?}");
    }
}

#[test]
fn dhcp_that_cannot_be_read() {
    let good = dhcp(&dhcp_repr(DhcpMessageType::Discover));
    let message = &good[14 + 20 + 8..];
    let changed = |at: usize, to: u8| {
        let mut message = message.to_vec();
        message[at] = to;
        message
    };
    for bad in [
        vec![],
        message[..239].to_vec(),
        message[..240].to_vec(),
        changed(0, 2),
        changed(1, 6),
        changed(2, 16),
        changed(236, 0),
        [&message[..240], &[53, 200, 1]].concat(),
        [&message[..240], &[0; 60_000]].concat(),
    ] {
        Cable::new().expect_drop(&dhcp_datagram(&bad), DropReason::Malformed);
    }
}

#[test]
fn a_flood_of_dhcp_takes_nothing_but_what_waits_for_the_guest() {
    let mut cable = Cable::new();
    for number in 0..100_000_u32 {
        let mut repr = dhcp_repr(DhcpMessageType::Discover);
        let [a, b, c, d] = number.to_be_bytes();
        repr.client_hardware_address = EthernetAddress([2, 0, a, b, c, d]);
        cable.send(&dhcp(&repr));
    }
    assert_eq!(cable.frames().len(), MAX_REPLIES);
    assert_eq!(cable.events(), []);
    cable.send(&dhcp(&dhcp_repr(DhcpMessageType::Discover)));
    assert_eq!(lease(&cable.frame()), (DhcpMessageType::Offer, GUEST_V4, true));
}

#[test]
fn a_ping_of_the_gateway_is_answered() {
    for ends in to_gateway() {
        for size in [0, 56, 60_000] {
            let mut cable = Cable::new();
            let asked = ping(ends, &vec![7; size]);
            cable.send(&asked);
            let frame = cable.frame();
            let (to, answered, _, payload) = read(&frame);
            assert_eq!((to, answered), (EthernetAddress(GUEST_MAC), ends.reversed()));
            let header = asked.len() - size - 8;
            assert_eq!(payload[4..], asked[header + 4..]);
            match ends {
                Ends::V4 { .. } => assert_eq!(payload[0], 0),
                Ends::V6 { .. } => assert_eq!(icmpv6(&frame).2[0], 129),
            }
            assert_eq!(cable.events(), []);
        }
    }
}

#[test]
fn a_ping_longer_than_the_cable_carries_is_refused() {
    for (ends, header) in to_gateway().into_iter().zip([20, 40]) {
        let fits = usize::from(MTU) - header - 8;
        let mut cable = Cable::new();
        cable.send(&ping(ends, &vec![7; fits]));
        assert_eq!(cable.frame().len(), 14 + usize::from(MTU));
        assert_eq!(cable.events(), []);
        // The length in a header of IPv6 does not count the header.
        let most = usize::from(u16::MAX) - 8 - header % 40;
        for size in [fits + 1, most] {
            let asked = ping(ends, &vec![7; size]);
            let mut cable = Cable::new();
            cable.send(&asked);
            error(&cable.frame(), &asked);
            assert_eq!(cable.drops(), [DropReason::Icmp]);
        }
    }
}

#[test]
fn large_pings_do_not_pile_up() {
    let mut cable = Cable::new();
    for _ in 0..1000 {
        cable.send(&ping(to(GATEWAY_V4), &[0; 65_000]));
    }
    let bytes: usize = cable.frames().iter().map(Vec::len).sum();
    assert!(bytes <= MAX_REPLY_BYTES && bytes > MAX_REPLY_BYTES / 2, "{bytes}");
    cable.send(&ping(to(GATEWAY_V4), b"again"));
    cable.frame();
}

#[test]
fn answers_go_where_the_guest_last_spoke_from() {
    let mut cable = Cable::new();
    let bridge = [0x02, 0xbb, 0, 0, 0, 1];
    let mut bridged = ping(to(GATEWAY_V4), b"");
    bridged[6..12].copy_from_slice(&bridge);
    cable.send(&bridged);
    assert_eq!(read(&cable.frame()).0, EthernetAddress(bridge));

    // A frame that is not the guest's moves nothing.
    let foreign = Ends::V4 {
        source: Ipv4Addr::new(192, 0, 2, 66),
        destination: GATEWAY_V4,
    };
    let mut spoofed = ping(foreign, b"");
    spoofed[6..12].copy_from_slice(&[0x02, 0xee, 0, 0, 0, 6]);
    cable.expect_drop(&spoofed, DropReason::Spoofed);
    assert_eq!(cable.stack.guest, EthernetAddress(bridge));
    // Nor does one that claims to be from everybody.
    let mut everybody = ping(to(GATEWAY_V4), b"");
    everybody[6..12].copy_from_slice(&[0xff; 6]);
    cable.expect_silence(&everybody);
    assert_eq!(cable.stack.guest, EthernetAddress(bridge));
}
