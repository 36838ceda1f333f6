//! Folders as a guest meets them: raw FUSE messages against `Exports`, the host's hands in the folder meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests and what they are made of"
)]

mod containment;
mod echoes;
mod fat;
mod file_systems;
mod limits;
mod local;
mod model;
mod names;
mod policy;
mod race;
mod read_only;
mod snapshot;
mod swaps;
mod world;
