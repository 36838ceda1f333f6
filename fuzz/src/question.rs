//! Questions to the guest's resolver, as datagrams and on a connection: both ways come to the same answer.
//!
//! The input is a byte with the verdicts, a byte that says how a connection is cut into segments, and messages with
//! [`NEXT`] between them.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use egress_policy::{HostName, link::DropReason};
use user_net::{Event, Offloads, QueryId, Stack};

use crate::network::{Place, ip, udp};

/// A changed byte leaves every other message as it is.
pub const NEXT: &[u8] = b"\xffNEXT";
/// Fewer than the resolver takes at a time, asked twice each, so that what it answers depends on the question alone.
const MESSAGES: usize = 16;
/// Of what is asked on a connection; a datagram may be longer.
const LONGEST: usize = 4096;
/// Whoever does not speak EDNS takes no more in a datagram (RFC 1035, 4.2.1).
const LARGEST_ANSWER: usize = 512;
const HEADER: usize = 12;
/// What comes with an error that has no question in it: not understood, or no question at all.
const WITHOUT_QUESTION: [u8; 2] = [1, 4];
const NO_SUCH_NAME: u8 = 3;
const RESOLVER: u16 = 53;
const GUEST: u16 = 40_000;

/// # Panics
/// When an answer is too long or about something else, a name is asked for twice, or the two ways differ.
pub fn dns_question(input: &[u8]) {
    let [verdicts, cut, messages @ ..] = input else {
        return;
    };
    if messages.len() > LONGEST {
        return;
    }
    let messages = split(messages);
    let (by_datagram, dropped) = Datagrams::ask(&messages, *verdicts);
    let mut connection = Connection::open();
    let on_connection = connection.ask(&messages, *verdicts, *cut);
    assert_eq!(
        on_connection.len(),
        by_datagram.len(),
        "one way heard more than the other"
    );
    for (datagram, stream) in by_datagram.iter().zip(&on_connection) {
        assert_eq!(datagram.name, stream.name, "the two ways ask for different names");
        // Nonsense is answered in a datagram, and ends a connection.
        if !datagram.is_nonsense() {
            assert_eq!(datagram.answer, stream.answer, "the two ways answer differently");
        }
    }
    assert_eq!(
        connection.desk.dropped(),
        dropped,
        "the two ways record different things"
    );
}

fn split(input: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    let mut rest = input;
    while let Some(at) = rest.windows(NEXT.len()).position(|part| part == NEXT) {
        messages.push(&rest[..at]);
        rest = &rest[at + NEXT.len()..];
    }
    messages.push(rest);
    messages.truncate(MESSAGES);
    messages
}

/// What became of one message.
#[derive(Debug)]
struct Outcome {
    name: Option<HostName>,
    answer: Option<Vec<u8>>,
}

impl Outcome {
    fn is_nonsense(&self) -> bool {
        self.answer.as_ref().is_none_or(|answer| answer.len() == HEADER)
    }

    fn check(&self, asked: &[u8], allowed: bool) {
        let Some(answer) = &self.answer else {
            assert_eq!(self.name, None, "a name was decided, and nobody told");
            return;
        };
        assert!(answer.len() <= LARGEST_ANSWER, "an answer of {}", answer.len());
        assert_eq!(answer[..2], asked[..2], "to another message");
        assert!(answer[2] & 0x80 != 0, "not an answer");
        let code = answer[3] & 0xf;
        match answer[4..6] {
            [0, 0] => assert!(WITHOUT_QUESTION.contains(&code) && answer.len() == HEADER),
            _ => assert_repeats_question(answer, asked),
        }
        if self.name.is_some() {
            assert_eq!(code == NO_SUCH_NAME, !allowed, "not what was decided");
        }
    }
}

