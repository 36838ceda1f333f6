//! More than a folder's limits allow, held where no name shows it: files that are gone by name and not forgotten.

use anyhow::ensure;
use fuse::testing::Message;

use crate::{
    Kit,
    driver::Device,
    escapes::{EXCHANGE, FILE, READ_WRITE_MAKE, Tree, first, then_honest},
    mount::{Answer, Line},
    pci::Kind,
};

/// What the host half of this test lets each folder grow by.
const MOST_BYTES: u64 = 64 << 20;
const PIECE: u64 = 4 << 20;
/// Enough to go over the limit twice.
const PIECES: u64 = 3 * MOST_BYTES / PIECE;
/// More than may be held open for their own sake, which is 8,192.
const FILES: usize = 9_000;
const KEEP_SIZE: u32 = 1;

/// A way to be rid of a file's name, once it is full.
type Ruse = fn(&mut Line<'_>, &Tree, u64) -> anyhow::Result<()>;

pub(crate) fn attack(kit: &mut Kit) -> anyhow::Result<usize> {
    let ruses: [Ruse; 4] = [
        |line, tree, _| drop_answer(line.ask(&Message::unlink(tree.folder, b"full"))),
        |line, tree, _| {
            drop_answer(line.ask(&Message::rename((tree.folder, b"full"), (tree.folder, b"over"))))
        },
        |line, tree, node| {
            let name = format!("another-{node:x}");
            line.ask(&Message::link(node, tree.folder, name.as_bytes()))?;
            drop_answer(line.ask(&Message::unlink(tree.folder, b"full")))
        },
        |line, tree, _| {
            let names = ((tree.folder, &b"full"[..]), (tree.directory, &b"plain"[..]));
            line.ask(&Message::rename2(names.0, names.1, EXCHANGE))?;
            drop_answer(line.ask(&Message::unlink(tree.folder, b"full")))
        },
    ];
    let mut attacks = fill_by(kit, ruses, 0)?;
    attacks += then_honest(kit, |lines, _| nameless(first(lines)?))?;
    // All was forgotten, so there is room again.
    attacks += then_honest(kit, |lines, _| room_again(first(lines)?))?;
    // What was had behind the end of a file is not always given back, so this comes last.
    attacks += fill_by(kit, ruses, KEEP_SIZE)?;
    Ok(attacks)
}

fn fill_by(kit: &mut Kit, ruses: [Ruse; 4], mode: u32) -> anyhow::Result<usize> {
    let device = Device::take(Kind::Fs, 0)?;
    let mut attacks = 0;
    for ruse in ruses {
        attacks += fill(&mut Line::one(&device, &kit.arena)?, ruse, mode)?;
        device.must_work(&kit.arena)?;
    }
    Ok(attacks)
}

fn drop_answer(answer: anyhow::Result<Option<Answer>>) -> anyhow::Result<()> {
    answer.map(drop)
}

/// Returns how many files there were; together they may not be larger than the limit.
fn fill(line: &mut Line<'_>, ruse: Ruse, mode: u32) -> anyhow::Result<usize> {
    let tree = Tree::find(line, b"other")?;
    let mut granted = 0;
    for _ in 0..PIECES {
        let made = line.ask(&Message::create(tree.folder, b"full", READ_WRITE_MAKE, FILE))?;
        let Some(made) = made.filter(|made| made.error == 0) else {
            break;
        };
        let node = made.node();
        let answer = line.ask(&Message::fallocate(node, (0, PIECE), mode))?;
        if answer.is_some_and(|answer| answer.error == 0) {
            granted += PIECE;
        }
        ruse(line, &tree, node)?;
    }
    println!("{granted} bytes were had of {MOST_BYTES}");
    ensure!(
        granted <= MOST_BYTES,
        "{granted} bytes where {MOST_BYTES} are the limit"
    );
    for name in line.list(tree.folder)? {
        if name.starts_with(b"another-") || name == b"over" || name == b"full" {
            line.ask(&Message::unlink(tree.folder, &name))?;
        }
    }
    Ok(PIECES as usize)
}

/// Each of these costs the host a descriptor, of which it has so many.
fn nameless(line: &mut Line<'_>) -> anyhow::Result<usize> {
    let tree = Tree::find(line, b"other")?;
    let mut held = 0;
    for _ in 0..FILES {
        let made = line.ask(&Message::create(tree.folder, b"gone", READ_WRITE_MAKE, FILE))?;
        line.ask(&Message::unlink(tree.folder, b"gone"))?;
        held += usize::from(made.is_some_and(|made| made.error == 0));
    }
    println!("{held} of {FILES} files without a name were had");
    Ok(FILES)
}

fn room_again(line: &mut Line<'_>) -> anyhow::Result<usize> {
    let tree = Tree::find(line, b"other")?;
    let made = line.must(&Message::create(tree.folder, b"again", READ_WRITE_MAKE, FILE))?;
    line.must(&Message::fallocate(made.node(), (0, PIECE), 0))?;
    line.must(&Message::unlink(tree.folder, b"again"))?;
    Ok(1)
}
