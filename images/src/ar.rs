//! The outside of a Debian package: an `ar` archive whose member `data.tar.*` holds the files.

use std::io::{self, Read};

const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER_BYTES: usize = 60;
/// A package has three members; a few more do no harm.
const MAX_MEMBERS: usize = 16;

/// The member of a .deb that holds its files, still compressed.
pub(crate) fn package_data(mut package: impl Read) -> io::Result<impl Read> {
    let mut magic = [0; MAGIC.len()];
    package.read_exact(&mut magic)?;
    if &magic != MAGIC {
        return Err(bad("not a Debian package"));
    }
    for _ in 0..MAX_MEMBERS {
        let mut header = [0; HEADER_BYTES];
        package.read_exact(&mut header)?;
        let (name, size) = member(&header).ok_or_else(|| bad("a member header that does not parse"))?;
        if name.starts_with("data.tar") {
            return Ok(package.take(size));
        }
        let padded = size + size % 2;
        if io::copy(&mut (&mut package).take(padded), &mut io::sink())? != padded {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Err(bad("no data.tar in the package"))
}

/// Name (16 bytes, padded), then times and owners, then the size in decimal, then two bytes of magic.
fn member(header: &[u8; HEADER_BYTES]) -> Option<(&str, u64)> {
    let field = |from: usize, to: usize| std::str::from_utf8(&header[from..to]).ok().map(str::trim_end);
    if &header[58..] != b"`\n" {
        return None;
    }
    let size = field(48, 58)?;
    if !size.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((field(0, 16)?.trim_end_matches('/'), size.parse().ok()?))
}

fn bad(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (name, data) in members {
            bytes.extend(
                format!(
                    "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
                    0,
                    0,
                    0,
                    644,
                    data.len()
                )
                .bytes(),
            );
            bytes.extend(*data);
            bytes.extend(&b"\n"[..data.len() % 2]);
        }
        bytes
    }

    #[test]
    fn the_data_member_is_found_behind_members_of_odd_length() {
        let deb = archive(&[
            ("debian-binary", b"2.0\n"),
            ("control.tar.xz/", b"odd"),
            ("data.tar.xz", b"files"),
            ("z", b""),
        ]);
        let mut data = Vec::new();
        package_data(&deb[..]).unwrap().read_to_end(&mut data).unwrap();
        assert_eq!(data, b"files");
    }

    #[test]
    fn what_is_not_a_package_is_an_error() {
        let no_data = archive(&[("debian-binary", b"2.0\n")]);
        let mut bad_size = archive(&[("debian-binary", b"2.0\n")]);
        bad_size[8 + 48] = b'-';
        let mut too_short = archive(&[("debian-binary", b"2.0\n")]);
        too_short.truncate(70);
        for bytes in [
            &b""[..],
            b"!<arch>\n",
            b"#!/bin/sh\n",
            &no_data,
            &bad_size,
            &too_short,
        ] {
            assert!(package_data(bytes).is_err());
        }
    }
}