fn assert_repeats_question(answer: &[u8], asked: &[u8]) {
    assert_eq!(answer[4..6], [0, 1]);
    let mut end = HEADER;
    while asked[end] != 0 {
        assert!(asked[end] < 64, "a pointer was followed");
        end += 1 + usize::from(asked[end]);
    }
    end += 5;
    assert_eq!(answer[HEADER..end], asked[HEADER..end], "another question");
}

/// The resolver and whoever decides.
struct Desk {
    stack: Stack,
    now: Instant,
    waiting: Option<QueryId>,
    dropped: BTreeSet<(String, Option<String>)>,
}

impl Desk {
    fn new() -> Self {
        let now = Instant::now();
        Desk {
            stack: Stack::new(Offloads::default(), now),
            now,
            waiting: None,
            dropped: BTreeSet::new(),
        }
    }

    fn listen(&mut self) -> Option<HostName> {
        let mut asked = None;
        while let Some(event) = self.stack.next_event() {
            match event {
                Event::Name { query, name, .. } => {
                    assert_eq!(self.waiting.replace(query), None, "asked twice");
                    asked = Some(name);
                }
                Event::Dropped(dropped) => {
                    let target = dropped.target.map(|target| format!("{target:?}"));
                    self.dropped.insert((format!("{:?}", dropped.reason), target));
                }
                other => panic!("{other:?}"),
            }
        }
        asked
    }

    fn decide(&mut self, allowed: bool) {
        if let Some(query) = self.waiting.take() {
            self.stack.name_decided(query, allowed, self.now);
        }
    }

    fn frames(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut frame = Vec::new();
        while self.stack.transmit(&mut frame, self.now) {
            frames.push(std::mem::take(&mut frame));
        }
        frames
    }

    /// Of everything so far, with what is reported later.
    fn dropped(&mut self) -> BTreeSet<(String, Option<String>)> {
        self.now += Duration::from_secs(2);
        self.stack.expire(self.now);
        self.listen();
        std::mem::take(&mut self.dropped)
    }

    fn has_dropped(&self, reason: DropReason) -> bool {
        let reason = format!("{reason:?}");
        self.dropped.iter().any(|(known, _)| *known == reason)
    }
}

fn allows(verdicts: u8, message: usize) -> bool {
    verdicts.rotate_right((message % 8) as u32) & 1 == 1
}

struct Datagrams;

impl Datagrams {
    /// Each twice, as an impatient guest does; as far as to the first that makes no sense.
    fn ask(messages: &[&[u8]], verdicts: u8) -> (Vec<Outcome>, BTreeSet<(String, Option<String>)>) {
        let mut desk = Desk::new();
        let mut outcomes = Vec::new();
        for (number, message) in messages.iter().enumerate() {
            let frame = ip(false, Place::Gateway, 17, &udp(RESOLVER, message));
            desk.stack.receive(&frame, desk.now);
            desk.stack.receive(&frame, desk.now);
            let name = desk.listen();
            desk.decide(allows(verdicts, number));
            let mut answers: Vec<_> = desk.frames().iter().map(|frame| frame[42..].to_vec()).collect();
            if name.is_none() && !answers.is_empty() {
                assert_eq!(answers.len(), 2, "one of two is answered");
            }
            let answer = answers.pop();
            assert!(answers.iter().all(|other| answer.as_ref() == Some(other)));
            let outcome = Outcome { name, answer };
            outcome.check(message, allows(verdicts, number));
            outcomes.push(outcome);
            if desk.has_dropped(DropReason::Malformed) {
                break;
            }
        }
        let dropped = desk.dropped();
        (outcomes, dropped)
    }
}

struct Connection {
    desk: Desk,
    next: u32,
    heard: u32,
    received: Vec<u8>,
    is_cut: bool,
}

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 0x10;
const PUSH_ACK: u8 = 0x18;

impl Connection {
    fn open() -> Self {
        let mut connection = Connection {
            desk: Desk::new(),
            next: 1000,
            heard: 0,
            received: Vec::new(),
            is_cut: false,
        };
        connection.say(SYN, &[]);
        assert!(connection.heard != 0, "the resolver does not listen");
        connection.say(ACK, &[]);
        connection
    }

