//! Requests for what must not be made, from nodes nobody was told of, of sizes that do not fit.

use anyhow::ensure;
use fuse::{Changes, testing::Message};

use crate::{
    Kit,
    dice::Dice,
    escapes::{FILE, READ_WRITE_MAKE, Tree, first, then_honest},
    mount::{FOLDER_SHIFT, Line, ROOM, ROOT},
};

const SUID: u32 = 0o6755;
/// The file through which the agent hears of changes on the host.
const EVENTS: u64 = 2;

/// Special files, bits that make a file run as another, attributes that do the same, owners.
pub(crate) fn kinds(kit: &mut Kit) -> anyhow::Result<usize> {
    then_honest(kit, |lines, _| {
        let line = first(lines)?;
        let trees = [&b"work"[..], b"other", b"only"].map(|name| Tree::find(line, name));
        let [work, other, only] = trees;
        let (work, other, only) = (work?, other?, only?);
        let mut attacks = special_files(line, &work)?;
        attacks += other_users(line, &work)?;
        attacks += from_folder_to_folder(line, &[work, other, only])?;
        attacks += read_only(line, &only)?;
        Ok(attacks)
    })
}

fn special_files(line: &mut Line<'_>, tree: &Tree) -> anyhow::Result<usize> {
    // Nothing, pipe, character, directory, block, link, socket, and what is no type.
    let types = [0, 0o1, 0o2, 0o4, 0o6, 0o12, 0o14, 0o17];
    for kind in types {
        let message = Message::mknod(tree.folder, b"special", kind << 12 | 0o666);
        line.refused(&message)?;
        // With a device number, of memory and of the first disk.
        for device in [0x0101u32, 0x0800, u32::MAX] {
            line.refused(&message.clone().replace(44..48, &device.to_le_bytes()))?;
        }
    }
    Ok(4 * types.len())
}

/// The host sees that none of it is on the files, whatever is answered.
fn other_users(line: &mut Line<'_>, tree: &Tree) -> anyhow::Result<usize> {
    let mode = |permissions| Changes {
        permissions: Some(permissions),
        ..Changes::default()
    };
    line.ask(&Message::create(
        tree.folder,
        b"suid-made",
        READ_WRITE_MAKE,
        SUID | 0o100_000,
    ))?;
    line.ask(&Message::mknod(tree.folder, b"suid-node", SUID | 0o100_000))?;
    line.ask(&Message::mkdir(tree.folder, b"suid-directory", 0o7777))?;
    line.ask(&Message::tmpfile(tree.folder, SUID | 0o100_000))?;
    for name in [&b"suid-made"[..], b"suid-node", b"suid-directory", b"plain"] {
        let node = line.find(tree.folder, name)?;
        for permissions in [SUID, 0o4755, 0o2755, 0o7777, u32::MAX] {
            line.ask(&Message::setattr(node, &mode(permissions)))?;
        }
        for (uid, gid) in [(Some(0), None), (None, Some(0)), (Some(0), Some(0))] {
            let owner = Changes {
                uid,
                gid,
                ..Changes::default()
            };
            line.refused(&Message::setattr(node, &owner))?;
        }
        for attribute in [
            &b"security.capability"[..],
            b"security.selinux",
            b"trusted.overlay.opaque",
            b"system.posix_acl_access",
            b"system.posix_acl_default",
        ] {
            line.refused(&Message::setxattr(node, attribute, &[1; 20], 0))?;
        }
    }
    Ok(4 + 4 * 13)
}

/// From one folder to another neither names nor content may go by one request.
fn from_folder_to_folder(line: &mut Line<'_>, trees: &[Tree]) -> anyhow::Result<usize> {
    let mut attacks = 0;
    let pairs = trees
        .iter()
        .flat_map(|one| trees.iter().map(move |other| (one, other)));
    for (one, other) in pairs.filter(|(one, other)| one.folder != other.folder) {
        for message in [
            Message::link(one.plain, other.folder, b"across"),
            Message::rename((one.folder, b"plain"), (other.folder, b"across")),
            Message::rename2((one.folder, b"plain"), (other.folder, b"plain"), 2),
            Message::rename((one.directory, b"plain"), (other.directory, b"across")),
            Message::copy_file_range((one.plain, 0), (other.plain, 0), 4096),
            // Its slot in the other folder's number, and the other way around.
            Message::rename((one.folder, b"directory"), (other.folder ^ one.folder, b"across")),
        ] {
            line.refused(&message)?;
            attacks += 1;
        }
    }
    Ok(attacks)
}

