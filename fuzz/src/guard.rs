//! The guard on what a guest says: however its words arrive, the same goes out; and whoever else reads what went out
//! finds the one name in it that is allowed.
//!
//! The input is what guest and server say in turns, the guest first, with [`TURN`] between them.

use std::fmt;

use egress_policy::{HostName, Reason};
use egress_proxy::inspect::{Guard, Pass};

/// A changed byte leaves every other turn as it is.
pub const TURN: &[u8] = b"\xffTURN";
const NAME: &str = "example.com";

/// # Panics
/// When how it is cut makes a difference, or a server would read another name.
pub fn tls_hello(input: &[u8]) {
    for port in [443, 8443] {
        for released in play(port, input).before_it_was_open {
            assert_names_the_server(&released);
        }
    }
}

/// # Panics
/// As [`tls_hello`].
pub fn http_head(input: &[u8]) {
    for port in [80, 8080] {
        let outcome = play(port, input);
        // On the other port all may be let through at once; what went before that were whole requests.
        assert_requests(&outcome.before_it_was_open.concat(), port);
    }
}

#[derive(PartialEq, Eq)]
struct Outcome {
    /// How much had gone out after each turn.
    gone: Vec<usize>,
    /// What went out in one turn, while the guard still looked.
    before_it_was_open: Vec<Vec<u8>>,
    refused: Option<Reason>,
    open: bool,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {:?}, open: {}", self.gone, self.refused, self.open)
    }
}

fn play(port: u16, input: &[u8]) -> Outcome {
    let whole = Player::play(port, input, |_| usize::MAX);
    assert_eq!(Player::play(port, input, |_| 1), whole, "byte by byte");
    // By what is said, so that the fuzzer can choose.
    let by_content = |rest: &[u8]| usize::from(rest.first().copied().unwrap_or_default() % 7) + 1;
    assert_eq!(Player::play(port, input, by_content), whole, "cut by content");
    whole
}

struct Player {
    guard: Guard,
    held: Vec<u8>,
    released: Vec<u8>,
    outcome: Outcome,
}

impl Player {
    fn play(port: u16, input: &[u8], cut: fn(&[u8]) -> usize) -> Outcome {
        let name = HostName::try_from(NAME.to_owned()).expect("a name");
        let mut player = Self {
            guard: Guard::new(Some(&name), port),
            held: Vec::new(),
            released: Vec::new(),
            outcome: Outcome {
                gone: Vec::new(),
                before_it_was_open: Vec::new(),
                refused: None,
                open: false,
            },
        };
        let mut gone = 0;
        for (turn, said) in turns(input).into_iter().enumerate() {
            let mut rest = said;
            while !rest.is_empty() && player.outcome.refused.is_none() {
                let (now, later) = rest.split_at(cut(rest).min(rest.len()));
                rest = later;
                if turn % 2 == 0 {
                    player.hear_guest(now, &mut gone)
                } else {
                    player.hear_server(now, &mut gone)
                }
            }
            player.outcome.gone.push(gone);
            player
                .outcome
                .before_it_was_open
                .push(std::mem::take(&mut player.released));
        }
        if player.outcome.refused.is_none() {
            player.outcome.refused = player.guard.guest_finished().err();
            player.judge(&mut gone);
        }
        player.outcome.gone.push(gone);
        player.outcome
    }

    fn hear_guest(&mut self, bytes: &[u8], gone: &mut usize) {
        self.held.extend_from_slice(bytes);
        self.judge(gone);
    }

    fn hear_server(&mut self, bytes: &[u8], gone: &mut usize) {
        if self.guard.wants_server() {
            self.outcome.refused = self.guard.from_server(bytes).err();
            self.judge(gone);
        }
    }

    fn judge(&mut self, gone: &mut usize) {
        while self.outcome.refused.is_none() {
            match self.guard.from_guest(&self.held) {
                Ok(Pass::Some(0)) => {
                    let fits = self.held.len() < Guard::MAX_HELD || self.guard.wants_server();
                    assert!(fits, "waits for more than may be held");
                    return;
                }
                Ok(Pass::Some(count)) => {
                    assert!(!self.outcome.open, "no longer open");
                    self.released.extend(self.held.drain(..count));
                    *gone += count;
                }
                Ok(Pass::All) => {
                    self.outcome.open = true;
                    *gone += self.held.len();
                    self.held.clear();
                    return;
                }
                Err(reason) => self.outcome.refused = Some(reason),
            }
        }
    }
}

