//! The real process, asked as a machine asks it, with servers of all kinds on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod dns;
mod machine;
mod servers;

mod addresses;
mod budgets;
mod flows;
mod hostile;
mod names;
mod policy;
mod upstream;
