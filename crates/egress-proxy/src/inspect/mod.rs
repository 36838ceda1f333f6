//! The guard on what a guest says on a flow that is allowed: the name it was allowed for must also be the name that
//! it tells the server. Bytes in, a decision out; nothing is changed, so what could mean two things is refused.
//!
//! On port 443 it must be TLS ([`tls`]), on port 80 HTTP/1 ([`http`]). On other ports what looks like either is held
//! to the same rules, and the rest is let through. What is inside TLS is not seen: a server that answers for other
//! names under the one that is allowed can be asked for those.

mod http;
mod place;
mod sniff;
mod tls;

#[cfg(test)]
mod tests;

use egress_policy::{HostName, Reason};

use place::Place;
use sniff::{Looks, Sniffer};

/// How much of a guest may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// This many bytes from the front. The guard counts them as gone: the next call begins behind them.
    Some(usize),
    /// What was given, and whatever follows, unseen.
    All,
}

/// One flow's. How to use it:
/// - When bytes of the guest arrive, and again while something was let go or after [`Self::from_server`], call
///   [`Self::from_guest`] with all that is held; write out what it lets go. A refusal may come one call after
///   what was said properly before it.
/// - With [`Self::MAX_HELD`] bytes held, read no more of the guest: the guard then waits for nothing but the server.
/// - While [`Self::wants_server`], show it the server's bytes before the guest gets them.
/// - When the guest has finished, call [`Self::guest_finished`] once, then [`Self::from_guest`] as above; the end goes
///   on to the server when nothing is held any more.
pub struct Guard {
    rules: Rules,
    refused: Option<Reason>,
    heads: Vec<usize>,
}

enum Rules {
    Open,
    Unknown(Sniffer, Place),
    Tls(tls::Handshake),
    Http(http::Requests),
}

/// What one look at the front of the held bytes comes to.
enum Step {
    /// Nothing can be decided before more is said.
    Wait,
    /// So many bytes may go. Never zero.
    Release(usize),
    /// Likewise: they are the head of a request.
    Head(usize),
    Open,
}

impl Guard {
    /// Holds a TLS hello with post-quantum keys (about 2 KiB) or a long HTTP head (servers take 8 to 64 KiB) in full.
    pub const MAX_HELD: usize = 64 << 10;

    /// `name` is the one the guest asked for; a flow to an address somebody wrote down has none, and is not looked at.
    pub fn new(name: Option<&HostName>, port: u16) -> Self {
        let rules = match name.map(|name| Place::new(name, port)) {
            None => Rules::Open,
            Some(place) if port == 443 => Rules::Tls(tls::Handshake::new(place)),
            Some(place) if port == 80 => Rules::Http(http::Requests::new(place)),
            Some(place) => Rules::Unknown(Sniffer::default(), place),
        };
        Self {
            rules,
            refused: None,
            heads: Vec::new(),
        }
    }

    /// `bytes` is everything of the guest that has not been let go, from the front.
    pub fn from_guest(&mut self, bytes: &[u8]) -> Result<Pass, Reason> {
        self.heads.clear();
        if let Some(reason) = self.refused {
            return Err(reason);
        }
        let mut free = 0;
        loop {
            match self.step(bytes.get(free..).unwrap_or_default()) {
                Ok(Step::Wait) => return Ok(Pass::Some(free)),
                Ok(Step::Release(more)) => free += more,
                Ok(Step::Head(more)) => {
                    self.heads.push(free);
                    free += more;
                }
                Ok(Step::Open) => {
                    self.rules = Rules::Open;
                    return Ok(Pass::All);
                }
                Err(reason) => {
                    self.refused = Some(reason);
                    // What was said before must not depend on whether it came in the same read.
                    return if free == 0 {
                        Err(reason)
                    } else {
                        Ok(Pass::Some(free))
                    };
                }
            }
        }
    }

    /// Where requests of HTTP begin in what [`Self::from_guest`] let go last; their heads are there in full.
    pub fn heads(&self) -> &[usize] {
        &self.heads
    }

    /// The server's bytes, in order, each given once.
    pub fn from_server(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        if let Some(reason) = self.refused {
            return Err(reason);
        }
        let heard = match &mut self.rules {
            Rules::Open => Ok(()),
            Rules::Unknown(sniffer, _) => {
                sniffer.server_spoke |= !bytes.is_empty();
                Ok(())
            }
            Rules::Tls(handshake) => handshake.hear_server(bytes),
            Rules::Http(requests) => requests.hear_server(bytes),
        };
        heard.inspect_err(|reason| self.refused = Some(*reason))
    }

    /// Must [`Self::from_server`] be called? Once false it stays so, unless the guest says more.
    pub fn wants_server(&self) -> bool {
        match &self.rules {
            Rules::Open => false,
            Rules::Unknown(sniffer, _) => !sniffer.server_spoke,
            Rules::Tls(_) => true,
            Rules::Http(requests) => requests.wants_server(),
        }
    }

    /// The guest will say nothing more. Refuses what was begun and can now never be understood.
    pub fn guest_finished(&mut self) -> Result<(), Reason> {
        if let Some(reason) = self.refused {
            return Err(reason);
        }
        let finished = match &mut self.rules {
            Rules::Open => Ok(()),
            Rules::Unknown(sniffer, _) => sniffer.finished().map(|()| self.rules = Rules::Open),
            Rules::Tls(handshake) => handshake.guest_finished(),
            Rules::Http(requests) => requests.guest_finished(),
        };
        finished.inspect_err(|reason| self.refused = Some(*reason))
    }

    fn step(&mut self, rest: &[u8]) -> Result<Step, Reason> {
        match &mut self.rules {
            Rules::Open => Ok(Step::Open),
            Rules::Tls(handshake) => handshake.step(rest),
            Rules::Http(requests) => requests.step(rest),
            Rules::Unknown(sniffer, place) => {
                let Some(looks) = sniffer.look(rest) else {
                    return Ok(Step::Wait);
                };
                self.rules = match looks {
                    Looks::Tls => Rules::Tls(tls::Handshake::new(place.clone())),
                    Looks::Http => Rules::Http(sniffer.requests(place.clone())),
                    Looks::Other => Rules::Open,
                };
                self.step(rest)
            }
        }
    }
}

/// Without what the guest said.
impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rules = match self.rules {
            Rules::Open => "open",
            Rules::Unknown(..) => "unknown",
            Rules::Tls(_) => "tls",
            Rules::Http(_) => "http",
        };
        f.debug_struct("Guard")
            .field("rules", &rules)
            .field("refused", &self.refused)
            .finish()
    }
}
