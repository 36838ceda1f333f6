//! From a question to its answer, by way of whoever decides about names.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use egress_policy::{HostName, link::DropReason};

use super::{
    answer::{Record, write, write_error},
    names::{Names, Place},
    question::{Code, INTERNET, Question, Unreadable, kind},
};
use crate::{
    QueryId,
    bucket::Bucket,
    limits::{MAX_QUESTIONS, QUESTION_BURST, QUESTION_DEADLINE, QUESTIONS_PER_SECOND},
    stack::packet::Ends,
};

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    Udp { answer: Ends, port: u16 },
    Tcp { flow: crate::FlowId },
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Now(Vec<u8>),
    /// May the guest know this name? Told by [`Resolver::decided`].
    Ask(QueryId, HostName),
    /// Already asked, or no answer is due.
    Nothing,
}

/// What comes of a message, and what of it is to be recorded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Handled {
    pub(crate) reply: Reply,
    pub(crate) dropped: Option<(DropReason, Option<HostName>)>,
}

#[derive(Debug)]
pub(crate) struct Resolver {
    pub(crate) names: Names,
    /// In the order they were asked, which is the order in which their time is up.
    pending: BTreeMap<QueryId, Pending>,
    by_name: HashMap<HostName, QueryId>,
    /// Over all of `pending`.
    waiting: usize,
    next: u64,
    rate: Bucket,
}

#[derive(Debug)]
struct Pending {
    name: HostName,
    deadline: Instant,
    askers: Vec<(Asker, Question)>,
}

/// What a question is about.
enum Subject {
    /// The root of all names: it is there, and there is nothing in it.
    Root,
    Localhost,
    /// "What is this address called?"
    Reverse(Option<IpAddr>),
    Host(HostName),
    Nothing,
}

impl Resolver {
    pub(crate) fn new(now: Instant) -> Self {
        Resolver {
            names: Names::default(),
            pending: BTreeMap::new(),
            by_name: HashMap::new(),
            waiting: 0,
            next: 0,
            rate: Bucket::new(QUESTIONS_PER_SECOND, QUESTION_BURST, now),
        }
    }

    pub(crate) fn ask(&mut self, message: &[u8], asker: Asker, now: Instant) -> Handled {
        let question = match Question::parse(message) {
            Ok(question) => question,
            Err(Unreadable::Silent) => return Handled::dropped(Reply::Nothing, DropReason::Malformed),
            Err(Unreadable::Answer { id, flags, code }) => {
                let reply = match self.rate.take(now) {
                    true => Reply::Now(write_error(id, flags, code)),
                    false => Reply::Nothing,
                };
                return Handled::dropped(reply, DropReason::Malformed);
            }
        };
        if !self.rate.take(now) {
            return Handled::dropped(question.answer(Code::Refused), DropReason::Limit);
        }
        if question.edns.is_some_and(|version| version != 0) {
            return Handled::plain(question.answer(Code::BadVers));
        }
        if question.class != INTERNET {
            return Handled::dropped(question.answer(Code::Refused), DropReason::QuestionKind);
        }
        self.answer(question, asker, now)
    }

    fn answer(&mut self, question: Question, asker: Asker, now: Instant) -> Handled {
        match Subject::of(&question) {
            Subject::Root => Handled::plain(question.answer(Code::NoError)),
            Subject::Localhost => Handled::plain(question.answer_with(localhost(question.kind).as_ref())),
            Subject::Reverse(address) => match address.and_then(|address| self.called(address)) {
                Some(name) => Handled::plain(question.answer_with(Some(&Record::Name(name)))),
                None => Handled::plain(question.answer(Code::NxDomain)),
            },
            Subject::Nothing => Handled::dropped(question.answer(Code::NxDomain), DropReason::BadName),
            Subject::Host(name) => {
                let odd = !is_usual(question.kind);
                let dropped = odd.then(|| (DropReason::QuestionKind, Some(name.clone())));
                let handled = self.enqueue(question, name, asker, now);
                Handled {
                    dropped: handled.dropped.or(dropped),
                    ..handled
                }
            }
        }
    }

    fn called(&self, address: IpAddr) -> Option<HostName> {
        self.names.name(Place::of(address)?).cloned()
    }

    fn enqueue(&mut self, question: Question, name: HostName, asker: Asker, now: Instant) -> Handled {
        let asked = self
            .by_name
            .get(&name)
            .and_then(|query| self.pending.get_mut(query));
        if asked
            .as_ref()
            .is_some_and(|pending| pending.has(asker, &question))
        {
            return Handled::plain(Reply::Nothing);
        }
        if self.waiting >= MAX_QUESTIONS {
            return Handled {
                reply: question.answer(Code::ServFail),
                dropped: Some((DropReason::Limit, Some(name))),
            };
        }
        self.waiting += 1;
        if let Some(pending) = asked {
            pending.askers.push((asker, question));
            return Handled::plain(Reply::Nothing);
        }
        let query = QueryId(self.next);
        self.next += 1;
        self.by_name.insert(name.clone(), query);
        let pending = Pending {
            name: name.clone(),
            deadline: now + QUESTION_DEADLINE,
            askers: vec![(asker, question)],
        };
        self.pending.insert(query, pending);
        Handled::plain(Reply::Ask(query, name))
    }

