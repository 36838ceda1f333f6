//! What the fuzz targets do with the bytes a fuzzer gives them: a guest that sends one request after the other to one
//! server, and a look at everything it must not have touched.
//!
//! The bytes are a list of [`Step`]s of fixed size, so that a changed byte is a changed field and nothing else moves.

pub mod fuse_server;
pub mod guard;
mod known;
mod names;
pub mod network;
pub mod question;
mod request;
pub mod seeds;
pub mod share_fs;
mod step;
mod tree;
mod world;

pub use request::Kind;
pub use step::{Fields, Input, Step};
