//! The loopback interface: a machine without a network still talks to itself.

use std::io;

use crate::{log, network::Netlink};

/// Without it nothing here fails but what wants to talk to itself.
pub fn bring_up() {
    if let Err(error) = set_up() {
        log::warn(format_args!("cannot bring up the loopback interface: {error}"));
    }
}

fn set_up() -> io::Result<()> {
    let netlink = Netlink::open()?;
    netlink.bring_up(netlink.index("lo")?)
}