    /// The answers to everybody who asked for this name.
    pub(crate) fn decided(&mut self, query: QueryId, allowed: bool) -> Vec<(Asker, Vec<u8>)> {
        let Some(pending) = self.forget(query) else {
            return Vec::new();
        };
        let place = allowed.then(|| self.names.place(&pending.name));
        pending.answers(|question| match place {
            None => write(question, Code::NxDomain, None),
            Some(None) => write(question, Code::ServFail, None),
            Some(Some(place)) => write(question, Code::NoError, place.record(question.kind).as_ref()),
        })
    }

    /// What was not decided in time, and what could not be asked.
    pub(crate) fn failed(&mut self, query: QueryId) -> Vec<(Asker, Vec<u8>)> {
        let pending = self.forget(query);
        let answers = |pending: Pending| pending.answers(|question| write(question, Code::ServFail, None));
        pending.map(answers).unwrap_or_default()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.pending
            .first_key_value()
            .map(|(_, pending)| pending.deadline)
    }

    /// One whose time is up; to be called until there is none.
    pub(crate) fn expired(&self, now: Instant) -> Option<QueryId> {
        let (query, pending) = self.pending.first_key_value()?;
        (pending.deadline <= now).then_some(*query)
    }

    fn forget(&mut self, query: QueryId) -> Option<Pending> {
        let pending = self.pending.remove(&query)?;
        self.by_name.remove(&pending.name);
        self.waiting = self.waiting.saturating_sub(pending.askers.len());
        Some(pending)
    }
}

impl Pending {
    fn has(&self, asker: Asker, question: &Question) -> bool {
        self.askers
            .iter()
            .any(|(other, asked)| *other == asker && asked == question)
    }

    fn answers(self, write: impl Fn(&Question) -> Vec<u8>) -> Vec<(Asker, Vec<u8>)> {
        let answer = |(asker, question): (Asker, Question)| (asker, write(&question));
        self.askers.into_iter().map(answer).collect()
    }
}

impl Handled {
    fn plain(reply: Reply) -> Self {
        Handled { reply, dropped: None }
    }

    fn dropped(reply: Reply, reason: DropReason) -> Self {
        Handled {
            reply,
            dropped: Some((reason, None)),
        }
    }
}

impl Question {
    fn answer(&self, code: Code) -> Reply {
        Reply::Now(write(self, code, None))
    }

    fn answer_with(&self, record: Option<&Record>) -> Reply {
        Reply::Now(write(self, Code::NoError, record))
    }
}

impl Place {
    fn record(self, asked: u16) -> Option<Record> {
        match asked {
            kind::A => Some(Record::Address(self.v4().into())),
            kind::AAAA => Some(Record::Address(self.v6().into())),
            _ => None,
        }
    }
}

impl Subject {
    fn of(question: &Question) -> Self {
        if question.is_root() {
            return Subject::Root;
        }
        let Some(text) = question.text() else {
            return Subject::Nothing;
        };
        if text == "localhost" || text.ends_with(".localhost") {
            return Subject::Localhost;
        }
        if question.kind == kind::PTR && text.ends_with(".arpa") {
            return Subject::Reverse(reversed(&text));
        }
        HostName::try_from(text).map_or(Subject::Nothing, Subject::Host)
    }
}

/// Never asked of anybody (RFC 6761, 6.3).
fn localhost(asked: u16) -> Option<Record> {
    match asked {
        kind::A => Some(Record::Address(Ipv4Addr::LOCALHOST.into())),
        kind::AAAA => Some(Record::Address(Ipv6Addr::LOCALHOST.into())),
        _ => None,
    }
}

/// What programs ask in good faith; they go on without an answer. The rest is recorded.
fn is_usual(asked: u16) -> bool {
    use kind::{A, AAAA, CNAME, DNSKEY, DS, HTTPS, NS, PTR, SOA, SRV, SVCB};
    matches!(
        asked,
        A | AAAA | CNAME | DNSKEY | DS | HTTPS | NS | PTR | SOA | SRV | SVCB
    )
}

/// The address that a name under in-addr.arpa or ip6.arpa spells backwards.
fn reversed(text: &str) -> Option<IpAddr> {
    if let Some(digits) = text.strip_suffix(".in-addr.arpa") {
        let forwards: Vec<&str> = digits.split('.').rev().collect();
        return forwards.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    }
    let digits = text.strip_suffix(".ip6.arpa")?;
    let forwards: Vec<&str> = digits.split('.').rev().collect();
    if forwards.len() != 32 || forwards.iter().any(|digit| digit.len() != 1) {
        return None;
    }
    let number = u128::from_str_radix(&forwards.concat(), 16).ok()?;
    Some(Ipv6Addr::from_bits(number).into())
}
