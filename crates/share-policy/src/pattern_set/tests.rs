use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn set(lines: &[&str]) -> PatternSet {
    PatternSet::parse(lines).unwrap()
}

fn parts(path: &str) -> Vec<&[u8]> {
    path.split('/')
        .filter(|part| !part.is_empty())
        .map(str::as_bytes)
        .collect()
}

fn covers(set: &PatternSet, path: &str) -> bool {
    set.covers(parts(path))
}

/// Columns: pattern, paths it covers, paths it does not.
#[test]
fn a_pattern_covers_what_it_says() {
    for (pattern, covered, free) in [
        (
            ".envrc",
            ".envrc a/b/.envrc a/.ENVRC/b",
            "a/envrc .envrc2 x.envrc",
        ),
        ("/build", "build build/a", "a/build builds"),
        (
            ".git/hooks/*",
            ".git/hooks/x a/.git/hooks/x .git/hooks/x/y",
            ".git/hooks .git x/hooks/x",
        ),
        ("a/**/b", "a/b a/x/b a/x/y/b z/a/b/c", "a b a/x ab"),
        ("/a/**/b", "a/b a/x/b", "z/a/b"),
        ("*.log", "x.log .log a/x.log", "x.logs log"),
        ("?", "a a/x", "ab/cd"),
        ("[a-c]x", "ax BX z/cx", "dx x aax"),
        ("[!a-c]x", "dx _x", "ax Cx x"),
        ("[\\]x-]", "] x -", "a"),
        ("{a,b/c,d*}", "a b/c dd x/b/c", "b c"),
        ("x{,y}z", "xz xyz", "xyyz"),
        ("a\\*b", "a*b", "axb"),
        ("\\!a", "!a", "a"),
        ("\\#a", "#a", "a"),
        ("größe", "grösse GRößE", "größ"),
        (".ssh", ".\u{df}h .s\u{200d}sh", ".sh"),
        ("a/**", "a/b a/b/c", "a"),
        ("**", "a a/b", ""),
    ] {
        let set = set(&[pattern]);
        for path in covered.split(' ') {
            assert!(covers(&set, path), "{pattern:?} covers {path:?}");
        }
        for path in free.split(' ') {
            assert!(!covers(&set, path), "{pattern:?} leaves {path:?}");
        }
    }
    assert!(covers(&set(&["a\\ "]), "a "));
}

#[test]
fn an_exclamation_mark_takes_back_what_came_before_it_and_only_that() {
    let list = set(&[".idea", "!.idea/misc.xml", "!vendor", ".idea/misc.xml/again"]);
    assert!(covers(&list, ".idea/x"));
    assert!(!covers(&list, ".idea/misc.xml"));
    assert!(covers(&list, ".idea/misc.xml/again"));
    assert!(
        !covers(&list, "vendor/.idea/x"),
        "a directory taken back takes back what is below it"
    );
    assert!(covers(&set(&["!a", "a"]), "a"));
}

#[test]
fn blank_lines_and_comments_say_nothing() {
    let list = set(&["", "   ", "# .ssh", "a"]);
    assert_eq!(list, set(&["a"]));
    assert_eq!(
        PatternSet::parse(Vec::<String>::new()).unwrap(),
        PatternSet::default()
    );
}

#[test]
fn a_list_has_an_end() {
    let many = vec!["a"; MAX_PATTERNS + 1];
    assert_eq!(PatternSet::parse(&many), Err(PatternError::TooManyPatterns));
    let wide = vec!["{a,b}{c,d}{e,f}{g,h}{i,j}{k,l}"; MAX_RULES / 64 + 1];
    assert_eq!(PatternSet::parse(&wide), Err(PatternError::TooManyRules));
}

