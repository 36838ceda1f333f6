//! The addresses of a name, as this host finds them: its hosts file first, then its name servers.
//!
//! A process without files cannot ask the host's own resolver library, and a static one could not anyway.

use std::{
    collections::HashMap,
    future::Future,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use egress_policy::{Reason, control};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    lookup::Lookup,
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::rr::Name,
};
use tokio::time::timeout;

use crate::{
    EgressError,
    limits::{MAX_ADDRESSES, NAME_SERVER_ATTEMPTS, NAME_SERVER_TIMEOUT, OTHER_FAMILY, RESOLVE_DEADLINE},
};

#[derive(Debug)]
pub(crate) struct Resolver {
    hosts: HashMap<String, Vec<IpAddr>>,
    /// `None` on a host without name servers.
    dns: Option<TokioResolver>,
}

impl Resolver {
    pub(crate) fn new(config: &control::ResolverConfig) -> Result<Self, EgressError> {
        let mut hosts: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for (address, names) in &config.hosts {
            for name in names {
                hosts.entry(name.clone()).or_default().push(*address);
            }
        }
        let dns = match &config.nameservers[..] {
            [] => None,
            servers => Some(dns(servers)?),
        };
        Ok(Resolver { hosts, dns })
    }

    /// What the hosts file says of a name, if anything.
    pub(crate) fn host(&self, name: &str) -> Option<&[IpAddr]> {
        self.hosts.get(name).map(Vec::as_slice)
    }

    /// At least one and at most [`MAX_ADDRESSES`], those of version 6 and version 4 by turns.
    pub(crate) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Reason> {
        if let Some(addresses) = self.host(name) {
            return Ok(mixed(addresses.iter().copied()));
        }
        let dns = self.dns.as_ref().ok_or(Reason::Resolver)?;
        let mut name = Name::from_ascii(name).map_err(|_| Reason::NoAddress)?;
        name.set_fqdn(true);
        let found = timeout(
            RESOLVE_DEADLINE,
            both(dns.ipv6_lookup(name.clone()), dns.ipv4_lookup(name)),
        );
        let found = found.await.map_err(|_| Reason::Resolver)??;
        Ok(mixed(found.into_iter()))
    }
}

fn dns(servers: &[SocketAddr]) -> Result<TokioResolver, EgressError> {
    let servers = servers.iter().map(|server| {
        let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
        for connection in &mut connections {
            connection.port = server.port();
        }
        NameServerConfig::new(server.ip(), true, connections)
    });
    let config = ResolverConfig::from_name_servers(servers.collect());
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    // What it needs of the file it was told; it has no files.
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = NAME_SERVER_TIMEOUT;
    options.attempts = NAME_SERVER_ATTEMPTS;
    options.try_tcp_on_error = true;
    builder
        .build()
        .map_err(|error| EgressError::Resolver(error.to_string()))
}

type Answer = Result<Lookup, NetError>;

/// Both families are asked at once; the first with addresses does not wait long for the other.
async fn both(
    first: impl Future<Output = Answer>,
    second: impl Future<Output = Answer>,
) -> Result<Vec<IpAddr>, Reason> {
    tokio::pin!(first, second);
    let (one, other) = tokio::select! {
        one = &mut first => {
            let other = timeout(patience(&one), second).await;
            (one, other)
        }
        one = &mut second => {
            let other = timeout(patience(&one), first).await;
            (one, other)
        }
    };
    let answers = [Some(one), other.ok()];
    let mut reason = Reason::NoAddress;
    let mut found = Vec::new();
    for answer in answers.into_iter().flatten() {
        match answer {
            Ok(lookup) => found.extend(lookup.answers().iter().filter_map(|record| record.data.ip_addr())),
            Err(error) => reason = reason.max(why(&error)),
        }
    }
    match found.is_empty() {
        true => Err(reason),
        false => Ok(found),
    }
}

fn patience(answer: &Answer) -> Duration {
    let found = |lookup: &Lookup| {
        lookup
            .answers()
            .iter()
            .any(|record| record.data.ip_addr().is_some())
    };
    match answer {
        Ok(lookup) if found(lookup) => OTHER_FAMILY,
        _ => RESOLVE_DEADLINE,
    }
}

fn why(error: &NetError) -> Reason {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(_)) => Reason::NoAddress,
        _ => Reason::Resolver,
    }
}

/// An address of version 4 that is written as one of version 6 is what it stands for: what is checked is what is used.
fn mixed(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let (mut v6, mut v4): (Vec<IpAddr>, Vec<IpAddr>) = addresses
        .map(|address| address.to_canonical())
        .partition(IpAddr::is_ipv6);
    v6.reverse();
    v4.reverse();
    let mut mixed = Vec::new();
    while mixed.len() < MAX_ADDRESSES && !(v6.is_empty() && v4.is_empty()) {
        for address in [v6.pop(), v4.pop()].into_iter().flatten() {
            if !mixed.contains(&address) {
                mixed.push(address);
            }
        }
    }
    mixed.truncate(MAX_ADDRESSES);
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_none_comes_twice() {
        let given = addresses(&[
            "192.0.2.1",
            "192.0.2.2",
            "2001:db8::1",
            "192.0.2.1",
            "::ffff:192.0.2.2",
        ]);
        let expected = addresses(&["2001:db8::1", "192.0.2.1", "192.0.2.2"]);
        assert_eq!(mixed(given.into_iter()), expected);
    }

    #[test]
    fn a_name_with_a_thousand_addresses_has_a_few() {
        let many = (0..1000_u32).map(|n| IpAddr::from((0xc000_0200 + n).to_be_bytes()));
        assert_eq!(mixed(many).len(), MAX_ADDRESSES);
    }

    #[tokio::test]
    async fn the_hosts_file_asks_nobody() {
        let config = control::ResolverConfig {
            nameservers: Vec::new(),
            hosts: vec![(addresses(&["192.0.2.7"])[0], vec!["printer".to_owned()])],
        };
        let resolver = Resolver::new(&config).unwrap();
        assert_eq!(resolver.addresses("printer").await, Ok(addresses(&["192.0.2.7"])));
        assert_eq!(resolver.addresses("other.example").await, Err(Reason::Resolver));
    }
}
