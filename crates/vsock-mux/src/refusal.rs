//! Why a packet of the guest was not served.

use crate::{
    credit::{CreditLie, Overrun},
    state::IllegalEvent,
};

/// The guest asked for what it may not have, or broke the protocol. It has been answered with a reset
/// where the protocol allows one; this is for the log, which must be rate-limited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("source is CID {0}, which is not the guest's")]
    ForgedSource(u64),
    #[error("target is CID {0}, which is not the host's")]
    NotTheHost(u64),
    #[error("socket type {0} is not a stream")]
    NotAStream(u16),
    #[error("unknown operation {0}")]
    UnknownOp(u16),
    #[error("payload of {claimed} bytes claimed, {available} present")]
    Length { claimed: u32, available: usize },
    #[error("operation {0} came with a payload")]
    PayloadOnControl(u16),
    #[error("shutdown flags {0:#x}")]
    ShutdownFlags(u32),
    #[error("nobody listens on port {0}")]
    NoSuchPort(u32),
    #[error("cannot dial the listener of port {port}: {error}")]
    Dial { port: u32, error: std::io::ErrorKind },
    #[error("too many connections")]
    TooManyConnections,
    #[error("connection requested twice")]
    RequestedTwice,
    #[error("packet for no connection")]
    NoConnection,
    #[error("response to a request nobody made")]
    Unasked,
    #[error("data after its sender shut down or before the connection was made")]
    UnexpectedData,
    #[error(transparent)]
    Credit(#[from] CreditLie),
    #[error(transparent)]
    Overrun(#[from] Overrun),
    #[error(transparent)]
    State(#[from] IllegalEvent),
}
