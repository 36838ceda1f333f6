//! What the headers before an entry say, and the entry's own header: put together into path and metadata.

use std::io::Read;

use crate::tree::{Device, Meta, Mtime, TreePath, Xattrs};
use crate::{Error, Result};

const XATTR: &[u8] = b"SCHILY.xattr.";

/// Collected from extended headers, for the entry that follows them.
#[derive(Default)]
pub(super) struct Pending {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    size: Option<u64>,
    mtime: Option<Mtime>,
    xattrs: Xattrs,
}

impl Pending {
    pub(super) fn take_path(&mut self, bytes: &[u8]) {
        self.path = Some(until_nul(bytes));
    }

    pub(super) fn take_link(&mut self, bytes: &[u8]) {
        self.link = Some(until_nul(bytes));
    }

    /// Records are `LENGTH KEY=VALUE\n`, where the length counts the whole record and the value may
    /// hold any bytes.
    pub(super) fn take_pax(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (key, value, rest) =
                pax_record(bytes).ok_or_else(|| bad("a pax header that does not parse"))?;
            self.take_record(key, value)?;
            bytes = rest;
        }
        Ok(())
    }

    fn take_record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let number = || decimal(value).ok_or_else(|| bad("a pax number that does not parse"));
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"size" => self.size = Some(number()?),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(|| bad("a pax time that does not parse"))?),
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err(bad("a sparse file: pack it without --sparse"));
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR)
                    && !self.xattrs.add(name, value)
                {
                    return Err(bad("extended attributes over 4096 bytes"));
                }
            }
        }
        Ok(())
    }

    pub(super) fn path(&self, entry: &tar::Entry<'_, impl Read>) -> Vec<u8> {
        self.path
            .clone()
            .unwrap_or_else(|| entry.header().path_bytes().into_owned())
    }

    pub(super) fn link(&self, entry: &tar::Entry<'_, impl Read>) -> Vec<u8> {
        let own = || entry.header().link_name_bytes().unwrap_or_default().into_owned();
        self.link.clone().unwrap_or_else(own)
    }

    pub(super) fn meta(&self, entry: &tar::Entry<'_, impl Read>, path: &TreePath) -> Result<Meta> {
        let refuse = |problem| Error::BadEntry {
            entry: path.to_string(),
            problem,
        };
        let header = entry.header();
        let bad_header = |_| refuse("a header whose numbers do not parse");
        // The reader finds the next header by the size in this one: where a pax header says
        // otherwise, every entry from here on would be read from the wrong place.
        if self.size.is_some_and(|size| size != entry.size()) {
            return Err(refuse("a file over 8 GiB in pax form"));
        }
        let id = |id: u64| u32::try_from(id).map_err(|_| refuse("a user or group id over 32 bits"));
        let own_time = Mtime {
            seconds: header.mtime().map_err(bad_header)?,
            nanoseconds: 0,
        };
        Ok(Meta {
            mode: (header.mode().map_err(bad_header)? & 0o7777) as u16,
            uid: id(self.uid.map_or_else(|| header.uid(), Ok).map_err(bad_header)?)?,
            gid: id(self.gid.map_or_else(|| header.gid(), Ok).map_err(bad_header)?)?,
            mtime: self.mtime.unwrap_or(own_time).min(Mtime::LATEST),
            xattrs: self.xattrs.clone(),
        })
    }
}

pub(super) fn device(entry: &tar::Entry<'_, impl Read>, path: &TreePath) -> Result<Device> {
    let refuse = || Error::BadEntry {
        entry: path.to_string(),
        problem: "a device without a number",
    };
    let header = entry.header();
    let major = header.device_major().ok().flatten().ok_or_else(refuse)?;
    let minor = header.device_minor().ok().flatten().ok_or_else(refuse)?;
    Device::new(major, minor).ok_or_else(refuse)
}

fn pax_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|b| *b == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let field = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = field.iter().position(|b| *b == b'=')?;
    Some((&field[..equals], &field[equals + 1..], rest))
}

fn decimal(text: &[u8]) -> Option<u64> {
    let digits = text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// Seconds with an optional fraction, of which nine digits count. Times before 1970 become 1970.
fn time(text: &[u8]) -> Option<Mtime> {
    if text.starts_with(b"-") {
        return Some(Mtime::default());
    }
    let mut parts = text.splitn(2, |b| *b == b'.');
    let seconds = decimal(parts.next()?)?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nine = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = nine.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Some(Mtime { seconds, nanoseconds })
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|b| *b == 0).next().unwrap_or_default().to_vec()
}

fn bad(problem: &'static str) -> Error {
    Error::BadEntry {
        entry: "extended header".into(),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pax_value_may_hold_newlines_and_equals_signs() {
        let (key, value, rest) = pax_record(b"14 k=a\n=\0c\n\nx\nrest").unwrap();
        assert_eq!(
            (key, value, rest),
            (&b"k"[..], &b"a\n=\0c\n\nx"[..], &b"rest"[..])
        );
    }

    #[test]
    fn pax_records_with_wrong_lengths_are_refused() {
        for record in [
            "",
            " ",
            "5",
            "5 a=b",
            "7 a=b\n",
            "4 a=b\n",
            "99999999999999999999 a=b\n",
            "6 aab\n",
            "0 a=b\n",
        ] {
            assert!(pax_record(record.as_bytes()).is_none(), "{record:?}");
        }
    }

    #[test]
    fn times_parse_with_and_without_a_fraction() {
        let at = |seconds, nanoseconds| Some(Mtime { seconds, nanoseconds });
        assert_eq!(time(b"12"), at(12, 0));
        assert_eq!(time(b"12.5"), at(12, 500_000_000));
        assert_eq!(time(b"12.1234567899"), at(12, 123_456_789));
        assert_eq!(time(b"-3.5"), at(0, 0));
        assert_eq!(time(b"x"), None);
        assert_eq!(time(b"1.x"), None);
    }
}
