//! Out of the folders by names that are no names, and by symbolic links that lead out.
//!
//! The host half of this test made the folders `work` and `other`, which may be written, and `only`, which may
//! not, and looks afterwards at what lies beside them. [`Line`] looks at each answer.

use anyhow::{Context, ensure};
use fuse::{Changes, testing::Message};

use crate::{
    Kit,
    dice::Dice,
    driver::Device,
    mount::{Line, ROOT},
    pci::Kind,
};

pub(crate) const FILE: u32 = 0o100_644;
pub(crate) const READ_WRITE_MAKE: u32 = 0o102;
const TRUNCATE: u32 = 0o1000;
pub(crate) const EXCHANGE: u32 = 2;

/// Links the host made in each folder: to a file beside it by its whole path and by dots, to directories the same
/// way, and into the VMM's own process.
const LINKS: [&[u8]; 6] = [
    b"to-file",
    b"to-directory",
    b"up-to-file",
    b"up-to-directory",
    b"to-root",
    b"to-process",
];

/// In each folder, and not for the guest to see.
pub(crate) const HIDDEN: &[u8] = b"hidden.key";

/// A folder, and what the host put into each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tree {
    pub(crate) folder: u64,
    pub(crate) directory: u64,
    pub(crate) plain: u64,
}

impl Tree {
    pub(crate) fn find(line: &mut Line<'_>, name: &[u8]) -> anyhow::Result<Self> {
        let folder = line.find(ROOT, name)?;
        Ok(Tree {
            folder,
            directory: line.find(folder, b"directory")?,
            plain: line.find(folder, b"plain")?,
        })
    }
}

