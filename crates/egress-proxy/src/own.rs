//! The addresses of this host, asked of the kernel over a socket for each flow: they change.

use std::net::IpAddr;

use egress_policy::Reason;
use nix::ifaddrs::getifaddrs;

/// Fails closed: a caller that cannot know them connects to nothing.
pub(crate) fn addresses() -> Result<Vec<IpAddr>, Reason> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_ours() {
        assert!(addresses().unwrap().iter().any(IpAddr::is_loopback));
    }
}
