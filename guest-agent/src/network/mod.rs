//! The machine's network card: a cable to the host, whose end of it is the gateway and the only resolver.

mod netlink;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use agent_protocol::Network;

pub(crate) use netlink::Netlink;

use crate::{log, place};

const INTERFACES: &str = "/sys/class/net";
const IPV6_SETTINGS: &str = "/proc/sys/net/ipv6/conf";

/// Which groups may send pings without more rights: all, as systemd has it; distributions no longer mark `ping` itself.
const PINGERS: (&str, &str) = ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");

/// The addresses are given and never change: nothing is to be learned from the network, nor tried out on it.
const IPV6: [(&str, &str); 2] = [("accept_ra", "0"), ("accept_dad", "0")];

/// The interface of a virtio network card, by whatever name the kernel has given it.
pub(crate) fn card() -> io::Result<String> {
    card_in(Path::new(INTERFACES))
}

/// Gives an interface its addresses and the way out.
pub(crate) fn set_up(name: &str, network: &Network) -> io::Result<()> {
    let netlink = Netlink::open()?;
    let index = netlink.index(name)?;
    for (setting, value) in IPV6 {
        // A kernel without IPv6 has none of them.
        let _ = fs::write(Path::new(IPV6_SETTINGS).join(name).join(setting), value);
    }
    let _ = fs::write(PINGERS.0, PINGERS.1);
    // A card that takes smaller packets only is slower, and works.
    if let Err(error) = netlink.set_mtu(index, network.mtu) {
        log::warn(format_args!(
            "cannot set the MTU of {name} to {}: {error}",
            network.mtu
        ));
    }
    netlink.bring_up(index)?;
    netlink.put_address(index, network.v4.into(), network.v4_prefix)?;
    netlink.put_default_route(index, network.v4_gateway.into())?;
    let v6 = netlink
        .put_address(index, network.v6.into(), network.v6_prefix)
        .and_then(|()| netlink.put_default_route(index, network.v6_gateway.into()));
    if let Err(error) = v6 {
        log::warn(format_args!("cannot set up IPv6 on {name}: {error}"));
    }
    Ok(())
}

/// A file that an image brings, or a link to a resolver that does not run here, gives way.
pub(crate) fn name_resolver(root: &Path, network: &Network) -> io::Result<()> {
    let etc = root.join("etc");
    if !etc.is_dir() {
        return Ok(());
    }
    let text = format!(
        "# Made by coffer-agent at the start of the session.\nnameserver {}\n",
        network.v4_gateway
    );
    place::put(&etc.join("resolv.conf"), text.as_bytes())
}

fn card_in(interfaces: &Path) -> io::Result<String> {
    let mut cards: Vec<String> = fs::read_dir(interfaces)?
        .flatten()
        .filter(|interface| is_virtio(&interface.path().join("device/driver")))
        .filter_map(|interface| interface.file_name().into_string().ok())
        .collect();
    // With several the first one is the session's: eth0 before eth1.
    cards.sort();
    let none = || io::Error::new(io::ErrorKind::NotFound, "no virtio network card");
    cards.into_iter().next().ok_or_else(none)
}

fn is_virtio(driver: &Path) -> bool {
    fs::read_link(driver).is_ok_and(|driver: PathBuf| driver.ends_with("virtio_net"))
}

#[cfg(test)]
mod tests;
