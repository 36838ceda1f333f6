//! Questions as a resolver library asks them, and answers as it reads them.

use egress_policy::addresses::{POOL_V4, POOL_V6};
use hickory_proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType},
};

use super::*;
use crate::limits::{MAX_NAMES, MAX_QUESTIONS, QUESTION_BURST, QUESTION_DEADLINE};

const PORT: u16 = 53;

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn datagram(message: &Message) -> Vec<u8> {
    udp(to(GATEWAY_V4), PORT, &message.to_vec().unwrap())
}

pub(crate) fn ask(name: &str, kind: RecordType) -> Vec<u8> {
    datagram(&question(name, kind))
}

pub(crate) fn answer(frame: &[u8]) -> Message {
    let (to, ends, protocol, payload) = read(frame);
    assert_eq!((to, protocol), (EthernetAddress(GUEST_MAC), IpProtocol::Udp));
    let datagram = smoltcp::wire::UdpPacket::new_checked(payload.as_slice()).unwrap();
    let (source, destination) = match ends {
        Ends::V4 { source, destination } => (source.into(), destination.into()),
        Ends::V6 { source, destination } => (source.into(), destination.into()),
    };
    assert!(datagram.verify_checksum(&source, &destination));
    assert_eq!((datagram.src_port(), datagram.dst_port()), (PORT, SOURCE_PORT));
    Message::from_vec(datagram.payload()).unwrap()
}

impl Cable {
    fn asked(&mut self, name: &str) -> crate::QueryId {
        match self.stack.next_event() {
            Some(Event::Name {
                query, name: asked, ..
            }) if asked.as_str() == name => query,
            other => panic!("{other:?}"),
        }
    }

    fn code(&mut self) -> ResponseCode {
        answer(&self.frame()).metadata.response_code
    }

    fn ask(&mut self, message: &[u8]) -> Message {
        self.send(&udp(to(GATEWAY_V4), PORT, message));
        answer(&self.frame())
    }
}

/// A header with these flags and counts, and what comes after it.
fn raw(flags: u16, counts: [u16; 4], rest: &[u8]) -> Vec<u8> {
    let numbers = [0x1234, flags].into_iter().chain(counts);
    let mut message: Vec<u8> = numbers.flat_map(u16::to_be_bytes).collect();
    message.extend_from_slice(rest);
    message
}

const EXAMPLE: &[u8] = b"\x07example\x03com\0\0\x01\0\x01";

#[test]
fn an_allowed_name_has_an_address_of_the_pool() {
    let mut cable = Cable::new();
    for ends in to_gateway() {
        let asked = question("Www.eXample.com.", RecordType::A);
        cable.send(&udp(ends, PORT, &asked.to_vec().unwrap()));
        assert_eq!(cable.frames(), Vec::<Vec<u8>>::new(), "not before the verdict");
        let Some(Event::Name {
            query,
            name: asked_name,
            protocol,
            port,
        }) = cable.stack.next_event()
        else {
            panic!();
        };
        assert_eq!(asked_name, name("www.example.com"));
        assert_eq!((protocol, port), (Protocol::Udp, SOURCE_PORT));
        cable.stack.name_decided(query, true, cable.now);

        let frame = cable.frame();
        assert_eq!(read(&frame).1, ends.reversed());
        let answer = answer(&frame);
        assert_eq!(answer.metadata.id, asked.metadata.id);
        assert!(answer.metadata.recursion_desired && answer.metadata.recursion_available);
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert_eq!(
            answer.queries[0].name().to_ascii(),
            "Www.eXample.com.",
            "letter by letter"
        );
        assert_eq!(answer.answers.len(), 1);
        assert_eq!(answer.answers[0].data.ip_addr(), Some(POOL_V4.into()));
        assert!(answer.edns.is_none());
    }
    assert_eq!(cable.events(), []);
}

