//! Who is who on the guest's cable. The same in every session: no two guests share a cable.
//!
//! The range is the one set aside for measuring devices (RFC 2544), which no host of the internet and hardly a
//! network at home has, so that neither what the guest runs (containers, VPNs) nor an address that somebody allows
//! is in its way.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Ours. It is the gateway, the DHCP server and the only resolver.
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0xc0, 0xff, 0xe4, 0x00, 0x01];
pub const GUEST_MAC: [u8; 6] = [0x02, 0xc0, 0xff, 0xe4, 0x00, 0x02];

pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
pub const GUEST_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// The guest has no neighbours, so every address but its own leads to the gateway, which refuses what is nobody's at
/// once. An address that the guest took for a neighbour's would be asked for on the cable for seconds, in vain.
pub const PREFIX_V4: u8 = 32;

pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfdc0, 0xffe4, 0, 0, 0, 0, 0, 1);
pub const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfdc0, 0xffe4, 0, 0, 0, 0, 0, 2);
pub const PREFIX_V6: u8 = 128;

/// The pool: name number `n` is `POOL_V4 + n` and `POOL_V6 + n`.
pub const POOL_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 0);
pub const POOL_V6: Ipv6Addr = Ipv6Addr::new(0xfdc0, 0xffe4, 0, 1, 0, 0, 0, 0);

/// Of IP packets, headers of IP included. The largest that IPv4 can have, less what makes Linux happier with
/// multiples of eight.
pub const MTU: u16 = 65_520;