    fn ask(&mut self, messages: &[&[u8]], verdicts: u8, cut: u8) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for (number, message) in messages.iter().enumerate() {
            let length = u16::try_from(message.len()).expect("an input is shorter");
            let mut rest = [length.to_be_bytes().as_slice(), message].concat();
            let mut name = None;
            while !rest.is_empty() {
                let piece: Vec<u8> = rest.drain(..size(&rest, cut)).collect();
                self.say(PUSH_ACK, &piece);
                let asked = self.desk.listen();
                assert!(asked.is_none() || rest.is_empty(), "decided before it was asked");
                name = name.or(asked);
            }
            self.desk.decide(allows(verdicts, number));
            self.hear();
            let outcome = Outcome {
                name,
                answer: self.answer(),
            };
            outcome.check(message, allows(verdicts, number));
            outcomes.push(outcome);
            if self.is_cut {
                break;
            }
        }
        outcomes
    }

    fn say(&mut self, flags: u8, bytes: &[u8]) {
        let mut segment = Vec::new();
        segment.extend(GUEST.to_be_bytes());
        segment.extend(RESOLVER.to_be_bytes());
        segment.extend(self.next.to_be_bytes());
        segment.extend(self.heard.to_be_bytes());
        segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend(bytes);
        self.next = self
            .next
            .wrapping_add(bytes.len() as u32 + u32::from(flags == SYN));
        self.desk
            .stack
            .receive(&ip(false, Place::Gateway, 6, &segment), self.desk.now);
        self.hear();
    }

    fn hear(&mut self) {
        for frame in self.desk.frames() {
            let tcp = &frame[34..];
            let number = u32::from_be_bytes(tcp[4..8].try_into().expect("four bytes"));
            let payload = &tcp[usize::from(tcp[12] >> 4) * 4..];
            self.is_cut |= tcp[13] & RST != 0;
            self.received.extend(payload);
            let counts = payload.len() as u32 + u32::from(tcp[13] & SYN != 0);
            self.heard = number.wrapping_add(counts);
        }
    }

    /// The one answer, whole.
    fn answer(&mut self) -> Option<Vec<u8>> {
        let received = std::mem::take(&mut self.received);
        let (length, answer) = received.split_first_chunk::<2>()?;
        assert_eq!(
            usize::from(u16::from_be_bytes(*length)),
            answer.len(),
            "not one answer"
        );
        Some(answer.to_vec())
    }
}

/// Of the next segment: all of it, or by what is said, so that the fuzzer can choose.
fn size(rest: &[u8], cut: u8) -> usize {
    match cut {
        0 => rest.len(),
        cut => (usize::from(rest[0] % cut) + 1).min(rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_seed_is_a_finding() {
        for (name, seed) in crate::seeds::questions() {
            println!("{name}");
            dns_question(&seed);
        }
    }

    #[test]
    fn what_is_kept_is_no_finding() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/dns_question");
        for file in std::fs::read_dir(folder).unwrap() {
            dns_question(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }

    #[test]
    fn both_ways_give_an_address() {
        let message = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x07eXample\x03com\0\0\x01\0\x01";
        let (outcomes, _) = Datagrams::ask(&[message], 1);
        let answer = outcomes[0].answer.as_ref().unwrap();
        assert_eq!(answer[6..8], [0, 1]);
        assert_eq!(
            Connection::open().ask(&[message], 1, 3)[0].answer.as_ref(),
            Some(answer)
        );
    }

    #[test]
    #[should_panic(expected = "another question")]
    fn another_question_is_seen() {
        let asked = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
        let mut answer = asked.to_vec();
        (answer[2], answer[13]) = (0x81, b'b');
        let outcome = Outcome {
            name: None,
            answer: Some(answer),
        };
        outcome.check(asked, true);
    }
}
