//! What a guest sees, whole: its frames, the stack, the carrier, the real `coffer-egress`, and an internet of its own
//! behind that, in which every packet is counted. Needs root, namespaces and /dev/net/tun, and says so where it has
//! none of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends when something is wrong"
)]

#[path = "../../../user-net/examples/cable.rs"]
#[allow(dead_code, reason = "the program around it is not started here")]
mod cable;
#[path = "../egress/dns.rs"]
#[allow(dead_code, reason = "it says more than is asked here")]
mod dns;
mod frames;
mod servers;
mod tls;
mod world;

mod clients;
mod connections;
mod hostile_frames;
mod hostile_names;
mod hostile_talk;
mod registries;
mod transfers;
