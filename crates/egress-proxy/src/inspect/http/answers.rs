//! Which requests the server has answered: enough to know the answer to an upgrade when it comes.
//!
//! Only that depends on it. So what cannot be understood here is let through and the count is given up for good
//! ([`Answers::are_lost`]): no upgrade is possible on the connection from then on, everything else is.

use std::collections::VecDeque;

use egress_policy::Reason;

use super::{
    body::Body,
    fields::{self, MAX_FIELDS, Name},
    lines::Lines,
};
use crate::inspect::Guard;

/// Nobody sends more requests than this ahead of their answers.
const MAX_UNANSWERED: usize = 128;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    Content,
    /// The answer has no body, whatever it says.
    Head,
    Upgrade,
}

/// What an answer means for the guest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    Nothing,
    /// From here on the connection carries what the upgrade asked for.
    Switched,
    /// It stays HTTP.
    Declined,
}

#[derive(Default)]
pub(super) struct Answers {
    unanswered: VecDeque<Asks>,
    reading: Reading,
    /// The part of an answer that waits for the rest of its line or head.
    held: Vec<u8>,
}

#[derive(Default)]
enum Reading {
    #[default]
    Nothing,
    Head(Head),
    Body(Body),
    Lost,
}

enum Failure {
    /// It cannot be said any more which answer is whose.
    Unclear,
    Forbidden(Reason),
}

impl From<Reason> for Failure {
    fn from(_: Reason) -> Self {
        Self::Unclear
    }
}

impl Answers {
    pub(super) fn lost() -> Self {
        Self {
            reading: Reading::Lost,
            ..Self::default()
        }
    }

    pub(super) fn are_lost(&self) -> bool {
        matches!(self.reading, Reading::Lost)
    }

    pub(super) fn are_all_here(&self) -> bool {
        matches!(self.reading, Reading::Nothing) && self.unanswered.is_empty()
    }

    pub(super) fn expect(&mut self, asks: Asks) {
        self.unanswered.push_back(asks);
        if self.are_lost() || self.unanswered.len() > MAX_UNANSWERED {
            *self = Self::lost();
        }
    }

    /// Fails for what the guest must not use, and for what would leave it waiting for ever.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> Result<Heard, Reason> {
        if self.held.is_empty() {
            let (read, heard) = self.read_all(bytes)?;
            self.held.extend_from_slice(bytes.get(read..).unwrap_or_default());
            return Ok(heard);
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        let (read, heard) = self.read_all(&held)?;
        held.drain(..read);
        self.held = held;
        Ok(heard)
    }

    /// How much of it was understood, and what it means.
    fn read_all(&mut self, bytes: &[u8]) -> Result<(usize, Heard), Reason> {
        let mut heard = Heard::Nothing;
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.read(rest, &mut heard) {
                Ok(0) => break,
                Ok(read) => at += read,
                Err(Failure::Unclear) => self.give_up()?,
                Err(Failure::Forbidden(reason)) => return Err(reason),
            }
            if heard == Heard::Switched {
                return Ok((bytes.len(), heard));
            }
        }
        Ok((at, heard))
    }

    fn give_up(&mut self) -> Result<(), Reason> {
        let upgrade = self.unanswered.contains(&Asks::Upgrade);
        *self = Self::lost();
        if upgrade {
            Err(Reason::AmbiguousHttp)
        } else {
            Ok(())
        }
    }

    /// How much of it was understood; zero when more has to arrive.
    fn read(&mut self, rest: &[u8], heard: &mut Heard) -> Result<usize, Failure> {
        match &mut self.reading {
            Reading::Lost => Ok(rest.len()),
            Reading::Nothing => {
                if self.unanswered.is_empty() {
                    return Err(Failure::Unclear);
                }
                self.reading = Reading::Head(Head::default());
                self.read(rest, heard)
            }
            Reading::Body(body) => {
                let read = body.read(rest)?;
                if body.is_over() {
                    self.reading = Reading::Nothing;
                }
                Ok(read)
            }
            Reading::Head(head) => {
                let Some(answer) = head.read(rest)? else {
                    return Ok(0);
                };
                let length = head.lines.length();
                self.reading = self.follows(&answer, heard)?;
                Ok(length)
            }
        }
    }

    /// What comes after the head of an answer (RFC 9112, 6.3).
    fn follows(&mut self, answer: &Answer, heard: &mut Heard) -> Result<Reading, Failure> {
        let asked = self.unanswered.front().copied().ok_or(Failure::Unclear)?;
        match answer.status {
            101 if asked == Asks::Upgrade => {
                *heard = Heard::Switched;
                return Ok(Reading::Nothing);
            }
            101 => return Err(Failure::Forbidden(Reason::Tunnel)),
            // The answer proper is still to come.
            100..200 => return Ok(Reading::Nothing),
            _ => self.unanswered.pop_front(),
        };
        if asked == Asks::Upgrade {
            *heard = Heard::Declined;
        }
        let body = match (answer.length, answer.chunked) {
            _ if asked == Asks::Head || matches!(answer.status, 204 | 304) => Body::NONE,
            (Some(length), false) => Body::Length(length),
            (None, true) => Body::chunked(),
            // Up to the end of the connection, or nobody knows.
            (None, false) | (Some(_), true) => return Err(Failure::Unclear),
        };
        Ok(if body.is_over() {
            Reading::Nothing
        } else {
            Reading::Body(body)
        })
    }
}

/// The head of an answer, as far as it has arrived.
#[derive(Default)]
struct Head {
    lines: Lines,
    fields: usize,
    answer: Option<Answer>,
}

/// What it says.
#[derive(Clone, Copy)]
struct Answer {
    status: u16,
    length: Option<u64>,
    chunked: bool,
}

impl Head {
    /// `None` before it is complete.
    fn read(&mut self, bytes: &[u8]) -> Result<Option<Answer>, Reason> {
        while let Some(line) = self.lines.next(bytes, Guard::MAX_HELD)? {
            match &mut self.answer {
                None => self.answer = Some(Answer::parse(line)?),
                Some(answer) if line.is_empty() => return Ok(Some(*answer)),
                Some(answer) => {
                    self.fields += 1;
                    answer.read_field(line)?;
                }
            }
            if self.fields > MAX_FIELDS {
                return Err(Reason::AmbiguousHttp);
            }
        }
        Ok(None)
    }
}

impl Answer {
    /// `HTTP/1.1 200 OK`
    fn parse(line: &[u8]) -> Result<Self, Reason> {
        let [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            b'0'..=b'9',
            b' ',
            status @ ..,
        ] = line
        else {
            return Err(Reason::NotHttp);
        };
        let ([a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']
        | [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', ..]) = status
        else {
            return Err(Reason::NotHttp);
        };
        let status = [a, b, c]
            .iter()
            .fold(0, |number, digit| number * 10 + u16::from(**digit - b'0'));
        Ok(Self {
            status,
            length: None,
            chunked: false,
        })
    }

    fn read_field(&mut self, line: &[u8]) -> Result<(), Reason> {
        let (name, value) = fields::parse(line)?;
        let fits = match name {
            Name::ContentLength => self.length.replace(fields::content_length(value)?).is_none(),
            Name::TransferEncoding => {
                fields::is_chunked(value) && !std::mem::replace(&mut self.chunked, true)
            }
            _ => true,
        };
        if fits { Ok(()) } else { Err(Reason::AmbiguousHttp) }
    }
}