/// One kind of attack, by queue, on a device that must serve an honest driver afterwards.
pub(crate) fn then_honest(
    kit: &mut Kit,
    attack: fn(&mut [Line<'_>], &mut Dice) -> anyhow::Result<usize>,
) -> anyhow::Result<usize> {
    let device = Device::take(Kind::Fs, 0)?;
    let attacks = attack(&mut Line::open(&device, &kit.arena)?, &mut kit.dice)?;
    device.must_work(&kit.arena)?;
    Ok(attacks)
}

/// The first queue for requests.
pub(crate) fn first<'l, 'a>(lines: &'l mut [Line<'a>]) -> anyhow::Result<&'l mut Line<'a>> {
    lines.get_mut(1).context("too few queues")
}

pub(crate) fn names(kit: &mut Kit) -> anyhow::Result<usize> {
    then_honest(kit, |lines, _| {
        let line = first(lines)?;
        let mut attacks = 0;
        for name in [&b"work"[..], b"only", b"other"] {
            let tree = Tree::find(line, name)?;
            for parent in [tree.folder, tree.directory, tree.plain, ROOT] {
                attacks += bad_names(line, parent, tree.plain)?;
            }
        }
        Ok(attacks)
    })
}

fn bad_names(line: &mut Line<'_>, parent: u64, file: u64) -> anyhow::Result<usize> {
    let (long, longer) = (vec![b'x'; 256], vec![b'x'; 4096]);
    let bad: [&[u8]; 14] = [
        b"/",
        b"..",
        b".",
        b"",
        b"../../etc",
        b"/etc/passwd",
        b"directory/..",
        b"directory/plain",
        b"plain/",
        b"./plain",
        b"fresh\0",
        b"fresh\0../plain",
        &long,
        &longer,
    ];
    let mut attacks = 0;
    for name in bad {
        for message in with_name(parent, file, name) {
            line.refused(&message)?;
            attacks += 1;
        }
    }
    // Without the NUL at its end.
    for message in with_name(parent, file, b"fresh") {
        line.refused(&message.clone().cut(message.as_bytes().len() - 1))?;
        attacks += 1;
    }
    Ok(attacks)
}

/// Every request with a name, with this one.
fn with_name(parent: u64, file: u64, name: &[u8]) -> Vec<Message> {
    let mut messages = vec![
        Message::lookup(parent, name),
        Message::create(parent, name, READ_WRITE_MAKE, FILE),
        Message::create(parent, name, READ_WRITE_MAKE | TRUNCATE, FILE),
        Message::mknod(parent, name, FILE),
        Message::mkdir(parent, name, 0o755),
        Message::symlink(parent, name, b"/etc"),
        Message::link(file, parent, name),
        Message::unlink(parent, name),
        Message::rmdir(parent, name),
        Message::rename((parent, name), (parent, b"moved")),
        Message::rename((parent, b"plain"), (parent, name)),
        Message::setxattr(parent, name, b"value", 0),
        Message::setxattr(file, name, b"value", 0),
        Message::getxattr(file, name, 4096),
        Message::removexattr(file, name),
    ];
    for flags in [0, 1, EXCHANGE] {
        messages.push(Message::rename2((parent, name), (parent, b"moved"), flags));
        messages.push(Message::rename2((parent, b"plain"), (parent, name), flags));
    }
    messages
}

/// A link is a text: nothing is read, written or made through it.
pub(crate) fn links(kit: &mut Kit) -> anyhow::Result<usize> {
    then_honest(kit, |lines, _| {
        let line = first(lines)?;
        let mut attacks = 0;
        for name in [&b"work"[..], b"only"] {
            let tree = Tree::find(line, name)?;
            for link in LINKS {
                attacks += through(line, &tree, link)?;
            }
            say_what_is_there(line, &tree)?;
        }
        Ok(attacks)
    })
}

fn through(line: &mut Line<'_>, tree: &Tree, name: &[u8]) -> anyhow::Result<usize> {
    let link = line.find(tree.folder, name)?;
    let text = line.must(&Message::readlink(link))?;
    println!("{} leads to {}", name.escape_ascii(), text.body.escape_ascii());
    let size = Changes {
        size: Some(0),
        ..Changes::default()
    };
    let mut messages = vec![
        Message::read(link, 0, 4096),
        Message::write(link, 0, b"through"),
        Message::readdir(link, 0, 4096),
        Message::readdirplus(link, 0, 4096),
        Message::setattr(link, &size),
        Message::fallocate(link, (0, 4096), 0),
        Message::copy_file_range((link, 0), (tree.plain, 0), 4096),
        Message::copy_file_range((tree.plain, 0), (link, 0), 4096),
        Message::tmpfile(link, FILE),
        Message::mknod(tree.folder, name, FILE),
        Message::mkdir(tree.folder, name, 0o755),
        Message::open(link, 2),
        Message::opendir(link),
    ];
    for below in [&b"plain"[..], b"directory", b"etc", b"root", b"dropped"] {
        messages.extend([
            Message::lookup(link, below),
            Message::create(link, below, READ_WRITE_MAKE, FILE),
            Message::mknod(link, below, FILE),
            Message::mkdir(link, below, 0o755),
            Message::symlink(link, below, b"x"),
            Message::link(tree.plain, link, below),
            Message::unlink(link, below),
            Message::rmdir(link, below),
            Message::rename((link, below), (tree.folder, b"stolen")),
            Message::rename((tree.folder, b"plain"), (link, below)),
            Message::rename2((link, below), (tree.folder, b"plain"), EXCHANGE),
        ]);
    }
    for message in &messages {
        line.refused(message)?;
    }
    // Who makes a file that is there finds it, as in LOOKUP: the link, not what it leads to.
    for flags in [READ_WRITE_MAKE, READ_WRITE_MAKE | TRUNCATE] {
        let answer = line.ask(&Message::create(tree.folder, name, flags, FILE))?;
        let found = answer.context("no answer")?;
        ensure!(
            found.error != 0 || found.node() == link,
            "made through a link: {found:?}"
        );
    }
    // These may change the link, and must not change what it leads to, which the host looks at.
    let mode = Changes {
        permissions: Some(0o777),
        ..Changes::default()
    };
    line.ask(&Message::setattr(link, &mode))?;
    line.ask(&Message::setxattr(link, b"user.through", b"x", 0))?;
    line.ask(&Message::listxattr(link, 4096))?;
    line.ask(&Message::link(link, tree.folder, b"second-name"))?;
    line.ask(&Message::unlink(tree.folder, b"second-name"))?;
    Ok(messages.len() + 7)
}

/// For the host to look at.
fn say_what_is_there(line: &mut Line<'_>, tree: &Tree) -> anyhow::Result<()> {
    for directory in [ROOT, tree.folder, tree.directory] {
        for name in line.list(directory)? {
            ensure!(name != HIDDEN, "what is hidden is listed");
            println!("{directory:#x} holds {}", name.escape_ascii());
        }
    }
    let content = line.must(&Message::read(tree.plain, 0, 4096))?;
    println!("plain holds {}", content.body.escape_ascii());
    // What is hidden is not there, whatever is asked of it.
    line.refused(&Message::lookup(tree.folder, HIDDEN))?;
    line.refused(&Message::create(tree.folder, HIDDEN, READ_WRITE_MAKE, FILE))?;
    line.refused(&Message::rename((tree.folder, HIDDEN), (tree.folder, b"seen")))?;
    line.refused(&Message::unlink(tree.folder, HIDDEN))?;
    Ok(())
}
