//! Which rules a flow is held to on a port that says nothing about it.
//!
//! Sniffing is wider than the rules that follow: whatever some server might take for TLS or HTTP must be found here,
//! so that the rules can refuse it. Whoever speaks after the server (SMTP, SSH, MySQL) is looked at just the same.
//! The price: a client whose first words are a word, a blank and no end of line, and that then waits for an answer,
//! waits for ever.

use egress_policy::Reason;

use super::{
    Guard, Place,
    http::{Requests, is_token_byte},
};

pub(super) enum Looks {
    Tls,
    Http,
    Other,
}

#[derive(Default)]
pub(super) struct Sniffer {
    phase: Phase,
    scanned: usize,
    /// How much of [`MARK`] the last bytes were.
    matched: usize,
    http: bool,
    /// Then nobody can say which answer belongs to which request.
    pub(super) server_spoke: bool,
}

#[derive(Default)]
enum Phase {
    /// Before the first word: some servers skip empty lines.
    #[default]
    Blank,
    Word {
        start: usize,
    },
    Rest,
}

const MARK: &[u8] = b"http/";

impl Sniffer {
    /// `None` while it could be either.
    pub(super) fn look(&mut self, bytes: &[u8]) -> Option<Looks> {
        match bytes {
            // Any record of TLS: some servers skip alerts before the hello.
            [0x14..=0x17, 3, ..] => Some(Looks::Tls),
            // A hello of SSL 2, which OpenSSL still takes as the first of a newer protocol. It can name no server.
            [0x80..=0xbf, _, 1, 3, ..] => Some(Looks::Tls),
            [0x14..=0x17] | [0x80..=0xbf] | [0x80..=0xbf, _] | [0x80..=0xbf, _, 1] => None,
            _ => self.look_at_text(bytes),
        }
    }

    /// A word, a blank, and `HTTP/` somewhere on the line.
    fn look_at_text(&mut self, bytes: &[u8]) -> Option<Looks> {
        let bytes = bytes.get(..Guard::MAX_HELD).unwrap_or(bytes);
        while let Some(&byte) = bytes.get(self.scanned) {
            match self.phase {
                Phase::Blank if is_gap(byte) || byte == b'\r' || byte == b'\n' => {}
                Phase::Blank if is_token_byte(byte) => self.phase = Phase::Word { start: self.scanned },
                Phase::Word { .. } if is_token_byte(byte) => {}
                Phase::Word { start } if is_gap(byte) || byte == b'\r' => {
                    // HTTP/0.9 has no version on the line.
                    self.http = bytes.get(start..self.scanned) == Some(b"GET".as_slice());
                    self.phase = Phase::Rest;
                }
                Phase::Rest if byte == b'\n' || is_binary(byte) => {
                    return Some(if self.http { Looks::Http } else { Looks::Other });
                }
                Phase::Rest => self.note(byte),
                Phase::Blank | Phase::Word { .. } => return Some(Looks::Other),
            }
            self.scanned += 1;
        }
        // Text without an end can still become a request, so it is judged as one.
        (self.scanned >= Guard::MAX_HELD).then_some(Looks::Http)
    }

    /// No part of the mark begins like the whole, so a byte that does not fit can only begin it anew.
    fn note(&mut self, byte: u8) {
        let byte = byte.to_ascii_lowercase();
        if MARK.get(self.matched) != Some(&byte) {
            self.matched = 0;
        }
        if MARK.get(self.matched) == Some(&byte) {
            self.matched += 1;
        }
        self.http |= self.matched == MARK.len();
    }

    /// What will never be a whole line is no request, unless it was about to be one.
    pub(super) fn finished(&self) -> Result<(), Reason> {
        if self.http { Err(Reason::NotHttp) } else { Ok(()) }
    }

    pub(super) fn requests(&self, place: Place) -> Requests {
        if self.server_spoke {
            Requests::after_the_server(place)
        } else {
            Requests::new(place)
        }
    }
}

/// What some server takes for the blank between two words: what C calls space, and all that Python's `split` cuts at.
fn is_gap(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c | 0x1c..=0x1f | 0x85 | 0xa0)
}

/// In no line of text, and no blank to anybody.
fn is_binary(byte: u8) -> bool {
    matches!(byte, 0..=8 | 0x0e..=0x1b | 0x7f)
}
