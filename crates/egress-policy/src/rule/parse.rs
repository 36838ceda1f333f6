//! Reads a rule, and says of what is none where it goes wrong and what was probably meant.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Pattern, Ports, RuleError};
use crate::{AddressRange, HostName, MAX_NAME, RangeError, range::canonical};

/// Bytes of a rule: a name, `*.` before it and ports behind. Nothing longer is looked through.
const MAX_TEXT: usize = MAX_NAME + 32;

pub(super) fn read(text: &str) -> Result<(Pattern, Ports), RuleError> {
    parse(text).map_err(|fault| RuleError {
        text: text.chars().take(MAX_TEXT).collect(),
        at: text.get(..fault.at).unwrap_or(text).chars().count() + 1,
        why: fault.why,
        // A hint that is no rule itself would send people in circles.
        meant: fault.meant.filter(|meant| parse(meant).is_ok()),
    })
}

struct Fault {
    /// Bytes in front of what is wrong.
    at: usize,
    why: String,
    meant: Option<String>,
}

impl Fault {
    fn new(at: usize, why: impl Into<String>) -> Self {
        Fault {
            at,
            why: why.into(),
            meant: None,
        }
    }

    fn meant(mut self, meant: impl Into<String>) -> Self {
        self.meant = Some(meant.into());
        self
    }

    /// The same of a piece that has this much in front of it and this behind it.
    fn within(mut self, before: &str, after: &str) -> Self {
        self.at += before.len();
        self.meant = self.meant.map(|meant| format!("{before}{meant}{after}"));
        self
    }
}

fn parse(text: &str) -> Result<(Pattern, Ports), Fault> {
    refuse_what_is_no_rule(text)?;
    if let Some(rest) = text.strip_prefix('[') {
        return bracketed(text, rest);
    }
    if let Some((second, _)) = text.match_indices(':').nth(1) {
        if text.find('.').is_some_and(|dot| dot < second) {
            return Err(Fault::new(second, "a second colon"));
        }
        return ipv6(text).map(|range| (Pattern::Range(range), Ports::All));
    }
    let Some((target, ports)) = text.split_once(':') else {
        return Ok((pattern(text)?, Ports::All));
    };
    let before = &text[..=target.len()];
    let pattern = pattern(target).map_err(|fault| fault.within("", &text[target.len()..]))?;
    Ok((pattern, ports_behind(before, ports, target)?))
}

/// What people paste, and what could be anything.
fn refuse_what_is_no_rule(text: &str) -> Result<(), Fault> {
    if text.is_empty() {
        return Err(Fault::new(0, "there is nothing"));
    }
    if text.len() > MAX_TEXT {
        return Err(Fault::new(MAX_TEXT, "longer than any rule"));
    }
    if let Some((at, sign)) = text
        .char_indices()
        .find(|(_, sign)| sign.is_whitespace() || sign.is_control())
    {
        let what = if sign.is_whitespace() {
            "a rule has no spaces in it"
        } else {
            "a control character"
        };
        return Err(Fault::new(at, what).meant(text.trim()));
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(
            Fault::new(scheme.len(), "a URL; a rule is a host, with a port or without")
                .meant(host_and_port(scheme, rest)),
        );
    }
    match text.find('@') {
        Some(0) => Err(Fault::new(
            0,
            "the name of a set; coffer puts the rules of a set in its place, so it stands alone and in no other set",
        )),
        Some(at) => Err(Fault::new(at, "a rule is about hosts and not about users").meant(&text[at + 1..])),
        None => Ok(()),
    }
}

fn host_and_port(scheme: &str, rest: &str) -> String {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
    match port_of(scheme) {
        Some(port) if !has_port => format!("{host}:{port}"),
        _ => host.to_owned(),
    }
}

/// Ports that go without saying, for hints only.
fn port_of(service: &str) -> Option<u16> {
    Some(match service.to_ascii_lowercase().as_str() {
        "http" | "ws" => 80,
        "https" | "wss" | "git+https" => 443,
        "ssh" | "git+ssh" | "sftp" => 22,
        "ftp" => 21,
        "git" => 9418,
        "postgres" | "postgresql" => 5432,
        "mysql" => 3306,
        "redis" => 6379,
        _ => return None,
    })
}

