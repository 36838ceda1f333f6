//! What the patterns of a share say of one path, and when nobody needs to ask them.

use crate::{
    glob::Glob,
    pattern_set::{PatternSet, Verdict},
    rule::Rule,
};

/// How a path stands with the patterns. Small enough to keep beside every known directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    hidden: bool,
    protected: bool,
    way: bool,
    touched: bool,
}

impl Standing {
    pub(crate) fn new(hidden: Verdict, protected: Verdict) -> Self {
        Standing {
            hidden: hidden.covers_on_the_way,
            protected: protected.covers,
            way: hidden.leads_to_more || protected.leads_to_more,
            touched: hidden.touches || protected.touches,
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

    /// None of these, and no pattern with `!` speaks of it either: what lies below it stands as if it were the
    /// share's root, and as it would in any other plain directory. See
    /// [`SharePolicy::may_leave_plain`](crate::SharePolicy::may_leave_plain).
    pub fn is_plain(self) -> bool {
        !self.touched
    }
}

/// The first components of all patterns: a path without any of them is plain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Starts {
    /// By what names that match begin with, in order.
    fixed: Vec<([u8; 2], Glob)>,
    /// Those that begin with a wildcard, or are a single byte.
    open: Vec<Glob>,
}

impl Starts {
    pub(crate) fn of(sets: [&PatternSet; 2]) -> Self {
        let mut starts = Starts::default();
        let rules = sets.into_iter().flat_map(PatternSet::rules);
        for glob in rules.filter_map(Rule::first) {
            starts.add(glob);
        }
        starts.fixed.sort_by_key(|(prefix, _)| *prefix);
        starts
    }

    fn add(&mut self, glob: &Glob) {
        match glob.prefix() {
            Some(_) if self.fixed.iter().any(|(_, known)| known == glob) => {}
            Some(prefix) => self.fixed.push((prefix, glob.clone())),
            None if self.open.contains(glob) => {}
            None => self.open.push(glob.clone()),
        }
    }

    pub(crate) fn may_begin_with(&self, name: &[u8]) -> bool {
        self.candidates(name).iter().any(|(_, glob)| glob.matches(name))
            || self.open.iter().any(|glob| glob.matches(name))
    }

    fn candidates(&self, name: &[u8]) -> &[([u8; 2], Glob)] {
        match name.first_chunk::<2>() {
            Some(front) if front.is_ascii() => {
                let front = front.map(|byte| byte.to_ascii_lowercase());
                let from = self.fixed.partition_point(|(prefix, _)| *prefix < front);
                let rest = self.fixed.get(from..).unwrap_or(&[]);
                let len = rest.partition_point(|(prefix, _)| *prefix == front);
                rest.get(..len).unwrap_or(&[])
            }
            // It may fold into anything.
            _ => &self.fixed,
        }
    }
}
