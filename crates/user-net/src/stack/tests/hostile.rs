//! Frames a hostile guest sends, and what it gets for them.

use super::*;

/// An IPv4 header with options and nothing behind it.
fn v4_options(options: &[u8]) -> Vec<u8> {
    let mut frame = ip(
        to(GATEWAY_V4),
        IpProtocol::Icmp,
        &[options, &[8, 0, 0, 0, 0, 0, 0, 1]].concat(),
    );
    frame[14] = 0x45 + u8::try_from(options.len() / 4).unwrap();
    frame
}

/// An IPv6 packet whose header says this comes next.
fn v6_next(destination: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    ip(v6(destination), next.into(), payload)
}

fn changed(frame: &[u8], at: usize, to: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[14 + at] = to;
    frame
}

#[test]
fn frames_that_get_nothing_but_a_record() {
    use DropReason::{Fragment, Malformed, Multicast, SourceRoute, Spoofed};
    let good = ping(to(GATEWAY_V4), b"01234567");
    let good_v6 = ping(to(GATEWAY_V6), b"01234567");
    let foreign = |ends| udp(ends, 53, b"");
    let rows: Vec<(&str, Vec<u8>, DropReason)> = vec![
        ("nothing", vec![], Malformed),
        ("half an Ethernet header", good[..10].to_vec(), Malformed),
        ("an Ethernet header only", good[..14].to_vec(), Malformed),
        ("a VLAN tag", ethernet(0x8100, &[0; 60]), Malformed),
        ("an 802.3 length", ethernet(60, &[0; 60]), Malformed),
        ("another version in IPv4", changed(&good, 0, 0x65), Malformed),
        ("another version in IPv6", changed(&good_v6, 0, 0x45), Malformed),
        ("a header of 16 bytes", changed(&good, 0, 0x44), Malformed),
        (
            "a header longer than the packet",
            changed(&good, 0, 0x4f),
            Malformed,
        ),
        ("a length over the frame's", changed(&good, 2, 0xff), Malformed),
        ("a length under the header's", changed(&good, 3, 19), Malformed),
        (
            "a length of zero",
            changed(&changed(&good, 2, 0), 3, 0),
            Malformed,
        ),
        (
            "an IPv6 length over the frame's",
            changed(&good_v6, 4, 0xff),
            Malformed,
        ),
        ("half an IPv6 header", good_v6[..14 + 39].to_vec(), Malformed),
        ("the first fragment", changed(&good, 6, 0x20), Fragment),
        ("a later fragment", changed(&good, 7, 1), Fragment),
        (
            "the last fragment",
            changed(&changed(&good, 6, 0x1f), 7, 0xff),
            Fragment,
        ),
        (
            "an IPv6 fragment",
            v6_next("fdc0:ffe4::1", 44, &[6, 0, 0, 1, 0, 0, 0, 1]),
            Fragment,
        ),
        (
            "loose source route",
            v4_options(&[131, 7, 4, 192, 0, 2, 1, 0]),
            SourceRoute,
        ),
        (
            "strict source route",
            v4_options(&[1, 137, 7, 4, 192, 0, 2, 1]),
            SourceRoute,
        ),
        ("an option without length", v4_options(&[1, 1, 1, 7]), Malformed),
        ("an option of length zero", v4_options(&[7, 0, 0, 0]), Malformed),
        ("an option over the header", v4_options(&[7, 5, 0, 0]), Malformed),
        (
            "hop by hop",
            v6_next("fdc0:ffe4::1", 0, &[58, 0, 1, 4, 0, 0, 0, 0]),
            SourceRoute,
        ),
        (
            "a routing header",
            v6_next("2001:db8::1", 43, &[6, 2, 0, 1, 0, 0, 0, 0]),
            SourceRoute,
        ),
        (
            "somebody else's address",
            foreign(Ends::V4 {
                source: Ipv4Addr::new(192, 0, 2, 1),
                destination: GATEWAY_V4,
            }),
            Spoofed,
        ),
        (
            "the gateway's address",
            foreign(Ends::V4 {
                source: GATEWAY_V4,
                destination: GUEST_V4,
            }),
            Spoofed,
        ),
        (
            "no address",
            foreign(Ends::V4 {
                source: Ipv4Addr::UNSPECIFIED,
                destination: GATEWAY_V4,
            }),
            Spoofed,
        ),
        (
            "loopback",
            foreign(Ends::V6 {
                source: Ipv6Addr::LOCALHOST,
                destination: GATEWAY_V6,
            }),
            Spoofed,
        ),
        (
            "link-local for more than finding neighbours",
            foreign(Ends::V6 {
                source: "fe80::1".parse().unwrap(),
                destination: GATEWAY_V6,
            }),
            Spoofed,
        ),
        ("mDNS", udp(v4("224.0.0.251"), 5353, b"?"), Multicast),
        ("mDNS in IPv6", udp(v6("ff02::fb"), 5353, b"?"), Multicast),
        ("broadcast", udp(v4("255.255.255.255"), 9, b"?"), Multicast),
        ("nowhere", udp(v4("0.0.0.0"), 9, b"?"), Multicast),
        ("nowhere in IPv6", udp(v6("::"), 9, b"?"), Multicast),
        ("ping of a group", ping(v4("224.0.0.1"), b""), Multicast),
        (
            "TCP to a group",
            ip(v4("224.0.0.1"), IpProtocol::Tcp, &[0; 20]),
            Multicast,
        ),
        (
            "half a UDP header",
            ip(to(GATEWAY_V4), IpProtocol::Udp, &[0; 7]),
            Malformed,
        ),
        (
            "a UDP length over the packet's",
            ip(to(GATEWAY_V4), IpProtocol::Udp, &[0, 1, 0, 53, 0, 9, 0, 0]),
            Malformed,
        ),
        (
            "a UDP length under the header's",
            ip(to(GATEWAY_V4), IpProtocol::Udp, &[0, 1, 0, 53, 0, 7, 0, 0]),
            Malformed,
        ),
        (
            "half a TCP header",
            ip(v4("192.0.2.1"), IpProtocol::Tcp, &[0; 19]),
            Malformed,
        ),
        (
            "an ICMP error about nothing",
            ip(v4("192.0.2.1"), IpProtocol::Icmp, &[3, 3, 0, 0, 0, 0, 0, 0]),
            DropReason::Icmp,
        ),
    ];
    for (what, frame, reason) in rows {
        let mut cable = Cable::new();
        cable.send(&frame);
        assert_eq!(cable.frames(), Vec::<Vec<u8>>::new(), "{what}");
        assert_eq!(cable.drops(), [reason], "{what}");
    }
}

