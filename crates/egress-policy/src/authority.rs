//! The end of a URL's authority: where it leads, behind whatever login is in front of it.

use std::net::Ipv6Addr;

/// `example.com:443`, `example.com`, `192.0.2.7:`, `[2001:db8::1]:443`: the host without its brackets, and the port as
/// it is written, if it is. `None` without a host, or for brackets around anything but an IPv6 address.
pub fn host_and_port(text: &str) -> Option<(&str, Option<&str>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, port)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match port {
        "" | ":" => None,
        port => Some(port.strip_prefix(':')?),
    };
    (!host.is_empty()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_what_is_before_the_port_or_within_brackets() {
        for (text, read) in [
            ("example.com", Some(("example.com", None))),
            ("example.com:", Some(("example.com", None))),
            ("example.com:8x", Some(("example.com", Some("8x")))),
            ("192.0.2.7:80", Some(("192.0.2.7", Some("80")))),
            ("[2001:db8::1]", Some(("2001:db8::1", None))),
            ("[2001:db8::1]:443", Some(("2001:db8::1", Some("443")))),
            ("2001:db8::1", Some(("2001", Some("db8::1")))),
        ] {
            assert_eq!(host_and_port(text), read, "{text}");
        }
        for text in ["", ":80", "[::1", "[::1]443", "[]", "[]:80", "[example.com]:80"] {
            assert_eq!(host_and_port(text), None, "{text}");
        }
    }
}
