//! A list of patterns, held against paths.

use crate::{
    defaults::OTHER_NAMES,
    pattern::{self, PatternError},
    rule::Rule,
};

/// Patterns of one list, as many as in vmm-api.
pub const MAX_PATTERNS: usize = 256;
/// What the patterns of one list come to with their braces written out. Everything that leads to something
/// protected is held against all of them.
pub const MAX_RULES: usize = 1024;

/// A list of patterns in which the last one that matches a path, or a directory above it, decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatternSet {
    rules: Vec<Rule>,
}

/// What a list says of one path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The path itself.
    pub(crate) covers: bool,
    /// The path, or a directory above it; for a list without `!` the same as `covers`.
    pub(crate) covers_on_the_way: bool,
    /// The path is a directory on the way to something that a pattern can match.
    pub(crate) leads_to_more: bool,
    /// Some pattern, be it one with `!`, matches the path or the beginning of it: what is below may stand otherwise
    /// than it would elsewhere.
    pub(crate) touches: bool,
}

impl PatternSet {
    /// One pattern a line; the module `pattern` says what one looks like. Blank lines and those that start with `#`
    /// say nothing.
    pub fn parse<I>(lines: I) -> Result<Self, PatternError>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let mut set = PatternSet::default();
        let mut patterns = 0;
        for line in lines {
            let line = line.as_ref();
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            patterns += 1;
            if patterns > MAX_PATTERNS {
                return Err(PatternError::TooManyPatterns);
            }
            set.rules.extend(pattern::parse(line)?);
        }
        if set.rules.len() > MAX_RULES {
            return Err(PatternError::TooManyRules);
        }
        Ok(set)
    }

    /// Whether the list covers the path with these components, from the share's root down.
    pub fn covers<'a>(&self, components: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>) -> bool {
        self.judge(&components.into_iter()).covers
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// With the names that a person cannot mean, whatever else the list says.
    pub(crate) fn and_other_names(mut self) -> Self {
        let others = PatternSet::parse(OTHER_NAMES).unwrap_or_default();
        self.rules.extend(others.rules);
        self
    }

    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    pub(crate) fn judge<'a>(&self, components: &(impl Iterator<Item = &'a [u8]> + Clone)) -> Verdict {
        let mut verdict = Verdict::default();
        // From the last rule on: each one decides for the depths at which no later one has matched yet.
        let mut decided_from = usize::MAX;
        for rule in self.rules.iter().rev() {
            let progress = rule.follow(components.clone());
            verdict.leads_to_more |= !rule.takes_back && progress.is_under_way();
            verdict.touches |= progress.is_under_way() || progress.is_covered();
            let Some(depth) = progress.covered_at() else {
                continue;
            };
            if depth < decided_from {
                verdict.covers_on_the_way |= !rule.takes_back;
                verdict.covers |= decided_from == usize::MAX && !rule.takes_back;
                decided_from = depth;
            }
        }
        verdict
    }

    /// Whether the list says the same of everything below two directories.
    pub(crate) fn goes_on_alike<'a>(
        &self,
        one: &(impl Iterator<Item = &'a [u8]> + Clone),
        other: &(impl Iterator<Item = &'a [u8]> + Clone),
    ) -> bool {
        self.rules
            .iter()
            .all(|rule| rule.follow(one.clone()).goes_on_like(rule.follow(other.clone())))
    }
}

#[cfg(test)]
mod tests;
