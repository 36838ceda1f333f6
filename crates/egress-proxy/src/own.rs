//! The addresses of this host. They change, so the kernel says when; asking it for all of them with every flow would be
//! what costs most of opening one.

use std::{cell::RefCell, net::IpAddr, os::fd::OwnedFd, rc::Rc};

use egress_policy::Reason;
use nix::ifaddrs::getifaddrs;
use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, recv,
        socket_with,
    },
};

/// RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR.
const CHANGES_OF_ADDRESSES: u32 = 0x10 | 0x100;

#[derive(Debug)]
pub(crate) struct OwnAddresses {
    /// Without it they are asked for each time.
    changes: Option<OwnedFd>,
    known: RefCell<Option<Rc<[IpAddr]>>>,
}

impl OwnAddresses {
    pub(crate) fn new() -> Self {
        OwnAddresses {
            changes: changes().ok(),
            known: RefCell::default(),
        }
    }

    /// Fails closed: a caller that cannot know them connects to nothing.
    pub(crate) fn now(&self) -> Result<Rc<[IpAddr]>, Reason> {
        let changed = self.changes.as_ref().is_none_or(has_word);
        let mut known = self.known.borrow_mut();
        match &*known {
            Some(addresses) if !changed => Ok(Rc::clone(addresses)),
            _ => {
                *known = None;
                let addresses = ask()?;
                *known = Some(Rc::clone(&addresses));
                Ok(addresses)
            }
        }
    }
}

fn ask() -> Result<Rc<[IpAddr]>, Reason> {
    // The only reason not to be told is that there is no descriptor to ask with.
    let interfaces = getifaddrs().map_err(|_| Reason::TooManyFlows)?;
    Ok(interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect())
}

fn changes() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0 is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, CHANGES_OF_ADDRESSES))?;
    Ok(socket)
}

/// Whatever it is, and also when there was more of it than the socket holds.
fn has_word(changes: &OwnedFd) -> bool {
    let mut said = false;
    let mut room = [0; 4096];
    loop {
        match recv(changes, &mut room[..], RecvFlags::DONTWAIT) {
            Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => said = true,
            Err(Errno::AGAIN) => return said,
            Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_ours() {
        let own = OwnAddresses::new();
        for _ in 0..2 {
            assert!(own.now().unwrap().iter().any(IpAddr::is_loopback));
        }
    }
}
