//! The `coffer` program against a double of the machine and its guest (`examples/fake-vmm`), which runs the
//! guest's commands as processes of this host: everything of ours is real, only the guest is not.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod copy;
mod net;
mod publish;
mod rig;
mod run;
mod session;
mod share;
mod terminal;
