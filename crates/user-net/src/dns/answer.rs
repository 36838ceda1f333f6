//! Answers, written out. The largest is a question and a record with a name, so none is ever cut short.

use std::net::IpAddr;

use egress_policy::HostName;

use super::question::{Code, INTERNET, OPCODE, OPT, Question, RESPONSE, kind};

/// An address of the pool stands for its name for much longer than this.
const ADDRESS_TTL: u32 = 60;
/// Rules change while a session runs: nobody is to remember a "no".
const REFUSAL_TTL: u32 = 5;
/// What we would take in one datagram (RFC 9715).
const EDNS_SIZE: u16 = 1232;
/// The question's name, by its place in the message.
const SAME_NAME: u16 = 0xc00c;

const RECURSION_DESIRED: u16 = 0x0100;
const RECURSION_AVAILABLE: u16 = 0x0080;
const CHECKING_DISABLED: u16 = 0x0010;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Address(IpAddr),
    /// What an address is called.
    Name(HostName),
}

pub(crate) fn write(question: &Question, code: Code, record: Option<&Record>) -> Vec<u8> {
    // "No such name" and "nothing of that kind" need a start of authority to say for how long that holds.
    let negative = record.is_none() && matches!(code, Code::NoError | Code::NxDomain);
    let mut message = Message(Vec::with_capacity(512));
    message.header(question.id, question.flags, code);
    message.numbers(&[
        1,
        u16::from(record.is_some()),
        u16::from(negative),
        u16::from(question.edns.is_some()),
    ]);
    message.0.extend_from_slice(&question.name);
    message.numbers(&[question.kind, question.class]);
    if let Some(record) = record {
        message.record(record);
    }
    if negative {
        message.authority();
    }
    if question.edns.is_some() {
        message.edns(code);
    }
    message.0
}

/// An answer to what was not understood: no question in it.
pub(crate) fn write_error(id: u16, flags: u16, code: Code) -> Vec<u8> {
    let mut message = Message(Vec::new());
    message.header(id, flags, code);
    message.numbers(&[0; 4]);
    message.0
}

struct Message(Vec<u8>);

impl Message {
    fn numbers(&mut self, numbers: &[u16]) {
        self.0
            .extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
    }

    fn header(&mut self, id: u16, asked: u16, code: Code) {
        let repeated = asked & (OPCODE | RECURSION_DESIRED | CHECKING_DISABLED);
        self.numbers(&[
            id,
            RESPONSE | repeated | RECURSION_AVAILABLE | code.number() & 0xf,
        ]);
    }

    fn record(&mut self, record: &Record) {
        let (kind, data) = match record {
            Record::Address(IpAddr::V4(address)) => (kind::A, address.octets().to_vec()),
            Record::Address(IpAddr::V6(address)) => (kind::AAAA, address.octets().to_vec()),
            Record::Name(name) => (kind::PTR, wire_name(name)),
        };
        self.data(kind, ADDRESS_TTL, &data);
    }

    /// The name asked for is made its own authority, so that "no" is not taken to hold for the names beside it.
    fn authority(&mut self) {
        let mut data = vec![0, 0];
        for number in [1, 3600, 600, 86_400, REFUSAL_TTL] {
            data.extend_from_slice(&number.to_be_bytes());
        }
        self.data(kind::SOA, REFUSAL_TTL, &data);
    }

    fn data(&mut self, kind: u16, ttl: u32, data: &[u8]) {
        self.numbers(&[SAME_NAME, kind, INTERNET]);
        self.0.extend_from_slice(&ttl.to_be_bytes());
        self.numbers(&[u16::try_from(data.len()).unwrap_or_default()]);
        self.0.extend_from_slice(data);
    }

    fn edns(&mut self, code: Code) {
        let extended = u8::try_from(code.number() >> 4).unwrap_or_default();
        self.0.push(0);
        self.numbers(&[OPT, EDNS_SIZE]);
        self.0.extend_from_slice(&[extended, 0, 0, 0]);
        self.numbers(&[0]);
    }
}

/// A host name has no label over 63 bytes.
fn wire_name(name: &HostName) -> Vec<u8> {
    let mut wire = Vec::with_capacity(name.as_str().len() + 2);
    for label in name.as_str().split('.') {
        wire.push(u8::try_from(label.len()).unwrap_or_default());
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}
