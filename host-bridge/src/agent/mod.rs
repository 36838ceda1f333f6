//! The other end of the guest's agent: one control connection, and one more for each operation.
//!
//! Everything read here was written by a guest that may be hostile. Frames are bounded before they are
//! read, a connection must introduce itself in time, only so many may be unintroduced at once, and a
//! stream nobody asked for is closed.

pub(crate) mod frames;
mod link;
mod owners;
mod stream;
mod welcome;

pub use link::{Link, LinkState};
pub use stream::{Aborter, Incoming, Operation, OperationReader, OperationWriter};