fn read_only(line: &mut Line<'_>, tree: &Tree) -> anyhow::Result<usize> {
    let Tree {
        folder,
        directory,
        plain,
    } = *tree;
    let change = |changes: Changes| Message::setattr(plain, &changes);
    let messages = [
        Message::create(folder, b"new", READ_WRITE_MAKE, FILE),
        Message::create(folder, b"plain", 0o1002, FILE),
        Message::mknod(folder, b"new", FILE),
        Message::mkdir(directory, b"new", 0o755),
        Message::symlink(folder, b"new", b"plain"),
        Message::link(plain, directory, b"new"),
        Message::tmpfile(folder, FILE),
        Message::unlink(folder, b"plain"),
        Message::rmdir(folder, b"directory"),
        Message::rename((folder, b"plain"), (folder, b"new")),
        Message::rename2((folder, b"plain"), (directory, b"plain"), 2),
        Message::write(plain, 0, b"overwritten"),
        Message::write_with(plain, 0, b"overwritten", (0o2002, 1)),
        Message::fallocate(plain, (0, 4096), 0),
        Message::fallocate(plain, (0, 4096), 3),
        Message::copy_file_range((plain, 0), (plain, 100), 4),
        Message::setxattr(plain, b"user.new", b"x", 0),
        Message::removexattr(plain, b"user.old"),
        change(Changes {
            size: Some(0),
            ..Changes::default()
        }),
        change(Changes {
            permissions: Some(0o777),
            ..Changes::default()
        }),
        change(Changes {
            modified: Some(fuse::TimeChange::Now),
            ..Changes::default()
        }),
    ];
    for message in &messages {
        line.refused(message)?;
    }
    Ok(messages.len())
}

/// Numbers of every form, forgotten nodes, counts that are lies, offsets and sizes beyond everything.
pub(crate) fn nodes(kit: &mut Kit) -> anyhow::Result<usize> {
    then_honest(kit, |lines, dice| {
        let mut attacks = invented(lines, dice)?;
        attacks += sizes(first(lines)?, dice)?;
        attacks += forget(lines, dice)?;
        attacks += events(first(lines)?, dice)?;
        Ok(attacks)
    })
}

