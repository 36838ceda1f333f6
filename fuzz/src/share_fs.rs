//! The server over three folders, with a host that edits one of them meanwhile.

use std::{cell::RefCell, fs, os::unix::fs::symlink};

use fuse::{
    Server,
    testing::{self, Answer, Message},
};
use rustix::fs::FileType;
use share_fs::Exports;

use crate::{
    Input, Kind, Step,
    known::Known,
    request::EVENTS,
    tree::{Fact, Tree},
    world::{DESCRIPTORS, SECRET, SECRET_SECOND, TINY, World, shown},
};

const ROOT: u64 = 1;
/// Known to the guest before the first step, so that a step can name them by a number that stays the same.
const LOOKED_UP: [&str; 15] = [
    "rw",
    "ro",
    "tiny",
    "rw/.git",
    "rw/.git/hooks",
    "rw/.git/hooks/pre-commit",
    "rw/dir",
    "rw/dir/inner",
    "rw/file",
    "rw/project",
    "rw/project/.git",
    "ro/file",
    "ro/dir",
    "tiny/file",
    "tiny/dir",
];
/// Descriptors that may be held when the budget is spent: half of it for files that could not be opened again, of each
/// folder eight files and a directory that is being listed, `/proc/self/fd` and inotify.
const BEYOND_BUDGET: usize = DESCRIPTORS / 2 + FOLDERS * (8 + 1) + 2;
const FOLDERS: usize = 3;
/// The part of a number that says which node of a folder it is; the folder's own is 1, and is not counted.
const SLOT: u64 = (1 << 32) - 1;

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

/// # Panics
/// When the server panics, or when the guest got at something that is not its own.
pub fn run(input: &Input) {
    run_with(input, None);
}

/// As [`run`], for whoever wants to see what is asked and answered.
pub fn run_and_say(input: &Input, say: &mut Say<'_>) {
    run_with(input, Some(say));
}

/// What is asked, and the answer.
type Say<'a> = dyn FnMut(&str, Option<&Answer>) + 'a;

fn run_with(input: &Input, mut say: Option<&mut Say<'_>>) {
    WORLD.with_borrow_mut(|world| {
        world.start();
        let before = open_descriptors();
        let mut guest = Guest::new(world);
        for step in &input.steps {
            let asked = say.is_some().then(|| step.describe(&guest.known));
            let answer = guest.take(step);
            if let (Some(say), Some(asked)) = (&mut say, asked) {
                say(&asked, answer.as_ref());
            }
        }
        guest.check();
        guest.leave();
        drop(guest);
        assert_eq!(open_descriptors(), before, "descriptors are left behind");
    });
}

struct Guest<'a> {
    world: &'a World,
    server: Server<Exports>,
    known: Known,
    descriptors: usize,
}

impl<'a> Guest<'a> {
    fn new(world: &'a World) -> Self {
        let descriptors = open_descriptors();
        let mut guest = Guest {
            world,
            server: testing::started(world.exports()),
            known: Known::with(&[ROOT, EVENTS]),
            descriptors,
        };
        for path in LOOKED_UP {
            guest.find(path);
        }
        guest
    }

    fn find(&mut self, path: &str) {
        let mut at = ROOT;
        for name in path.split('/') {
            let answer = self.ask(&Message::lookup(at, name.as_bytes()));
            at = answer
                .and_then(|answer| answer.node().ok())
                .expect("what is there is found");
        }
    }

    fn ask(&mut self, message: &Message) -> Option<Answer> {
        self.ask_raw(message.as_bytes(), testing::ROOM)
    }

    fn take(&mut self, step: &Step) -> Option<Answer> {
        if step.kind() == Kind::Host {
            edit(self.world, step.fields.flags);
            return None;
        }
        let (request, room) = step.request(&self.known);
        self.ask_raw(&request, room)
    }

