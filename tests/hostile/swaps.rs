//! What is one thing when it is checked and another when it is used: directories that become links, and requests
//! whose names change while they are read.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use fuse::testing::Message;

use crate::{
    Kit,
    arena::Arena,
    dice::Dice,
    escapes::{EXCHANGE, FILE, READ_WRITE_MAKE, Tree, first, then_honest},
    mount::{Line, ROOM, put},
};

/// How long a directory is exchanged for links while it is gone through.
const SWAPS: Duration = Duration::from_secs(10);
const REWRITES: Duration = Duration::from_secs(4);

/// As long as each other: a request stays the right length.
const IN_HERE: &[u8; 15] = b"fifteen-letters";
const OUT_THERE: &[u8; 15] = b"../beside/plain";

/// One CPU exchanges a directory and links that lead out, beside the folder and to `/`, the other goes through what it
/// took for a directory.
pub(crate) fn swaps(kit: &mut Kit) -> anyhow::Result<usize> {
    then_honest(kit, |lines, _| {
        let tree = Tree::find(first(lines)?, b"work")?;
        let [_, one, other, ..] = lines else {
            return Ok(0);
        };
        one.must(&Message::mkdir(tree.folder, b"swapped", 0o755))?;
        let swapped = one.find(tree.folder, b"swapped")?;
        for name in [&b"plain"[..], b"directory"] {
            one.must(&Message::mknod(swapped, name, FILE))?;
        }
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let exchange = scope.spawn(|| {
                let mut times = 0;
                // There and back, so that the next link finds the directory.
                for link in [&b"to-directory"[..], b"to-root"].into_iter().cycle() {
                    for _ in 0..2 {
                        let names = ((tree.folder, &b"swapped"[..]), (tree.folder, link));
                        other.must(&Message::rename2(names.0, names.1, EXCHANGE))?;
                        times += 1;
                    }
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
                anyhow::Ok(times)
            });
            let tried = go_through(one, tree.folder, swapped);
            stop.store(true, Ordering::Relaxed);
            let exchanged = exchange.join().ok().context("a thread failed")??;
            ensure!(exchanged > 10, "exchanged {exchanged} times only");
            Ok(tried? + exchanged)
        })
    })
}

fn go_through(line: &mut Line<'_>, folder: u64, swapped: u64) -> anyhow::Result<usize> {
    let (start, mut tried) = (Instant::now(), 0);
    while start.elapsed() < SWAPS {
        for directory in [swapped, node_of(line, &Message::lookup(folder, b"swapped"))?] {
            let file = node_of(line, &Message::lookup(directory, b"plain"))?;
            let above = node_of(line, &Message::lookup(directory, b"etc"))?;
            ensure!(above == 0, "the directory is /");
            line.ask(&Message::read(file, 0, 4096))?;
            line.ask(&Message::write(file, 0, b"overwritten"))?;
            line.ask(&Message::create(directory, b"dropped", READ_WRITE_MAKE, FILE))?;
            line.ask(&Message::mkdir(directory, b"dropped-too", 0o755))?;
            line.ask(&Message::readdirplus(directory, 0, ROOM / 2))?;
            line.ask(&Message::unlink(directory, b"dropped"))?;
            line.ask(&Message::rename((directory, b"directory"), (folder, b"stolen")))?;
            line.ask(&Message::rename((folder, b"stolen"), (directory, b"directory")))?;
            tried += 10;
        }
    }
    Ok(tried)
}

/// One CPU asks with a good name, the other makes it a path that leads out, and other operations of the request.
pub(crate) fn rewrites(kit: &mut Kit) -> anyhow::Result<usize> {
    then_honest(kit, |lines, dice| {
        let tree = Tree::find(first(lines)?, b"work")?;
        let line = first(lines)?;
        let (arena, at, stop) = (line.ring.arena, line.request_at(), AtomicBool::new(false));
        let (name, mut other) = (AtomicUsize::new(at), dice.split());
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    rewrite(arena, at, name.load(Ordering::Relaxed), &mut other);
                }
            });
            let tried = ask_meanwhile(line, &tree, &name);
            stop.store(true, Ordering::Relaxed);
            tried
        })
    })
}

fn rewrite(arena: &Arena, request: usize, name: usize, dice: &mut Dice) {
    const LEN: usize = 0;
    const OPERATION: usize = 4;
    /// LOOKUP, FORGET, MKDIR, UNLINK, CREATE, SYNCFS.
    const OPERATIONS: [u8; 6] = [1, 2, 9, 10, 35, 50];
    match dice.below(64) {
        0 => arena.write(request + OPERATION, dice.pick(&OPERATIONS)),
        1 => arena.write(request + LEN, dice.roll() as u8),
        n => put(arena, name, if n % 2 == 0 { IN_HERE } else { OUT_THERE }),
    }
}

/// The name comes first after words of eight bytes, and `name` says where.
fn ask_meanwhile(line: &mut Line<'_>, tree: &Tree, name: &AtomicUsize) -> anyhow::Result<usize> {
    let folder = tree.folder;
    let messages = [
        (40, Message::lookup(folder, IN_HERE)),
        (56, Message::create(folder, IN_HERE, READ_WRITE_MAKE, FILE)),
        (40, Message::unlink(folder, IN_HERE)),
        (48, Message::mkdir(folder, IN_HERE, 0o755)),
        (40, Message::rmdir(folder, IN_HERE)),
        (40, Message::symlink(folder, IN_HERE, b"nowhere")),
        (48, Message::rename((folder, IN_HERE), (folder, b"renamed"))),
        (48, Message::rename((folder, b"renamed"), (folder, IN_HERE))),
    ];
    let (start, mut tried) = (Instant::now(), 0);
    while start.elapsed() < REWRITES {
        for (at, message) in &messages {
            name.store(line.request_at() + at, Ordering::Relaxed);
            let node = node_of(line, message)?;
            // Were it something outside, its content would be a canary.
            line.ask(&Message::read(node, 0, 4096))?;
            tried += 2;
        }
    }
    Ok(tried)
}

fn node_of(line: &mut Line<'_>, message: &Message) -> anyhow::Result<u64> {
    let answer = line.ask(message)?;
    Ok(answer
        .filter(|answer| answer.error == 0)
        .map_or(0, |answer| answer.node()))
}