#[test]
fn what_is_refused_is_told_at_once() {
    use DropReason::{Icmp, Protocol, Udp};
    const PORT_V4: (u8, u8) = (3, 3);
    const PORT_V6: (u8, u8) = (1, 4);
    const PROHIBITED_V4: (u8, u8) = (3, 13);
    const PROHIBITED_V6: (u8, u8) = (1, 1);
    for (what, frame, expected, reason) in [
        ("QUIC", udp(v4("192.0.2.1"), 443, &[0xc0; 1200]), PORT_V4, Udp),
        (
            "QUIC in IPv6",
            udp(v6("2001:db8::1"), 443, &[0xc0; 1400]),
            PORT_V6,
            Udp,
        ),
        ("another resolver", udp(v4("192.0.2.53"), 53, b"?"), PORT_V4, Udp),
        ("NTP", udp(v4("192.0.2.1"), 123, &[0x23; 48]), PORT_V4, Udp),
        (
            "a port of the gateway",
            udp(to(GATEWAY_V4), 5353, b"?"),
            PORT_V4,
            Udp,
        ),
        (
            "DHCP of somebody else",
            udp(v4("192.0.2.1"), 67, b"?"),
            PORT_V4,
            Udp,
        ),
        ("metadata", udp(v4("169.254.169.254"), 80, b"?"), PORT_V4, Udp),
        ("ping", ping(v4("192.0.2.1"), &[1; 1000]), PROHIBITED_V4, Icmp),
        (
            "ping in IPv6",
            ping(v6("2001:db8::1"), &[1; 2000]),
            PROHIBITED_V6,
            Icmp,
        ),
        (
            "a ping with a code",
            ip(to(GATEWAY_V4), IpProtocol::Icmp, &[8, 1, 0, 0, 0, 0, 0, 0]),
            PROHIBITED_V4,
            Icmp,
        ),
        (
            "a timestamp request",
            ip(v4("192.0.2.1"), IpProtocol::Icmp, &[13, 0, 0, 0, 0, 0, 0, 0]),
            PROHIBITED_V4,
            Icmp,
        ),
        (
            "GRE",
            ip(v4("192.0.2.1"), IpProtocol::Unknown(47), &[0; 64]),
            PROHIBITED_V4,
            Protocol,
        ),
        (
            "SCTP",
            ip(v6("2001:db8::1"), IpProtocol::Unknown(132), &[0; 64]),
            PROHIBITED_V6,
            Protocol,
        ),
        (
            "IPv6 in IPv4",
            ip(v4("192.0.2.1"), IpProtocol::Unknown(41), &[0; 64]),
            PROHIBITED_V4,
            Protocol,
        ),
        (
            "destination options",
            v6_next("2001:db8::1", 60, &[6, 0, 1, 4, 0, 0, 0, 0]),
            PROHIBITED_V6,
            Protocol,
        ),
        (
            "no next header",
            v6_next("2001:db8::1", 59, b""),
            PROHIBITED_V6,
            Protocol,
        ),
        (
            "ICMPv6 in IPv4",
            ip(v4("192.0.2.1"), IpProtocol::Icmpv6, &[128; 8]),
            PROHIBITED_V4,
            Protocol,
        ),
        (
            "a raw packet",
            ip(v4("192.0.2.1"), IpProtocol::Unknown(255), b"tunnel"),
            PROHIBITED_V4,
            Protocol,
        ),
    ] {
        let mut cable = Cable::new();
        cable.send(&frame);
        assert_eq!(error(&cable.frame(), &frame), expected, "{what}");
        assert_eq!(cable.drops(), [reason], "{what}");
    }
}

