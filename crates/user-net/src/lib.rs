//! The network a guest sees, ended in user space.
//!
//! The guest has a cable to a gateway and nothing behind it. [`Stack`] is that gateway: it answers ARP, NDP, DHCP,
//! DNS and pings itself, ends TCP, and turns everything else into a reason why not. It does no I/O: frames go in,
//! frames and [`Event`]s come out. [`Carrier`] is the I/O around it: it asks `coffer-egress` over a link about every
//! name and flow, and moves the bytes of flows between the stack and AF_UNIX sockets. Nothing here has, or could
//! make, a socket to the internet, and nothing here knows a rule.
//!
//! A name that may be known gets an address of a pool that stands for it and nothing else ([`egress_policy::addresses`]), so every
//! connection is tied to the name that was asked for.

mod bucket;
mod carrier;
mod dns;
mod limits;
mod local;
mod network;
mod stack;
mod tcp;

pub use egress_policy::addresses;

pub use carrier::{Carrier, Links};
pub use network::{Network, Offloads, unfinished_checksum};
pub use stack::{Event, FlowId, QueryId, Stack};
