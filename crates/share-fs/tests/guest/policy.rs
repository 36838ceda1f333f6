//! Hidden and protected names, whichever way the guest comes.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use fuse::{
    Changes, Reply, TimeChange, Timestamp,
    testing::{self, Message},
};
use rustix::io::Errno;

use crate::{
    file_systems::{FileSystem, Kind, each_file_system},
    snapshot::{assert_same, unread},
    world::{EXCHANGE, LONG_ENOUGH, NO_REPLACE, O_TRUNC, S_IFREG, World, as_a_user, put},
};

const HOOK: &str = ".git/hooks/pre-commit";
const SECRET: &str = ".ssh/id_ed25519";

/// A project with what must not be seen or changed, at its top and deep in it.
fn project(base: &Path) -> World {
    let world = World::guarded(base);
    fill(&world.share);
    world
}

fn fill(share: &Path) {
    for top in ["", "a/b/c/"] {
        let put = |path: &str, text: &str| put(share.join(format!("{top}{path}")), text);
        put("file", "mine");
        put(".git/config", "config");
        put(HOOK, "hook");
        put(".vscode/tasks.json", "tasks");
        put(".bashrc", "rc");
        put(".idea/workspace.xml", "idea");
        put(SECRET, "secret");
        put(".git-credentials", "secret");
    }
}

const PROTECTED: [&str; 8] = [
    HOOK,
    ".vscode/tasks.json",
    ".bashrc",
    ".idea/workspace.xml",
    "a/b/c/.git/hooks/pre-commit",
    "a/b/c/.vscode/tasks.json",
    "a/b/c/.bashrc",
    "a/b/c/.idea/workspace.xml",
];
const HIDDEN: [&str; 4] = [".ssh", ".git-credentials", "a/b/c/.ssh", "a/b/c/.git-credentials"];

fn parent_of(world: &World, path: &str) -> (u64, Vec<u8>) {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    (world.find(parent).unwrap(), name.as_bytes().to_vec())
}

/// Whatever changes a file through its node.
fn changes_of(world: &World, node: u64) -> Vec<(&'static str, Message)> {
    let mine = world.find("file").unwrap();
    let one = |change: fn(&mut Changes)| {
        let mut changes = Changes::default();
        change(&mut changes);
        Message::setattr(node, &changes)
    };
    vec![
        ("write", Message::write(node, 0, b"guest")),
        ("append", Message::write_with(node, 0, b"guest", (0o2000, 0))),
        ("write from cache", Message::write_with(node, 0, b"guest", (0, 1))),
        ("truncate", one(|to| to.size = Some(0))),
        ("lengthen", one(|to| to.size = Some(1 << 20))),
        ("chmod", one(|to| to.permissions = Some(0o777))),
        ("chown", one(|to| to.uid = Some(1000))),
        (
            "utimens",
            one(|to| {
                to.modified = Some(TimeChange::To(Timestamp {
                    seconds: 1,
                    nanoseconds: 0,
                }));
            }),
        ),
        ("touch", one(|to| to.accessed = Some(TimeChange::Now))),
        ("fallocate", Message::fallocate(node, (0, 4096), 0)),
        ("punch", Message::fallocate(node, (0, 4096), 3)),
        ("zero", Message::fallocate(node, (0, 4096), 16)),
        ("copy into", Message::copy_file_range((mine, 0), (node, 0), 4)),
        ("setxattr", Message::setxattr(node, b"user.guest", b"x", 0)),
        ("removexattr", Message::removexattr(node, b"user.host")),
        ("link", Message::link(node, world.root, b"another-name")),
    ]
}

/// Whatever changes what a name means.
fn changes_at(world: &World, parent: u64, name: &[u8]) -> Vec<(&'static str, Message)> {
    let root = world.root;
    let mine = world.find("file").unwrap();
    vec![
        ("create over", Message::create(parent, name, O_TRUNC, 0o644)),
        ("create", Message::create(parent, name, 0, 0o644)),
        ("mknod", Message::mknod(parent, name, S_IFREG | 0o644)),
        ("mkdir", Message::mkdir(parent, name, 0o755)),
        ("symlink", Message::symlink(parent, name, b"file")),
        ("link", Message::link(mine, parent, name)),
        ("unlink", Message::unlink(parent, name)),
        ("rename over", Message::rename((root, b"file"), (parent, name))),
        (
            "rename without replacing",
            Message::rename2((root, b"file"), (parent, name), NO_REPLACE),
        ),
        ("rename away", Message::rename((parent, name), (root, b"moved"))),
        (
            "exchange",
            Message::rename2((root, b"file"), (parent, name), EXCHANGE),
        ),
        (
            "exchange the other way",
            Message::rename2((parent, name), (root, b"file"), EXCHANGE),
        ),
    ]
}

