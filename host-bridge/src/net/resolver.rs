//! How this host finds addresses: its `resolv.conf` and `hosts`, read for a process that reads no files.

use std::{
    fs::{self, File},
    io::Read,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::SystemTime,
};

use egress_policy::control::ResolverConfig;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice::name_to_index, socket_with};

/// A page of nameservers and comments.
const MAX_RESOLV_CONF: u64 = 64 * 1024;
/// Lists of unwanted names that people put there have tens of thousands of lines; as JSON it is at most three times as
/// long, and must fit a line ([`egress_policy::control::MAX_LINE`]). What is longer is cut at the end of a line.
const MAX_HOSTS: u64 = 768 * 1024;
const DNS_PORT: u16 = 53;
/// As many as the C library asks.
const MAX_NAMESERVERS: usize = 3;

/// Two files, and what they said last.
#[derive(Debug)]
pub(super) struct HostResolver {
    resolv_conf: PathBuf,
    hosts: PathBuf,
    seen: [Option<Stamp>; 2],
}

/// Which file it was and when it was written. A link's target counts, not the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len: u64,
    modified: Option<SystemTime>,
}

impl HostResolver {
    pub(super) fn of_this_host() -> Self {
        Self::at("/etc/resolv.conf".into(), "/etc/hosts".into())
    }

    fn at(resolv_conf: PathBuf, hosts: PathBuf) -> Self {
        HostResolver {
            resolv_conf,
            hosts,
            seen: [None; 2],
        }
    }

    /// A file that cannot be read is one that says nothing, as it is to the C library.
    pub(super) fn read(&mut self) -> ResolverConfig {
        // Before they are read: what is written meanwhile is then read again.
        self.seen = self.stamps();
        ResolverConfig {
            nameservers: nameservers(&text(&self.resolv_conf, MAX_RESOLV_CONF)),
            hosts: hosts(&text(&self.hosts, MAX_HOSTS)),
        }
    }

    /// What they say now, if they changed since they were read.
    pub(super) fn changed(&mut self) -> Option<ResolverConfig> {
        (self.stamps() != self.seen).then(|| self.read())
    }

    fn stamps(&self) -> [Option<Stamp>; 2] {
        [&self.resolv_conf, &self.hosts].map(|path| {
            let found = fs::metadata(path).ok()?;
            Some(Stamp {
                inode: found.ino(),
                len: found.len(),
                modified: found.modified().ok(),
            })
        })
    }
}

/// The file up to its limit, whole lines only.
fn text(path: &PathBuf, max: u64) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(max).read_to_end(&mut bytes));
    if read.is_err() {
        return String::new();
    }
    if bytes.len() as u64 == max {
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        bytes.truncate(whole);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Without any, a resolver on this host is meant, says resolv.conf(5).
fn nameservers(text: &str) -> Vec<SocketAddr> {
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "nameserver").then(|| address(words.next()?))?
    });
    let mut found: Vec<SocketAddr> = addresses.take(MAX_NAMESERVERS).collect();
    if found.is_empty() {
        found.push((Ipv4Addr::LOCALHOST, DNS_PORT).into());
    }
    found
}

/// A scope (`fe80::1%eth0`) says on which link an address is, by name or by number. One that is not there now makes
/// the nameserver one that cannot be reached.
fn address(text: &str) -> Option<SocketAddr> {
    let Some((address, scope)) = text.split_once('%') else {
        return Some((text.parse::<IpAddr>().ok()?, DNS_PORT).into());
    };
    let scope = scope.parse().ok().or_else(|| link_number(scope))?;
    Some(SocketAddrV6::new(address.parse().ok()?, DNS_PORT, 0, scope).into())
}

fn link_number(name: &str) -> Option<u32> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    name_to_index(socket.ok()?, name).ok()
}

fn hosts(text: &str) -> Vec<(IpAddr, Vec<String>)> {
    let line = |line: &str| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        let names: Vec<String> = words.map(str::to_lowercase).collect();
        (!names.is_empty()).then_some((address, names))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests;
