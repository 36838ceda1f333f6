//! Guest-dialled vsock streams, carried to AF_UNIX sockets.
//!
//! A connection of the guest to port `P` of the host, where `P` is one of the listed ports, becomes a
//! connection to the AF_UNIX socket `<socket>_P`. The host never dials the guest. [`Mux`] knows packets,
//! connection states, credit and sockets; it knows no virtio: whoever moves packets in and out hands it
//! headers, and [`Source`]s and [`Sink`]s for payload, which it never needs to see itself.
//!
//! Everything the guest says is hostile. What it can make us hold is bounded by [`limits`].
#![forbid(unsafe_code)]

mod backlog;
mod connection;
mod credit;
mod dial;
pub mod limits;
mod mux;
mod packet;
mod refusal;
mod state;

pub use backlog::{Sink, Source};
pub use connection::Interest;
pub use dial::{ConfigError, Routes};
pub use mux::{Mux, Received, Watch};
pub use packet::{Address, HEADER_LEN, Header, Pair};
pub use refusal::Refusal;
