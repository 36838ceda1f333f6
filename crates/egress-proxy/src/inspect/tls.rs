//! The beginning of TLS: the name in the client's hello must be the flow's.
//!
//! ```text
//! First ─hello─▶ Answer ─server's hello─▶ open
//!                  └────retry────▶ Second ─hello─▶ open
//! ```
//! A server may ask for another hello, and some then go by the name in that one; so it is read as well. What the
//! guest says before the server has answered (0-RTT) waits until then.
//!
//! An encrypted hello is refused: behind an allowed name it could ask for any other at the same provider. The cost:
//! browsers that send a meaningless one to everybody (GREASE) look the same, and have to be told not to.

mod hello;
mod records;

use egress_policy::Reason;

use self::{hello::Hello, records::Records};
use super::{Guard, Place, Step};

pub(super) struct Handshake {
    place: Place,
    state: State,
    answer: Answer,
}

enum State {
    First(Reader),
    Answer,
    Second(Reader),
    Open,
}

impl Handshake {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            state: State::First(Reader::default()),
            answer: Answer::default(),
        }
    }

    pub(super) fn step(&mut self, bytes: &[u8]) -> Result<Step, Reason> {
        let (reader, next) = match &mut self.state {
            State::First(reader) => (reader, State::Answer),
            State::Second(reader) => (reader, State::Open),
            State::Answer => return Ok(Step::Wait),
            State::Open => return Ok(Step::Open),
        };
        if !reader.read(bytes)? {
            return Ok(Step::Wait);
        }
        let hello = Hello::parse(&reader.message).ok_or(Reason::NotTls)?;
        let length = reader.scanned;
        check(&hello, &self.place)?;
        self.state = next;
        Ok(Step::Release(length))
    }

    pub(super) fn hear_server(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        let Some(answered) = self.answer.hear(bytes)? else {
            return Ok(());
        };
        match self.state {
            State::Answer if answered.retry => self.state = State::Second(Reader::again()),
            State::Answer => self.state = State::Open,
            State::First(_) => return Err(Reason::NotTls),
            State::Second(_) | State::Open => {}
        }
        Ok(())
    }

    pub(super) fn guest_finished(&self) -> Result<(), Reason> {
        match &self.state {
            State::First(reader) | State::Second(reader) if reader.scanned > 0 => Err(Reason::NotTls),
            _ => Ok(()),
        }
    }
}

fn check(hello: &Hello<'_>, place: &Place) -> Result<(), Reason> {
    if hello.encrypted {
        return Err(Reason::EncryptedHello);
    }
    match hello.server_name {
        None => Err(Reason::NoServerName),
        Some(name) if place.is_named(name) => Ok(()),
        Some(_) => Err(Reason::OtherServerName),
    }
}

/// Puts a client's hello together from records.
#[derive(Default)]
struct Reader {
    records: Records,
    /// How many of the held bytes are in `message` or were skipped.
    scanned: usize,
    message: Vec<u8>,
    again: bool,
}

impl Reader {
    /// For the hello after a retry. Before it come a change of ciphers that means nothing, and 0-RTT in vain.
    fn again() -> Self {
        Self {
            again: true,
            ..Self::default()
        }
    }

    /// Is it complete? Then it ends where the bytes up to `scanned` end.
    fn read(&mut self, bytes: &[u8]) -> Result<bool, Reason> {
        let bytes = bytes.get(..Guard::MAX_HELD).unwrap_or(bytes);
        while let Some(rest) = bytes.get(self.scanned..).filter(|rest| !rest.is_empty()) {
            let (seen, payload) = self.records.read(rest)?;
            self.scanned += seen;
            match self.records.kind() {
                records::HANDSHAKE => self.message.extend_from_slice(payload),
                records::CHANGE_CIPHER_SPEC | records::APPLICATION_DATA
                    if self.again && self.message.is_empty() => {}
                _ => return Err(Reason::NotTls),
            }
            if self.is_complete()? {
                return Ok(true);
            }
        }
        if self.scanned >= Guard::MAX_HELD {
            Err(Reason::NotTls)
        } else {
            Ok(false)
        }
    }

    /// Nothing but the hello may be in its last record.
    fn is_complete(&self) -> Result<bool, Reason> {
        match *self.message.as_slice() {
            [] | [hello::CLIENT_HELLO] | [hello::CLIENT_HELLO, _] | [hello::CLIENT_HELLO, _, _] => Ok(false),
            [hello::CLIENT_HELLO, high, middle, low, ..] => {
                let whole =
                    hello::HEADER + (usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low));
                if whole > Guard::MAX_HELD || self.message.len() + self.records.left() > whole {
                    return Err(Reason::NotTls);
                }
                Ok(self.message.len() == whole)
            }
            _ => Err(Reason::NotTls),
        }
    }
}

/// Reads the server's hello as far as is needed to know whether it is one.
#[derive(Default)]
struct Answer {
    records: Records,
    message: Vec<u8>,
}

struct Answered {
    retry: bool,
}

impl Answer {
    fn hear(&mut self, mut bytes: &[u8]) -> Result<Option<Answered>, Reason> {
        while !bytes.is_empty() && self.message.len() < SERVER_HELLO_READ {
            let (seen, payload) = self.records.read(bytes)?;
            bytes = bytes.get(seen..).unwrap_or_default();
            match self.records.kind() {
                records::HANDSHAKE => self.message.extend_from_slice(payload),
                // "I do not know this name" is only a warning to some.
                records::ALERT => {}
                _ => return Err(Reason::NotTls),
            }
            if self
                .message
                .first()
                .is_some_and(|kind| *kind != hello::SERVER_HELLO)
            {
                return Err(Reason::NotTls);
            }
        }
        let random = self
            .message
            .get(SERVER_HELLO_READ - RETRY.len()..SERVER_HELLO_READ);
        Ok(random.map(|random| Answered {
            retry: random == RETRY,
        }))
    }
}

/// Header, version, random.
const SERVER_HELLO_READ: usize = hello::HEADER + 2 + RETRY.len();
/// The random of a server's hello that asks for another of the client's (RFC 8446, 4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
    0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];
