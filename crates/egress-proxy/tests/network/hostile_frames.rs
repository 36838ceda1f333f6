//! Frames that a kernel would not send, and addresses written down. Nothing of them leaves the host.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use egress_policy::{
    Reason,
    addresses::{GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST_MAC, GUEST_V4, GUEST_V6},
    link::DropReason,
};

use crate::{
    frames::{
        ACK, ICMP, SYN, TCP, UDP, Wire, ethernet, ip, ip4, ip6, payload, segment, summed, tcp, tcp_segment,
        udp,
    },
    servers::{echo, serve},
    world::{Egress, PATIENCE, config, enter_a_host, memory, packets},
};

const OUTSIDE: &str = "203.0.113.80";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Does this to a guest that may reach `good.test:7`, and nothing may leave the host for it; then it reaches that.
fn nothing_leaves(attack: impl FnOnce(&mut Wire, &mut Egress)) {
    if !enter_a_host() {
        return;
    }
    serve(7, echo);
    let (mut egress, link) = Egress::start(&config(&["good.test:7", "198.51.100.1"], &["good.test"]));
    let mut wire = Wire::new(link);
    let before = packets();
    attack(&mut wire, &mut egress);
    wire.fence();
    assert_eq!(packets() - before, 0);
    assert_works(&mut wire);
}

/// A flow is opened, and what is said on it comes back.
fn assert_works(wire: &mut Wire) {
    let place = wire.address_of("good.test").unwrap();
    let from = 50_001;
    let far = wire.connect_from(from, place, 7);
    assert!(!far.is_refusal());
    wire.say(&tcp(place, (from, 7), 1001, far.sequence + 1, ACK, b"\0works"));
    wire.hear(|frame| {
        segment(frame).filter(|segment| segment.ports == (7, from) && segment.data == b"\0works")
    });
}

#[test]
fn ping_goes_no_further_than_the_gateway() {
    nothing_leaves(|wire, egress| {
        let ping = summed([&[8, 0, 0, 0, 0, 1, 0, 1][..], &[b'x'; 1400]].concat(), 2);
        wire.say(&ip(GUEST_V4.into(), address(OUTSIDE), ICMP, &ping));
        let kind = wire.hear(|frame| payload(frame, ICMP).map(|icmp| (icmp[0], icmp[1])));
        assert_eq!(kind, (3, 13), "administratively prohibited");
        egress.told_dropped(DropReason::Icmp);
    });
}

#[test]
fn udp_quic_with_it_is_refused_at_once() {
    nothing_leaves(|wire, egress| {
        let place = wire.address_of("good.test").unwrap();
        for to in [place, address(OUTSIDE), address("8.8.8.8")] {
            wire.say(&udp(GUEST_V4.into(), to, (1, 443), &[0xc0; 1200]));
            wire.hear(|frame| payload(frame, ICMP).filter(|icmp| icmp[0] == 3).map(|_| ()));
        }
        egress.told_dropped(DropReason::Udp);
    });
}

#[test]
fn other_protocols_of_ip_are_dropped() {
    nothing_leaves(|wire, egress| {
        for protocol in [0, 2, 4, 41, 47, 50, 132, 255] {
            wire.say(&ip(GUEST_V4.into(), address(OUTSIDE), protocol, &[0; 40]));
        }
        egress.told_dropped(DropReason::Protocol);
    });
}

