use super::*;
use crate::{DEFAULT_HIDDEN, DEFAULT_PROTECTED, EffectClass};

pub(super) const KINDS: [Kind; 3] = [Kind::File, Kind::Directory, Kind::Symlink];

fn with_defaults(mode: Mode) -> SharePolicy {
    let hidden = PatternSet::parse(DEFAULT_HIDDEN).unwrap();
    let protected = PatternSet::parse(DEFAULT_PROTECTED).unwrap();
    SharePolicy::new(mode, hidden, protected).unwrap()
}

pub(super) fn read_write() -> SharePolicy {
    with_defaults(Mode::ReadWrite)
}

pub(super) fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

/// One effect of every class, and every variant of it that could make a difference.
pub(super) fn every_effect<'a>(path: &'a RelPath, other: &'a RelPath) -> Vec<Effect<'a>> {
    let mut effects = vec![
        Effect::Write {
            path,
            overwrites: true,
        },
        Effect::Write {
            path,
            overwrites: false,
        },
        Effect::Truncate { path, discards: true },
        Effect::Truncate {
            path,
            discards: false,
        },
        Effect::Delete { path },
        Effect::RemoveDirectory { path },
        Effect::RenameOut { path },
        Effect::Symlink { path },
        Effect::Mode { path },
        Effect::Time { path },
        Effect::Xattr { path },
    ];
    for kind in KINDS {
        effects.push(Effect::Create { path, kind });
        effects.push(Effect::RenameOver { path, kind });
        effects.push(Effect::Link {
            from: path,
            to: other,
            kind,
        });
        effects.push(Effect::Link {
            from: other,
            to: path,
            kind,
        });
    }
    effects
}

#[test]
fn the_effects_of_these_tests_are_all_there_are() {
    let (one, other) = (path("a"), path("b"));
    for class in EffectClass::ALL {
        assert!(
            every_effect(&one, &other)
                .iter()
                .any(|effect| effect.class() == class),
            "{class:?}"
        );
    }
}

#[test]
fn a_read_only_share_refuses_truncate() {
    let file = path("src/main.rs");
    let truncate = Effect::Truncate {
        path: &file,
        discards: true,
    };
    assert_eq!(
        with_defaults(Mode::ReadOnly).decide(&truncate),
        Decision::Deny(Refusal::ReadOnly)
    );
}

#[test]
fn a_read_only_share_refuses_every_effect_on_anything_with_the_same_answer() {
    let policy = with_defaults(Mode::ReadOnly);
    for text in ["", "a", ".ssh/id", ".envrc", ".git", ".git/hooks/pre-commit"] {
        let (one, other) = (path(text), path("free"));
        for effect in every_effect(&one, &other) {
            assert_eq!(
                policy.decide(&effect),
                Decision::Deny(Refusal::ReadOnly),
                "{effect:?}"
            );
        }
        assert_eq!(
            policy.verdict_for_moved(&one, &other, Kind::File),
            Decision::Deny(Refusal::ReadOnly)
        );
    }
}

#[test]
fn a_read_write_share_allows_every_effect_on_the_work_itself() {
    let (one, other) = (path("src/main.rs"), path("docs/x"));
    for effect in every_effect(&one, &other) {
        assert_eq!(read_write().decide(&effect), Decision::Allow, "{effect:?}");
    }
}

#[test]
fn a_share_for_review_says_that_it_is_not_there_yet() {
    let error = SharePolicy::new(Mode::Review, PatternSet::default(), PatternSet::default()).unwrap_err();
    assert!(error.to_string().contains("later version"));
}

#[test]
fn no_effect_reaches_what_is_protected() {
    let other = path("free");
    for text in [
        ".envrc",
        "x/.git/hooks/pre-commit",
        ".claude/settings.json",
        ".idea/x",
    ] {
        let protected = path(text);
        for effect in every_effect(&protected, &other) {
            assert_eq!(
                read_write().decide(&effect),
                Decision::Deny(Refusal::Protected),
                "{effect:?}"
            );
        }
    }
}