fn turns(input: &[u8]) -> Vec<&[u8]> {
    let mut turns = Vec::new();
    let mut rest = input;
    while let Some(at) = rest.windows(TURN.len()).position(|part| part == TURN) {
        turns.push(&rest[..at]);
        rest = &rest[at + TURN.len()..];
    }
    turns.push(rest);
    turns
}

/// As rustls reads a hello, when it takes it for one.
fn assert_names_the_server(released: &[u8]) {
    let mut acceptor = rustls::server::Acceptor::default();
    let mut rest = released;
    while !rest.is_empty() && acceptor.read_tls(&mut rest).is_ok_and(|read| read > 0) {
        let Ok(accepted) = acceptor.accept() else { return };
        if let Some(accepted) = accepted {
            let hello = accepted.client_hello();
            let name = hello
                .server_name()
                .map(|name| name.trim_end_matches('.').to_ascii_lowercase());
            assert!(name.is_none_or(|name| name == NAME), "another name");
            return;
        }
    }
}

/// As httparse reads requests, which is laxer than the guard.
fn assert_requests(mut sent: &[u8], port: u16) {
    let with_port = format!("{NAME}:{port}");
    while !sent.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; 256];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(httparse::Status::Complete(length)) = request.parse(sent) else {
            panic!("not a request: {}", sent.escape_ascii());
        };
        sent = &sent[length..];
        let values = |name: &str| -> Vec<_> {
            let named = request
                .headers
                .iter()
                .filter(|header| header.name.eq_ignore_ascii_case(name));
            named
                .map(|header| String::from_utf8_lossy(header.value).to_ascii_lowercase())
                .collect()
        };
        let [host] = values("host").try_into().expect("one Host");
        let host = host.trim_end_matches('.');
        assert!(
            host.replacen(".:", ":", 1) == with_port || host == NAME,
            "Host: {host}"
        );
        sent = match (
            values("content-length").as_slice(),
            values("transfer-encoding").as_slice(),
        ) {
            ([], []) => sent,
            ([length], []) => behind(sent, length.parse().expect("a length")),
            ([], [coding]) if coding == "chunked" => behind_chunks(sent),
            framing => panic!("{framing:?}"),
        };
    }
}

fn behind(sent: &[u8], length: u64) -> &[u8] {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    sent.get(length..).unwrap_or_default()
}

/// Nothing when they are still under way.
fn behind_chunks(mut sent: &[u8]) -> &[u8] {
    while let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(sent) {
        sent = behind(sent, line as u64);
        if size == 0 {
            let mut headers = [httparse::EMPTY_HEADER; 256];
            let trailer = httparse::parse_headers(sent, &mut headers);
            return match trailer {
                Ok(httparse::Status::Complete((length, _))) => behind(sent, length as u64),
                Ok(httparse::Status::Partial) => &[],
                Err(error) => panic!("a trailer: {error}"),
            };
        }
        sent = behind(sent, size.saturating_add(2));
    }
    assert!(sent.is_empty(), "not a chunk: {}", sent.escape_ascii());
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_seed_is_a_finding() {
        for (target, run) in [("tls_hello", tls_hello as fn(&[u8])), ("http_head", http_head)] {
            let folder = format!("{}/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
            for file in std::fs::read_dir(folder).unwrap() {
                run(&std::fs::read(file.unwrap().path()).unwrap());
            }
        }
    }

    #[test]
    #[should_panic(expected = "another name")]
    fn another_name_is_seen() {
        let seed = std::fs::read(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/corpus/tls_hello/another-name"
        ))
        .unwrap();
        assert_names_the_server(&seed);
    }

    #[test]
    #[should_panic(expected = "Host: other.test")]
    fn another_host_is_seen() {
        assert_requests(b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n", 80);
    }
}