#[test]
fn a_record_says_what_was_tried() {
    let mut cable = Cable::new();
    let (pool, _) = cable.resolve("quic.example.com");
    for (frame, expected) in [
        (
            udp(to(pool), 443, b""),
            dropped(
                Protocol::Udp,
                Some(Target::Name(name("quic.example.com"))),
                Some(443),
                DropReason::Udp,
            ),
        ),
        (
            udp(v4("192.0.2.1"), 443, b""),
            dropped(
                Protocol::Udp,
                Some(Target::Address("192.0.2.1".parse().unwrap())),
                Some(443),
                DropReason::Udp,
            ),
        ),
        (
            ip(v4("192.0.2.1"), IpProtocol::Unknown(47), b""),
            dropped(
                Protocol::Ip(47),
                Some(Target::Address("192.0.2.1".parse().unwrap())),
                None,
                DropReason::Protocol,
            ),
        ),
        (
            v6_next("fdc0:ffe4::1", 44, &[0; 8]),
            dropped(
                Protocol::Ip(44),
                Some(Target::Address(GATEWAY_V6.into())),
                None,
                DropReason::Fragment,
            ),
        ),
    ] {
        cable.send(&frame);
        assert_eq!(cable.events(), [Event::Dropped(expected)]);
    }
}

#[test]
fn nobody_is_told_about_what_was_sent_to_everybody() {
    let mut cable = Cable::new();
    let mut frame = udp(v4("192.0.2.1"), 443, b"");
    frame[..6].copy_from_slice(EthernetAddress::BROADCAST.as_bytes());
    cable.expect_drop(&frame, DropReason::Multicast);
}

