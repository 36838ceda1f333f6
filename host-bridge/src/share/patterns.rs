//! The lists of a folder: the default ones, then what was said, of which the last that matches decides.

use share_policy::{DEFAULT_HIDDEN, DEFAULT_PROTECTED, PatternSet};

pub(super) fn hidden(changes: &[String]) -> Vec<String> {
    list(DEFAULT_HIDDEN, changes)
}

pub(super) fn protected(changes: &[String]) -> Vec<String> {
    list(DEFAULT_PROTECTED, changes)
}

fn list(defaults: &[&str], changes: &[String]) -> Vec<String> {
    let says_something = |line: &&&str| !line.starts_with('#') && !line.trim().is_empty();
    let defaults = defaults
        .iter()
        .filter(says_something)
        .map(|line| (*line).to_owned());
    defaults.chain(changes.iter().cloned()).collect()
}

/// Whether the machine will take the list.
pub(super) fn check(patterns: &[String]) -> Result<(), String> {
    // To a list these are comments, and what was meant to be closed would stay open.
    if let Some(pattern) = patterns.iter().find(|pattern| pattern.starts_with('#')) {
        return Err(format!(
            r"pattern {pattern:?} begins with #; write \# if it is meant"
        ));
    }
    PatternSet::parse(patterns)
        .map(drop)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_lists_with_nothing_said_are_lists_the_machine_takes() {
        for list in [hidden(&[]), protected(&[])] {
            assert!(!list.is_empty() && list.len() <= vmm_api::MAX_PATTERNS);
            assert!(list.iter().all(|pattern| pattern.len() <= vmm_api::MAX_PATTERN));
            check(&list).unwrap();
        }
    }

    #[test]
    fn what_was_said_comes_after_the_defaults_and_so_decides() {
        let set = PatternSet::parse(hidden(&["*.key".into(), "!.ssh".into()])).unwrap();
        let covers = |path: &str| set.covers(path.split('/').map(str::as_bytes));
        assert!(covers("a/b.key") && covers(".gnupg/x"));
        assert!(!covers("a/.ssh") && !covers("a"));
    }

    #[test]
    fn a_pattern_that_says_nothing_or_is_none_is_told() {
        for bad in ["#x", "a[", "{a", " a"] {
            assert!(check(&hidden(&[bad.to_owned()])).is_err(), "{bad:?}");
        }
        assert!(check(&vec!["a".to_owned(); vmm_api::MAX_PATTERNS + 1]).is_err());
    }
}
