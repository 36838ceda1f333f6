//! Header lines: what they are called, and which of them decide anything.

use egress_policy::Reason;

/// More than browsers, proxies and tools send together; servers take 100 to 200.
pub(super) const MAX_FIELDS: usize = 256;

/// A field by its meaning for us.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Http2Settings,
    Other,
}

const NAMES: [(&[u8], Name); 6] = [
    (b"host", Name::Host),
    (b"content-length", Name::ContentLength),
    (b"transfer-encoding", Name::TransferEncoding),
    (b"connection", Name::Connection),
    (b"upgrade", Name::Upgrade),
    (b"http2-settings", Name::Http2Settings),
];

/// One line of a head or a trailer. A line that begins with a blank (folding), or has one before the colon, has no
/// name. Only blanks are cut off around the value: whoever takes other things for blanks reads it differently.
pub(super) fn parse(line: &[u8]) -> Result<(Name, &[u8]), Reason> {
    let colon = line
        .iter()
        .position(|byte| *byte == b':')
        .ok_or(Reason::AmbiguousHttp)?;
    let (name, value) = line.split_at_checked(colon).ok_or(Reason::AmbiguousHttp)?;
    if name.is_empty() || !name.iter().all(|byte| is_token_byte(*byte)) {
        return Err(Reason::AmbiguousHttp);
    }
    let value = value.get(1..).unwrap_or_default();
    Ok((named(name)?, trim(value)))
}

/// Some servers take `_` for `-` in names, after those in front of them did not.
fn named(name: &[u8]) -> Result<Name, Reason> {
    let like = |known: &[u8]| {
        known.len() == name.len()
            && known
                .iter()
                .zip(name)
                .all(|(known, byte)| *known == byte.to_ascii_lowercase() || (*known, *byte) == (b'-', b'_'))
    };
    match NAMES.iter().find(|(known, _)| like(known)) {
        Some(_) if name.contains(&b'_') => Err(Reason::AmbiguousHttp),
        Some((_, found)) => Ok(*found),
        None => Ok(Name::Other),
    }
}

/// The one way to say that a body comes in chunks. Anything else has fooled some server.
pub(super) fn is_chunked(value: &[u8]) -> bool {
    value == b"chunked"
}

/// Digits only, as they are usually written; 18 of them cannot overflow.
pub(super) fn content_length(value: &[u8]) -> Result<u64, Reason> {
    let plain = matches!(value, [b'0'] | [b'1'..=b'9', ..])
        && value.len() <= 18
        && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| plain);
    text.and_then(|text| text.parse().ok())
        .ok_or(Reason::AmbiguousHttp)
}

/// `Connection` names fields that a proxy is to take out. These must arrive.
pub(super) fn takes_out_what_counts(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|option| {
        let known = named(option.trim_ascii());
        !matches!(
            known,
            Ok(Name::Other | Name::Connection | Name::Upgrade | Name::Http2Settings)
        )
    })
}

pub(in super::super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] | [rest @ .., b' '] = value {
        value = rest;
    }
    value
}