#[test]
fn both_families_stand_for_the_same_name_and_no_two_names_share_an_address() {
    let mut cable = Cable::new();
    assert_eq!(cable.resolve("a.example.com"), (POOL_V4, POOL_V6));
    let second = cable.resolve("b.example.com");
    assert_ne!(second.0, POOL_V4);
    assert_eq!(
        second.1.segments()[7],
        u16::try_from(second.0.to_bits() - POOL_V4.to_bits()).unwrap()
    );
    assert_eq!(cable.resolve("a.example.com"), (POOL_V4, POOL_V6));
}

#[test]
fn a_refused_name_does_not_exist_and_nobody_remembers_that_for_long() {
    let mut cable = Cable::new();
    for kind in [RecordType::A, RecordType::AAAA, RecordType::HTTPS] {
        cable.send(&ask("no.example.com", kind));
        let query = cable.asked("no.example.com");
        cable.stack.name_decided(query, false, cable.now);
        let answer = answer(&cable.frame());
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(answer.answers.len(), 0);
        let RData::SOA(soa) = &answer.authorities[0].data else {
            panic!("{answer:?}");
        };
        assert!(soa.minimum <= 5 && answer.authorities[0].ttl <= 5);
        assert_eq!(cable.events(), []);
    }
}

#[test]
fn one_verdict_answers_everybody_who_asked_meanwhile() {
    let mut cable = Cable::new();
    let a = question("example.com", RecordType::A);
    cable.send(&datagram(&a));
    cable.send(&datagram(&a));
    cable.send(&ask("EXAMPLE.com", RecordType::AAAA));
    let query = cable.asked("example.com");
    assert_eq!(cable.events(), []);
    cable.stack.name_decided(query, true, cable.now);
    let answers: Vec<Message> = cable.frames().iter().map(|frame| answer(frame)).collect();
    let kinds: Vec<RecordType> = answers
        .iter()
        .map(|answer| answer.answers[0].record_type())
        .collect();
    assert_eq!(
        kinds,
        [RecordType::A, RecordType::AAAA],
        "once for what was only repeated"
    );
}

#[test]
fn other_kinds_of_an_allowed_name_are_empty() {
    let mut cable = Cable::new();
    for (kind, odd) in [
        (RecordType::HTTPS, false),
        (RecordType::SVCB, false),
        (RecordType::SOA, false),
        (RecordType::NS, false),
        (RecordType::SRV, false),
        (RecordType::TXT, true),
        (RecordType::NULL, true),
        (RecordType::ANY, true),
        (RecordType::MX, true),
        (RecordType::AXFR, true),
        (RecordType::Unknown(65_280), true),
    ] {
        cable.now += Duration::from_secs(10);
        cable.send(&ask("data.example.com", kind));
        let query = cable.asked("data.example.com");
        cable.stack.name_decided(query, true, cable.now);
        let answer = answer(&cable.frame());
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError, "{kind}");
        assert_eq!(answer.answers.len(), 0, "{kind}");
        assert_eq!(answer.authorities[0].record_type(), RecordType::SOA, "{kind}");
        let reasons = cable.drops();
        cable.pass(Duration::from_secs(10));
        assert_eq!(
            reasons,
            if odd {
                vec![DropReason::QuestionKind]
            } else {
                vec![]
            },
            "{kind}"
        );
    }
}

#[test]
fn without_a_verdict_there_is_no_answer_and_then_a_failure() {
    let mut cable = Cable::new();
    cable.send(&ask("slow.example.com", RecordType::A));
    let query = cable.asked("slow.example.com");
    assert_eq!(cable.stack.deadline(), Some(cable.now + QUESTION_DEADLINE));
    cable.pass(QUESTION_DEADLINE - Duration::from_millis(1));
    assert_eq!(cable.frames(), Vec::<Vec<u8>>::new());
    cable.pass(Duration::from_millis(1));
    assert_eq!(cable.code(), ResponseCode::ServFail);
    cable.stack.name_decided(query, true, cable.now);
    assert_eq!(cable.frames(), Vec::<Vec<u8>>::new(), "too late");
    assert_eq!(cable.stack.deadline(), None);
}

