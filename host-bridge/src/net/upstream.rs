//! The proxies this host goes through, as its environment says.
//!
//! Their addresses may hold passwords. What is wrong with one is told by the variable's name, never by its value.

use std::num::NonZeroU16;

use egress_policy::{control::Upstream, host_and_port};

use crate::{Error, Result};

/// What `coffer-egress` can go through.
const SCHEMES: [&str; 3] = ["http", "socks5", "socks5h"];

pub(crate) fn upstream_from_environment() -> Result<Upstream> {
    upstream(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
}

/// Of two spellings the lower-case one is meant, as curl has it; an empty variable is one that is not set.
fn upstream(variable: impl Fn(&'static str) -> Option<String>) -> Result<Upstream> {
    let first = |names: [&'static str; 2]| {
        let set = names.into_iter().find_map(|name| Some((name, variable(name)?)));
        set.filter(|(_, value)| !value.trim().is_empty())
    };
    let proxy = |names| first(names).map(|(name, value)| address(name, value.trim()));
    let all = proxy(["all_proxy", "ALL_PROXY"]);
    let or_all = |own: Option<Result<String>>| match (own, &all) {
        (Some(own), _) => own.map(Some),
        (None, Some(Ok(all))) => Ok(Some(all.clone())),
        (None, _) => Ok(None),
    };
    let http = or_all(proxy(["http_proxy", "HTTP_PROXY"]))?;
    let https = or_all(proxy(["https_proxy", "HTTPS_PROXY"]))?;
    if let (Some(Err(_)), true) = (&all, http.is_none() || https.is_none()) {
        return all.unwrap_or(Ok(String::new())).map(|_| Upstream::default());
    }
    let no_proxy = first(["no_proxy", "NO_PROXY"]).map_or_else(Vec::new, |(_, value)| list(&value));
    if no_proxy.iter().any(|entry| entry == "*") {
        return Ok(Upstream::default());
    }
    Ok(Upstream {
        http,
        https,
        no_proxy,
    })
}

fn list(value: &str) -> Vec<String> {
    let entries = value.split(|c: char| c == ',' || c.is_whitespace());
    let entries = entries.filter(|entry| !entry.is_empty());
    entries.map(str::to_ascii_lowercase).collect()
}

/// A proxy without a scheme is an HTTP one.
fn address(variable: &'static str, value: &str) -> Result<String> {
    let bad = |why: &'static str| Err(Error::ProxyVariable { variable, why });
    let (scheme, rest) = value.split_once("://").unwrap_or(("http", value));
    let scheme = scheme.to_ascii_lowercase();
    if !SCHEMES.contains(&scheme.as_str()) {
        return bad("coffer goes through http://, socks5:// and socks5h:// proxies only");
    }
    if value.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return bad("it has a space or a control character in it");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let place = authority.rsplit('@').next().unwrap_or_default();
    if place.is_empty() || place.starts_with(':') {
        return bad("it names no host");
    }
    match host_and_port(place) {
        None => bad("its host cannot be read; an IPv6 address is written in brackets: [::1]:3128"),
        Some((_, Some(port))) if port.parse::<NonZeroU16>().is_err() => {
            bad("its port is not a number from 1 to 65535")
        }
        Some(_) => Ok(format!("{scheme}://{authority}")),
    }
}

#[cfg(test)]
mod tests;