#[test]
fn what_is_hidden_is_not_there_and_cannot_come_to_be() {
    let (secret, free) = (path(".ssh/id"), path("free"));
    for effect in every_effect(&secret, &free) {
        let makes_a_name = match effect {
            Effect::Link { to, .. } => to == &secret,
            Effect::Create { .. } | Effect::RenameOver { .. } | Effect::Symlink { .. } => true,
            _ => false,
        };
        let expected = if makes_a_name {
            Decision::Deny(Refusal::Hidden)
        } else {
            Decision::Hide
        };
        assert_eq!(read_write().decide(&effect), expected, "{effect:?}");
    }
}

#[test]
fn a_protected_file_gets_no_second_name_through_which_it_could_be_written() {
    let (file, other) = (path(".envrc"), path("innocent"));
    let link = Effect::Link {
        from: &file,
        to: &other,
        kind: Kind::File,
    };
    assert_eq!(read_write().decide(&link), Decision::Deny(Refusal::Protected));
}

#[test]
fn a_symbolic_link_is_refused_on_the_way_to_something_protected() {
    let free = path("x");
    for text in [
        ".git",
        ".git/hooks",
        "a/.vscode",
        ".claude",
        ".git/modules",
        ".git/modules/a",
        ".docker",
        ".CONFIG",
    ] {
        let way = path(text);
        assert!(read_write().is_way_to_protected(&way), "{text}");
        let kind = Kind::Symlink;
        for effect in [
            Effect::Symlink { path: &way },
            Effect::Create { path: &way, kind },
            Effect::RenameOver { path: &way, kind },
            Effect::Link {
                from: &free,
                to: &way,
                kind,
            },
        ] {
            assert_eq!(
                read_write().decide(&effect),
                Decision::Deny(Refusal::WayToProtected),
                "{effect:?}"
            );
        }
        let directory = Effect::Create {
            path: &way,
            kind: Kind::Directory,
        };
        assert_eq!(read_write().decide(&directory), Decision::Allow);
    }
    for text in [
        "",
        "a",
        "a/b",
        "hooks",
        ".git/objects",
        ".github",
        ".vscode/extensions.json",
    ] {
        assert!(!read_write().is_way_to_protected(&path(text)), "{text}");
    }
}

#[test]
fn moving_a_directory_frees_no_hooks_and_makes_none() {
    let policy = read_write();
    for (from, to, below, refusal) in [
        (".git", "x", "hooks/pre-commit", Refusal::Protected),
        ("x", ".git", "hooks/pre-commit", Refusal::Protected),
        (".git/hooks", "x", "pre-commit", Refusal::Protected),
        ("a/hooks", "a/.git/hooks", "pre-commit", Refusal::Protected),
        ("x", ".git/modules/m", "hooks/post-checkout", Refusal::Protected),
        ("x", ".vscode", "tasks.json", Refusal::Protected),
        (".docker", "x", "config.json", Refusal::Hidden),
        ("x", ".docker", "config.json", Refusal::Hidden),
        ("x", "y.git", "hooks/update", Refusal::Protected),
    ] {
        let (from, to) = (path(from), path(to));
        assert_eq!(
            policy.renames_reach_patterns(&from, &to),
            Reach::Maybe,
            "{from:?} {to:?}"
        );
        let (mut old, mut new) = (from, to);
        for name in path(below).components() {
            old.push(name).unwrap();
            new.push(name).unwrap();
        }
        assert_eq!(
            policy.verdict_for_moved(&old, &new, Kind::File),
            Decision::Deny(refusal),
            "{old:?}"
        );
    }
}

#[test]
fn a_symbolic_link_does_not_come_to_the_way_inside_a_directory_that_moves() {
    let policy = read_write();
    let (old, new) = (path("x/hooks"), path(".git/hooks"));
    assert_eq!(
        policy.renames_reach_patterns(&path("x"), &path(".git")),
        Reach::Maybe
    );
    assert_eq!(
        policy.verdict_for_moved(&old, &new, Kind::Symlink),
        Decision::Deny(Refusal::WayToProtected)
    );
    assert_eq!(
        policy.verdict_for_moved(&old, &new, Kind::Directory),
        Decision::Allow
    );
}

