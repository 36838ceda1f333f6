//! What a guest may reach on the network.
//!
//! [`EgressPolicy`] decides and does nothing else: no sockets, no clock, no files. The rest of the crate is what is
//! said between those who ask and the one who answers: [`link`] between a machine and its `coffer-egress`,
//! [`control`] between `coffer-egress` and the host bridge.
#![forbid(unsafe_code)]

pub mod addresses;
mod authority;
pub mod control;
pub mod link;
mod name;
mod policy;
mod port_set;
mod range;
mod reason;
mod rule;
mod special;
mod target;

pub use authority::host_and_port;
pub use name::{HostName, HostNameError, MAX_LABEL, MAX_NAME};
pub use policy::{EgressPolicy, MAX_RULES, PolicyError, Unknown, Verdict};
pub use range::{AddressRange, RangeError};
pub use reason::Reason;
pub use rule::{Effect, MAX_FROM, Pattern, Ports, Rule, RuleError, RuleFault};
pub use special::{Special, special};
pub use target::Target;