    fn ask_raw(&mut self, request: &[u8], room: usize) -> Option<Answer> {
        let knows = |bytes: &[u8]| {
            holds(bytes, SECRET) || holds(bytes, &SECRET[2..8]) || holds(bytes, &SECRET_SECOND.to_le_bytes())
        };
        // A guest that says the secret itself would hear it again.
        if knows(request) {
            return None;
        }
        let answer = testing::ask_raw(&self.server, request, room);
        if let Some(Ok(body)) = answer.as_ref().map(Answer::result) {
            assert!(
                body.len() + 16 <= room,
                "a reply of {} in a room of {room}",
                body.len()
            );
            // The text of a link may name what it leads to.
            let is_link_text = request.get(4..8) == Some(&5_u32.to_le_bytes());
            assert!(
                is_link_text || !knows(body),
                "an answer tells of what lies outside or is hidden"
            );
        }
        if self.known.note(request, answer.as_ref()) {
            assert_eq!(
                self.server_knows(),
                0,
                "the server remembers what a new guest never heard of"
            );
        }
        answer
    }

    fn server_knows(&self) -> u64 {
        let folders = self.server.file_system().status();
        folders.iter().map(|folder| folder.known).sum()
    }

    fn check(&self) {
        self.world.assert_untouched();
        let (rw, tiny) = (self.world.rw.look(), self.world.tiny.look());
        assert_guarded_unchanged(self.world, &with_what_was_taken(self.world, &rw));
        assert_ordinary(&self.world.rw.before, &rw);
        assert_ordinary(&self.world.tiny.before, &tiny);
        if !is_known("limits") {
            assert_within_limits(&self.world.tiny.before, &tiny);
        }
        let open = open_descriptors() - self.descriptors;
        assert!(open <= DESCRIPTORS + BEYOND_BUDGET, "{open} descriptors are open");
        let (least, most) = self.known.bounds(|node| node != EVENTS && node & SLOT != ROOT);
        let knows = self.server_knows();
        assert!(
            (least..=most).contains(&knows),
            "the server knows {knows} nodes; it told of {most}, and {least} of them were not forgotten"
        );
    }

    /// Forgets everything, one by one and then at once.
    fn leave(&mut self) {
        // After a DESTROY nothing else is heard.
        if self
            .ask(&Message::statfs(ROOT))
            .is_some_and(|answer| answer.error().is_some())
        {
            self.ask(&Message::init());
        }
        for message in self.known.forget_all() {
            self.ask(&message);
        }
        assert_eq!(
            self.server_knows(),
            0,
            "the server remembers what the guest forgot"
        );
        self.ask(&Message::destroy());
        let open = open_descriptors() - self.descriptors;
        // Their roots, /proc/self/fd and inotify.
        assert!(
            open <= FOLDERS + 2,
            "{open} descriptors are open for a guest that is gone"
        );
    }
}

/// Whether `COFFERDAM_FUZZ_KNOWN` names this kind of finding: one that is known already must not hide the others.
fn is_known(finding: &str) -> bool {
    std::env::var("COFFERDAM_FUZZ_KNOWN").is_ok_and(|known| known.split(',').any(|name| name == finding))
}

/// What the host took out of the folder is as guarded where it lies now.
fn with_what_was_taken(world: &World, rw: &Tree) -> Tree {
    let taken = world.taken.look().into_iter();
    let outside = taken.map(|(path, fact)| ([vec![b"taken".to_vec()], path].concat(), fact));
    rw.clone().into_iter().chain(outside).collect()
}

