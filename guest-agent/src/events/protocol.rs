//! What goes through the events file. Both directions are tolerant: what the other side does not
//! understand it leaves out.
//!
//! ```text
//! to the device    INODE FOLDER LF …        all that is watched; a line end alone when nothing is
//! from the device  KIND SPACE PATH NUL …    PATH is FOLDER or FOLDER/relative/path
//! ```
//! KIND is one letter of
//!
//! ```text
//! C  a file appeared            M  its content changed       U  a file or a link is gone
//! D  a directory appeared       A  its attributes changed    R  a directory is gone
//! L  a symbolic link appeared
//! ```
//! None says that events were lost: then the device compares all names itself.

/// Lines of a set, and bytes of it. A watcher of more than this many directories misses some edits.
pub(super) const MAX_WATCHES: usize = 4096;
pub(super) const MAX_SET: usize = 128 * 1024;

/// What Linux takes for a path, its end included (`PATH_MAX`).
const MAX_PATH: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    FileAppeared,
    DirectoryAppeared,
    SymlinkAppeared,
    ContentChanged,
    AttributesChanged,
    FileGone,
    DirectoryGone,
}

impl Kind {
    fn from_letter(letter: u8) -> Option<Self> {
        Some(match letter {
            b'C' => Kind::FileAppeared,
            b'D' => Kind::DirectoryAppeared,
            b'L' => Kind::SymlinkAppeared,
            b'M' => Kind::ContentChanged,
            b'A' => Kind::AttributesChanged,
            b'U' => Kind::FileGone,
            b'R' => Kind::DirectoryGone,
            _ => return None,
        })
    }
}

/// Something the host did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event<'a> {
    pub(super) kind: Kind,
    /// One component of a path.
    pub(super) folder: &'a [u8],
    /// Relative to the folder, of plain components; empty for the folder itself.
    pub(super) path: &'a [u8],
}

/// The events of one read; a last one without its end is left out.
pub(super) fn decode(bytes: &[u8]) -> impl Iterator<Item = Event<'_>> {
    let whole = bytes.iter().rposition(|byte| *byte == 0).unwrap_or(0);
    bytes[..whole].split(|byte| *byte == 0).filter_map(parse)
}

fn parse(event: &[u8]) -> Option<Event<'_>> {
    let [letter, b' ', target @ ..] = event else {
        return None;
    };
    let kind = Kind::from_letter(*letter)?;
    if target.len() >= MAX_PATH || !target.split(|byte| *byte == b'/').all(is_component) {
        return None;
    }
    let end = target
        .iter()
        .position(|byte| *byte == b'/')
        .unwrap_or(target.len());
    let (folder, rest) = target.split_at(end);
    let path = rest.get(1..).unwrap_or_default();
    Some(Event { kind, folder, path })
}

fn is_component(part: &[u8]) -> bool {
    !matches!(part, b"" | b"." | b"..")
}

/// Lines for as many as the limits allow, in the order given.
pub(super) fn encode<'a>(watched: impl Iterator<Item = (u64, &'a [u8])>) -> Vec<u8> {
    let mut text = Vec::new();
    for (inode, folder) in watched.take(MAX_WATCHES) {
        let line = [inode.to_string().as_bytes(), b" ", folder, b"\n"].concat();
        if text.len() + line.len() > MAX_SET {
            break;
        }
        text.extend(line);
    }
    // Nothing at all could not be written: the kernel does not pass on a write of no bytes.
    if text.is_empty() {
        text.push(b'\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_up_to_the_last_whole_one() {
        let bytes = b"C docs/a b/c\0A docs\0U docs/half";
        let events: Vec<_> = decode(bytes).collect();
        let created = Event {
            kind: Kind::FileAppeared,
            folder: b"docs",
            path: b"a b/c",
        };
        let changed = Event {
            kind: Kind::AttributesChanged,
            folder: b"docs",
            path: b"",
        };
        assert_eq!(events, [created, changed]);
    }

    #[test]
    fn what_leads_elsewhere_or_means_nothing_is_left_out() {
        for bad in [
            &b""[..],
            b"C",
            b"C ",
            b"Cdocs/a",
            b"X docs/a",
            b"O docs",
            b"c docs/a",
            b"C /docs",
            b"C docs/../x",
            b"C ../docs",
            b"C docs/./x",
            b"C docs//x",
            b"C docs/x/",
            b"C .",
        ] {
            assert_eq!(decode(&[bad, b"\0"].concat()).count(), 0, "{bad:?}");
        }
        assert_eq!(
            decode(&[&b"C d/"[..], &[b'x'; MAX_PATH], b"\0"].concat()).count(),
            0
        );
    }

    #[test]
    fn a_set_is_lines_within_the_limits_and_never_no_bytes() {
        let two = [(7u64, &b"docs"[..]), (u64::MAX, b"my files")];
        assert_eq!(
            encode(two.into_iter()),
            b"7 docs\n18446744073709551615 my files\n"
        );
        assert_eq!(encode([].into_iter()), b"\n");
        let many = encode((0..10_000).map(|inode| (inode, &b"d"[..])));
        assert_eq!(many.split(|byte| *byte == b'\n').count(), MAX_WATCHES + 1);
        let long = encode((0..4000).map(|inode| (inode, &[b'x'; 255][..])));
        assert!(long.len() <= MAX_SET && long.ends_with(b"x\n"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic_or_name_a_way_up(bytes in proptest::collection::vec(
            proptest::sample::select(&b"CAM ./a\0\xff"[..]), 0..200)) {
            for event in decode(&bytes) {
                proptest::prop_assert!(!event.folder.contains(&b'/') && is_component(event.folder));
                proptest::prop_assert!(event.path.split(|b| *b == b'/').all(|part| part != b".."));
            }
        }
    }
}
