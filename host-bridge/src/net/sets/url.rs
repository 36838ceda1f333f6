//! As much of a URL as a rule needs: where it leads.

use std::net::IpAddr;

use egress_policy::{AddressRange, HostName, Pattern, host_and_port};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) pattern: Pattern,
    pub(super) port: u16,
}

impl Origin {
    /// `None` for what is not reached by HTTP, or leads nowhere. Longer schemes, such as `sparse+https`, end in the one
    /// that counts.
    pub(super) fn of(url: &str) -> Option<Self> {
        let (scheme, rest) = url.trim().split_once("://")?;
        let scheme = scheme.rsplit('+').next().unwrap_or_default().to_ascii_lowercase();
        let usual = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
        let place = authority.rsplit('@').next().unwrap_or_default();
        let (host, port) = host_and_port(place)?;
        Some(Origin {
            pattern: pattern(host)?,
            port: match port {
                Some(port) => port.parse().ok().filter(|port| *port != 0)?,
                None => usual,
            },
        })
    }

    /// A host by name that is reached in the usual way.
    pub(super) fn host(name: &str) -> Option<Self> {
        Self::of(&format!("https://{name}"))
    }
}

/// A mirror by its address is this host's own word for that address.
fn pattern(host: &str) -> Option<Pattern> {
    match host.parse::<IpAddr>() {
        Ok(address) => Some(Pattern::Range(AddressRange::one(address))),
        Err(_) => HostName::try_from(host).ok().map(Pattern::Host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Option<String> {
        Origin::of(url).map(|origin| format!("{} {}", origin.pattern, origin.port))
    }

    #[test]
    fn a_url_leads_to_its_host_and_port_and_to_nothing_before_or_behind_them() {
        for (url, leads) in [
            ("https://a.example.com/simple/", "a.example.com 443"),
            ("HTTP://A.Example.com.", "a.example.com 80"),
            ("sparse+https://example.com:8443/index/", "example.com 8443"),
            ("http://user:p%40ss@example.com:/x", "example.com 80"),
            ("https://user@good.test@example.com/", "example.com 443"),
            ("https://example.com/@evil.test", "example.com 443"),
            ("https://example.com\\@evil.test", "example.com 443"),
            ("https://example.com?x=//evil.test", "example.com 443"),
            ("http://192.0.2.7:3141/root/", "192.0.2.7 3141"),
            ("http://[2001:db8::7]:8080/", "2001:db8::7 8080"),
        ] {
            assert_eq!(read(url).as_deref(), Some(leads), "{url}");
        }
    }

    #[test]
    fn what_is_not_reached_by_http_or_leads_nowhere_is_nothing() {
        for url in [
            "",
            "file:///srv/x",
            "cdrom://x",
            "ssh://git@example.com/x",
            "example.com",
            "https://",
            "https://:80",
            "https://example.com:0",
            "https://example.com:99999",
            "https://example.com:8x",
            "https://{a}.example.com/",
            "http://[::1",
            "http://[example.com]/",
            "https://*.example.com",
            "https://exa mple.com",
            "http://127.1/",
        ] {
            assert_eq!(read(url), None, "{url}");
        }
    }
}
