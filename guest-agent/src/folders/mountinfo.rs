//! What is mounted where, from `/proc/thread-self/mountinfo`: it tells without asking a file system, which
//! for a share would be a question to the host.

use std::{
    ffi::OsString,
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// Of a machine with ten thousand mounts. What is beyond is not looked at.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

pub(crate) const PATH: &str = "/proc/thread-self/mountinfo";

/// A file system, by the number the kernel gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Device {
    major: u32,
    minor: u32,
}

/// How the kernel keeps the two in one number.
const MINOR_BITS: u32 = 20;

impl Device {
    pub(crate) fn new(major: u32, minor: u32) -> Self {
        Device { major, minor }
    }

    pub(crate) fn from_kernel(number: u32) -> Self {
        Device::new(number >> MINOR_BITS, number & ((1 << MINOR_BITS) - 1))
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (major, minor) = std::str::from_utf8(text).ok()?.split_once(':')?;
        Some(Device::new(major.parse().ok()?, minor.parse().ok()?))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountPoint {
    pub(crate) device: Device,
    pub(crate) at: PathBuf,
    pub(crate) kind: Vec<u8>,
}

/// What is mounted at `path`, the one on top.
pub(crate) fn at(path: &Path) -> Option<MountPoint> {
    all().into_iter().rfind(|mount| mount.at == path)
}

/// What is mounted somewhere below `path`, outer ones first.
pub(crate) fn below(path: &Path) -> Vec<MountPoint> {
    let mut mounts = all();
    mounts.retain(|mount| mount.at != path && mount.at.starts_with(path));
    mounts
}

/// In the order of mounting.
pub(crate) fn all() -> Vec<MountPoint> {
    let read = || -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        File::open(PATH)?.take(MAX_BYTES).read_to_end(&mut text)?;
        Ok(text)
    };
    parse(&read().unwrap_or_default())
}

fn parse(text: &[u8]) -> Vec<MountPoint> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<MountPoint> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = Device::parse(fields.nth(2)?)?;
    let at = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    fields.find(|field| *field == b"-")?;
    let kind = fields.next()?.to_vec();
    Some(MountPoint { device, at, kind })
}

/// Spaces and line ends, and the backslash itself, are three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let code = match (first, after.first_chunk::<3>()) {
            (b'\\', Some(digits)) => octal(digits),
            _ => None,
        };
        plain.push(code.unwrap_or(first));
        rest = match code {
            Some(_) => &after[3..],
            None => after,
        };
    }
    plain
}

fn octal(digits: &[u8; 3]) -> Option<u8> {
    digits.iter().try_fold(0u8, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(digit - b'0'),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_number_place_and_kind_whatever_optional_fields_it_has() {
        let text = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:7 - ext3 /dev/root rw\n\
            40 36 0:51 / /sessions/a\\040b/mnt/x\\134y rw,nosuid - virtiofs cofferdam rw\n\
            rubbish\n1 2 x:y / /a rw - t s o\n1 2 0:1 / /b rw shared:1\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].device.to_string(), "98:0");
        assert_eq!(mounts[0].kind, b"ext3");
        assert_eq!(mounts[1].at, Path::new("/sessions/a b/mnt/x\\y"));
        assert_eq!(mounts[1].device, Device::from_kernel(51));
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        for text in ["\\", "\\04", "\\999", "\\777", "a\\"] {
            assert_eq!(unescape(text.as_bytes()), text.as_bytes());
        }
    }

    #[test]
    fn the_root_of_this_machine_is_mounted() {
        assert!(at(Path::new("/")).is_some());
        assert!(below(Path::new("/")).iter().any(|mount| mount.kind == b"proc"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(
            proptest::sample::select(&b" \\0:9-/a\n"[..]), 0..200)) {
            proptest::prop_assert!(parse(&bytes).len() <= bytes.len());
        }
    }
}
