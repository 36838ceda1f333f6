//! The first thing a TLS client says, made by hand.

pub(crate) const ENCRYPTED_HELLO: u16 = 0xfe0d;

/// A hello with this name in it, if one, and with one extension more.
pub(crate) fn hello(name: Option<&str>, more: Option<u16>) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(name) = name {
        let entry = [&[0], &sized(name.as_bytes())[..]].concat();
        extensions.extend([&[0, 0], &sized(&sized(&entry))[..]].concat());
    }
    if let Some(kind) = more {
        extensions.extend([&kind.to_be_bytes(), &sized(&[0; 16])[..]].concat());
    }
    let body = [
        &[3, 3][..],
        &[9; 32],
        &[0],
        &sized(&[0x13, 1]),
        &[1, 0],
        &sized(&extensions),
    ]
    .concat();
    let message = [&[1, 0], &sized(&body)[..]].concat();
    [&[0x16, 3, 1], &sized(&message)[..]].concat()
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}
