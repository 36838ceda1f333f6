//! The guest agent: PID 1 of a session's machine.
//!
//! It makes the machine usable (`boot`), dials the host, becomes the session the host names, and then
//! does what the host asks: run commands, move files, go down in order. The host is dialed, never
//! listened to: one control connection, and one more connection per operation.
//!
//! All of it but `boot` is ordinary code over a [`Dialer`] and a [`Machine`], so that the tests run it
//! as an ordinary process against a host of their own.

mod agent;
pub mod boot;
mod connect;
mod control;
mod dial;
mod error;
mod events;
mod exec;
mod failure;
mod files;
mod folders;
mod jobs;
mod lock;
mod log;
mod machine;
mod network;
mod operation;
mod owners;
mod place;
mod reap;
mod setup;
mod shutdown;
mod stream;
#[cfg(test)]
mod testing;
mod trust;
mod users;

pub use agent::{Agent, Parts};
pub use control::{EarlyDial, Link};
pub use dial::{Dialer, HostVsock};
pub use error::Error;
pub use exec::Cgroups;
pub use log::report_fatal;
pub use machine::{Guest, Machine};
pub use shutdown::restart;
