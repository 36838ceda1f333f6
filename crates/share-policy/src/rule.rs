//! One pattern without alternatives, and how far a path has come in it.

use crate::glob::Glob;

/// Steps of one pattern, so that a set of them fits a word.
pub const MAX_STEPS: usize = 32;

/// ```text
///   .git/modules/**/hooks/*     floats: starts anywhere
///   /build                      does not: starts at the share's root
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// From a pattern with `!`.
    pub(crate) takes_back: bool,
    pub(crate) floats: bool,
    /// 1 to `MAX_STEPS`; the first and the last are names.
    pub(crate) steps: Box<[Step]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// `**`: any number of components.
    AnyDepth,
    Name(Glob),
}

/// A rule's progress along a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Bit `i`: the next component may match step `i`.
    next: u64,
    /// Components until the rule first matched: that directory and all below it are covered.
    covered_at: Option<usize>,
}

impl Progress {
    pub(crate) fn covered_at(self) -> Option<usize> {
        self.covered_at
    }

    pub(crate) fn is_covered(self) -> bool {
        self.covered_at.is_some()
    }

    /// The path leads to something the rule can match: it has matched the first step, and not yet the last.
    pub(crate) fn is_under_way(self) -> bool {
        !self.is_covered() && self.next & !1 != 0
    }

    /// Whatever lies below two paths of which this is true, the rule says the same of.
    pub(crate) fn goes_on_like(self, other: Progress) -> bool {
        match (self.is_covered(), other.is_covered()) {
            (true, true) => true,
            (false, false) => self.next == other.next,
            _ => false,
        }
    }
}

impl Rule {
    pub(crate) fn first(&self) -> Option<&Glob> {
        self.steps.first().and_then(Step::name)
    }

    pub(crate) fn last(&self) -> Option<&Glob> {
        self.steps.last().and_then(Step::name)
    }

    pub(crate) fn follow<'a>(&self, components: impl Iterator<Item = &'a [u8]>) -> Progress {
        let mut progress = Progress {
            next: 1,
            covered_at: None,
        };
        for (above, name) in components.enumerate() {
            progress.next = self.advance(progress.next, name);
            if progress.next & self.end() != 0 {
                progress.covered_at = Some(above + 1);
                break;
            }
            if progress.next == 0 {
                break;
            }
        }
        progress
    }

    fn advance(&self, current: u64, name: &[u8]) -> u64 {
        let mut next = u64::from(self.floats);
        let mut left = current;
        while left != 0 {
            let index = left.trailing_zeros();
            left &= left - 1;
            match self.steps.get(index as usize) {
                Some(Step::AnyDepth) => next |= self.reach(index),
                Some(Step::Name(glob)) if glob.matches(name) => next |= self.reach(index + 1),
                _ => {}
            }
        }
        next
    }

    /// The step, and the one behind it if the step is content with no component at all. Two `**` never follow each
    /// other: the parser has seen to it.
    fn reach(&self, index: u32) -> u64 {
        match self.steps.get(index as usize) {
            Some(Step::AnyDepth) => 0b11 << index,
            _ => 1 << index,
        }
    }

    fn end(&self) -> u64 {
        1 << self.steps.len()
    }
}

impl Step {
    fn name(&self) -> Option<&Glob> {
        match self {
            Step::Name(glob) => Some(glob),
            Step::AnyDepth => None,
        }
    }
}
