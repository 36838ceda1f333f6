//! The host swaps a directory for a link to the outside or to `/`, over and over, while the guest works below it.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use fuse::{
    Changes, Entry, TimeChange, Timestamp,
    testing::{Answer, Message},
};
use rustix::fs::{CWD, RenameFlags};

use crate::{
    file_systems::{FileSystem, Kind},
    snapshot::{Snapshot, assert_same, snapshot},
    swaps::contains,
    world::{EXCHANGE, O_TRUNC, S_IFREG, World, put},
};

const CANARY: &str = "CANARY";
/// Shortened or lengthened by `COFFER_RACE_SECONDS`.
const SECONDS: u64 = 10;

fn duration() -> Duration {
    let seconds = std::env::var("COFFER_RACE_SECONDS");
    Duration::from_secs(seconds.ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS))
}

fn fill(tree: &Path, text: &str) {
    for name in ["f", "g", "h"] {
        put(tree.join(name), text);
    }
    put(tree.join("sub/f"), text);
    put(tree.join("sub/g"), text);
    fs::create_dir_all(tree.join("empty")).unwrap();
}

/// What lies outside, and may not show.
struct Outside {
    before: Snapshot,
    inodes: HashSet<u64>,
    /// The names in `/`, where inode numbers may be those of files in the share.
    above: HashSet<Vec<u8>>,
}

fn names_in_root() -> HashSet<Vec<u8>> {
    let entries = fs::read_dir("/").unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_encoded_bytes())
        .collect()
}

impl Outside {
    fn of(tree: &Path) -> Self {
        let before = snapshot(tree);
        Outside {
            inodes: before.values().map(|fact| fact.inode).collect(),
            before,
            above: names_in_root(),
        }
    }

    fn assert_unseen(&self, operation: &str, answer: &Answer) {
        if let Ok(body) = answer.result() {
            assert!(
                !contains(body, CANARY.as_bytes()),
                "{operation} shows what is outside"
            );
        }
        for listed in [false, true]
            .into_iter()
            .filter_map(|plus| answer.listing(plus).ok())
            .flatten()
        {
            assert!(
                !self.inodes.contains(&listed.inode) && !self.above.contains(&listed.name),
                "{operation} lists what is outside"
            );
        }
        let entry = answer
            .entry()
            .or_else(|_| answer.created().map(|(entry, _)| entry));
        let attributes = match entry {
            Ok(Entry::Found { attributes, .. }) => Some(attributes),
            _ => answer.attributes().ok(),
        };
        if let Some(attributes) = attributes {
            assert!(
                !self.inodes.contains(&attributes.inode),
                "{operation} finds what is outside"
            );
        }
    }
}

/// Swaps in one step, so that the name always means something.
fn exchange(one: &Path, other: &Path) {
    let _ = rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
}

/// Swaps in steps: moved away, a link there, the link gone, moved back.
fn move_and_link(directory: &Path, aside: &Path, target: &Path) {
    let _ = fs::rename(directory, aside);
    let _ = symlink(target, directory);
    let _ = fs::remove_file(directory);
    let _ = fs::rename(aside, directory);
}

