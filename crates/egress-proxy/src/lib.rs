//! Carries what a guest may reach to where it may reach it.
//!
//! A machine asks over the [link](egress_policy::link); the policy decides here and nowhere else. A flow that is
//! allowed is resolved, its address is checked, that very address is connected to, and what the guest says on it is
//! looked at until it is clear what it is. There are no files: what is known of the host comes with the configuration.

mod budget;
mod connect;
mod control;
mod error;
mod flow;
pub mod inspect;
mod limits;
mod link;
mod open;
mod own;
mod records;
mod resolve;
mod session;
mod upstream;

pub use control::{Events, read_config, read_requests};
pub use error::EgressError;
pub use session::serve;