/// `[` and what is behind it.
fn bracketed(text: &str, rest: &str) -> Result<(Pattern, Ports), Fault> {
    let Some((inside, after)) = rest.split_once(']') else {
        return Err(Fault::new(0, "bracket without its partner"));
    };
    let behind = text.len() - after.len();
    let range = match ipv6(inside) {
        Ok(range) => range,
        // It is only the brackets that are wrong.
        Err(_) if pattern(inside).is_ok() => {
            return Err(Fault::new(0, "brackets are for IPv6 addresses").meant(format!("{inside}{after}")));
        }
        Err(fault) => return Err(fault.within("[", &text[behind - 1..])),
    };
    if after.is_empty() {
        return Ok((Pattern::Range(range), Ports::All));
    }
    if let Some(length) = after.strip_prefix('/') {
        let (bits, ports) = length.split_once(':').unwrap_or((length, ""));
        let colon = if ports.is_empty() { "" } else { ":" };
        return Err(Fault::new(behind, "the length of a range is within the brackets")
            .meant(format!("[{inside}/{bits}]{colon}{ports}")));
    }
    let Some(ports) = after.strip_prefix(':') else {
        return Err(Fault::new(behind, "only a colon and ports are behind brackets"));
    };
    let ports = ports_behind(&text[..=behind], ports, inside)?;
    Ok((Pattern::Range(range), ports))
}

/// Ports with this in front of them; without any, what is `alone` was meant.
fn ports_behind(before: &str, ports: &str, alone: &str) -> Result<Ports, Fault> {
    read_ports(ports).map_err(|fault| {
        let fault = fault.within(before, "");
        if ports.is_empty() {
            fault.meant(alone)
        } else {
            fault
        }
    })
}

fn ipv6(text: &str) -> Result<AddressRange, Fault> {
    if let Some((range, port)) = text.rsplit_once(':')
        && range.contains('/')
    {
        return Err(Fault::new(range.len(), "IPv6 is in brackets when ports follow")
            .meant(format!("[{range}]:{port}")));
    }
    let address = text.split('/').next().unwrap_or(text);
    if let Ok(v6) = address.parse::<Ipv6Addr>() {
        return in_old_form(text, v6).map_or_else(|| range(text), Err);
    }
    let zone = address.find('%');
    let wrong =
        zone.or_else(|| address.find(|sign: char| !sign.is_ascii_hexdigit() && !matches!(sign, ':' | '.')));
    let why = match zone {
        Some(_) => "an address without its interface is expected",
        None => "an IPv6 address that cannot be read",
    };
    let fault = Fault::new(wrong.unwrap_or(0), why);
    Err(match text.rsplit_once(':') {
        // `0:0:0:0:0:0:0:1:443`
        Some((address, port)) if range(address).is_ok() => fault.meant(format!("[{address}]:{port}")),
        _ => fault,
    })
}

/// `::1:8080` is an address, but hardly the one that was meant.
fn in_old_form(text: &str, v6: Ipv6Addr) -> Option<Fault> {
    let v4 = match canonical(v6.into()) {
        IpAddr::V4(v4) if v6.to_ipv4_mapped().is_none() => v4,
        _ => return None,
    };
    let fault = Fault::new(
        0,
        format!("an IPv6 address that is nothing but another way to write {v4}"),
    );
    Some(match text.rsplit_once(':') {
        Some((address, port)) if read_ports(port).is_ok() && address.parse::<Ipv6Addr>().is_ok() => {
            fault.meant(format!("[{address}]:{port}"))
        }
        _ => fault.meant(v4.to_string()),
    })
}

fn range(text: &str) -> Result<AddressRange, Fault> {
    text.parse().map_err(|error: RangeError| {
        let behind_slash = text.find('/').map_or(0, |slash| slash + 1);
        match error {
            RangeError::Address => Fault::new(0, error.to_string()),
            RangeError::Length { .. } => Fault::new(behind_slash, error.to_string()),
            RangeError::HostBits { meant, .. } => {
                Fault::new(behind_slash, error.to_string()).meant(meant.to_string())
            }
        }
    })
}