#[test]
fn a_pattern_made_to_explode_does_not() {
    let stars = format!("{}b", "*a".repeat(200));
    let deep = format!("/{}/b", vec!["**/a*a*a"; 15].join("/"));
    let list = set(&[&stars, &deep, "*a*a*a*a*b", "?*?*?*?*?*?*b"]);
    let name = [b'a'; 255];
    let path = vec![name.as_slice(); 16];
    let start = Instant::now();
    assert!(!list.covers(path.iter().copied()));
    // Milliseconds even unoptimised; exponential would be longer than the universe has been.
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// Another matcher, as plain as can be, to hold ours against. Knows no braces, brackets and backslashes.
mod plain {
    pub(super) fn covers(lines: &[String], path: &[&str]) -> bool {
        let mut covered = false;
        for line in lines {
            let (back, pattern) = match line.strip_prefix('!') {
                Some(pattern) => (true, pattern),
                None => (false, line.as_str()),
            };
            if (1..=path.len()).any(|end| one(pattern, &path[..end])) {
                covered = !back;
            }
        }
        covered
    }

    fn one(pattern: &str, path: &[&str]) -> bool {
        let mut steps: Vec<&str> = pattern.trim_start_matches('/').split('/').collect();
        if steps.last() == Some(&"**") {
            steps.push("*");
        }
        let starts = if pattern.starts_with('/') {
            0..=0
        } else {
            0..=path.len()
        };
        starts
            .into_iter()
            .any(|start| steps_match(&steps, &path[start..]))
    }

    fn steps_match(steps: &[&str], path: &[&str]) -> bool {
        match (steps.split_first(), path.split_first()) {
            (None, None) => true,
            (Some((&"**", rest)), _) => {
                steps_match(rest, path) || (!path.is_empty() && steps_match(steps, &path[1..]))
            }
            (Some((step, steps)), Some((name, path))) => {
                name_matches(step.as_bytes(), name.to_lowercase().as_bytes()) && steps_match(steps, path)
            }
            _ => false,
        }
    }

    fn name_matches(glob: &[u8], name: &[u8]) -> bool {
        match (glob.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                name_matches(rest, name) || (!name.is_empty() && name_matches(glob, &name[1..]))
            }
            (Some((b'?', glob)), Some((_, name))) => name_matches(glob, name),
            (Some((byte, glob)), Some((own, name))) => byte == own && name_matches(glob, name),
            _ => false,
        }
    }
}

fn refs(path: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> + Clone {
    path.iter().map(Vec::as_slice)
}

fn line() -> impl Strategy<Value = String> {
    (
        "(!?)(/?)",
        prop::collection::vec("[ab?*]|a[b*]|[*]b|[*][*]|b[?]", 1..4),
    )
        .prop_map(|(lead, steps)| lead + &steps.join("/"))
}

fn lines() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(line(), 0..6)
}

fn path() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[abAc]{1,3}", 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_list_agrees_with_the_plain_matcher(lines in lines(), path in path()) {
        let ours = PatternSet::parse(&lines).unwrap();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let expected = plain::covers(&lines, &path);
        prop_assert_eq!(ours.covers(path.iter().map(|name| name.as_bytes())), expected);
    }

    #[test]
    fn lists_that_go_on_alike_say_the_same_of_whatever_is_below(
        lines in lines(), one in path(), other in path(), below in path(),
    ) {
        let list = PatternSet::parse(&lines).unwrap();
        let bytes = |path: &[String]| path.iter().map(|name| name.clone().into_bytes()).collect::<Vec<_>>();
        let (one, other, below) = (bytes(&one), bytes(&other), bytes(&below));
        prop_assume!(!below.is_empty());
        if list.goes_on_alike(&refs(&one), &refs(&other)) {
            prop_assert_eq!(
                list.covers(refs(&[one, below.clone()].concat())),
                list.covers(refs(&[other, below].concat()))
            );
        }
    }

    #[test]
    fn parsing_never_panics(text in ".{0,80}", odd in "[*?!/\\[\\]{},\\\\a.-]{0,40}") {
        for text in [text, odd] {
            if let Ok(list) = PatternSet::parse([&text]) {
                list.covers([b"a".as_slice(), b"\xff", b""]);
            }
        }
    }
}