#[test]
fn questions_that_wait_are_limited() {
    let mut cable = Cable::new();
    for number in 0..MAX_QUESTIONS {
        cable.send(&ask(&format!("n{number}.example.com"), RecordType::A));
    }
    assert_eq!(cable.frames(), Vec::<Vec<u8>>::new());
    assert_eq!(cable.events().len(), MAX_QUESTIONS);
    cable.send(&ask("more.example.com", RecordType::A));
    assert_eq!(cable.code(), ResponseCode::ServFail);
    cable.send(&ask("n0.example.com", RecordType::AAAA));
    assert_eq!(
        cable.code(),
        ResponseCode::ServFail,
        "nor can one name gather askers without end"
    );
    let limits: Vec<DropReason> = cable.drops();
    assert!(limits.iter().all(|reason| *reason == DropReason::Limit) && !limits.is_empty());
}

#[test]
fn a_tunnel_asks_too_often() {
    let mut cable = Cable::new();
    for number in 0..QUESTION_BURST {
        cable.send(&ask(&format!("n{number}.localhost"), RecordType::A));
        assert_eq!(cable.code(), ResponseCode::NoError);
    }
    assert_eq!(cable.events(), []);
    cable.send(&ask("more.example.com", RecordType::A));
    assert_eq!(cable.code(), ResponseCode::Refused);
    assert_eq!(cable.drops(), [DropReason::Limit]);
    cable.now += Duration::from_secs(1);
    cable.send(&ask("more.localhost", RecordType::A));
    assert_eq!(cable.code(), ResponseCode::NoError);
}

#[test]
fn messages_that_are_no_question() {
    use ResponseCode::{FormErr, NotImp, Refused};
    let pointer_to_itself = b"\xc0\x0c\0\x01\0\x01";
    let pointer_after_label = b"\x03www\xc0\x0c\0\x01\0\x01";
    let two_names = [EXAMPLE, EXAMPLE].concat();
    let endless = [[63; 64].repeat(20), vec![0, 0, 1, 0, 1]].concat();
    let rows: [(&str, Vec<u8>, ResponseCode); 14] = [
        ("no question", raw(0x100, [0; 4], b""), FormErr),
        ("two questions", raw(0x100, [2, 0, 0, 0], &two_names), FormErr),
        (
            "65535 questions",
            raw(0x100, [u16::MAX, 0, 0, 0], EXAMPLE),
            FormErr,
        ),
        ("an answer in it", raw(0x100, [1, 1, 0, 0], EXAMPLE), FormErr),
        (
            "a compression loop",
            raw(0x100, [1, 0, 0, 0], pointer_to_itself),
            FormErr,
        ),
        (
            "a loop after a label",
            raw(0x100, [1, 0, 0, 0], pointer_after_label),
            FormErr,
        ),
        ("a label of 64", raw(0x100, [1, 0, 0, 0], &[64; 100]), FormErr),
        (
            "a name of 64 KiB",
            raw(0x100, [1, 0, 0, 0], &[63; 65_000]),
            FormErr,
        ),
        ("a name of 1280", raw(0x100, [1, 0, 0, 0], &endless), FormErr),
        ("a name cut off", raw(0x100, [1, 0, 0, 0], b"\x07exam"), FormErr),
        ("no kind", raw(0x100, [1, 0, 0, 0], b"\x07example\0\0"), FormErr),
        (
            "records that are not there",
            raw(0x100, [1, 0, 0, 1], EXAMPLE),
            FormErr,
        ),
        ("a status request", raw(0x1100, [1, 0, 0, 0], EXAMPLE), NotImp),
        (
            "Chaos",
            raw(0x100, [1, 0, 0, 0], b"\x07version\x04bind\0\0\x10\0\x03"),
            Refused,
        ),
    ];
    for (what, message, code) in rows {
        let mut cable = Cable::new();
        let answer = cable.ask(&message);
        assert_eq!(answer.metadata.response_code, code, "{what}");
        assert_eq!(answer.metadata.id, 0x1234, "{what}");
        assert_eq!(cable.drops().len(), 1, "{what}");
    }
}

