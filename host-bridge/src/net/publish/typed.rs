//! What a person types: `[ADDR:]HOST:GUEST`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{MAX_PUBLISHED, Publish};
use crate::{Error, Result};

const OPTION: &str = "--publish";
/// For a session that had some before.
const NONE: &str = "none";
const FORM: &str = "[ADDR:]HOST:GUEST, such as 8080:80, 0:80 for any free port here, or [::1]:8080:80";

/// What a session publishes that had `former` before: what is typed, or that when nothing is.
pub(crate) fn published_of(typed: &[String], former: Vec<Publish>) -> Result<Vec<Publish>> {
    if typed.is_empty() {
        let unbound = |publish| Publish {
            bound: None,
            ..publish
        };
        return Ok(former.into_iter().map(unbound).collect());
    }
    if typed.len() > MAX_PUBLISHED {
        let why = format!("more than {MAX_PUBLISHED} of them");
        return Err(refused(typed.last().map_or("", String::as_str), why));
    }
    let real = typed.iter().filter(|text| *text != NONE);
    real.map(|text| read(text).map_err(|why| refused(text, why)))
        .collect()
}

/// Said of one that more than this host may reach.
pub(crate) fn wide_open(publish: &Publish) -> Option<String> {
    (!publish.address.is_loopback()).then(|| format!("{publish}, also for others than this host"))
}

fn refused(text: &str, why: String) -> Error {
    Error::Value {
        option: OPTION,
        value: text.to_owned(),
        why,
    }
}

fn read(text: &str) -> Result<Publish, String> {
    let (rest, guest) = text.rsplit_once(':').ok_or(FORM)?;
    let (address, host) = match rest.rsplit_once(':') {
        Some((address, host)) => (address_of(address)?, host),
        None => (IpAddr::V4(Ipv4Addr::LOCALHOST), rest),
    };
    let guest = port(guest)?;
    if guest == 0 {
        return Err("no server in the sandbox has port 0".to_owned());
    }
    Ok(Publish {
        address,
        host: port(host)?,
        guest,
        bound: None,
    })
}

fn address_of(text: &str) -> Result<IpAddr, String> {
    if let Some(inside) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address = inside.parse::<Ipv6Addr>();
        return address
            .map(IpAddr::V6)
            .map_err(|_| format!("{inside:?} is not an IPv6 address"));
    }
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => Ok(address.into()),
        _ if text.contains(':') => Err("an IPv6 address is written in brackets: [::1]:8080:80".to_owned()),
        _ => Err(format!("{text:?} is not an address; {FORM}")),
    }
}

fn port(text: &str) -> Result<u16, String> {
    // A sign is none of a port.
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let port = text.parse().ok().filter(|_| digits);
    port.ok_or_else(|| match text.is_empty() {
        true => FORM.to_owned(),
        false => format!("{text:?} is not a port, a number up to 65535"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String> {
        let read = published_of(&[text.to_owned()], Vec::new())?;
        Ok(read.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_published_port_is_on_loopback_unless_an_address_is_given() {
        for (text, meant) in [
            ("8080:80", "127.0.0.1:8080 leads to port 80 of the sandbox"),
            (
                "0:80",
                "127.0.0.1 at any free port leads to port 80 of the sandbox",
            ),
            ("0.0.0.0:1:2", "0.0.0.0:1 leads to port 2 of the sandbox"),
            ("[::1]:8080:80", "[::1]:8080 leads to port 80 of the sandbox"),
            ("none", ""),
        ] {
            assert_eq!(shown(text).unwrap(), meant);
        }
    }

    #[test]
    fn what_is_no_port_is_told_with_what_is_wrong() {
        for (text, word) in [
            ("", "[ADDR:]HOST:GUEST"),
            ("80", "[ADDR:]HOST:GUEST"),
            (":80", "[ADDR:]HOST:GUEST"),
            ("80:", "[ADDR:]HOST:GUEST"),
            ("80:0", "port 0"),
            ("+80:80", "\"+80\" is not a port"),
            ("80:65536", "\"65536\" is not a port"),
            ("8080:80/udp", "\"80/udp\" is not a port"),
            ("::1:8080:80", "in brackets"),
            ("[127.0.0.1]:8080:80", "not an IPv6 address"),
            ("localhost:8080:80", "\"localhost\" is not an address"),
            (":8080:80", "\"\" is not an address"),
        ] {
            let error = shown(text).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert_eq!(error.code(), 2);
        }
        assert!(published_of(&vec!["0:1".to_owned(); 65], Vec::new()).is_err());
    }

    #[test]
    fn what_is_typed_takes_the_place_of_what_was_published_before() {
        let former = published_of(&["0:80".to_owned()], Vec::new()).unwrap();
        let was: Vec<Publish> = former
            .iter()
            .map(|p| Publish {
                bound: Some(7),
                ..p.clone()
            })
            .collect();
        assert_eq!(published_of(&[], was.clone()).unwrap(), former);
        assert_eq!(
            published_of(&["0:81".to_owned()], was.clone()).unwrap()[0].guest,
            81
        );
        assert!(published_of(&["none".to_owned()], was).unwrap().is_empty());
    }

    #[test]
    fn a_port_that_others_can_reach_is_told() {
        let wide = |text: &str| wide_open(&read(text).unwrap());
        assert_eq!(
            (wide("1:2"), wide("[::1]:1:2"), wide("127.9.9.9:1:2")),
            (None, None, None)
        );
        assert!(wide("0.0.0.0:1:2").unwrap().contains("others"));
        assert!(wide("[::]:1:2").is_some());
    }
}
