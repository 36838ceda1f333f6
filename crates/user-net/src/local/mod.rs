//! What the gateway says for itself: who it is, where the guest is, and that it will not.

pub(crate) mod arp;
pub(crate) mod dhcp;
pub(crate) mod icmp;
pub(crate) mod ndp;
mod replies;

pub(crate) use replies::{ETHERNET_HEADER, Replies, ethernet_header, ip_packet, udp_packet};
