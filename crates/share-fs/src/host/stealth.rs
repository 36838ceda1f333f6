//! Edits that put a file's time and size back.
//!
//! The guest's kernel drops the pages of a file when it hears of another modification time or size. A host program can
//! change the content and restore both (`touch -r`, `cp -p`, some editors and all who mean ill). It cannot restore the
//! change time. So a change time that moves while the rest stays, and that the guest did not move itself, is shown as a
//! modification time that is some nanoseconds later.

use super::identity::Found;

/// What was last shown of a file, as far as it takes to notice. Eleven bytes a node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    content: u32,
    change: u32,
    /// Nanoseconds added to the modification time shown.
    later: u8,
    known: bool,
    /// The guest itself has changed something since: the next change is its own.
    own: bool,
}

impl Seen {
    /// How many nanoseconds later than it says this file is shown to have been modified.
    pub(crate) fn look(&mut self, found: &Found) -> u8 {
        let (modified, changed) = (found.modified(), found.changed());
        let content = mix([modified.0 as u64, modified.1.into(), found.size()]);
        let change = mix([changed.0 as u64, changed.1.into(), 0]);
        if !self.known || content != self.content {
            self.later = 0;
        } else if change != self.change && !self.own {
            self.later = self.later.wrapping_add(1);
        }
        *self = Seen {
            content,
            change,
            later: self.later,
            known: true,
            own: false,
        };
        self.later
    }

    /// The guest changes something of the file that is not its content: mode, name, attributes.
    pub(crate) fn expect_change(&mut self) {
        self.own = true;
    }
}

/// Enough bits to tell one state of a file from the next.
fn mix(words: [u64; 3]) -> u32 {
    let fold = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    (words.into_iter().fold(0, fold) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, os::fd::AsFd, os::unix::fs::PermissionsExt, thread, time::Duration};

    use super::*;

    #[test]
    fn a_change_that_leaves_time_and_size_alone_is_shown_once_and_for_good() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let look = |seen: &mut Seen, file: &tempfile::NamedTempFile| {
            seen.look(&Found::of(file.as_file().as_fd(), true).unwrap())
        };
        let mut seen = Seen::default();
        assert_eq!((look(&mut seen, &file), look(&mut seen, &file)), (0, 0));
        // A change time is a few milliseconds coarse.
        let change = |mode| {
            thread::sleep(Duration::from_millis(20));
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        };
        change(0o640);
        assert_eq!((look(&mut seen, &file), look(&mut seen, &file)), (1, 1));
        change(0o600);
        assert_eq!(look(&mut seen, &file), 2);
        seen.expect_change();
        change(0o640);
        assert_eq!(look(&mut seen, &file), 2, "the guest's own");
        file.write_all(b"more").unwrap();
        assert_eq!(look(&mut seen, &file), 0, "size and time say it themselves");
    }
}
