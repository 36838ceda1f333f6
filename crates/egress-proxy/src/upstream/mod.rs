//! The proxies this host goes through.
//!
//! A proxy's own address is the host's choice and is held to no rule. Behind it nobody here sees the address a name
//! leads to: what can be refused by the name alone is, and for the rest the proxy has the say. An address that the
//! guest asks for itself is checked as ever.

mod bypass;
mod http;
mod place;
mod socks;
mod urls;

use std::net::IpAddr;

use egress_policy::{HostName, Reason, Target, control};
use tokio::time::timeout;

use crate::{
    connect::connect,
    flow::{Connected, Live},
    limits::PROXY_DEADLINE,
    open::Asked,
    session::{Refusal, Session},
};
use bypass::Bypass;
use place::{Proxy, Scheme};
pub(crate) use urls::WholeUrls;

#[derive(Debug)]
pub(crate) struct Upstream {
    http: Option<Result<Proxy, Reason>>,
    other: Option<Result<Proxy, Reason>>,
    bypass: Bypass,
}

impl Upstream {
    /// A proxy that cannot be read is as one that is down.
    pub(crate) fn new(config: &control::Upstream) -> Self {
        let read = |text: &Option<String>| {
            let text = text.as_deref().filter(|text| !text.is_empty())?;
            Some(Proxy::parse(text).ok_or(Reason::Proxy).inspect_err(|_| {
                tracing::warn!("a proxy of this host is not http://, socks5:// or socks5h://host:port: flows through it are refused");
            }))
        };
        Upstream {
            http: read(&config.http),
            other: read(&config.https),
            bypass: Bypass::new(&config.no_proxy),
        }
    }

    /// The proxy to go through, if any.
    pub(crate) fn route(&self, target: &Target, port: u16) -> Option<Result<&Proxy, Reason>> {
        let proxy = if port == 80 { &self.http } else { &self.other };
        let proxy = proxy.as_ref().filter(|_| !self.bypass.covers(target, port))?;
        Some(proxy.as_ref().map_err(|reason| *reason))
    }
}

impl Proxy {
    pub(crate) async fn connect(&self, asked: Asked<'_>) -> Result<Connected, Refusal> {
        check(asked)?;
        let reached = timeout(PROXY_DEADLINE, self.reach(asked.session, asked.live)).await;
        Ok(reached.unwrap_or(Err(Reason::Proxy))?)
    }

    async fn reach(&self, session: &Session, live: &Live) -> Result<Connected, Reason> {
        let addresses = match self.host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => {
                let found = session.resolver().addresses(&self.host).await;
                found.map_err(|_| Reason::Proxy)?
            }
        };
        let (mut stream, address) = connect(&addresses, self.port).await.map_err(|_| Reason::Proxy)?;
        let urls = self.wants_urls(live);
        let early = match self.scheme {
            Scheme::Http if urls.is_some() => Vec::new(),
            Scheme::Http => http::tunnel(&mut stream, self.login.as_ref(), &live.target, live.port).await?,
            Scheme::Socks => {
                socks::tunnel(&mut stream, self.login.as_ref(), &live.target, live.port).await?;
                Vec::new()
            }
        };
        Ok(Connected {
            stream,
            address,
            through_proxy: true,
            early,
            urls,
        })
    }

    /// Plain HTTP goes to an HTTP proxy as every client sends it there: most make no tunnel to port 80. With a login
    /// it is a tunnel all the same. The guest sees the proxy's own answers, and some proxies show in an error what
    /// they were sent, the login too (CVE-2025-62168); of an answer to CONNECT it sees nothing.
    fn wants_urls(&self, live: &Live) -> Option<WholeUrls> {
        match &live.target {
            Target::Name(name) if live.port == 80 && self.scheme == Scheme::Http && self.login.is_none() => {
                Some(WholeUrls::new(name))
            }
            _ => None,
        }
    }
}

/// What can be said of a target without looking for its address.
fn check(asked: Asked<'_>) -> Result<(), Refusal> {
    let known = match &asked.live.target {
        Target::Address(address) => Some(vec![address.to_canonical()]),
        Target::Name(name) => {
            special_name(name)?;
            asked
                .session
                .resolver()
                .host(name.as_str())
                .map(<[IpAddr]>::to_vec)
        }
    };
    if let Some(addresses) = known {
        asked.checked(addresses)?;
    }
    Ok(())
}

/// Names that lead to the proxy's own host or to a metadata service wherever they are asked for.
fn special_name(name: &HostName) -> Result<(), Reason> {
    const LOOPBACK: [&str; 4] = ["localhost", "localdomain", "ip6-localhost", "ip6-loopback"];
    const METADATA: [&str; 4] = [
        "metadata",
        "metadata.google.internal",
        "instance-data",
        "instance-data.ec2.internal",
    ];
    let name = name.as_str();
    let last = name.rsplit('.').next().unwrap_or(name);
    if LOOPBACK.contains(&last) {
        return Err(Reason::Loopback);
    }
    if METADATA.contains(&name) {
        return Err(Reason::Metadata);
    }
    Ok(())
}
