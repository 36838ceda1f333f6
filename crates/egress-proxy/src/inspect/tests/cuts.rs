//! Plays what guest and server say, as the process around the guard does.

use proptest::prelude::*;

use super::*;

/// One thing that happens on a flow.
#[derive(Clone, Debug)]
pub(super) enum Say {
    Guest(Vec<u8>),
    Server(Vec<u8>),
    GuestEnds,
}

pub(super) fn guest(bytes: impl AsRef<[u8]>) -> Say {
    Say::Guest(bytes.as_ref().to_vec())
}

pub(super) fn server(bytes: impl AsRef<[u8]>) -> Say {
    Say::Server(bytes.as_ref().to_vec())
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// How much of the guest had gone out after each thing said.
    pub(super) gone: Vec<usize>,
    pub(super) refused: Option<Reason>,
    pub(super) open: bool,
}

impl Outcome {
    pub(super) fn total(&self) -> usize {
        self.gone.last().copied().unwrap_or_default()
    }
}

/// Whole, byte by byte, and a few other ways; all the same.
pub(super) fn play(port: u16, script: &[Say]) -> Outcome {
    let whole = play_cut(port, script, &mut || usize::MAX);
    for size in [1, 2, 3, 7, 1000] {
        assert_eq!(play_cut(port, script, &mut || size), whole, "in pieces of {size}");
    }
    for seed in 1..20_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % 60).unwrap() + 1
        };
        assert_eq!(
            play_cut(port, script, &mut random),
            whole,
            "cut at random, {seed}"
        );
    }
    whole
}

/// What a guest says by itself.
pub(super) fn say(port: u16, bytes: impl AsRef<[u8]>) -> Outcome {
    play(port, &[guest(bytes)])
}

fn play_cut(port: u16, script: &[Say], size: &mut dyn FnMut() -> usize) -> Outcome {
    let mut player = Player {
        guard: guard(port),
        held: Vec::new(),
        unread: Vec::new(),
        gone: 0,
        refused: None,
        open: false,
    };
    let mut outcome = Vec::new();
    for said in script {
        match said {
            Say::Guest(bytes) => {
                player.unread.extend_from_slice(bytes);
                player.read(size);
            }
            Say::Server(bytes) => player.hear(bytes, size),
            Say::GuestEnds if player.refused.is_none() => {
                player.refused = player.guard.guest_finished().err();
                player.read(size);
            }
            Say::GuestEnds => {}
        }
        outcome.push(player.gone);
    }
    Outcome {
        gone: outcome,
        refused: player.refused,
        open: player.open,
    }
}

struct Player {
    guard: Guard,
    held: Vec<u8>,
    unread: Vec<u8>,
    gone: usize,
    refused: Option<Reason>,
    open: bool,
}

impl Player {
    fn read(&mut self, size: &mut dyn FnMut() -> usize) {
        loop {
            self.pump();
            let room = Guard::MAX_HELD.saturating_sub(self.held.len());
            let count = size().min(self.unread.len()).min(room);
            if count == 0 || self.refused.is_some() {
                break;
            }
            self.held.extend(self.unread.drain(..count));
        }
        assert!(
            self.unread.is_empty() || self.refused.is_some() || self.guard.wants_server(),
            "all is held that may be, and it waits for more"
        );
    }

    fn pump(&mut self) {
        while self.refused.is_none() {
            match self.guard.from_guest(&self.held) {
                Ok(Pass::Some(0)) => return,
                Ok(Pass::Some(count)) => {
                    assert!(!self.open && count <= self.held.len());
                    self.held.drain(..count);
                    self.gone += count;
                }
                Ok(Pass::All) => {
                    self.gone += self.held.len();
                    self.held.clear();
                    self.open = true;
                    return;
                }
                Err(reason) => self.refused = Some(reason),
            }
        }
    }

    fn hear(&mut self, mut bytes: &[u8], size: &mut dyn FnMut() -> usize) {
        while !bytes.is_empty() && self.refused.is_none() && self.guard.wants_server() {
            let (now, later) = bytes.split_at(size().min(bytes.len()));
            self.refused = self.guard.from_server(now).err();
            bytes = later;
            self.read(size);
        }
    }
}

/// Bytes that look like something now and then.
fn likely() -> impl Strategy<Value = Vec<u8>> {
    let words: &'static [&'static str] = &[
        "GET / HTTP/1.1\r\n",
        "POST /a HTTP/1.0\r\n",
        "HEAD http://example.com/ HTTP/1.1\r\n",
        "PRI * HTTP/2.0\r\n",
        "Host: example.com\r\n",
        "Host: other.test\r\n",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Upgrade: websocket\r\n",
        "Expect: 100-continue\r\n",
        "\r\n",
        "\r\n\r\n",
        "abc",
        "3\r\n",
        "0\r\n",
        "\n",
        "\r",
        "A: b\r\n",
        " ",
        ":",
        ";",
        "\0",
        "\u{16}\u{3}",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ];
    let piece = prop_oneof![
        6 => prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..5),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn anything() -> impl Strategy<Value = Vec<Say>> {
    let said = prop_oneof![
        3 => likely().prop_map(Say::Guest),
        1 => likely().prop_map(Say::Server),
        1 => prop::collection::vec(any::<u8>(), 0..60).prop_map(Say::Guest),
    ];
    (prop::collection::vec(said, 1..5), any::<bool>()).prop_map(|(mut script, ends)| {
        if ends {
            script.push(Say::GuestEnds);
        }
        script
    })
}

proptest! {
    #[test]
    fn how_it_is_cut_decides_nothing(port in prop::sample::select(&[80_u16, 443, 8080]), script in anything()) {
        play(port, &script);
    }

    /// Where no body can hide it, nothing that names another host goes out.
    #[test]
    fn without_a_body_no_other_host_is_ever_named(script in likely()) {
        let text = String::from_utf8_lossy(&script).replace("Content-Length", "A").replace("Transfer-Encoding", "B");
        let outcome = say(80, &text);
        prop_assert!(!outcome.open);
        prop_assert!(!text.as_bytes()[..outcome.total()].windows(10).any(|part| part == b"other.test"));
    }
}
