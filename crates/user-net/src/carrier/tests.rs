//! A guest made of frames, the carrier, and a `coffer-egress` that says what a test wants.

use std::{
    io::{Read, Write},
    mem::MaybeUninit,
    net::Ipv4Addr,
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::Duration,
};

use egress_policy::{
    Reason,
    link::{MAX_MESSAGE, Protocol, VERSION, decode, encode},
};
use hickory_proto::{op::ResponseCode, rr::RecordType};
use rustix::{
    event::{PollFd, PollFlags, poll},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send},
    time::Timespec,
};
use smoltcp::wire::TcpControl;

use super::*;
use crate::stack::tests::{
    dns::{answer, ask},
    tcp::Client,
    to,
};

struct Rig {
    carrier: Carrier,
    links: Links,
    egress: OwnedFd,
}

impl Rig {
    fn without_link() -> Self {
        let (mut carrier, links) = Carrier::new().unwrap();
        carrier.connect(Offloads::default());
        let (_, egress) = pair();
        Rig {
            carrier,
            links,
            egress,
        }
    }

    fn new() -> Self {
        let mut rig = Rig::without_link();
        rig.link();
        rig.say(&FromEgress::Hello { version: VERSION });
        rig
    }

    /// A new link, greeted by the machine.
    fn link(&mut self) {
        let (machine, egress) = pair();
        self.egress = egress;
        self.links.replace(machine);
        self.turn();
        assert_eq!(self.heard().0, ToEgress::Hello { version: VERSION });
    }

    /// Waits until there is something to do, and does it.
    fn turn(&mut self) {
        let mut wake = [PollFd::from_borrowed_fd(self.carrier.wake(), PollFlags::IN)];
        let soon = Timespec::try_from(Duration::from_secs(5)).unwrap();
        assert_eq!(poll(&mut wake, Some(&soon)).unwrap(), 1, "nothing to do");
        self.carrier.turn();
    }

    fn say_bytes(&mut self, bytes: &[u8]) {
        send(&self.egress, bytes, SendFlags::empty()).unwrap();
        self.turn();
    }

    fn say(&mut self, message: &FromEgress) {
        self.say_bytes(&encode(message).unwrap());
    }

    fn heard(&self) -> (ToEgress, Option<UnixStream>) {
        let mut bytes = [0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [rustix::io::IoSliceMut::new(&mut bytes)];
        let got = recvmsg(&self.egress, &mut into, &mut control, RecvFlags::DONTWAIT).unwrap();
        let stream = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        (decode(&bytes[..got.bytes]).unwrap(), stream.map(UnixStream::from))
    }

    fn frames(&mut self) -> Vec<Vec<u8>> {
        let next = || {
            let mut frame = Vec::new();
            self.carrier.transmit(&mut frame).then_some(frame)
        };
        std::iter::from_fn(next).collect()
    }

    fn code_for(&mut self, name: &str) -> ResponseCode {
        self.carrier.receive(&ask(name, RecordType::A));
        answer(&self.frames()[0]).metadata.response_code
    }

    /// A connection of the guest that stands, and `coffer-egress`'s end of it.
    fn connected(&mut self) -> (Client, Id, UnixStream) {
        let mut client = client();
        self.carrier.receive(&client.syn());
        let (ToEgress::Open { id, target, port, .. }, Some(stream)) = self.heard() else {
            panic!("no question");
        };
        assert_eq!((target.to_string().as_str(), port), ("192.0.2.7", 4000));
        assert!(self.frames().is_empty(), "no answer before the verdict");
        self.say(&FromEgress::Opened { id });
        client.hear(&self.frames());
        self.carrier.receive(&client.segment(TcpControl::None, b""));
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        (client, id, stream)
    }
}

fn client() -> Client {
    Client::new(to(Ipv4Addr::new(192, 0, 2, 7)), 4000)
}

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap()
}

#[test]
fn without_a_link_no_name_is_known_and_no_connection_made() {
    let mut rig = Rig::without_link();
    assert_eq!(rig.code_for("example.com"), ResponseCode::NXDomain);
    let mut client = client();
    rig.carrier.receive(&client.syn());
    assert!(client.hear(&rig.frames()).0, "no RST");
}

#[test]
fn a_name_is_known_when_coffer_egress_says_so() {
    let mut rig = Rig::new();
    for (allowed, code) in [(true, ResponseCode::NoError), (false, ResponseCode::NXDomain)] {
        let name = format!("{allowed}.example.com");
        rig.carrier.receive(&ask(&name, RecordType::A));
        let (
            ToEgress::Name {
                id,
                name: asked,
                protocol,
                ..
            },
            None,
        ) = rig.heard()
        else {
            panic!("no question");
        };
        assert_eq!((asked.as_str(), protocol), (name.as_str(), Protocol::Udp));
        rig.say(&FromEgress::Name { id, allowed });
        assert_eq!(answer(&rig.frames()[0]).metadata.response_code, code);
    }
}

#[test]
fn bytes_go_both_ways_and_each_way_ends_by_itself() {
    let mut rig = Rig::new();
    let (mut client, _, mut stream) = rig.connected();
    rig.carrier.receive(&client.segment(TcpControl::Psh, b"question"));
    let mut heard = [0; 8];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"question");
    rig.carrier.receive(&client.segment(TcpControl::Fin, b""));
    assert_eq!(stream.read(&mut heard).unwrap(), 0, "the guest's end");
    stream.write_all(b"answer").unwrap();
    rig.turn();
    assert_eq!(client.hear(&rig.frames()), (false, b"answer".to_vec()));
    rig.carrier.receive(&client.segment(TcpControl::None, b""));
    drop(stream);
    rig.turn();
    assert_eq!(client.hear(&rig.frames()), (false, vec![]), "a FIN, not a RST");
    rig.carrier.receive(&client.segment(TcpControl::None, b""));
    assert!(rig.carrier.flows.is_empty() && rig.carrier.asked.is_empty());
}