#[test]
fn nobody_answers_an_answer_or_what_has_no_header() {
    let mut cable = Cable::new();
    let mut reflected = Message::response(7, OpCode::Query);
    reflected.add_query(Query::query(
        Name::from_ascii("example.com").unwrap(),
        RecordType::A,
    ));
    cable.expect_drop(&datagram(&reflected), DropReason::Malformed);
    cable.pass(Duration::from_secs(2));
    cable.pass(Duration::from_secs(2));
    cable.expect_drop(&udp(to(GATEWAY_V4), PORT, &[0; 11]), DropReason::Malformed);
    cable.send(&udp(to(GATEWAY_V4), PORT, b""));
    assert_eq!(cable.frames(), Vec::<Vec<u8>>::new());
}

#[test]
fn names_that_are_no_hosts() {
    for name in [
        b"\x04a.bc\x07example\x03com\0".as_slice(),
        b"\x03a\0b\x07example\0",
        b"\x02\xc3\xa9\x07example\0",
        b"\x04a bc\x07example\0",
        b"\x01*\x07example\0",
        b"\x03198\x02 1\x010\0",
        b"\x0a198.51.100\x011\0",
        b"\x03198\x0251\x03100\x011\0",
        b"\x09127.0.0.1\0",
        b"\x0a2130706433\0",
        b"\x0a0x7f000001\0",
    ] {
        let mut cable = Cable::new();
        let answer = cable.ask(&raw(0x100, [1, 0, 0, 0], &[name, b"\0\x01\0\x01"].concat()));
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "{name:?}");
        assert_eq!(cable.drops(), [DropReason::BadName], "{name:?}");
    }
}

#[test]
fn the_longest_name_is_asked_as_it_is() {
    let mut cable = Cable::new();
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "b".repeat(61));
    assert_eq!(longest.len(), 253);
    cable.send(&ask(&longest, RecordType::A));
    let query = cable.asked(&longest);
    cable.stack.name_decided(query, true, cable.now);
    assert_eq!(cable.code(), ResponseCode::NoError);
}

#[test]
fn edns_is_answered_in_kind() {
    let mut cable = Cable::new();
    let mut asked = question("example.com", RecordType::AAAA);
    let mut edns = Edns::new();
    edns.set_max_payload(u16::MAX).set_dnssec_ok(true);
    asked.set_edns(edns);
    cable.send(&datagram(&asked));
    let query = cable.asked("example.com");
    cable.stack.name_decided(query, true, cable.now);
    let answered = answer(&cable.frame());
    let edns = answered.edns.unwrap();
    assert_eq!((edns.version(), edns.max_payload()), (0, 1232));
    assert_eq!(answered.answers[0].data.ip_addr(), Some(POOL_V6.into()));
}

#[test]
fn oddities_of_edns() {
    const OPT: &[u8] = b"\0\0\x29\x10\0\0\0\0\0\0\0";
    let another_version = [EXAMPLE, b"\0\0\x29\x10\0\0\x07\0\0\0\0".as_slice()].concat();
    let with_a_name = [EXAMPLE, b"\x01a\0\0\x29\x10\0\0\0\0\0\0\0".as_slice()].concat();
    let by_a_pointer = [EXAMPLE, b"\xc0\x0c\0\x29\x10\0\0\0\0\0\0\0".as_slice()].concat();
    let twice = [EXAMPLE, OPT, OPT].concat();
    let options_cut_off = [EXAMPLE, b"\0\0\x29\x10\0\0\0\0\0\xff\xff\0".as_slice()].concat();
    let behind_a_loop = [EXAMPLE, b"\xc0\x19\0\x01\0\x01\0\0\0\0\0\0".as_slice(), OPT].concat();
    let bad_options = [EXAMPLE, b"\0\0\x29\0\0\0\0\0\0\0\x05\0\x0a\xff\xff\0".as_slice()].concat();
    for (what, rest, records, code) in [
        ("version 7", &another_version, 1, Some(ResponseCode::BADVERS)),
        ("a name", &with_a_name, 1, Some(ResponseCode::FormErr)),
        (
            "a pointer for a name",
            &by_a_pointer,
            1,
            Some(ResponseCode::FormErr),
        ),
        ("twice", &twice, 2, Some(ResponseCode::FormErr)),
        (
            "options cut off",
            &options_cut_off,
            1,
            Some(ResponseCode::FormErr),
        ),
        ("a record with a loop before it", &behind_a_loop, 2, None),
        ("options nobody reads", &bad_options, 1, None),
    ] {
        let mut cable = Cable::new();
        cable.send(&udp(to(GATEWAY_V4), PORT, &raw(0x100, [1, 0, 0, records], rest)));
        match code {
            // By number: 16 has two names.
            Some(code) => assert_eq!(u16::from(cable.code()), u16::from(code), "{what}"),
            None => drop(cable.asked("example.com")),
        }
    }
}