fn invented(lines: &mut [Line<'_>], dice: &mut Dice) -> anyhow::Result<usize> {
    let line = first(lines)?;
    let mut numbers: Vec<u64> = vec![0, EVENTS, 3, u64::MAX, u64::MAX - 1, i64::MAX.cast_unsigned()];
    for folder in (0..8).chain([64, 0x7fff, 0x8000, 0xffff]) {
        for generation in [0, 1, 2, 0x7fff, 0xffff] {
            for slot in (0..12).chain([0x7fff_ffff, 0x8000_0000, 0xffff_ffff]) {
                numbers.push(folder << FOLDER_SHIFT | generation << 32 | slot);
            }
        }
    }
    numbers.extend((0..500).map(|_| dice.roll()));
    numbers.extend((0..64).map(|bit| 1 << bit));
    let mut known = 0;
    for number in &numbers {
        let answer = line.ask(&Message::getattr(*number))?;
        known += usize::from(answer.is_some_and(|answer| answer.error == 0));
        for message in [
            Message::lookup(*number, b"plain"),
            Message::readlink(*number),
            Message::read(*number, 0, 4096),
            Message::readdir(*number, 0, 4096),
            Message::readdirplus(*number, 0, 4096),
        ] {
            line.ask(&message)?;
        }
    }
    println!("{known} of {} invented nodes are there", numbers.len());
    // Folders' roots are where they are for everybody; the rest was found by the requests above.
    ensure!(known < numbers.len() / 4, "{known} invented nodes");
    Ok(6 * numbers.len())
}

fn sizes(line: &mut Line<'_>, dice: &mut Dice) -> anyhow::Result<usize> {
    const LAST: u64 = i64::MAX as u64;
    let tree = Tree::find(line, b"work")?;
    let offsets = [
        0,
        1,
        4095,
        LAST - 4096,
        LAST - 1,
        LAST,
        LAST + 1,
        u64::MAX - 1,
        u64::MAX,
    ];
    let lens = [0, 1, 4096, ROOM, 1 << 20, (1 << 20) + 1, 1 << 31, u32::MAX];
    let mut attacks = 0;
    for offset in offsets {
        for len in lens {
            let write = Message::write(tree.plain, offset, b"beyond");
            for message in [
                Message::read(tree.plain, offset, len),
                Message::readdir(tree.folder, offset, len),
                Message::readdirplus(tree.folder, offset, len),
                Message::readdir(ROOT, offset, len),
                Message::getxattr(tree.plain, b"user.x", len),
                Message::listxattr(tree.plain, len),
                // As much data as there is not.
                write.replace(56..60, &len.to_le_bytes()),
            ] {
                line.ask(&message)?;
                attacks += 1;
            }
        }
        for other in [1, 4096, LAST, u64::MAX] {
            for message in [
                Message::fallocate(tree.plain, (offset, other), dice.roll() as u32 & 0x7f),
                Message::copy_file_range((tree.plain, offset), (tree.plain, other), u64::MAX),
                Message::copy_file_range((tree.plain, other), (tree.plain, offset), other),
                Message::lseek(tree.plain, offset, dice.below(8) as u32),
                Message::write_with(
                    tree.plain,
                    offset,
                    b"beyond",
                    (dice.roll() as u32, dice.roll() as u32),
                ),
            ] {
                line.ask(&message)?;
                attacks += 1;
            }
        }
        let size = Changes {
            size: Some(offset),
            ..Changes::default()
        };
        line.ask(&Message::setattr(tree.plain, &size))?;
    }
    for _ in 0..500 {
        let (folder, offset) = (dice.pick(&[ROOT, tree.folder, tree.directory]), dice.edge());
        line.ask(&Message::readdirplus(folder, offset, dice.below(4096) as u32))?;
    }
    Ok(attacks + 500)
}

fn forget(lines: &mut [Line<'_>], dice: &mut Dice) -> anyhow::Result<usize> {
    const MANY: usize = 1500;
    let tree = Tree::find(first(lines)?, b"work")?;
    let some: Vec<(u64, u64)> = (0..MANY).map(|_| (dice.roll(), dice.edge())).collect();
    let mut messages = Vec::new();
    for node in [ROOT, EVENTS, tree.folder, tree.directory, tree.plain, 0, u64::MAX] {
        messages.push(Message::forget(node, u64::MAX));
        messages.push(Message::forget(node, 0));
        messages.push(Message::batch_forget(&[
            (node, u64::MAX),
            (node, u64::MAX),
            (node, 1),
        ]));
    }
    messages.push(Message::batch_forget(&some));
    for count in [0, 1, 2, 4, 1 << 28, u32::MAX / 16, u32::MAX] {
        let lie = Message::batch_forget(&[(tree.plain, 1), (tree.directory, u64::MAX), (tree.folder, 7)]);
        messages.push(lie.replace(40..44, &u32::to_le_bytes(count)));
    }
    for message in &messages {
        for line in lines.iter_mut() {
            let answer = line.ask(message)?;
            ensure!(answer.is_none(), "an answer to what is forgotten: {answer:?}");
        }
    }
    // Forgotten, and found again.
    let line = first(lines)?;
    line.refused(&Message::getattr(tree.plain))?;
    let again = Tree::find(line, b"work")?;
    line.must(&Message::read(again.plain, 0, 4096))?;
    Ok(2 * messages.len())
}

/// What only the agent says: which inodes are watched, and what it repeats of the host's changes.
fn events(line: &mut Line<'_>, dice: &mut Dice) -> anyhow::Result<usize> {
    let tree = Tree::find(line, b"work")?;
    let node = line.find(ROOT, b".coffer-events")?;
    let long = vec![b'7'; 0x1_0000];
    let many: Vec<u8> = (0..5000)
        .flat_map(|_| format!("{} work\n", dice.below(5000)).into_bytes())
        .collect();
    let texts: [&[u8]; 9] = [
        b"",
        b"\n\n\n",
        b"1 ..\n1 /\n1 \n 1\n",
        b"18446744073709551615 work\n",
        b"-1 work\n99999999999999999999 work\n",
        b"1 work\n1 only\n2 work\n1 nowhere\n",
        &[0; 4096],
        &long,
        &many,
    ];
    for text in texts {
        for offset in [0, 1, u64::MAX] {
            line.ask(&Message::write(node, offset, text))?;
            line.ask(&Message::read(node, offset, ROOM / 2))?;
        }
        // The device takes us for the agent now, whose repetitions change nothing.
        line.ask(&Message::lookup(tree.folder, b"plain"))?;
        line.ask(&Message::unlink(tree.folder, b"to-file"))?;
        line.ask(&Message::symlink(tree.folder, b"x", b"x"))?;
    }
    line.ask(&Message::write(node, 0, b""))?;
    Ok(texts.len() * 9)
}
