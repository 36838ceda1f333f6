//! The host's side of a session: starts a machine, talks to the agent in it, keeps what outlives a process.
//!
//! [`Session`] is a machine this process owns; `coffer run` hosts one for a single command and the keeper
//! behind `coffer up` hosts one that stays. Both are worked through [`Host`], so that a command, a file
//! copy or a shell does not know whether the machine is here or behind a keeper's socket.
//!
//! Everything that comes out of a guest is hostile: see `agent` for where its bytes are read.

pub mod agent;
pub mod cli;
pub mod command;
pub mod console;
pub mod copy;
pub mod doctor;
pub mod keeper;
pub mod machine;
pub mod names;
pub mod net;
pub mod output;
pub mod paths;
pub mod process;
pub mod reap;
pub mod scratch;
pub mod session;
pub mod shape;
pub mod share;
pub mod state;
pub mod terminal;

mod certificates;
mod error;
mod folders;
mod image;
mod passing;
mod progress;
mod signals;
mod users;

pub use error::{Error, Result};
pub use image::BootImage;
pub use names::SessionName;
pub use paths::Paths;
pub use session::{Host, Session};