/// No rule, or one for another address: all refused at once, and each said why.
#[test]
fn addresses_that_nobody_allowed_are_refused() {
    nothing_leaves(|wire, egress| {
        let table = [
            ("1.2.3.4", Reason::NoRule),
            ("127.0.0.1", Reason::Loopback),
            ("127.1.2.3", Reason::Loopback),
            ("169.254.169.254", Reason::Metadata),
            ("169.254.1.1", Reason::LinkLocal),
            ("10.0.0.1", Reason::Private),
            ("172.16.0.1", Reason::Private),
            ("192.168.0.1", Reason::Private),
            ("100.64.0.1", Reason::CarrierNat),
            ("0.0.0.1", Reason::Unspecified),
            ("240.0.0.1", Reason::Reserved),
            ("2001:4860:4860::8888", Reason::NoRule),
            ("::1", Reason::Loopback),
            ("::ffff:1.2.3.4", Reason::NoRule),
            ("::ffff:127.0.0.1", Reason::Loopback),
            ("::ffff:169.254.169.254", Reason::Metadata),
            ("::169.254.169.254", Reason::Metadata),
            ("64:ff9b::a9fe:a9fe", Reason::Metadata),
            ("64:ff9b::1.2.3.4", Reason::NoRule),
            ("64:ff9b:1::10.0.0.1", Reason::Private),
            ("2002:7f00:1::1", Reason::Loopback),
            ("2001:0:102:304::80ff:fffe", Reason::Loopback),
            ("fe80::1", Reason::LinkLocal),
            ("fd00:ec2::254", Reason::Metadata),
            ("fd00::1", Reason::Private),
        ];
        for (at, (text, reason)) in table.into_iter().enumerate() {
            let from = 10_000 + u16::try_from(at).unwrap();
            assert!(wire.connect_from(from, address(text), 443).is_refusal(), "{text}");
            egress.record(|record| match record.what {
                egress_policy::control::What::Refused { reason: told, .. } => {
                    told == reason && record.source == Some(from)
                }
                _ => false,
            });
        }
    });
}

/// A rule for one address is a rule for none of the others that mean it to somebody.
#[test]
fn an_allowed_address_in_another_spelling_is_not_translated() {
    nothing_leaves(|wire, _| {
        for text in [
            "64:ff9b::198.51.100.1",
            "2002:c633:6401::1",
            "::ffff:0:198.51.100.1",
        ] {
            assert!(wire.connect(address(text), 443).is_refusal(), "{text}");
        }
    });
}

#[test]
fn the_places_of_the_pool_that_stand_for_nothing_are_refused() {
    nothing_leaves(|wire, egress| {
        for text in ["198.18.1.200", "198.19.255.255", "fdc0:ffe4:0:1::ff"] {
            assert!(wire.connect(address(text), 443).is_refusal(), "{text}");
        }
        for port in [22, 80, 443, 853] {
            assert!(wire.connect(GATEWAY_V4.into(), port).is_refusal());
            assert!(wire.connect(GATEWAY_V6.into(), port).is_refusal());
        }
        egress.told_dropped(DropReason::Unnamed);
    });
}

#[test]
fn pieces_of_packets_are_dropped() {
    const MORE: u16 = 0x2000;
    nothing_leaves(|wire, egress| {
        let place = wire.address_of("good.test").unwrap();
        let IpAddr::V4(place) = place else {
            panic!("{place}")
        };
        let syn = tcp_segment((1, 7), 1, 0, SYN, b"");
        wire.say(&ethernet(0x0800, &ip4(GUEST_V4, place, TCP, MORE, &syn[..8])));
        wire.say(&ethernet(0x0800, &ip4(GUEST_V4, place, TCP, 1, &syn[8..])));
        wire.say(&ethernet(
            0x0800,
            &ip4(GUEST_V4, GATEWAY_V4, UDP, 0x1fff, &[0; 1000]),
        ));
        let header = [TCP, 0, 0, 1, 0, 0, 0, 1];
        let outside = "2001:db8::1".parse().unwrap();
        wire.say(&ethernet(
            0x86dd,
            &ip6(GUEST_V6, outside, 44, &[&header[..], &syn].concat()),
        ));
        egress.told_dropped(DropReason::Fragment);
    });
}

#[test]
fn packets_with_a_route_of_their_own_are_dropped() {
    nothing_leaves(|wire, egress| {
        let mut packet = ip4(GUEST_V4, Ipv4Addr::new(198, 51, 100, 1), TCP, 0, &[]);
        packet[0] = 0x48;
        packet.extend([131, 11, 4, 203, 0, 113, 80, 203, 0, 113, 80, 0]);
        packet.extend(tcp_segment((1, 80), 1, 0, SYN, b""));
        let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
        packet[2..4].copy_from_slice(&length);
        wire.say(&ethernet(0x0800, &packet));
        let route = [TCP, 0, 0, 0, 0, 0, 0, 0];
        let syn = tcp_segment((1, 80), 1, 0, SYN, b"");
        wire.say(&ethernet(
            0x86dd,
            &ip6(
                GUEST_V6,
                "2001:db8::1".parse().unwrap(),
                43,
                &[&route[..], &syn].concat(),
            ),
        ));
        egress.told_dropped(DropReason::SourceRoute);
    });
}

