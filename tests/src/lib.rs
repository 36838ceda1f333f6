//! The harness of the cases that boot guests: `coffer` as a person types it, with a deadline on everything.
//!
//! [`Host`] is a host of a test's own: state and sockets in a directory that must be empty again when the
//! test ends. [`Run`] is one command line, [`Ended`] what came of it, [`Session`] one that is removed when it
//! goes, [`Terminal`] a terminal to type at, [`with_own_network`] a network whose every packet is counted.
//! Booting costs seconds, so [`cases!`] runs many on one session.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod cases;
mod host;
mod network;
mod run;
mod terminal;

pub use cases::{Case, run_cases};
pub use host::{Host, Session};
pub use network::{Resolver, Web, packets_sent, with_own_network};
pub use run::{Ended, Run, Running, wait_until};
pub use terminal::Terminal;

/// Bytes that look like nothing in particular and are the same every time.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect();
    bytes.truncate(len);
    bytes
}
