//! The process behind a session that stays, and how commands reach the guest through it.
//!
//! ```text
//! coffer up ── spec on stdin, one Report on stdout ──▶ coffer keep   owns the machine and the agent link
//! coffer exec ── keeper socket: Start, Signal, … ────▶     │
//!            ◀── the stream the guest dialed (SCM_RIGHTS) ──┘   bytes then bypass the keeper
//! ```
//!
//! The keeper's socket is the user's alone: its directory is 0700, and the peer's uid is asked besides.

mod client;
mod server;
mod wire;

pub use client::KeeperClient;
pub use server::{Report, Spec, keep};
pub use wire::Inspection;
