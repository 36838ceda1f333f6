//! The head of a request.

use egress_policy::Reason;

use super::{
    answers::Asks,
    body::Body,
    fields::{self, MAX_FIELDS, Name, is_token_byte},
    lines::Lines,
};
use crate::inspect::{Guard, Place};

#[derive(Default)]
pub(super) struct Head {
    lines: Lines,
    method: Option<Method>,
    /// HTTP/1.0.
    old: bool,
    fields: usize,
    host: bool,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Get,
    Head,
    Other,
}

/// What a head that may go out says.
pub(super) struct Request {
    pub(super) asks: Asks,
    pub(super) body: Body,
    pub(super) upgrade: bool,
}

impl Head {
    /// Is it complete? What is wrong is said as soon as its line is there.
    pub(super) fn read(&mut self, bytes: &[u8], place: &Place) -> Result<bool, Reason> {
        if bytes
            .first()
            .is_some_and(|first| !matches!(first, b'\r' | b'\n') && !is_token_byte(*first))
        {
            return Err(Reason::NotHttp);
        }
        while let Some(line) = self.lines.next(bytes, Guard::MAX_HELD)? {
            if self.method.is_none() {
                self.read_request_line(line, place)?;
            } else if line.is_empty() {
                return Ok(true);
            } else {
                self.read_field(line, place)?;
            }
        }
        Ok(false)
    }

    pub(super) fn length(&self) -> usize {
        self.lines.length()
    }

    pub(super) fn has_begun(&self) -> bool {
        self.lines.has_begun()
    }

    /// What the whole of it means.
    pub(super) fn request(&self) -> Result<Request, Reason> {
        if !self.host {
            return Err(Reason::NoHost);
        }
        let body = match (self.length, self.chunked) {
            (None, false) => Body::NONE,
            (Some(length), false) => Body::Length(length),
            // HTTP/1.0 knows no chunks.
            (None, true) if !self.old => Body::chunked(),
            (_, true) => return Err(Reason::AmbiguousHttp),
        };
        let has_body = self.length.is_some() || self.chunked;
        if self.upgrade && (has_body || self.old || self.method != Some(Method::Get)) {
            return Err(Reason::AmbiguousHttp);
        }
        let asks = match self.method {
            Some(Method::Head) => Asks::Head,
            _ if self.upgrade => Asks::Upgrade,
            _ => Asks::Content,
        };
        Ok(Request {
            asks,
            body,
            upgrade: self.upgrade,
        })
    }

    fn read_request_line(&mut self, line: &[u8], place: &Place) -> Result<(), Reason> {
        if line.is_empty() {
            // Some servers skip it, some do not.
            return Err(Reason::AmbiguousHttp);
        }
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Reason::NotHttp);
        };
        self.old = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(Reason::NotHttp),
        };
        self.method = Some(Method::parse(method)?);
        check_target(method, target, place)
    }

    fn read_field(&mut self, line: &[u8], place: &Place) -> Result<(), Reason> {
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            return Err(Reason::AmbiguousHttp);
        }
        let (name, value) = fields::parse(line)?;
        let fits = match name {
            Name::Other => true,
            Name::Host => return self.read_host(value, place),
            Name::ContentLength => self.length.replace(fields::content_length(value)?).is_none(),
            Name::TransferEncoding => {
                fields::is_chunked(value) && !std::mem::replace(&mut self.chunked, true)
            }
            Name::Connection => !fields::takes_out_what_counts(value),
            Name::Upgrade if !value.eq_ignore_ascii_case(b"websocket") => return Err(Reason::Tunnel),
            Name::Upgrade => !std::mem::replace(&mut self.upgrade, true),
            Name::Http2Settings => return Err(Reason::Tunnel),
        };
        if fits { Ok(()) } else { Err(Reason::AmbiguousHttp) }
    }

    fn read_host(&mut self, value: &[u8], place: &Place) -> Result<(), Reason> {
        if std::mem::replace(&mut self.host, true) {
            return Err(Reason::AmbiguousHttp);
        }
        if value.is_empty() {
            return Err(Reason::NoHost);
        }
        if place.is_authority(value) {
            Ok(())
        } else {
            Err(Reason::OtherHost)
        }
    }
}

impl Method {
    /// Those in small letters are known methods to some servers and unknown ones to others.
    fn parse(method: &[u8]) -> Result<Self, Reason> {
        if method.eq_ignore_ascii_case(b"CONNECT") {
            return Err(Reason::Tunnel);
        }
        let plain = |byte: &u8| is_token_byte(*byte) && !byte.is_ascii_lowercase();
        match method {
            b"GET" => Ok(Self::Get),
            b"HEAD" => Ok(Self::Head),
            [_, ..] if method.iter().all(plain) => Ok(Self::Other),
            _ => Err(Reason::NotHttp),
        }
    }
}

/// `/path`, `*` of OPTIONS, or a whole URL, which must name this host just as Host does.
fn check_target(method: &[u8], target: &[u8], place: &Place) -> Result<(), Reason> {
    // Beyond ASCII, some see spaces (0x85, 0xa0) and so another line.
    if !target.iter().all(u8::is_ascii_graphic) {
        return Err(Reason::NotHttp);
    }
    match target {
        [b'/', ..] => Ok(()),
        b"*" if method == b"OPTIONS" => Ok(()),
        _ => check_url(target, place),
    }
}

fn check_url(url: &[u8], place: &Place) -> Result<(), Reason> {
    const SCHEME: &[u8] = b"http://";
    let (scheme, rest) = url.split_at_checked(SCHEME.len()).ok_or(Reason::NotHttp)?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Err(Reason::NotHttp);
    }
    // Where the authority ends, some look for other characters than these; but then it is not the name.
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
    let authority = end.and_then(|end| rest.get(..end)).unwrap_or(rest);
    if place.is_authority(authority) {
        Ok(())
    } else {
        Err(Reason::OtherHost)
    }
}