#[test]
fn frames_cut_anywhere_and_bytes_of_chance_are_nothing() {
    nothing_leaves(|wire, _| {
        let place = wire.address_of("good.test").unwrap();
        let whole = tcp(place, (1, 7), 1, 0, SYN | ACK, &[b'x'; 64]);
        for end in 0..whole.len() {
            wire.say(&whole[..end]);
        }
        let mut state = 1_u32;
        for _ in 0..2000 {
            let mut frame = whole.clone();
            for _ in 0..4 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = 16 + usize::try_from(state >> 8).unwrap() % (frame.len() - 16);
                frame[at] = state.to_be_bytes()[3];
            }
            // What would open something to where it may is not this test's.
            frame[47] &= !SYN;
            wire.say(&frame);
        }
    });
}

#[test]
fn another_source_address_is_dropped() {
    nothing_leaves(|wire, egress| {
        let place = wire.address_of("good.test").unwrap();
        for from in [OUTSIDE, "198.18.0.1", "198.18.0.3", "127.0.0.1"] {
            wire.say(&ip(
                address(from),
                place,
                TCP,
                &tcp_segment((1, 7), 1, 0, SYN, b""),
            ));
        }
        egress.told_dropped(DropReason::Spoofed);
    });
}

/// Segments out of place neither break the flow nor get into it.
#[test]
fn sequence_numbers_out_of_place_change_nothing() {
    if !enter_a_host() {
        return;
    }
    serve(7, echo);
    let (_egress, link) = Egress::start(&config(&["good.test:7"], &["good.test"]));
    let mut wire = Wire::new(link);
    let place = wire.address_of("good.test").unwrap();
    let far = wire.connect(place, 7).sequence + 1;
    let mut say = |sequence: u32, acknowledges: u32, flags: u8, data: &[u8]| {
        wire.say(&tcp(place, (40_000, 7), sequence, acknowledges, flags, data));
    };
    say(1001, far, ACK, b"");
    say(1001_u32.wrapping_add(1 << 31), far, ACK, b"bad");
    say(1001_u32.wrapping_sub(5000), far, ACK, b"bad");
    say(1001 + (8 << 20), far, ACK, b"bad");
    say(1001, far.wrapping_add(1 << 20), ACK, b"bad");
    say(1001_u32.wrapping_add(1 << 31), far, crate::frames::RST, b"");
    say(1001 + (8 << 20), far, crate::frames::RST | ACK, b"");
    say(1003, far, ACK, b"d\n");
    say(1001, far, ACK, b"go");
    let mut said = Vec::new();
    while said.len() < 4 {
        said.extend(
            wire.hear(|frame| segment(frame).filter(|segment| !segment.data.is_empty()))
                .data,
        );
    }
    assert_eq!(said, b"god\n");
}

#[test]
fn a_flood_of_openings_costs_little_and_stops_nobody() {
    if !enter_a_host() {
        return;
    }
    serve(7, echo);
    serve(9, |_| std::thread::park());
    let (egress, link) = Egress::start(&config(&["good.test"], &["good.test"]));
    let mut wire = Wire::new(link);
    let place = wire.address_of("good.test").unwrap();
    let before = (memory("self"), egress.memory());
    for from in 0..10_000 {
        wire.say(&tcp(place, (from, 9), 1, 0, SYN, b""));
    }
    let grown = (memory("self") - before.0, egress.memory() - before.1);
    assert!(grown.0 < 64 << 20 && grown.1 < 64 << 20, "{grown:?}");
    let started = Instant::now();
    let opened =
        |frame: &[u8]| segment(frame).filter(|segment| segment.ports == (7, 60_000) && !segment.is_refusal());
    loop {
        wire.say(&tcp(place, (60_000, 7), 1, 0, SYN, b""));
        if wire.hear_for(Duration::from_millis(100), opened).is_some() {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "the flood stands in the way");
    }
}