#[test]
fn a_directory_that_stays_as_protected_as_it_was_moves_without_a_walk() {
    for (from, to) in [
        ("project", "archive/other"),
        ("node_modules/.x-abc", "node_modules/x"),
        (".git", "sub/.git"),
        (".git/refs/heads/a", "b"),
    ] {
        assert_eq!(
            read_write().renames_reach_patterns(&path(from), &path(to)),
            Reach::Nothing,
            "{from}"
        );
    }
    // Where git itself takes the repository of a submodule: a walk, and hooks stay hooks.
    let (from, to) = (path("sub/.git"), path(".git/modules/sub"));
    assert_eq!(read_write().renames_reach_patterns(&from, &to), Reach::Maybe);
    let hook = b"hooks/post-checkout".split(|byte| *byte == b'/');
    let (mut old, mut new) = (from, to);
    for name in hook {
        old.push(name).unwrap();
        new.push(name).unwrap();
    }
    assert_eq!(
        read_write().verdict_for_moved(&old, &new, Kind::File),
        Decision::Allow
    );
}

#[test]
fn what_a_person_took_back_does_not_move_to_where_it_is_protected() {
    let protected = PatternSet::parse([".envrc", "!vendor"]).unwrap();
    let policy = SharePolicy::new(Mode::ReadWrite, PatternSet::default(), protected).unwrap();
    let (old, new) = (path("vendor/.envrc"), path("x/.envrc"));
    assert!(!policy.standing(&path("vendor")).is_plain());
    assert_eq!(
        policy.renames_reach_patterns(&path("vendor"), &path("x")),
        Reach::Maybe
    );
    assert_eq!(
        policy.verdict_for_moved(&old, &new, Kind::File),
        Decision::Deny(Refusal::Protected)
    );
}

#[test]
fn only_what_is_allowed_at_once_is_permitted() {
    assert!(Decision::Allow.permits());
    for decision in [
        Decision::Ask,
        Decision::AllowWithUndo,
        Decision::Hide,
        Decision::Deny(Refusal::ReadOnly),
    ] {
        assert!(!decision.permits(), "{decision:?}");
    }
}

#[test]
fn the_name_alone_tells_when_no_pattern_ends_in_a_wildcard() {
    let protected = PatternSet::parse([".vscode/tasks.json", ".envrc"]).unwrap();
    let policy = SharePolicy::new(Mode::ReadWrite, PatternSet::default(), protected).unwrap();
    assert!(policy.may_match_name(b"TASKS.json"));
    assert!(!policy.may_match_name(b"main.rs"));
    assert!(!policy.may_match_name(b".vscode"), "on the way, and nothing more");
    assert!(read_write().may_match_name(b"main.rs"), "it may be a hook");
}

#[test]
fn other_names_are_hidden_where_there_are_some_and_only_they() {
    let policy = with_defaults(Mode::ReadWrite).without_other_names();
    let hidden = |name: &str| policy.hides(&RelPath::parse(name.as_bytes()).unwrap());
    for name in [
        "SSH~1",
        "ssh~1",
        "GIT-CR~1",
        "d/VSCODE~1",
        "SETTIN~1.JSO",
        "AB12~34.x",
        ".ssh.",
        ".ssh..",
    ] {
        assert!(hidden(name), "{name}");
    }
    for name in [
        "file~",
        "a-long-name~1",
        "notes.txt.~1~",
        "x~y",
        "1.0~1.debian",
        "~1",
    ] {
        assert!(!hidden(name), "{name}");
    }
    // Who hides and protects nothing has every name.
    let open = SharePolicy::new(Mode::ReadWrite, PatternSet::default(), PatternSet::default()).unwrap();
    assert!(
        !open
            .without_other_names()
            .hides(&RelPath::parse(b"SSH~1").unwrap())
    );
}
