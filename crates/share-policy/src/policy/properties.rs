use proptest::prelude::*;

use super::{
    tests::{KINDS, every_effect, path, read_write},
    *,
};
use crate::pattern_set::Verdict;

fn lines(pattern: &'static str) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(pattern, 0..5)
}

/// Few names, so that patterns and paths meet often.
const PATTERN: &str = "/?([ab]|\\*|a\\*|\\?b)(/([ab]|\\*|\\*\\*)){0,2}";
const ANY_PATTERN: &str = "!?/?([ab]|\\*|a\\*|\\?b)(/([ab]|\\*|\\*\\*)){0,2}";

fn some_path() -> impl Strategy<Value = RelPath> {
    prop::collection::vec("[abAc]{1,2}", 0..5).prop_map(|names| path(&names.join("/")))
}

fn policy_of(hidden: &[String], protected: &[String]) -> SharePolicy {
    let (hidden, protected) = (
        PatternSet::parse(hidden).unwrap(),
        PatternSet::parse(protected).unwrap(),
    );
    SharePolicy::new(Mode::ReadWrite, hidden, protected).unwrap()
}

fn any_path() -> impl Strategy<Value = RelPath> {
    prop::collection::vec(any::<u8>(), 0..60).prop_filter_map("a path", |text| RelPath::parse(&text).ok())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn adding_a_pattern_never_widens_access(
        hidden in lines(PATTERN), protected in lines(PATTERN), more in PATTERN, hide: bool,
        one in some_path(), other in some_path(),
    ) {
        let before = policy_of(&hidden, &protected);
        let (mut hidden, mut protected) = (hidden, protected);
        if hide { hidden.push(more) } else { protected.push(more) }
        let after = policy_of(&hidden, &protected);
        for effect in every_effect(&one, &other) {
            if after.decide(&effect).permits() {
                prop_assert!(before.decide(&effect).permits(), "{:?}", effect);
            }
        }
        prop_assert!(after.hides(&one) || !before.hides(&one));
    }

    #[test]
    fn a_plain_directory_and_a_name_that_cannot_leave_it_make_a_plain_path(
        hidden in lines(ANY_PATTERN), protected in lines(ANY_PATTERN), place in some_path(), name in "[abAc]{1,2}",
    ) {
        let policy = policy_of(&hidden, &protected);
        let below = place.join(name.as_bytes()).unwrap();
        if policy.standing(&place).is_plain() && !policy.may_leave_plain(name.as_bytes()) {
            // Not by `standing`, which takes the same short cut.
            for list in [&policy.hidden, &policy.protected] {
                prop_assert_eq!(list.judge(&below.components()), Verdict::default());
            }
        }
    }

    #[test]
    fn from_one_plain_place_to_another_a_directory_moves_without_a_walk(
        hidden in lines(ANY_PATTERN), protected in lines(ANY_PATTERN), from in some_path(), to in some_path(),
    ) {
        prop_assume!(!from.is_root() && !to.is_root());
        let policy = policy_of(&hidden, &protected);
        if policy.standing(&from).is_plain() && policy.standing(&to).is_plain() {
            prop_assert_eq!(policy.renames_reach_patterns(&from, &to), Reach::Nothing);
        }
    }

    #[test]
    fn a_name_that_no_pattern_ends_in_is_as_its_directory_is(
        hidden in lines(ANY_PATTERN), protected in lines(ANY_PATTERN), place in some_path(), name in "[abAc]{1,2}",
    ) {
        let policy = policy_of(&hidden, &protected);
        let below = place.join(name.as_bytes()).unwrap();
        if !policy.may_match_name(name.as_bytes()) {
            prop_assert_eq!(policy.hides(&below), policy.hides(&place));
            prop_assert_eq!(policy.protects(&below), policy.protects(&place));
        }
    }

    #[test]
    fn the_fast_forms_agree_with_the_slow_ones(
        hidden in lines(ANY_PATTERN), protected in lines(ANY_PATTERN), place in some_path(),
    ) {
        let policy = policy_of(&hidden, &protected);
        let components: Vec<&[u8]> = place.components().collect();
        prop_assert_eq!(policy.hides(&place), policy.hides_components(components.iter().copied()));
        prop_assert_eq!(policy.protects(&place), policy.protects_components(components));
        // And with the lists themselves: hidden is what has a covered directory above it.
        let ancestors = std::iter::successors(Some(place.clone()), RelPath::parent);
        let hides = ancestors.into_iter().any(|above| policy.hidden.covers(above.components()));
        prop_assert_eq!(policy.hides(&place), hides);
        prop_assert_eq!(policy.protects(&place), policy.protected.covers(place.components()));
    }

    #[test]
    fn a_move_that_reaches_no_pattern_is_allowed_for_everything_below(
        hidden in lines(ANY_PATTERN), protected in lines(ANY_PATTERN),
        from in some_path(), to in some_path(), below in some_path(),
    ) {
        prop_assume!(!below.is_root());
        let policy = policy_of(&hidden, &protected);
        // A directory that is hidden, or comes to be, is refused itself.
        prop_assume!(!policy.hides(&from) && !policy.hides(&to));
        let (mut old, mut new) = (from.clone(), to.clone());
        for name in below.components() {
            old.push(name).unwrap();
            new.push(name).unwrap();
        }
        if policy.renames_reach_patterns(&from, &to) == Reach::Nothing {
            for kind in KINDS {
                prop_assert_eq!(policy.verdict_for_moved(&old, &new, kind), Decision::Allow);
            }
        }
    }

    #[test]
    fn deciding_never_panics(one in any_path(), other in any_path()) {
        let policy = read_write();
        for effect in every_effect(&one, &other) {
            policy.decide(&effect);
        }
        policy.renames_reach_patterns(&one, &other);
        policy.verdict_for_moved(&one, &other, Kind::Symlink);
    }
}
