use std::fs;

use egress_policy::Effect;

use super::*;
use crate::Error;

fn sets(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(root.path().join(name), text).unwrap();
    }
    root
}

fn no_tools() -> Tools {
    Tools::with(&[], std::time::Duration::ZERO)
}

fn read(root: &tempfile::TempDir, name: &str) -> Result<Vec<String>> {
    let set = expand(root.path(), &no_tools(), &name.parse().unwrap(), Effect::Allow)?;
    Ok(set.rules.iter().map(ToString::to_string).collect())
}

fn error(files: &[(&str, &str)], name: &str) -> Error {
    read(&sets(files), name).unwrap_err()
}

#[test]
fn a_set_is_a_rule_a_line_with_what_is_for_people_left_out() {
    let root = sets(&[(
        "work",
        "# ours\n\n  example.com:443 # web\n*.example.com\r\n192.0.2.0/24\n",
    )]);
    assert_eq!(
        read(&root, "work").unwrap(),
        [
            "example.com:443 (@work)",
            "*.example.com (@work)",
            "192.0.2.0/24 (@work)"
        ]
    );
}

#[test]
fn a_set_has_all_that_the_sets_in_it_have_once() {
    let root = sets(&[
        ("a", "@b\n@c\na.test"),
        ("b", "b.test\n@d"),
        ("c", "@d"),
        ("d", "d.test"),
    ]);
    assert_eq!(
        read(&root, "a").unwrap(),
        ["b.test (@a)", "d.test (@a)", "a.test (@a)"]
    );
}

#[test]
fn a_set_that_includes_itself_is_an_error_that_shows_the_way() {
    let error = error(&[("a", "\n@b"), ("b", "b.test\n\n@a")], "a");
    let text = error.to_string();
    assert!(text.contains("/b:3: ") && text.contains("@a → @b → @a"), "{text}");
}

#[test]
fn a_rule_that_does_not_parse_is_told_with_file_line_and_character() {
    let error = error(&[("a", "good.test\n   exa mple.com")], "a");
    let text = error.to_string();
    // Counted in the line as it is in the file.
    assert!(text.contains("/a:2: ") && text.contains("character 7"), "{text}");
}

#[test]
fn a_set_that_is_not_there_is_told_with_those_that_are() {
    let error = error(&[("a", ""), ("b", ""), (".hidden", ""), ("Not", "")], "c");
    assert_eq!(error.to_string(), "no set of rules has this name: @c");
    let hint = error.hint().unwrap();
    assert!(
        hint.starts_with("there are: @a, @apt, @b, @cargo, @npm, @pip; "),
        "{hint}"
    );
    let text = self::error(&[("a", "@nothing")], "a").to_string();
    assert!(text.contains("/a:1: there is no set @nothing"), "{text}");
}

#[test]
fn the_name_of_a_set_is_never_a_way_to_another_file() {
    for bad in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\0",
        "A",
        "-a",
        "a b",
        "é",
        &"a".repeat(65),
    ] {
        assert!(bad.parse::<SetName>().is_err(), "{bad:?}");
    }
    let text = error(&[("a", "@../../etc/passwd")], "a").to_string();
    assert!(text.contains("/a:1: the name of a set"), "{text}");
}

#[test]
fn a_file_without_end_is_refused() {
    let rules: String = (0..5000).map(|n| format!("n{n}.test\n")).collect();
    let text = error(&[("a", &rules)], "a").to_string();
    assert!(text.contains("/a:4097: more than 4096 rules in @a"), "{text}");
    let comments = "#\n".repeat(200_000);
    assert!(error(&[("a", &comments)], "a").line().contains("longer than"));
    let line = error(&[("a", "\u{ff}\u{9b}31m")], "a").line();
    assert!(!line.contains('\u{9b}'), "{line}");
}
