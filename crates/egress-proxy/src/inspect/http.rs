//! HTTP/1 (RFC 9112), read as strictly as it is written down: where two servers could disagree about where a request
//! ends or whom it is for, it is refused. A head is let go as a whole once it is known to be good; bodies stream.
//!
//! ```text
//! Head ─▶ Body ─▶ Head …
//!   └─Upgrade: websocket─▶ Upgrade ─101─▶ Open
//!            ▲                └─any other answer─▶ Head
//! ```
//! What this does not protect from: a server that does not read a body it was told of and takes it for a request.

mod answers;
mod body;
mod fields;
mod head;
mod lines;

use egress_policy::Reason;

pub(super) use self::fields::is_token_byte;
use self::{
    answers::{Answers, Heard},
    body::Body,
    head::Head,
};
use super::{Place, Step};

pub(super) struct Requests {
    place: Place,
    state: State,
    answers: Answers,
}

enum State {
    Head(Box<Head>),
    Body(Body),
    /// The guest may say nothing before the server has answered: frames or a request, only the answer tells which, and
    /// whether a second upgrade is clear would hang on how much of the answer had arrived when it was looked at.
    Upgrade,
    Open,
}

impl Requests {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            state: State::Head(Box::default()),
            answers: Answers::default(),
        }
    }

    /// For a server that has said something without being asked.
    pub(super) fn after_the_server(place: Place) -> Self {
        Self {
            answers: Answers::lost(),
            ..Self::new(place)
        }
    }

    pub(super) fn step(&mut self, rest: &[u8]) -> Result<Step, Reason> {
        let gone = match &mut self.state {
            State::Open => return Ok(Step::Open),
            State::Upgrade if rest.is_empty() => return Ok(Step::Wait),
            State::Upgrade => return Err(Reason::AmbiguousHttp),
            State::Body(body) => {
                let gone = body.read(rest)?;
                if body.is_over() {
                    self.state = State::Head(Box::default());
                }
                gone
            }
            State::Head(head) => {
                if !head.read(rest, &self.place)? {
                    return Ok(Step::Wait);
                }
                let gone = head.length();
                self.state = self.next()?;
                return Ok(Step::Head(gone));
            }
        };
        Ok(if gone == 0 {
            Step::Wait
        } else {
            Step::Release(gone)
        })
    }

    /// What follows the head that has just been read.
    fn next(&mut self) -> Result<State, Reason> {
        let State::Head(head) = &self.state else {
            return Err(Reason::AmbiguousHttp);
        };
        let request = head.request()?;
        if request.upgrade && !self.answers.are_all_here() {
            // Which answer is the one to the upgrade could not be said for sure.
            return Err(Reason::AmbiguousHttp);
        }
        self.answers.expect(request.asks);
        Ok(match request.body {
            _ if request.upgrade => State::Upgrade,
            body if body.is_over() => State::Head(Box::default()),
            body => State::Body(body),
        })
    }

    pub(super) fn hear_server(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        match self.answers.hear(bytes)? {
            Heard::Nothing => {}
            Heard::Switched => self.state = State::Open,
            Heard::Declined => self.state = State::Head(Box::default()),
        }
        Ok(())
    }

    pub(super) fn wants_server(&self) -> bool {
        !matches!(self.state, State::Open) && !self.answers.are_lost()
    }

    pub(super) fn guest_finished(&self) -> Result<(), Reason> {
        match &self.state {
            State::Head(head) if head.has_begun() => Err(Reason::NotHttp),
            State::Body(body) if body.holds_back() => Err(Reason::AmbiguousHttp),
            _ => Ok(()),
        }
    }
}