fn assert_refused(world: &World, messages: Vec<(&'static str, Message)>, path: &str) {
    let before = unread(&world.share);
    for (operation, message) in messages {
        let error = world.answer(&message).error();
        assert!(
            matches!(error, Some(Errno::ACCESS | Errno::NOENT)),
            "{operation} of {path} answers {error:?}"
        );
        assert_same(&before, &unread(&world.share), operation);
    }
}

#[test]
fn protected_files_are_read_and_not_changed_by_any_operation() {
    each_file_system(|base| {
        let world = project(base);
        for path in PROTECTED {
            let node = world.find(path).unwrap();
            assert!(world.read(node, 0, 100).is_ok());
            assert_eq!(
                world.attributes(node).unwrap().permissions & 0o222,
                0,
                "shown as not writable"
            );
            assert_refused(&world, changes_of(&world, node), path);
            let (parent, name) = parent_of(&world, path);
            assert_refused(&world, changes_at(&world, parent, &name), path);
        }
        assert!(world.server.file_system().status()[0].refused > 0);
    });
}

#[test]
fn hidden_names_are_not_there_and_cannot_come_to_be() {
    each_file_system(|base| {
        let world = project(base);
        for path in HIDDEN {
            let (parent, name) = parent_of(&world, path);
            assert_eq!(world.lookup(parent, &name), Err(Errno::NOENT));
            for plus in [false, true] {
                for size in [256, 64 << 10] {
                    let listed = world.list_from(parent, plus, 0, size).unwrap();
                    assert!(
                        listed.iter().all(|listed| listed.name != name),
                        "{path} is listed"
                    );
                }
            }
            assert_refused(&world, changes_at(&world, parent, &name), path);
        }
    });
}

#[test]
fn hidden_names_do_not_come_to_be_where_none_are() {
    each_file_system(|base| {
        let world = World::guarded(base);
        put(world.share.join("file"), "mine");
        put(world.share.join("dir/id_ed25519"), "mine");
        put(world.share.join("dir/config.json"), "mine");
        let root = world.root;
        for name in [&b".ssh"[..], b".SSH", b".Git-Credentials", b".netrc"] {
            assert_refused(&world, changes_at(&world, root, name), "absent");
            let moved = world.rename((root, b"dir"), (root, name));
            assert!(moved.is_err(), "{}", name.escape_ascii());
        }
        assert_eq!(
            world.rename((root, b"dir"), (root, b".docker")),
            Err(Errno::ACCESS)
        );
        assert_eq!(world.names(root), ["dir", "file"]);
    });
}

#[test]
fn protected_names_do_not_come_to_be_where_none_are() {
    each_file_system(|base| {
        let world = World::guarded(base);
        put(world.share.join("file"), "mine");
        put(world.share.join("x/y/file"), "mine");
        let deep = world.find("x/y").unwrap();
        let root = world.root;
        for parent in [root, deep] {
            for name in [&b".bashrc"[..], b".envrc", b".idea", b".BASHRC"] {
                assert_refused(&world, changes_at(&world, parent, name), "absent");
            }
            let git = world.mkdir(parent, b".git").unwrap();
            let hooks = world.mkdir(git, b"hooks").unwrap();
            assert_refused(&world, changes_at(&world, hooks, b"pre-commit"), "absent");
            assert!(world.create(git, b"config", 0, 0o644).is_ok());
            assert!(world.create(hooks, b"pre-commit.sample", 0, 0o644).is_ok());
            let renamed = world.rename((hooks, b"pre-commit.sample"), (hooks, b"pre-commit"));
            assert_eq!(renamed, Err(Errno::ACCESS));
        }
    });
}

#[test]
fn a_file_is_not_renamed_into_a_protected_place_by_way_of_its_directories() {
    each_file_system(|base| {
        let world = World::guarded(base);
        let root = world.root;
        // mkdir a; a/hooks/pre-commit; mv a .git
        put(world.share.join("a/hooks/pre-commit"), "guest");
        assert_eq!(world.rename((root, b"a"), (root, b".git")), Err(Errno::ACCESS));
        assert_eq!(world.rename((root, b"a"), (root, b"a.git")), Err(Errno::ACCESS));
        // mv a/hooks .git/hooks
        let git = world.mkdir(root, b".git").unwrap();
        let a = world.find("a").unwrap();
        assert_eq!(world.rename((a, b"hooks"), (git, b"hooks")), Err(Errno::ACCESS));
        let exchanged = world.done(&Message::rename2((root, b"a"), (root, b".git"), EXCHANGE));
        assert_eq!(exchanged, Err(Errno::ACCESS));
        let exchanged = world.done(&Message::rename2((root, b".git"), (root, b"a"), EXCHANGE));
        assert_eq!(exchanged, Err(Errno::ACCESS));
        // Empty it moves, and then takes no hooks.
        let hooks = world.find("a/hooks").unwrap();
        world.done(&Message::unlink(hooks, b"pre-commit")).unwrap();
        world.done(&Message::rmdir(root, b".git")).unwrap();
        assert_eq!(world.rename((root, b"a"), (root, b".git")), Ok(()));
        let made = world.create(hooks, b"pre-commit", 0, 0o755);
        assert_eq!(made, Err(Errno::ACCESS), "through the node known before");
        assert!(!world.share.join(HOOK).exists());
    });
}

#[test]
fn a_repository_is_not_moved_away_edited_and_moved_back() {
    each_file_system(|base| {
        let world = project(base);
        let root = world.root;
        let before = unread(&world.share);
        let a = world.find("a").unwrap();
        for (parent, name) in [
            (root, &b"git"[..]),
            (a, b"git"),
            (a, b".vscode"),
            (root, b".git2"),
        ] {
            assert_eq!(
                world.rename((root, b".git"), (parent, name)),
                Err(Errno::ACCESS),
                "{}",
                name.escape_ascii()
            );
        }
        let git = world.find(".git").unwrap();
        assert_eq!(
            world.rename((git, b"hooks"), (root, b"hooks")),
            Err(Errno::ACCESS)
        );
        assert_eq!(
            world.rename((root, b".idea"), (root, b"idea")),
            Err(Errno::ACCESS)
        );
        assert_same(&before, &unread(&world.share), "moves");
        // The whole project may move: what is in it stays what it was.
        let hook = world.find("a/b/c/.git/hooks/pre-commit").unwrap();
        assert_eq!(world.rename((root, b"a"), (root, b"moved")), Ok(()));
        assert_eq!(world.write(hook, 0, b"guest"), Err(Errno::ACCESS));
        let again = world.find("moved/b/c/.git/hooks/pre-commit").unwrap();
        assert_eq!(world.write(again, 0, b"guest"), Err(Errno::ACCESS));
        assert_eq!(world.find("moved/b/c/.ssh"), Err(Errno::NOENT));
    });
}

#[test]
fn a_symbolic_link_does_not_take_the_place_of_a_directory_on_the_way() {
    each_file_system(|base| {
        let world = World::guarded(base);
        let root = world.root;
        put(world.share.join("mine/hooks/pre-commit"), "guest");
        world.done(&Message::symlink(root, b"link", b"mine")).unwrap();
        let link = world.find("link").unwrap();
        for name in [&b".git"[..], b"x.git", b".vscode", b".claude"] {
            for message in [
                Message::symlink(root, name, b"mine"),
                Message::rename((root, b"link"), (root, name)),
                Message::link(link, root, name),
            ] {
                assert_eq!(world.answer(&message).error(), Some(Errno::ACCESS), "{message:?}");
            }
        }
        let git = world.mkdir(root, b".git").unwrap();
        assert_eq!(
            world.done(&Message::symlink(git, b"hooks", b"../mine/hooks")),
            Err(Errno::ACCESS)
        );
        let exchanged = world.done(&Message::rename2((root, b"link"), (root, b".git"), EXCHANGE));
        assert_eq!(exchanged, Err(Errno::ACCESS));
        // A directory that holds such a link does not become the way either.
        let d = world.mkdir(root, b"d").unwrap();
        world
            .done(&Message::symlink(d, b"hooks", b"../mine/hooks"))
            .unwrap();
        world.done(&Message::rmdir(root, b".git")).unwrap();
        assert_eq!(world.rename((root, b"d"), (root, b".git")), Err(Errno::ACCESS));
    });
}

/// The host linked a protected file to a name that is not.
fn hard_linked(base: &Path) -> World {
    let world = project(base);
    for (number, path) in PROTECTED.into_iter().enumerate() {
        let name = format!("linked{number}");
        fs::hard_link(world.share.join(path), world.share.join(name)).unwrap();
    }
    world
}

#[test]
fn a_protected_file_is_not_changed_through_another_name_of_the_hosts() {
    each_file_system(|base| {
        let world = hard_linked(base);
        for number in 0..PROTECTED.len() {
            let path = format!("linked{number}");
            let node = world.find(&path).unwrap();
            assert_refused(&world, changes_of(&world, node), &path);
        }
    });
}

#[test]
fn a_protected_file_is_not_emptied_by_creating_another_name_of_it() {
    each_file_system(|base| {
        let world = hard_linked(base);
        for number in 0..PROTECTED.len() {
            let name = format!("linked{number}");
            let text = world.host_text(&name);
            let _ = world.create(world.root, name.as_bytes(), O_TRUNC, 0o644);
            assert_eq!(world.host_text(&name), text, "{name} is emptied");
        }
    });
}

#[test]
fn a_protected_file_that_is_linked_while_the_guest_has_its_other_name_is_protected() {
    each_file_system(|base| {
        let world = project(base);
        put(world.share.join("build"), "guest's");
        let node = world.find("build").unwrap();
        world.write(node, 0, b"guest's").unwrap();
        fs::hard_link(
            world.share.join("build"),
            world.share.join(".git/hooks/post-commit"),
        )
        .unwrap();
        // Its attributes say that it has two names now.
        let node = world.find("build").unwrap();
        assert_eq!(world.attributes(node).unwrap().links, 2);
        assert_eq!(world.write(node, 0, b"GUEST'S"), Err(Errno::ACCESS));
    });
}

#[test]
fn a_protected_file_linked_after_the_guest_asked_about_another_is_protected() {
    each_file_system(|base| {
        let world = hard_linked(base);
        let first = world.find("linked0").unwrap();
        assert_eq!(world.write(first, 0, b"guest"), Err(Errno::ACCESS));
        put(world.share.join(".git/hooks/post-commit"), "later");
        fs::hard_link(
            world.share.join(".git/hooks/post-commit"),
            world.share.join("later"),
        )
        .unwrap();
        let later = world.find("later").unwrap();
        assert_eq!(world.write(later, 0, b"guest"), Err(Errno::ACCESS));
        assert_eq!(world.host_text("later"), "later");
    });
}

#[test]
fn a_protected_file_without_its_name_stays_protected() {
    each_file_system(|base| {
        let world = project(base);
        let hook = world.find(HOOK).unwrap();
        world.read(hook, 0, 10).unwrap();
        // The host replaces it and keeps the old one, as an upgrade does.
        let kept = world.share.join(".git/hooks/post-commit");
        fs::rename(world.share.join(HOOK), &kept).unwrap();
        put(world.share.join(HOOK), "newer");
        let newer = world.find(HOOK).unwrap();
        assert_ne!(newer, hook);
        // Something moves on the way, so that standings are worked out anew.
        let git = world.find(".git").unwrap();
        let made = world
            .mkdir(git, b"one")
            .and_then(|_| world.rename((git, b"one"), (git, b"two")));
        assert_eq!(made, Ok(()));
        assert!(world.write(hook, 0, b"guest").is_err());
        assert!(world.done(&Message::link(hook, world.root, b"x")).is_err());
        assert_eq!(fs::read_to_string(kept).unwrap(), "hook");
    });
}

#[test]
fn what_the_host_makes_later_is_protected_and_hidden_too() {
    each_file_system(|base| {
        let world = World::guarded(base);
        put(world.share.join("file"), "mine");
        assert_eq!(world.find(".git"), Err(Errno::NOENT));
        fill(&world.share);
        for path in PROTECTED {
            let node = world.find(path).unwrap();
            assert_refused(&world, changes_of(&world, node), path);
        }
        for path in HIDDEN {
            assert_eq!(world.find(path), Err(Errno::NOENT));
        }
    });
}

#[test]
fn a_directory_the_host_moves_into_place_takes_what_is_below_along() {
    each_file_system(|base| {
        let world = World::guarded(base);
        put(world.share.join("file"), "mine");
        put(world.share.join("new/hooks/pre-commit"), "hook");
        let hooks = world.find("new/hooks").unwrap();
        let hook = world.find("new/hooks/pre-commit").unwrap();
        fs::rename(world.share.join("new"), world.share.join(".git")).unwrap();
        thread::sleep(LONG_ENOUGH);
        // A guest that knows the nodes looks up no more than it must.
        world.find(".git").unwrap();
        assert!(world.write(hook, 0, b"guest").is_err());
        assert!(world.create(hooks, b"post-commit", 0, 0o755).is_err());
        assert_eq!(world.host_text(HOOK), "hook");
        assert!(!world.share.join(".git/hooks/post-commit").exists());
    });
}

/// Makes a chain of directories whose path is longer than any path may be, and returns the node of the last.
fn too_deep(world: &World) -> u64 {
    let name = vec![b'd'; 250];
    (0..17).fold(world.root, |parent, _| world.mkdir(parent, &name).unwrap())
}

#[test]
fn what_is_hidden_stays_hidden_deeper_than_a_path_reaches() {
    each_file_system(|base| {
        let world = project(base);
        let deep = too_deep(&world);
        if world.rename((world.root, b"a"), (deep, b"a")).is_err() {
            return;
        }
        let Ok(inner) = world
            .lookup(deep, b"a")
            .and_then(|a| world.lookup(a, b"b"))
            .and_then(|b| world.lookup(b, b"c"))
        else {
            return;
        };
        for plus in [true, false] {
            for listed in world.list(inner, plus).unwrap_or_default() {
                let name = listed.name.escape_ascii().to_string();
                assert!(
                    ![".ssh", ".git-credentials"].contains(&&*name),
                    "{name} is listed"
                );
                if let Some(fuse::Entry::Found { node, .. }) = listed.entry {
                    assert_ne!(world.read(node.0, 0, 100), Ok(b"secret".to_vec()), "{name}");
                }
            }
        }
    });
}

#[test]
fn what_is_protected_stays_protected_deeper_than_a_path_reaches() {
    each_file_system(|base| {
        let world = project(base);
        let deep = too_deep(&world);
        if world.rename((world.root, b"a"), (deep, b"a")).is_err() {
            return;
        }
        let inner = world
            .lookup(deep, b"a")
            .and_then(|a| world.lookup(a, b"b"))
            .and_then(|b| world.lookup(b, b"c"));
        if let Ok(inner) = inner {
            for listed in world.list(inner, true).unwrap_or_default() {
                if let Some(fuse::Entry::Found { node, .. }) = listed.entry {
                    let _ = change_below(&world, node.0, &listed.name);
                }
            }
        }
        world.rename((deep, b"a"), (world.root, b"a")).unwrap();
        for path in PROTECTED {
            let text = world.host_text(path);
            assert!(!text.contains("GUEST"), "{path} is {text}");
        }
        assert!(
            !world.share.join("a/b/c/.git/hooks/post-commit").exists(),
            "a new hook"
        );
    });
}

fn change_below(world: &World, node: u64, name: &[u8]) -> Reply<()> {
    if name == b".bashrc" {
        world.write(node, 0, b"GUEST")?;
    }
    if name == b".git" {
        let hooks = world.lookup(node, b"hooks")?;
        let _ = world.create(hooks, b"post-commit", 0, 0o755);
        let hook = world.lookup(hooks, b"pre-commit")?;
        world.write(hook, 0, b"GUEST")?;
    }
    Ok(())
}

#[test]
fn a_directory_that_cannot_be_looked_through_does_not_become_a_repository() {
    let base = tempfile::tempdir().unwrap();
    as_a_user(base.path(), |base| {
        for permissions in [0o000, 0o444, 0o111, 0o200] {
            let world = World::guarded(base);
            put(world.share.join("a/hooks/pre-commit"), "guest");
            let hooks = world.find("a/hooks").unwrap();
            world.chmod(hooks, permissions).unwrap();
            let moved = world.rename((world.root, b"a"), (world.root, b".git"));
            assert!(moved.is_err(), "hooks with {permissions:o} come to be");
        }
    });
}

#[test]
fn a_protected_file_with_two_names_is_found_in_a_directory_that_cannot_be_looked_through() {
    let base = tempfile::tempdir().unwrap();
    as_a_user(base.path(), |base| {
        let world = hard_linked(base);
        let hooks = world.find(".git/hooks").unwrap();
        let linked = world.find("linked0").unwrap();
        if world.chmod(hooks, 0).is_ok() {
            let _ = world.write(linked, 0, b"GUEST");
            let _ = world.chmod(hooks, 0o755);
        }
        assert_eq!(world.host_text(HOOK), "hook");
    });
}

const RACING: Duration = Duration::from_secs(3);

/// Two threads of the guest: one asks about `hooks` while the other makes a repository of what is around it.
#[test]
fn asking_about_a_directory_while_it_becomes_a_repository_frees_nothing() {
    let base = tempfile::tempdir().unwrap();
    let world = World::guarded(base.path());
    let root = world.root;
    let a = world.mkdir(root, b"a").unwrap();
    let hooks = world.mkdir(a, b"hooks").unwrap();
    let ended = AtomicBool::new(false);
    let mut made = 0;
    let mut rounds = 0;
    thread::scope(|scope| {
        for message in [Message::getattr(hooks), Message::lookup(a, b"hooks")] {
            let (world, ended) = (&world, &ended);
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    let _ = testing::ask(&world.server, &message);
                }
            });
        }
        let start = Instant::now();
        while start.elapsed() < RACING && made == 0 {
            rounds += 1;
            if world.rename((root, b"a"), (root, b".git")).is_err() {
                continue;
            }
            if world.create(hooks, b"pre-commit", 0, 0o755).is_ok() {
                made += 1;
                let _ = world.done(&Message::unlink(hooks, b"pre-commit"));
            }
            world.rename((root, b".git"), (root, b"a")).unwrap();
        }
        ended.store(true, Ordering::Relaxed);
    });
    println!("{rounds} rounds");
    assert_eq!(made, 0, "a hook was made in round {rounds}");
}

