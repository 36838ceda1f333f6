use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

pub(crate) fn any_name() -> impl Strategy<Value = HostName> {
    prop_oneof![
        "[a-z_][a-z0-9_]{0,20}(\\.[a-z]{1,10}){0,3}",
        // As long as a name can be.
        Just(
            [
                ["a"; 63].concat(),
                ["b"; 63].concat(),
                ["c"; 63].concat(),
                ["d"; 61].concat()
            ]
            .join(".")
        ),
    ]
    .prop_map(|name| name.parse().unwrap())
}

pub(crate) fn any_target() -> impl Strategy<Value = Target> {
    prop_oneof![
        any_name().prop_map(Target::Name),
        any::<IpAddr>().prop_map(Target::Address),
    ]
}

pub(crate) fn any_protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![
        Just(Protocol::Tcp),
        Just(Protocol::Udp),
        Just(Protocol::Icmp),
        any::<u8>().prop_map(Protocol::Ip),
    ]
}

pub(crate) fn any_id() -> impl Strategy<Value = Id> {
    prop_oneof![any::<u64>(), Just(u64::MAX)].prop_map(Id)
}

pub(crate) const DROP_REASONS: &[DropReason] = &[
    DropReason::Malformed,
    DropReason::Fragment,
    DropReason::SourceRoute,
    DropReason::Spoofed,
    DropReason::Udp,
    DropReason::Icmp,
    DropReason::Protocol,
    DropReason::Multicast,
    DropReason::Unnamed,
    DropReason::QuestionKind,
    DropReason::BadName,
    DropReason::Limit,
];

pub(crate) const REASONS: &[Reason] = &[
    Reason::NoRule,
    Reason::Denied,
    Reason::NobodyToAsk,
    Reason::Metadata,
    Reason::Loopback,
    Reason::Private,
    Reason::LinkLocal,
    Reason::CarrierNat,
    Reason::Multicast,
    Reason::Unspecified,
    Reason::Reserved,
    Reason::ThisHost,
    Reason::NoAddress,
    Reason::Resolver,
    Reason::ConnectionRefused,
    Reason::Unreachable,
    Reason::TimedOut,
    Reason::Proxy,
    Reason::BudgetBytes,
    Reason::BudgetConnections,
    Reason::TooManyFlows,
    Reason::NotTls,
    Reason::NoServerName,
    Reason::OtherServerName,
    Reason::EncryptedHello,
    Reason::NotHttp,
    Reason::AmbiguousHttp,
    Reason::NoHost,
    Reason::OtherHost,
    Reason::Tunnel,
    Reason::ProxyTunnel,
];

fn any_question() -> impl Strategy<Value = ToEgress> {
    prop_oneof![
        any::<u16>().prop_map(|version| ToEgress::Hello { version }),
        (any_id(), any_name(), any_protocol(), any::<u16>()).prop_map(|(id, name, protocol, port)| {
            ToEgress::Name {
                id,
                name,
                protocol,
                port,
            }
        }),
        (any_id(), any::<u16>(), any_target(), any::<u16>()).prop_map(|(id, source, target, port)| {
            ToEgress::Open {
                id,
                source,
                target,
                port,
            }
        }),
        (
            any_protocol(),
            prop::option::of(any_target()),
            any::<Option<u16>>(),
            any::<Option<u16>>(),
            prop::sample::select(DROP_REASONS),
            any::<u64>(),
        )
            .prop_map(|(protocol, target, port, source, reason, count)| {
                ToEgress::Dropped(Dropped {
                    protocol,
                    target,
                    port,
                    source,
                    reason,
                    count,
                })
            }),
    ]
}

fn any_answer() -> impl Strategy<Value = FromEgress> {
    prop_oneof![
        any::<u16>().prop_map(|version| FromEgress::Hello { version }),
        (any_id(), any::<bool>()).prop_map(|(id, allowed)| FromEgress::Name { id, allowed }),
        any_id().prop_map(|id| FromEgress::Opened { id }),
        (any_id(), prop::sample::select(REASONS)).prop_map(|(id, reason)| FromEgress::Refused { id, reason }),
        any_id().prop_map(|id| FromEgress::Broken { id }),
    ]
}

#[test]
fn every_reason_has_a_phrase_of_its_own() {
    let mut phrases: Vec<_> = REASONS.iter().map(|reason| reason.text()).collect();
    phrases.extend(DROP_REASONS.iter().map(|reason| reason.text()));
    let count = phrases.len();
    phrases.sort_unstable();
    phrases.dedup();
    assert_eq!(phrases.len(), count);
    assert!(
        phrases
            .iter()
            .all(|phrase| !phrase.is_empty() && !phrase.ends_with('.'))
    );
}

#[test]
fn a_message_with_a_name_that_is_none_is_not_read() {
    #[derive(Serialize)]
    enum Forged {
        _Hello,
        Name {
            id: u64,
            name: &'static str,
            protocol: Protocol,
            port: u16,
        },
    }
    let forged = |name| {
        let message = Forged::Name {
            id: 1,
            name,
            protocol: Protocol::Udp,
            port: 53,
        };
        decode::<ToEgress>(&encode(&message).unwrap())
    };
    assert!(forged("example.com").is_some());
    assert_eq!(forged("127.1"), None);
    assert_eq!(forged("a..b"), None);
    assert_eq!(forged("a\0b"), None);
}

#[test]
fn what_follows_a_message_makes_it_none() {
    let mut bytes = encode(&FromEgress::Hello { version: VERSION }).unwrap();
    assert!(decode::<FromEgress>(&bytes).is_some());
    bytes.push(0);
    assert_eq!(decode::<FromEgress>(&bytes), None);
    assert_eq!(decode::<FromEgress>(&[]), None);
}

#[test]
fn what_is_longer_than_a_message_is_not_sent() {
    assert_eq!(encode(&vec![0u8; MAX_MESSAGE]), None);
}

proptest! {
    #[test]
    fn every_question_fits_and_is_read_as_it_was_said(message in any_question()) {
        let bytes = encode(&message).unwrap();
        prop_assert_eq!(decode::<ToEgress>(&bytes), Some(message));
        for cut in 0..bytes.len() {
            prop_assert_eq!(decode::<ToEgress>(&bytes[..cut]), None);
        }
    }

    #[test]
    fn every_answer_fits_and_is_read_as_it_was_said(message in any_answer()) {
        let bytes = encode(&message).unwrap();
        prop_assert_eq!(decode::<FromEgress>(&bytes), Some(message));
    }

    #[test]
    fn no_bytes_are_too_odd_to_be_read_or_refused(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..8], 0..MAX_MESSAGE),
        message in any_question(), at in any::<prop::sample::Index>(), new in any::<u8>(),
    ) {
        let _ = (decode::<FromEgress>(&bytes), decode::<ToEgress>(&bytes));
        let mut spoiled = encode(&message).unwrap();
        let at = at.index(spoiled.len());
        spoiled[at] = new;
        let _ = (decode::<FromEgress>(&spoiled), decode::<ToEgress>(&spoiled));
    }
}
