//! Where a SYN goes, and DNS over TCP.

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RecordType},
};
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{IpAddress, TcpControl, TcpRepr, TcpSeqNumber},
};

use super::*;
use crate::limits::{MAX_QUESTION, MAX_RESOLVER_CONNECTIONS, QUESTION_BURST, RESOLVER_IDLE};

/// One connection of the guest, as far as these tests need it.
pub(crate) struct Client {
    ends: Ends,
    port: u16,
    far: u16,
    sent: TcpSeqNumber,
    seen: Option<TcpSeqNumber>,
}

impl Client {
    pub(crate) fn new(ends: Ends, far: u16) -> Self {
        Client {
            ends,
            port: SOURCE_PORT,
            far,
            sent: TcpSeqNumber(1000),
            seen: None,
        }
    }

    fn with_port(self, port: u16) -> Self {
        Client { port, ..self }
    }

    pub(crate) fn segment(&mut self, control: TcpControl, payload: &[u8]) -> Vec<u8> {
        let repr = TcpRepr {
            src_port: self.port,
            dst_port: self.far,
            control,
            seq_number: self.sent,
            ack_number: self.seen,
            window_len: u16::MAX,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        let (source, destination): (IpAddress, IpAddress) = match self.ends {
            Ends::V4 { source, destination } => (source.into(), destination.into()),
            Ends::V6 { source, destination } => (source.into(), destination.into()),
        };
        let mut body = vec![0; repr.buffer_len()];
        let mut packet = TcpPacket::new_unchecked(&mut body);
        repr.emit(
            &mut packet,
            &source,
            &destination,
            &ChecksumCapabilities::default(),
        );
        self.sent += repr.segment_len();
        ip(self.ends, IpProtocol::Tcp, &body)
    }

    pub(crate) fn syn(&mut self) -> Vec<u8> {
        self.segment(TcpControl::Syn, b"")
    }

    /// What of the gateway's frames is for this connection: whether there was a RST, and the bytes.
    pub(crate) fn hear(&mut self, frames: &[Vec<u8>]) -> (bool, Vec<u8>) {
        let (mut reset, mut bytes) = (false, Vec::new());
        for frame in frames {
            let (to, ends, protocol, payload) = read(frame);
            assert_eq!((to, protocol), (EthernetAddress(GUEST_MAC), IpProtocol::Tcp));
            let packet = TcpPacket::new_checked(payload.as_slice()).unwrap();
            if ends != self.ends.reversed() || packet.dst_port() != self.port {
                continue;
            }
            reset |= packet.rst();
            bytes.extend_from_slice(packet.payload());
            if !packet.rst() {
                self.seen = Some(packet.seq_number() + packet.segment_len());
            }
        }
        (reset, bytes)
    }

    fn connect(&mut self, cable: &mut Cable) {
        let syn = self.syn();
        cable.send(&syn);
        assert_eq!(self.hear(&cable.frames()), (false, vec![]));
        assert!(self.seen.is_some(), "no answer to the SYN");
        cable.send(&self.segment(TcpControl::None, b""));
    }

    fn say(&mut self, cable: &mut Cable, payload: &[u8]) -> (bool, Vec<u8>) {
        cable.send(&self.segment(TcpControl::Psh, payload));
        self.hear(&cable.frames())
    }
}

fn opened(cable: &mut Cable, ends: Ends, port: u16) -> Option<(Target, u16, u16)> {
    cable.send(&Client::new(ends, port).syn());
    match cable.events().as_slice() {
        [
            Event::Open {
                source, target, port, ..
            },
        ] => Some((target.clone(), *source, *port)),
        _ => None,
    }
}

#[test]
fn a_syn_to_an_address_of_the_pool_is_for_its_name() {
    let mut cable = Cable::new();
    let (v4, v6) = cable.resolve("www.example.com");
    for ends in [to(v4), to(v6)] {
        let expected = Target::Name(name("www.example.com"));
        assert_eq!(opened(&mut cable, ends, 443), Some((expected, SOURCE_PORT, 443)));
        assert_eq!(
            cable.frames(),
            Vec::<Vec<u8>>::new(),
            "no answer before the verdict"
        );
    }
}

#[test]
fn literal_addresses_are_asked_as_what_they_are() {
    for (address, port) in [
        ("192.0.2.1", 443),
        ("192.0.2.53", 853),
        ("2001:db8::1", 443),
        ("169.254.169.254", 80),
        ("127.0.0.1", 80),
        ("10.0.0.1", 22),
        ("198.18.0.9", 80),
        ("198.20.0.1", 80),
        ("::ffff:192.0.2.1", 443),
        ("64:ff9b::c000:201", 443),
        ("fdc0:ffe4::9", 80),
        ("::1", 80),
    ] {
        let address: IpAddr = address.parse().unwrap();
        let expected = Some((Target::Address(address), SOURCE_PORT, port));
        assert_eq!(
            opened(&mut Cable::new(), to(address), port),
            expected,
            "{address}"
        );
    }
}

#[test]
fn what_stands_for_nothing_is_refused_at_once() {
    for (address, port) in [
        ("198.18.1.0", 443),
        ("198.19.255.255", 443),
        ("fdc0:ffe4:0:1::", 443),
        ("fdc0:ffe4:0:1::1:feff", 443),
        ("198.18.0.1", 80),
        ("198.18.0.1", 67),
        ("fdc0:ffe4::1", 22),
    ] {
        let mut cable = Cable::new();
        let address: IpAddr = address.parse().unwrap();
        let mut client = Client::new(to(address), port);
        cable.send(&client.syn());
        assert!(client.hear(&cable.frames()).0, "{address}");
        let expected = dropped(
            Protocol::Tcp,
            Some(Target::Address(address)),
            Some(port),
            DropReason::Unnamed,
        );
        assert_eq!(cable.events(), [Event::Dropped(expected)], "{address}");
    }
}

#[test]
fn the_last_address_beside_the_guests_is_decided_like_any_other() {
    let mut cable = Cable::new();
    let mut client = Client::new(to(IpAddr::V4([198, 18, 0, 255].into())), 443);
    cable.send(&client.syn());
    let [Event::Open { flow, .. }] = cable.events()[..] else {
        panic!();
    };
    cable.stack.refuse(flow, cable.now);
    assert!(client.hear(&cable.frames()).0);
}

#[test]
fn a_verdict_opens_or_resets() {
    let mut cable = Cable::new();
    let (v4, _) = cable.resolve("www.example.com");
    let mut client = Client::new(to(v4), 443);
    cable.send(&client.syn());
    let [Event::Open { flow, .. }] = cable.events()[..] else {
        panic!();
    };
    cable.stack.refuse(flow, cable.now);
    assert!(client.hear(&cable.frames()).0);
    assert_eq!(cable.events(), [], "who refused knows");

    let mut client = Client::new(to(v4), 443).with_port(SOURCE_PORT + 1);
    cable.send(&client.syn());
    let [Event::Open { flow, .. }] = cable.events()[..] else {
        panic!();
    };
    cable.stack.accept(flow, cable.now);
    assert!(!client.hear(&cable.frames()).0);
    cable.send(&client.segment(TcpControl::None, b""));
    client.say(&mut cable, b"hello");
    assert!(cable.events().contains(&Event::Readable(flow)));
    assert_eq!(cable.stack.unread(flow), b"hello");
    cable.stack.consume(flow, 5, cable.now);
    cable.stack.room(flow)[..2].copy_from_slice(b"hi");
    cable.stack.produced(flow, 2, cable.now);
    assert_eq!(client.hear(&cable.frames()), (false, b"hi".to_vec()));
    cable.send(&client.segment(TcpControl::Rst, b""));
    assert!(cable.events().contains(&Event::Closed { flow, broken: true }));
}

#[test]
fn frames_of_ipv6_flows_say_so() {
    let mut cable = Cable::new();
    let mut client = Client::new(to(GATEWAY_V6), 53);
    cable.send(&client.syn());
    let frame = cable.frame();
    assert_eq!(frame[12..14], [0x86, 0xdd]);
    assert!(!client.hear(&[frame]).0);
}

#[test]
fn a_name_is_held_by_its_flows_and_no_longer() {
    let mut cable = Cable::new();
    let (v4, v6) = cable.resolve("held.example.com");
    let mut flows = Vec::new();
    for ends in [to(v4), to(v6)] {
        cable.send(&Client::new(ends, 443).syn());
        let [Event::Open { flow, .. }] = cable.events()[..] else {
            panic!();
        };
        flows.push(flow);
    }
    let fill = |cable: &mut Cable, prefix: &str| {
        for number in 0..crate::limits::MAX_NAMES {
            cable.now += Duration::from_millis(20);
            cable.resolve(&format!("{prefix}{number}.example.com"));
        }
    };
    fill(&mut cable, "a");
    let called = Target::Name(name("held.example.com"));
    assert_eq!(cable.stack.target(v4.into()), called);
    cable.stack.refuse(flows[0], cable.now);
    cable.frames();
    fill(&mut cable, "b");
    assert_eq!(cable.stack.target(v4.into()), called, "one is left");
    cable.stack.refuse(flows[1], cable.now);
    cable.frames();
    fill(&mut cable, "c");
    assert_eq!(cable.stack.target(v4.into()), Target::Address(v4.into()));
}

#[test]
fn events_nobody_fetches_do_not_pile_up() {
    let mut cable = Cable::new();
    let (v4, _) = cable.resolve("www.example.com");
    for round in 0..20_000_u32 {
        let mut client = Client::new(to(v4), 443).with_port(u16::try_from(1 + round % 60_000).unwrap());
        cable.send(&client.syn());
        client.seen = None;
        cable.send(&client.segment(TcpControl::Rst, b""));
    }
    assert!(cable.stack.events.len() <= crate::limits::MAX_EVENTS);
    assert!(cable.stack.told.len() <= crate::limits::MAX_FLOWS);
    let mut opened = std::collections::HashSet::new();
    for event in cable.events() {
        match event {
            Event::Open { flow, .. } => assert!(opened.insert(flow)),
            Event::Closed { flow, .. } => assert!(opened.remove(&flow)),
            Event::Dropped(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(opened.is_empty());
    assert!(cable.stack.told.is_empty());
}

#[test]
fn questions_nobody_decides_do_not_pile_up_either() {
    let mut cable = Cable::new();
    for round in 0..20 {
        for number in 0..crate::limits::MAX_QUESTIONS {
            cable.send(&super::dns::ask(
                &format!("n{number}.r{round}.example.com"),
                RecordType::A,
            ));
        }
        cable.pass(crate::limits::QUESTION_DEADLINE);
        cable.frames();
    }
    assert_eq!(cable.stack.events.len(), crate::limits::MAX_EVENTS);
    let mut client = Client::new(to(Ipv4Addr::new(192, 0, 2, 1)), 443);
    cable.send(&client.syn());
    assert!(client.hear(&cable.frames()).0);
    assert_eq!(cable.stack.events.len(), crate::limits::MAX_EVENTS);
}

fn question(name: &str) -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    framed(&message.to_vec().unwrap())
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

/// The answers that these bytes are, to the last.
fn answers(mut bytes: &[u8]) -> Vec<Message> {
    let mut answers = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let (message, rest) = rest.split_at(u16::from_be_bytes(*length).into());
        answers.push(Message::from_vec(message).unwrap());
        bytes = rest;
    }
    answers
}

#[test]
fn the_resolver_answers_over_tcp() {
    for ends in to_gateway() {
        let mut cable = Cable::new();
        let mut client = Client::new(ends, 53);
        client.connect(&mut cable);
        assert_eq!(cable.events(), [], "it is nobody else's business");
        assert_eq!(client.say(&mut cable, &question("example.com")), (false, vec![]));
        let [
            Event::Name {
                query,
                protocol: Protocol::Tcp,
                port: SOURCE_PORT,
                ..
            },
        ] = cable.events()[..]
        else {
            panic!();
        };
        cable.stack.name_decided(query, true, cable.now);
        let answer = &answers(&client.hear(&cable.frames()).1)[0];
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert_eq!(answer.answers.len(), 1);

        // And again, until the guest has enough.
        let bytes = client.say(&mut cable, &question("a.localhost")).1;
        assert_eq!(answers(&bytes).len(), 1);
        cable.send(&client.segment(TcpControl::Fin, b""));
        assert!(!client.hear(&cable.frames()).0);
        cable.send(&client.segment(TcpControl::None, b""));
        assert_eq!(cable.events(), []);
        assert_eq!(cable.stack.streams.deadline(), None, "forgotten");
    }
}

#[test]
fn questions_over_tcp_come_in_pieces_and_in_heaps() {
    let mut cable = Cable::new();
    let mut client = Client::new(to(GATEWAY_V4), 53);
    client.connect(&mut cable);
    let asked = question("a.localhost");
    let mut heard = Vec::new();
    for byte in &asked {
        heard.extend(client.say(&mut cable, &[*byte]).1);
    }
    heard.extend(client.say(&mut cable, &asked.repeat(20)).1);
    assert_eq!(answers(&heard).len(), 21);

    // One at a time: the second waits for the first.
    let heap = [question("slow.example.com"), asked].concat();
    assert_eq!(client.say(&mut cable, &heap).1, b"");
    let [Event::Name { query, .. }] = cable.events()[..] else {
        panic!();
    };
    cable.stack.name_decided(query, false, cable.now);
    let codes: Vec<ResponseCode> = answers(&client.hear(&cable.frames()).1)
        .iter()
        .map(|answer| answer.metadata.response_code)
        .collect();
    assert_eq!(codes, [ResponseCode::NXDomain, ResponseCode::NoError]);
}

#[test]
fn nonsense_over_tcp_ends_the_connection() {
    for (what, bytes) in [
        ("a question that is too long", framed(&vec![0; MAX_QUESTION + 1])),
        ("the longest, only begun", vec![0xff, 0xff, 0]),
        ("an empty one", framed(b"")),
        (
            "an answer",
            framed(&[0, 1, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1]),
        ),
        (
            "a compression loop",
            framed(b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01"),
        ),
        (
            "HTTP, whose first letters promise 18245 bytes",
            b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n".to_vec(),
        ),
    ] {
        let mut cable = Cable::new();
        let mut client = Client::new(to(GATEWAY_V4), 53);
        client.connect(&mut cable);
        let (reset, heard) = client.say(&mut cable, &bytes);
        assert!(reset, "{what}");
        assert_eq!(heard, b"", "{what}");
        assert_eq!(cable.drops(), [DropReason::Malformed], "{what}");
        assert_eq!(cable.stack.streams.deadline(), None, "{what}");
    }
}

#[test]
fn too_many_questions_over_tcp_end_the_connection() {
    let mut cable = Cable::new();
    let mut client = Client::new(to(GATEWAY_V4), 53);
    client.connect(&mut cable);
    let many = question("a.localhost").repeat(100);
    let mut heard = Vec::new();
    let reset = (0..10).any(|_| {
        let (reset, bytes) = client.say(&mut cable, &many);
        heard.extend(bytes);
        reset
    });
    assert!(reset);
    assert!(answers(&heard).len() <= usize::try_from(QUESTION_BURST).unwrap());
    assert_eq!(cable.drops(), [DropReason::Limit]);
}

#[test]
fn connections_to_the_resolver_are_few_and_the_idle_go() {
    let mut cable = Cable::new();
    let mut clients: Vec<Client> = (0..=u16::try_from(MAX_RESOLVER_CONNECTIONS).unwrap())
        .map(|number| Client::new(to(GATEWAY_V4), 53).with_port(1000 + number))
        .collect();
    let (last, first) = clients.split_last_mut().unwrap();
    first.iter_mut().for_each(|client| client.connect(&mut cable));
    first[0].say(&mut cable, &question("a.localhost"));
    let syn = last.syn();
    cable.send(&syn);
    let frames = cable.frames();
    let gone: Vec<bool> = first.iter_mut().map(|client| client.hear(&frames).0).collect();
    assert_eq!(
        gone.iter().position(|gone| *gone),
        Some(1),
        "the first was used since"
    );
    assert_eq!(gone.iter().filter(|gone| **gone).count(), 1);
    assert_eq!(last.hear(&frames), (false, vec![]));
    assert_eq!(cable.events(), []);

    cable.pass(RESOLVER_IDLE);
    let frames = cable.frames();
    assert!(first[0].hear(&frames).0 && last.hear(&frames).0);
    assert_eq!(cable.stack.streams.deadline(), None);
    assert_eq!(cable.events(), []);
}

#[test]
fn an_answer_to_a_connection_that_is_gone_goes_nowhere() {
    let mut cable = Cable::new();
    let mut client = Client::new(to(GATEWAY_V4), 53);
    client.connect(&mut cable);
    client.say(&mut cable, &question("slow.example.com"));
    let [Event::Name { query, .. }] = cable.events()[..] else {
        panic!();
    };
    cable.send(&client.segment(TcpControl::Rst, b""));
    assert_eq!(cable.events(), []);
    cable.stack.name_decided(query, true, cable.now);
    assert_eq!(cable.frames(), Vec::<Vec<u8>>::new());
}
