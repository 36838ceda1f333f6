//! A DNS question, read strictly. There is one in a message, it is not compressed, and what follows it is only
//! looked at for the sign of EDNS.

/// Header and question, without which there is nothing to say.
const HEADER: usize = 12;
/// Of a name with its lengths and the root (RFC 1035, 3.1).
const MAX_NAME: usize = 255;
const MAX_LABEL: u8 = 63;

pub(super) const RESPONSE: u16 = 0x8000;
pub(super) const OPCODE: u16 = 0x7800;
pub(super) const OPT: u16 = 41;

pub(crate) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const DS: u16 = 43;
    pub(crate) const DNSKEY: u16 = 48;
    pub(crate) const SVCB: u16 = 64;
    pub(crate) const HTTPS: u16 = 65;
}

pub(crate) const INTERNET: u16 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    NoError,
    FormErr,
    ServFail,
    NxDomain,
    NotImp,
    Refused,
    BadVers,
}

impl Code {
    pub(crate) fn number(self) -> u16 {
        match self {
            Code::NoError => 0,
            Code::FormErr => 1,
            Code::ServFail => 2,
            Code::NxDomain => 3,
            Code::NotImp => 4,
            Code::Refused => 5,
            Code::BadVers => 16,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    /// As it was asked, letter by letter: askers check that the answer repeats it.
    pub(crate) name: Vec<u8>,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    /// The asker's version of EDNS, when it speaks it.
    pub(crate) edns: Option<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Not even an identifier to answer to, or an answer itself.
    Silent,
    Answer {
        id: u16,
        flags: u16,
        code: Code,
    },
}

impl Question {
    pub(crate) fn parse(message: &[u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader(message);
        let (id, flags, counts) = reader.header().ok_or(Unreadable::Silent)?;
        if flags & RESPONSE != 0 {
            return Err(Unreadable::Silent);
        }
        let unreadable = |code| Unreadable::Answer { id, flags, code };
        if flags & OPCODE != 0 {
            return Err(unreadable(Code::NotImp));
        }
        let [1, 0, 0, additional] = counts else {
            return Err(unreadable(Code::FormErr));
        };
        let (name, kind, class) = reader.question().ok_or(unreadable(Code::FormErr))?;
        let edns = reader.edns(additional).ok_or(unreadable(Code::FormErr))?;
        Ok(Question {
            id,
            flags,
            name,
            kind,
            class,
            edns,
        })
    }

    /// With dots and in small letters; `None` when that could be mistaken for another name.
    pub(crate) fn text(&self) -> Option<String> {
        let mut text = String::new();
        let mut rest = self.name.as_slice();
        while let Some((length, after)) = rest.split_first().filter(|(length, _)| **length != 0) {
            let (label, next) = after.split_at_checked(usize::from(*length))?;
            if !text.is_empty() {
                text.push('.');
            }
            if !label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.') {
                return None;
            }
            text.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
            rest = next;
        }
        Some(text)
    }

    pub(crate) fn is_root(&self) -> bool {
        self.name == [0]
    }
}

/// What is left of a message.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    fn header(&mut self) -> Option<(u16, u16, [u16; 4])> {
        if self.0.len() < HEADER {
            return None;
        }
        let (id, flags) = (self.number()?, self.number()?);
        let counts = [self.number()?, self.number()?, self.number()?, self.number()?];
        Some((id, flags, counts))
    }

    fn question(&mut self) -> Option<(Vec<u8>, u16, u16)> {
        let name = self.name()?;
        Some((name, self.number()?, self.number()?))
    }

    /// No pointers: in the first name of a message there is nothing they could point to but itself.
    fn name(&mut self) -> Option<Vec<u8>> {
        let mut name = Vec::new();
        loop {
            let length = *self.0.first()?;
            if length > MAX_LABEL {
                return None;
            }
            name.extend_from_slice(self.take(1 + usize::from(length))?);
            if name.len() > MAX_NAME {
                return None;
            }
            if length == 0 {
                return Some(name);
            }
        }
    }

    /// Whether EDNS is spoken, and in which version. Its options, and records that have no business here, are
    /// stepped over; a second EDNS record is an error (RFC 6891, 6.1.1).
    fn edns(&mut self, records: u16) -> Option<Option<u8>> {
        let mut found = None;
        for _ in 0..records {
            let root = self.skip_name()?;
            let kind = self.number()?;
            self.number()?;
            let version = *self.take(4)?.get(1)?;
            let length = self.number()?;
            self.take(usize::from(length))?;
            if kind == OPT {
                if !root || found.is_some() {
                    return None;
                }
                found = Some(version);
            }
        }
        Some(found)
    }

    /// A pointer ends a name. Nobody follows it, so it may point in circles. True for the root.
    fn skip_name(&mut self) -> Option<bool> {
        let mut root = true;
        loop {
            match *self.take(1)?.first()? {
                0 => return Some(root),
                length if length <= MAX_LABEL => self.take(usize::from(length))?,
                length if length >= 0xc0 => {
                    self.take(1)?;
                    return Some(false);
                }
                _ => return None,
            };
            root = false;
        }
    }
}