#[test]
fn addresses_of_the_pool_are_called_by_their_names() {
    let mut cable = Cable::new();
    let (v4, v6) = cable.resolve("a.example.com");
    for address in [IpAddr::from(v4), v6.into()] {
        let reverse = Name::from(address).to_ascii();
        let answer = cable.ask(&question(&reverse, RecordType::PTR).to_vec().unwrap());
        let RData::PTR(name) = &answer.answers[0].data else {
            panic!("{answer:?}");
        };
        assert_eq!(name.0.to_ascii(), "a.example.com.");
    }
    for other in [
        "198.18.1.1",
        "192.0.2.1",
        "198.18.0.1",
        "2001:db8::1",
        "fdc0:ffe4:0:1::9",
    ] {
        let reverse = Name::from(other.parse::<IpAddr>().unwrap()).to_ascii();
        let answer = cable.ask(&question(&reverse, RecordType::PTR).to_vec().unwrap());
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "{other}");
    }
    assert_eq!(cable.events(), [], "nobody is asked");
}

#[test]
fn localhost_and_the_root_are_nobodys_business() {
    let mut cable = Cable::new();
    for (kind, address) in [(RecordType::A, "127.0.0.1"), (RecordType::AAAA, "::1")] {
        let answer = cable.ask(&question("LocalHost", kind).to_vec().unwrap());
        assert_eq!(answer.answers[0].data.ip_addr(), Some(address.parse().unwrap()));
    }
    let answer = cable.ask(&question(".", RecordType::NS).to_vec().unwrap());
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert_eq!(answer.answers.len(), 0);
    assert_eq!(cable.events(), []);
}

#[test]
fn a_wildcard_rule_cannot_fill_the_pool() {
    let mut cable = Cable::new();
    let first = cable.resolve("first.example.com").0;
    for number in 0..MAX_NAMES {
        cable.now += Duration::from_millis(20);
        assert_ne!(cable.resolve(&format!("n{number}.example.com")).0, first);
    }
    assert_ne!(
        cable.resolve("first.example.com").0,
        first,
        "it was forgotten, and nobody got its address"
    );
}

#[test]
fn records_in_a_question_teach_nobody_anything() {
    let mut cable = Cable::new();
    let mut asked = question("example.com", RecordType::A);
    let poison = RData::A("203.0.113.9".parse::<Ipv4Addr>().unwrap().into());
    asked.add_additional(Record::from_rdata(
        Name::from_ascii("bank.example.com").unwrap(),
        9999,
        poison,
    ));
    asked.queries[0].set_query_class(DNSClass::IN);
    cable.send(&datagram(&asked));
    let query = cable.asked("example.com");
    cable.stack.name_decided(query, true, cable.now);
    assert_eq!(
        answer(&cable.frame()).answers[0].data.ip_addr(),
        Some(POOL_V4.into())
    );
    cable.send(&ask("bank.example.com", RecordType::A));
    let query = cable.asked("bank.example.com");
    cable.stack.name_decided(query, false, cable.now);
    assert_eq!(cable.code(), ResponseCode::NXDomain);
}