/// The kernel keeps fewer questions than may be open; the rest waits here.
#[test]
fn openings_wait_for_a_process_that_is_busy() {
    if !enter_a_host() {
        return;
    }
    let (egress, link) = Egress::start(&config(&["good.test"], &["good.test"]));
    let mut wire = Wire::new(link);
    let place = wire.address_of("good.test").unwrap();
    serve(7, |_| std::thread::park());
    egress.signal(rustix::process::Signal::STOP);
    for from in 1..=500 {
        wire.say(&tcp(place, (from, 7), 1, 0, SYN, b""));
    }
    egress.signal(rustix::process::Signal::CONT);
    for _ in 1..=500 {
        let answer = wire.hear(|frame| segment(frame).filter(|segment| segment.ports.0 == 7));
        assert!(!answer.is_refusal(), "{answer:?}");
    }
}

/// Who says that he is the gateway, or somebody else, is told nothing and believed nothing.
#[test]
fn claims_about_addresses_change_nothing() {
    nothing_leaves(|wire, _| {
        let other = [0x02, 9, 9, 9, 9, 9];
        for (operation, who) in [
            (1_u8, GATEWAY_V4),
            (2, GATEWAY_V4),
            (2, GUEST_V4),
            (1, Ipv4Addr::UNSPECIFIED),
        ] {
            let head = [0, 1, 8, 0, 6, 4, 0, operation];
            let target = [&GATEWAY_MAC[..], &who.octets()].concat();
            wire.say(&ethernet(
                0x0806,
                &[&head[..], &other, &who.octets(), &target].concat(),
            ));
        }
        let mut claim = [
            &[136, 0, 0, 0, 0xa0, 0, 0, 0][..],
            &GATEWAY_V6.octets(),
            &[2, 1],
            &other,
        ]
        .concat();
        claim[2] = 0;
        for _ in 0..1000 {
            wire.say(&ethernet(0x86dd, &ip6(GATEWAY_V6, GUEST_V6, 58, &claim)));
            wire.say(&ethernet(0x86dd, &ip6(GUEST_V6, GATEWAY_V6, 58, &claim)));
        }
        wire.say(&ip(
            GUEST_V4.into(),
            address(OUTSIDE),
            ICMP,
            &[8, 0, 0, 0, 0, 0, 0, 0],
        ));
        let to = wire.hear(|frame| payload(frame, ICMP).map(|_| frame[..6].to_vec()));
        assert_eq!(to, GUEST_MAC);
    });
}

#[test]
fn a_flood_for_leases_gives_the_same_lease_and_little_work() {
    nothing_leaves(|wire, _| {
        let before = memory("self");
        for number in 0..5000_u32 {
            let mut discover = vec![0_u8; 240];
            discover[..4].copy_from_slice(&[1, 1, 6, 0]);
            discover[4..8].copy_from_slice(&number.to_be_bytes());
            discover[28..34].copy_from_slice(&[2, 0, 0, number.to_be_bytes()[2], number.to_be_bytes()[3], 1]);
            discover[236..].copy_from_slice(&[99, 130, 83, 99]);
            discover.extend([53, 1, 1, 255]);
            wire.say(&udp(
                address("0.0.0.0"),
                address("255.255.255.255"),
                (68, 67),
                &discover,
            ));
        }
        let offered = wire.hear(|frame| payload(frame, UDP).map(|udp| udp[8 + 16..8 + 20].to_vec()));
        assert_eq!(offered, GUEST_V4.octets());
        assert!(memory("self") - before < 16 << 20);
    });
}

/// The process is killed: flows break, names and connections are refused; a new one has the same policy.
#[test]
fn the_policy_is_the_same_after_the_process_was_killed() {
    if !enter_a_host() {
        return;
    }
    serve(7, echo);
    let config = config(&["good.test"], &["good.test"]);
    let (mut egress, link) = Egress::start(&config);
    let mut wire = Wire::new(link);
    let place = wire.address_of("good.test").unwrap();
    assert!(!wire.connect_from(1, place, 7).is_refusal());
    egress.kill();
    wire.hear(|frame| segment(frame).filter(|segment| segment.ports.1 == 1 && segment.is_refusal()));
    assert_eq!(wire.address_of("denied.test"), None);
    assert!(wire.connect_from(2, place, 7).is_refusal());

    let (_egress, link) = Egress::start(&config);
    wire.relink(link);
    assert_eq!(wire.address_of("denied.test"), None);
    assert!(wire.connect_from(3, address("1.2.3.4"), 7).is_refusal());
    assert_eq!(wire.address_of("good.test"), Some(place));
    assert_works(&mut wire);
}