#[test]
fn a_refusal_is_a_reset_at_once() {
    let mut rig = Rig::new();
    let mut client = client();
    rig.carrier.receive(&client.syn());
    let (ToEgress::Open { id, .. }, Some(_)) = rig.heard() else {
        panic!("no question");
    };
    let reason = Reason::NoRule;
    rig.say(&FromEgress::Refused { id, reason });
    assert!(client.hear(&rig.frames()).0, "no RST");
    assert!(rig.carrier.flows.is_empty() && rig.carrier.asked.is_empty());
}

#[test]
fn a_stream_that_is_closed_before_both_ends_is_a_reset() {
    let mut rig = Rig::new();
    let (mut client, _, stream) = rig.connected();
    drop(stream);
    rig.turn();
    assert!(client.hear(&rig.frames()).0, "no RST");
    assert!(rig.carrier.flows.is_empty());
}

#[test]
fn a_broken_flow_is_a_reset_also_when_the_guest_has_said_all() {
    let mut rig = Rig::new();
    let (mut client, id, _stream) = rig.connected();
    rig.carrier.receive(&client.segment(TcpControl::Fin, b""));
    client.hear(&rig.frames());
    rig.say(&FromEgress::Broken { id });
    assert!(client.hear(&rig.frames()).0, "no RST");
}

#[test]
fn a_guest_that_breaks_off_closes_the_stream_without_an_end_of_its_own() {
    let mut rig = Rig::new();
    let (mut client, _, stream) = rig.connected();
    rig.carrier.receive(&client.segment(TcpControl::Rst, b""));
    let mut look = [PollFd::new(&stream, PollFlags::IN)];
    poll(&mut look, Some(&Timespec::default())).unwrap();
    assert!(look[0].revents().contains(PollFlags::HUP));
}

#[test]
fn a_link_that_goes_takes_its_flows_and_questions_along() {
    let mut rig = Rig::new();
    let (mut client, _, _stream) = rig.connected();
    rig.carrier.receive(&ask("example.com", RecordType::A));
    rig.egress = pair().0;
    rig.turn();
    let frames = rig.frames();
    let (dns, tcp): (Vec<_>, Vec<_>) = frames.into_iter().partition(|frame| frame[23] == 17);
    assert_eq!(answer(&dns[0]).metadata.response_code, ResponseCode::NXDomain);
    assert!(client.hear(&tcp).0, "no RST");
    assert_eq!(rig.code_for("again.example.com"), ResponseCode::NXDomain);
    rig.link();
    rig.say(&FromEgress::Hello { version: VERSION });
    let (_, _, mut stream) = rig.connected();
    stream.write_all(b"new").unwrap();
    rig.turn();
}

#[test]
fn a_new_link_takes_the_place_of_one_that_still_stands() {
    let mut rig = Rig::new();
    let (mut client, _, _stream) = rig.connected();
    rig.link();
    assert!(client.hear(&rig.frames()).0, "the old flow goes on");
}

#[test]
fn whoever_says_something_else_than_a_message_is_not_listened_to() {
    let other = VERSION + 1;
    let wrong = encode(&FromEgress::Hello { version: other }).unwrap();
    let early = encode(&FromEgress::Opened { id: Id(1) }).unwrap();
    let long = vec![0; MAX_MESSAGE + 1];
    for bytes in [&wrong[..], &early, &long, b"\xff\xff\xff", b"\0"] {
        let mut rig = Rig::without_link();
        rig.link();
        rig.say_bytes(bytes);
        assert!(rig.carrier.link.is_none(), "{bytes:?}");
        assert_eq!(rig.code_for("example.com"), ResponseCode::NXDomain);
    }
}

#[test]
fn answers_to_what_nobody_asked_mean_nothing() {
    let mut rig = Rig::new();
    let (_, id, _stream) = rig.connected();
    for number in [0, id.0, id.0 + 1, u64::MAX] {
        let id = Id(number);
        rig.say(&FromEgress::Name { id, allowed: true });
        rig.say(&FromEgress::Opened { id });
    }
    assert_eq!(rig.carrier.flows.len(), 1);
    let (ours, _) = UnixStream::pair().unwrap();
    rig.links.replace(ours.into());
    rig.turn();
    assert!(rig.carrier.link.is_none(), "a stream is no link");
}

#[test]
fn a_new_driver_begins_with_nothing() {
    let mut rig = Rig::new();
    let (_, id, mut stream) = rig.connected();
    rig.carrier.connect(Offloads::default());
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    rig.say(&FromEgress::Broken { id });
    rig.connected();
}

#[test]
fn a_server_that_says_more_than_the_guest_takes_is_held_back() {
    let mut rig = Rig::new();
    let (mut client, _, mut stream) = rig.connected();
    stream.set_nonblocking(true).unwrap();
    let mut given = 0;
    // The guest acknowledges nothing, so what is taken is what is held.
    for _ in 0..1000 {
        given += stream.write(&[7; 65536]).unwrap_or(0);
        rig.carrier.turn();
        rig.frames();
    }
    assert!((1..8 << 20).contains(&given), "{given}");
    client.hear(&[]);
}