/// What is protected or hidden is what it was, wherever its directory was moved to, and there is no more of it.
fn assert_guarded_unchanged(world: &World, after: &Tree) {
    let guarded = |tree: &Tree| {
        let facts = tree.iter().filter(|(path, _)| world.is_guarded(path));
        let mut facts: Vec<_> = facts
            .map(|(path, fact)| (fact.inode, shown(path), fact.clone()))
            .collect();
        facts.sort_by_key(|(inode, ..)| *inode);
        facts
    };
    let (before, now) = (guarded(&world.rw.before), guarded(after));
    for (inode, path, fact) in &before {
        let found = now.iter().find(|(other, ..)| other == inode);
        let (_, _, found) = found.unwrap_or_else(|| panic!("{path} is guarded, and gone"));
        assert_eq!(
            found.substance(),
            fact.substance(),
            "{path} is guarded, and has changed"
        );
    }
    for (inode, path, _) in &now {
        assert!(
            before.iter().any(|(other, ..)| other == inode),
            "{path} is guarded, and new"
        );
    }
    let links = |tree: &Tree| -> Vec<u64> {
        let links = tree
            .iter()
            .filter(|(path, fact)| fact.kind() == FileType::Symlink && world.is_way_to_guarded(path));
        links.map(|(_, fact)| fact.inode).collect()
    };
    assert_eq!(
        links(after),
        links(&world.rw.before),
        "a link leads the way to something protected"
    );
}

/// Files, directories and links, and nothing else that the host did not put there.
fn assert_ordinary(before: &Tree, after: &Tree) {
    let of_the_host = |fact: &Fact| before.values().any(|known| known.inode == fact.inode);
    for (path, fact) in after {
        let special = !matches!(
            fact.kind(),
            FileType::RegularFile | FileType::Directory | FileType::Symlink
        );
        assert!(
            !special || of_the_host(fact),
            "{} is a {:?}",
            shown(path),
            fact.kind()
        );
        assert_eq!(fact.mode & 0o6000, 0, "{} has mode {:o}", shown(path), fact.mode);
        let foreign = fact
            .xattrs
            .split(|byte| *byte == 0)
            .find(|name| !name.is_empty() && !name.starts_with(b"user."));
        assert_eq!(foreign, None, "{} has a foreign attribute", shown(path));
    }
}

fn assert_within_limits(before: &Tree, after: &Tree) {
    let inodes = |tree: &Tree| -> std::collections::BTreeMap<u64, u64> {
        let sizes = tree
            .values()
            .map(|fact| (fact.inode, if fact.is_file() { fact.size } else { 0 }));
        sizes.collect()
    };
    let (before, after) = (inodes(before), inodes(after));
    let more = (after.len() as u64).saturating_sub(before.len() as u64);
    assert!(Some(more) <= TINY.files, "the guest has added {more} files");
    let sum = |sizes: &std::collections::BTreeMap<u64, u64>| sizes.values().sum::<u64>();
    let more = sum(&after).saturating_sub(sum(&before));
    assert!(Some(more) <= TINY.bytes, "the guest has added {more} bytes");
}

/// What a person or a tool of the host's does to a folder meanwhile. Only to names of the folder itself, and never
/// through a link, which the guest may have put there.
///
/// What it takes out of the folder the guest may go on reading and writing for most of a second, and a session is over
/// sooner: that nothing reaches it later is for the tests of `share-fs` to say.
fn edit(world: &World, what: u32) {
    let (folder, beside) = (&world.rw.path, world.home());
    let (one, other) = match what >> 4 & 3 {
        0 => ("host", "moved"),
        1 => ("dir", "moved"),
        2 => ("moved", "dir"),
        _ => ("file", "host"),
    };
    let (one, other) = if what & 0x40 == 0 {
        (folder.join(one), folder.join(other))
    } else {
        (folder.join(one), world.taken.path.join(one))
    };
    // What does not work was not done.
    let _ = match what & 7 {
        0 | 1 => {
            let new = beside.join("new");
            fs::write(&new, b"of the host's").and_then(|()| fs::rename(&new, &one))
        }
        2 => fs::remove_file(&one),
        3 => fs::create_dir(&one),
        4 => fs::rename(&one, &other),
        5 => fs::rename(&one, &other).and_then(|()| symlink("../canary", &one)),
        6 => symlink("../canary/secret", &one),
        _ => fs::remove_dir(&one),
    };
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

fn open_descriptors() -> usize {
    // One of them is that of the directory itself.
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() - 1)
}