/// Anything but IPv6.
fn pattern(text: &str) -> Result<Pattern, Fault> {
    if text == "*" {
        return Ok(Pattern::AnyName);
    }
    if let Some(slash) = text.find('/') {
        return slashed(text, slash).map(Pattern::Range);
    }
    if let Some(parent) = text.strip_prefix("*.") {
        refuse_stars(parent).map_err(|fault| fault.within("*.", ""))?;
        return name(parent)
            .map(Pattern::Below)
            .map_err(|fault| fault.within("*.", ""));
    }
    if text.starts_with('.') {
        return Err(Fault::new(0, "a name does not begin with a dot").meant(format!("*{text}")));
    }
    refuse_stars(text)?;
    match text.parse::<Ipv4Addr>() {
        Ok(v4) => Ok(Pattern::Range(AddressRange::one(v4.into()))),
        Err(_) => name(text).map(Pattern::Host),
    }
}

fn slashed(text: &str, slash: usize) -> Result<AddressRange, Fault> {
    let host = &text[..slash];
    if host.parse::<IpAddr>().is_ok() {
        return range(text);
    }
    match inet_aton(host) {
        Some(v4) => {
            Err(Fault::new(0, "an IPv4 address has four numbers").meant(format!("{v4}{}", &text[slash..])))
        }
        None => Err(Fault::new(slash, "a path; a rule is about whole hosts").meant(host)),
    }
}

fn refuse_stars(text: &str) -> Result<(), Fault> {
    let Some(at) = text.find('*') else {
        return Ok(());
    };
    let fault = Fault::new(
        at,
        "a star stands for everything in front of the first dot, or alone",
    );
    let below = text[at + 1..].trim_start_matches('.');
    // `*.com` is much more than somebody meant who wrote `foo.*.com`.
    Err(match below.contains('.') {
        true => fault.meant(format!("*.{below}")),
        false => fault,
    })
}

fn name(text: &str) -> Result<HostName, Fault> {
    HostName::try_from(text).map_err(|error| {
        let at = text
            .char_indices()
            .nth(error.at() - 1)
            .map_or(text.len(), |(at, _)| at);
        let fault = Fault::new(at, error.to_string());
        match inet_aton(text) {
            Some(v4) => fault.meant(v4.to_string()),
            None => fault,
        }
    })
}

/// The address that a C library reads here; for hints only.
fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let numbers: Vec<u32> = text.split('.').map(number).collect::<Option<_>>()?;
    let (last, bytes) = numbers.split_last()?;
    if bytes.len() > 3 || bytes.iter().any(|byte| *byte > 255) {
        return None;
    }
    let left = 32 - 8 * u32::try_from(bytes.len()).ok()?;
    if u64::from(*last) >> left != 0 {
        return None;
    }
    let high = bytes.iter().fold(0, |high, byte| high << 8 | u64::from(*byte));
    u32::try_from(high << left | u64::from(*last))
        .ok()
        .map(Ipv4Addr::from)
}

fn number(text: &str) -> Option<u32> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, base) = match hexadecimal {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    // Signs are none of its digits.
    let plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u32::from_str_radix(digits, base).ok().filter(|_| plain)
}

/// What is behind the colon.
fn read_ports(text: &str) -> Result<Ports, Fault> {
    if text == "*" {
        return Ok(Ports::All);
    }
    let Some((first, last)) = text.split_once('-') else {
        return port(text).map(Ports::one);
    };
    let before = &text[..=first.len()];
    let first = port(first).map_err(|fault| fault.within("", &text[first.len()..]))?;
    let last = port(last).map_err(|fault| fault.within(before, ""))?;
    if last < first {
        return Err(Fault::new(0, "ports that run backwards").meant(format!("{last}-{first}")));
    }
    Ok(Ports::Range { first, last })
}

fn port(text: &str) -> Result<u16, Fault> {
    if text.is_empty() {
        return Err(Fault::new(0, "a port is missing"));
    }
    if let Some(port) = port_of(text) {
        return Err(Fault::new(0, "a port is a number").meant(port.to_string()));
    }
    if let Some((host_port, _path)) = text.split_once('/') {
        return Err(Fault::new(host_port.len(), "a path; a rule is about whole hosts").meant(host_port));
    }
    if let Some(comma) = text.find(',') {
        return Err(Fault::new(
            comma,
            "one port or range of ports; write a rule for each",
        ));
    }
    if let Some(at) = text.find(|sign: char| !sign.is_ascii_digit()) {
        return Err(Fault::new(at, "a port is a number"));
    }
    match text.parse() {
        Ok(port) if port != 0 && !text.starts_with('0') => Ok(port),
        _ => Err(Fault::new(0, "a port is a number from 1 to 65535")),
    }
}
