//! What the patterns of a share say of one path, and when nobody needs to ask them.

use crate::{
    glob::Glob,
    pattern_set::{PatternSet, Verdict},
};

/// How a path stands with the patterns. Small enough to keep beside every known directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    hidden: bool,
    protected: bool,
    way: bool,
}

impl Standing {
    pub(crate) fn new(hidden: Verdict, protected: Verdict) -> Self {
        Standing {
            hidden: hidden.covers_on_the_way,
            protected: protected.covers,
            way: hidden.leads_to_more || protected.leads_to_more,
        }
    }

    /// The guest does not see it, or does not see a directory above it.
    pub fn is_hidden(self) -> bool {
        self.hidden
    }

    /// The guest may not change it.
    pub fn is_protected(self) -> bool {
        self.protected
    }

    /// A directory of this path is on the way to something that a pattern can match: `.git`, `.git/hooks`, `.vscode`.
    pub fn is_way(self) -> bool {
        self.way
    }

    /// None of these: what lies below it stands as if it were the share's root. See
    /// [`SharePolicy::may_leave_plain`](crate::SharePolicy::may_leave_plain).
    pub fn is_plain(self) -> bool {
        self == Standing::default()
    }
}

/// The first components of all patterns: a path without any of them is plain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Starts {
    /// Bit `b`: one of `fixed` begins with the ASCII byte `b`. Turns down nearly every name in a project at once.
    first_bytes: u128,
    fixed: Vec<Glob>,
    /// Those that begin with a wildcard or with something other than ASCII.
    open: Vec<Glob>,
}

impl Starts {
    pub(crate) fn of(sets: [&PatternSet; 2]) -> Self {
        let mut starts = Starts::default();
        let rules = sets.into_iter().flat_map(PatternSet::rules);
        for glob in rules
            .filter(|rule| !rule.takes_back)
            .filter_map(|rule| rule.first())
        {
            starts.add(glob);
        }
        starts
    }

    fn add(&mut self, glob: &Glob) {
        let list = match glob.first_byte() {
            Some(byte) if byte.is_ascii() => {
                self.first_bytes |= 1 << byte;
                &mut self.fixed
            }
            _ => &mut self.open,
        };
        if !list.contains(glob) {
            list.push(glob.clone());
        }
    }

    pub(crate) fn may_begin_with(&self, name: &[u8]) -> bool {
        let matches = |glob: &Glob| glob.matches(name);
        (self.may_be_fixed(name) && self.fixed.iter().any(matches)) || self.open.iter().any(matches)
    }

    fn may_be_fixed(&self, name: &[u8]) -> bool {
        match name.first() {
            // A name that does not begin with ASCII may still fold into one that does.
            Some(byte) if byte.is_ascii() => self.first_bytes & (1 << byte.to_ascii_lowercase()) != 0,
            _ => true,
        }
    }
}