/// A number that is forgotten in the middle of a request that uses it, and given to a protected file: emptying a large
/// file takes long enough for that, and its permissions are changed after it.
#[test]
fn a_number_forgotten_during_a_request_does_not_lead_it_to_another_file() {
    // In memory, where a file is made quickly and emptied slowly.
    let made = FileSystem::make(Kind::Tmpfs).ok();
    let temporary = tempfile::tempdir().unwrap();
    let world = World::guarded(made.as_ref().map_or(temporary.path(), FileSystem::path));
    let large = vec![b'x'; 1 << 20];
    let ideas: Vec<String> = (0..16).map(|number| format!(".idea/{number}")).collect();
    for path in &ideas {
        put(world.share.join(path), "protected");
    }
    let idea = world.find(".idea").unwrap();
    let before = facts(&world.share.join(".idea"));
    let ended = AtomicBool::new(false);
    let mine = AtomicU64::new(0);
    let mut rounds = 0;
    thread::scope(|scope| {
        let (world, ended, mine) = (&world, &ended, &mine);
        scope.spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let node = mine.swap(0, Ordering::AcqRel);
                if node == 0 {
                    thread::yield_now();
                    continue;
                }
                // When it has been emptied, and not before: then the request is in the middle of what it does.
                let path = world.share.join("mine");
                while fs::metadata(&path).is_ok_and(|stat| stat.len() > 0) && !ended.load(Ordering::Relaxed) {
                }
                // Its number is free, and whatever is looked up next may get it.
                world.forget(node, u64::MAX);
                let known: Vec<_> = (0..16)
                    .filter_map(|number| world.lookup(idea, number.to_string().as_bytes()).ok())
                    .collect();
                for node in known {
                    world.forget(node, u64::MAX);
                }
            }
        });
        let start = Instant::now();
        while start.elapsed() < RACING && facts(&world.share.join(".idea")) == before {
            rounds += 1;
            fs::write(world.share.join("mine"), &large).unwrap();
            let Ok(node) = world.find("mine") else { continue };
            mine.store(node, Ordering::Release);
            let _ = world.change(
                node,
                &Changes {
                    size: Some(0),
                    permissions: Some(0o777),
                    modified: Some(TimeChange::To(Timestamp::default())),
                    ..Changes::default()
                },
            );
        }
        ended.store(true, Ordering::Relaxed);
    });
    println!("{rounds} rounds");
    assert_eq!(facts(&world.share.join(".idea")), before, "after {rounds} rounds");
}

/// What a guest may not change of the files in a directory.
fn facts(directory: &Path) -> BTreeMap<PathBuf, (u32, i64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let stat = entry.metadata().unwrap();
            (entry.path(), (stat.mode(), stat.mtime(), stat.len()))
        })
        .collect()
}

#[test]
fn links_of_the_hosts_on_the_way_show_their_text_only() {
    each_file_system(|base| {
        let world = World::guarded(base);
        put(world.share.join("store/hooks/pre-commit"), "hook");
        symlink("store", world.share.join(".git")).unwrap();
        let git = world.find(".git").unwrap();
        assert_eq!(world.lookup(git, b"hooks"), Err(Errno::NOTDIR));
        assert_eq!(world.ask(&Message::readlink(git)), Ok(b"store".to_vec()));
    });
}