/// What a guest does below a directory, with nodes found anew and with those of before.
fn work(world: &World, outside: &Outside, directory: &str, round: u64, done: &AtomicU64) {
    let root = world.root;
    let found = world.answer(&Message::lookup(root, directory.as_bytes()));
    outside.assert_unseen("lookup of the directory", &found);
    let Ok(d) = found.node() else { return };
    let name = format!("new{}", round % 7);
    let name = name.as_bytes();
    let below = |name: &[u8]| {
        let answer = world.answer(&Message::lookup(d, name));
        outside.assert_unseen("lookup", &answer);
        answer.node().unwrap_or(d)
    };
    let (f, g, sub) = (below(b"f"), below(b"g"), below(b"sub"));
    assert!(world.lookup(d, b"etc").is_err(), "the directory is /");
    let changes = Changes {
        permissions: Some(0o640),
        size: Some(round % 50),
        modified: Some(TimeChange::To(Timestamp {
            seconds: 1,
            nanoseconds: 0,
        })),
        ..Changes::default()
    };
    let times = Changes {
        accessed: Some(TimeChange::Now),
        permissions: Some(0o777),
        ..Changes::default()
    };
    for (operation, message) in [
        ("create", Message::create(d, name, O_TRUNC, 0o644)),
        ("create over", Message::create(d, b"f", O_TRUNC, 0o644)),
        ("write", Message::write(f, 0, b"guest was here")),
        ("write below", Message::write(g, 5, b"guest was here")),
        ("setattr", Message::setattr(f, &changes)),
        ("setattr of the directory", Message::setattr(d, &times)),
        ("setxattr", Message::setxattr(g, b"user.guest", b"x", 0)),
        (
            "setxattr of the directory",
            Message::setxattr(sub, b"user.guest", b"x", 0),
        ),
        ("readdir", Message::readdir(d, 0, 4096)),
        ("readdirplus", Message::readdirplus(d, 0, 8192)),
        ("readdirplus below", Message::readdirplus(sub, 0, 8192)),
        ("read", Message::read(g, 0, 100)),
        ("getattr", Message::getattr(g)),
        ("mkdir", Message::mkdir(d, b"made", 0o755)),
        ("mknod", Message::mknod(sub, name, S_IFREG | 0o644)),
        ("symlink", Message::symlink(sub, b"link", b"/")),
        ("link", Message::link(g, sub, b"another")),
        ("tmpfile", Message::tmpfile(sub, 0o600)),
        ("fallocate", Message::fallocate(g, (0, 100), 0)),
        ("copy", Message::copy_file_range((g, 0), (f, 0), 100)),
        ("rename below", Message::rename((d, b"h"), (sub, b"h"))),
        ("rename back", Message::rename((sub, b"h"), (d, b"h"))),
        ("rename out", Message::rename((d, name), (root, name))),
        ("rename in", Message::rename((root, name), (d, name))),
        ("exchange", Message::rename2((d, b"f"), (sub, b"f"), EXCHANGE)),
        ("rename over", Message::rename((d, name), (d, b"f"))),
        ("unlink", Message::unlink(d, name)),
        ("unlink below", Message::unlink(sub, b"another")),
        ("unlink link", Message::unlink(sub, b"link")),
        ("unlink node", Message::unlink(sub, name)),
        ("rmdir", Message::rmdir(d, b"made")),
        ("readlink", Message::readlink(d)),
    ] {
        let answer = world.answer(&message);
        outside.assert_unseen(operation, &answer);
        done.fetch_add(u64::from(answer.error().is_none()), Ordering::Relaxed);
    }
    // Sometimes a guest forgets.
    if round.is_multiple_of(16) {
        for node in [f, g, sub, d] {
            world.forget(node, u64::MAX);
        }
    }
}

fn run(base: &Path) {
    let world = World::new(base);
    let tree = world.outside.join("tree");
    fill(&tree, CANARY);
    for name in ["d", "e"] {
        fill(&world.share.join(name), "inside");
    }
    symlink(&tree, world.share.join("d-swap")).unwrap();
    symlink("/", world.share.join("d-root")).unwrap();
    let outside = Outside::of(&world.outside);
    let ended = AtomicBool::new(false);
    let (swaps, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let end = Instant::now() + duration();
    thread::scope(|scope| {
        let path = |name: &str| -> PathBuf { world.share.join(name) };
        let (world, outside, ended, swaps, done, tree) = (&world, &outside, &ended, &swaps, &done, &tree);
        let host = |swap: Box<dyn Fn() + Send>| {
            move || {
                while !ended.load(Ordering::Relaxed) {
                    swap();
                    swaps.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let (d, links) = (path("d"), [path("d-swap"), path("d-root")]);
        scope.spawn(host(Box::new(move || {
            for link in &links {
                // There and back, so that the next link finds the directory.
                exchange(&d, link);
                exchange(&d, link);
            }
        })));
        let (e, aside, targets) = (path("e"), path("e-aside"), [tree.clone(), "/".into()]);
        scope.spawn(host(Box::new(move || {
            for target in &targets {
                move_and_link(&e, &aside, target);
            }
        })));
        let guests: Vec<_> = ["d", "e", "d-swap", "d-root"]
            .into_iter()
            .map(|directory| {
                scope.spawn(move || {
                    let mut round = 0;
                    while Instant::now() < end {
                        work(world, outside, directory, round, done);
                        round += 1;
                    }
                    round
                })
            })
            .collect();
        let rounds: Vec<_> = guests.into_iter().map(thread::ScopedJoinHandle::join).collect();
        ended.store(true, Ordering::Relaxed);
        for rounds in rounds {
            println!("{} rounds", rounds.expect("a guest saw nothing of the outside"));
        }
    });
    let (swaps, done) = (swaps.into_inner(), done.into_inner());
    println!("{swaps} swaps, {done} operations that did something");
    assert!(
        swaps > 100 && done > 1000,
        "it was no race: {swaps} swaps, {done} operations"
    );
    assert_same(&outside.before, &snapshot(&world.outside), "the race");
    assert_eq!(outside.above, names_in_root());
}

#[test]
fn a_directory_swapped_for_a_link_outside_while_the_guest_works_in_it_lets_nothing_out() {
    // Where times of access are kept strictly, reading shows too.
    match FileSystem::make(Kind::Tmpfs) {
        Ok(made) => run(made.path()),
        Err(reason) => {
            println!("not on tmpfs: {reason}");
            run(tempfile::tempdir().unwrap().path());
        }
    }
}
