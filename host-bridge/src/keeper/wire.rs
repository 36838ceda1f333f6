use agent_protocol::{GuestInfo, Request, StreamId, TerminalSize};
use serde::{Deserialize, Serialize};
use vmm_api::{ShareName, ShareStatus};

use crate::{net::NetChange, session::Removal, share::Asked};

/// A keeper outlives the program that started it, so a later one may meet it: each checks this.
pub(crate) const VERSION: u32 = 3;

/// The keeper's socket, in the session's directory of sockets.
pub(crate) const SOCKET: &str = "keeper";

/// Client to keeper, as frames of the agent's protocol. Each is answered by one [`ToClient`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToKeeper {
    /// The first message, and in every version the same.
    Hello {
        version: u32,
    },
    Start(Request),
    Signal {
        id: StreamId,
        signal: i32,
    },
    Resize {
        id: StreamId,
        size: TerminalSize,
    },
    Inspect,
    ShareAdd(Asked),
    /// A client that goes away while the guest is waited for has changed its mind.
    ShareRemove {
        name: ShareName,
        how: Removal,
    },
    Shares,
    NetChange(NetChange),
    /// Switches the guest off in order. The connection ends when the keeper has ended.
    Stop {
        grace_ms: u32,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToClient {
    Hello {
        version: u32,
    },
    /// The operation's stream comes with this message, as a file descriptor.
    Started {
        id: StreamId,
    },
    Done,
    Inspection(Inspection),
    Shared {
        name: ShareName,
    },
    Shares(Vec<ShareStatus>),
    Refused {
        what: String,
        hint: Option<String>,
        code: u8,
    },
}

/// What only the owner of a machine knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    pub pid: u32,
    pub machine_pid: Option<u32>,
    /// Untrusted: what the guest says of itself.
    pub guest: Option<GuestInfo>,
    /// The machine's own answer as JSON, or why there is none.
    pub machine: Result<String, String>,
}