#[test]
fn frames_for_other_cards_are_not_looked_at() {
    let mut frame = udp(v4("192.0.2.1"), 443, b"");
    frame[..6].copy_from_slice(&[0x02, 1, 2, 3, 4, 5]);
    Cable::new().expect_silence(&frame);
}

#[test]
fn what_every_kernel_says_on_its_own_is_no_record() {
    let mut cable = Cable::new();
    let listener_report = [
        &[58, 0, 5, 2, 0, 0, 1, 0, 143, 0, 0, 0, 0, 0, 0, 1],
        [0; 20].as_slice(),
    ]
    .concat();
    let from_nowhere = Ends::V6 {
        source: Ipv6Addr::UNSPECIFIED,
        destination: "ff02::16".parse().unwrap(),
    };
    cable.expect_silence(&ip(from_nowhere, IpProtocol::HopByHop, &listener_report));
    cable.expect_silence(&v6_next("ff02::16", 0, &listener_report));
    cable.expect_silence(&ip(v4("224.0.0.22"), IpProtocol::Igmp, &[0x22; 16]));
    let late_answer_refused = [3, 3, 0, 0, 0, 0, 0, 0];
    cable.expect_silence(&ip(to(GATEWAY_V4), IpProtocol::Icmp, &late_answer_refused));
    // But not whatever hides behind the same header.
    let hidden = [6, 0, 5, 2, 0, 0, 1, 0, 80];
    cable.expect_drop(&v6_next("ff02::16", 0, &hidden), DropReason::Multicast);
}

#[test]
fn errors_are_limited_in_number_and_in_time() {
    let mut cable = Cable::new();
    let frame = udp(v4("192.0.2.1"), 443, &[0; 1000]);
    let mut errors = 0;
    for _ in 0..10_000 {
        cable.send(&frame);
        errors += cable.frames().len();
    }
    assert_eq!(errors, usize::try_from(crate::limits::ERROR_BURST).unwrap());
    (0..10_000).for_each(|_| cable.send(&frame));
    cable.now += Duration::from_secs(10);
    (0..10_000).for_each(|_| cable.send(&frame));
    assert_eq!(cable.frames().len(), crate::limits::MAX_REPLIES);
}

#[test]
fn a_scan_of_everything_is_counted_together() {
    let mut cable = Cable::new();
    for host in 0..=255 {
        for port in 0..100 {
            cable.send(&udp(v4(&format!("192.0.2.{host}")), port, b""));
        }
    }
    let first = cable.events().len();
    assert!(first <= crate::limits::MAX_DROP_KINDS + 1, "{first}");
    cable.pass(Duration::from_secs(1));
    let events = cable.events();
    let counted: u64 = events
        .iter()
        .map(|event| match event {
            Event::Dropped(dropped) => dropped.count,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(first as u64 + counted, 25_600);
    cable.frames();
    cable.pass(Duration::from_secs(1));
    cable.pass(Duration::from_secs(1));
    assert_eq!(cable.stack.deadline(), None, "forgotten");
}

#[test]
fn the_largest_frames_pass() {
    let mut cable = Cable::new();
    let content = vec![0; 65_535 - 20 - 8];
    let frame = udp(v4("192.0.2.1"), 443, &content);
    assert_eq!(frame.len(), 65_549);
    cable.send(&frame);
    assert_eq!(error(&cable.frame(), &frame), (3, 3));
    let padded = [udp(v4("192.0.2.1"), 443, b"short"), vec![0xaa; 40]].concat();
    cable.send(&padded);
    assert_eq!(
        cable.frame().len(),
        14 + 20 + 8 + 20 + 8 + 5,
        "padding is not repeated"
    );
}
