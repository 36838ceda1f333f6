//! Host edits as the guest's agent hears of them and repeats them, message by message.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use fuse::{
    Caller,
    testing::{Answer, Message},
};
use rustix::io::Errno;

use crate::world::{ROOT, S_IFREG, World, as_a_user, put};

const AGENT: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 4242,
};
/// More than the device keeps of what the agent has not repeated.
const MANY: usize = 4200;

/// The agent of a guest in which something is watched.
struct Agent<'a> {
    world: &'a World,
    channel: u64,
}

impl<'a> Agent<'a> {
    fn watching(world: &'a World, paths: &[&str]) -> Self {
        let channel = world.lookup(ROOT, b".coffer-events").unwrap();
        let agent = Agent { world, channel };
        let lines = paths.iter().map(|path| {
            world.find(path).unwrap();
            let inode = fs::metadata(world.share.join(path)).unwrap().ino();
            format!("{inode} share\n")
        });
        let set: String = lines.collect();
        let told = agent.ask(Message::write(channel, 0, set.as_bytes()));
        assert_eq!(told.error(), None);
        agent
    }

    fn ask(&self, message: Message) -> Answer {
        self.world.answer(&message.by(AGENT))
    }

    /// What is told twice in a row: of what has happened by now the device tells when it is asked next.
    fn news(&self) -> Vec<String> {
        [self.read(), self.read()].concat()
    }

    fn read(&self) -> Vec<String> {
        let answer = self.ask(Message::read(self.channel, 0, 64 << 10));
        let text = String::from_utf8(answer.result().unwrap().to_vec()).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    fn lookup(&self, name: &[u8]) -> Result<u64, Errno> {
        self.ask(Message::lookup(self.world.root, name)).node()
    }

    fn make(&self, name: &[u8]) -> Result<u64, Errno> {
        self.ask(Message::mknod(self.world.root, name, S_IFREG | 0o600))
            .node()
    }

    fn remove(&self, name: &[u8]) -> Option<Errno> {
        self.ask(Message::unlink(self.world.root, name)).error()
    }
}

fn world() -> (tempfile::TempDir, World) {
    let base = tempfile::tempdir().unwrap();
    let world = World::new(base.path());
    (base, world)
}

fn appear(path: &Path, names: impl Iterator<Item = String>) {
    for name in names {
        fs::write(path.join(name), "").unwrap();
    }
}

#[test]
fn a_directory_that_cannot_be_watched_costs_the_others_nothing() {
    let base = tempfile::tempdir().unwrap();
    as_a_user(base.path(), |base| {
        let world = World::new(base);
        put(world.share.join("open/file"), "");
        fs::create_dir(world.share.join("shut")).unwrap();
        let unreadable = std::os::unix::fs::PermissionsExt::from_mode(0o300);
        fs::set_permissions(world.share.join("shut"), unreadable).unwrap();
        let agent = Agent::watching(&world, &["shut", "open"]);
        put(world.share.join("open/new"), "");
        assert_eq!(agent.news(), ["C share/open/new"]);
    });
}

/// The guest's kernel knew the file by then, and the agent's MKNOD never came.
#[test]
fn what_was_not_repeated_does_not_hide_what_happens_next() {
    let (_base, world) = world();
    let agent = Agent::watching(&world, &[""]);
    put(world.share.join("x"), "1");
    assert_eq!(agent.news(), ["C share/x"]);
    put(world.share.join("x"), "22");
    assert_eq!(agent.news(), ["M share/x"]);
    assert!(agent.lookup(b"x").is_ok(), "it is there to be changed");
}

#[test]
fn however_much_is_not_repeated_the_next_edit_is_news() {
    let (_base, world) = world();
    let agent = Agent::watching(&world, &[""]);
    appear(&world.share, (0..MANY).map(|number| format!("old-{number}")));
    let mut told = 0;
    for _ in 0..4 {
        told += agent.news().len();
    }
    assert_eq!(told, MANY);
    put(world.share.join("new"), "1");
    assert_eq!(agent.news(), ["C share/new"]);
}

/// The host saved by rename: what was told of by its old name lives on under the new one.
#[test]
fn the_old_name_of_a_file_goes_without_the_file() {
    let (_base, world) = world();
    put(world.share.join("app"), "old");
    put(world.share.join("app.tmp"), "new");
    let agent = Agent::watching(&world, &[""]);
    let temporary = agent.lookup(b"app.tmp").unwrap();
    fs::rename(world.share.join("app.tmp"), world.share.join("app")).unwrap();
    assert_eq!(agent.news(), ["U share/app", "C share/app", "U share/app.tmp"]);
    agent.lookup(b"app").unwrap();
    assert_eq!(agent.remove(b"app"), None);
    let app = agent.make(b"app").unwrap();
    assert_eq!(app, temporary, "it is the same file");

    let shown = agent.lookup(b"app.tmp").unwrap();
    assert_eq!(agent.remove(b"app.tmp"), None);
    assert_eq!(world.read(app, 0, 10), Ok(b"new".to_vec()));
    // A kernel would not remove what it takes for the file that is still there.
    assert_ne!(shown, app);
    world.forget(shown, 1);
    assert_eq!(world.read(app, 0, 10), Ok(b"new".to_vec()));
}

/// As it does when it believes still that the old name is there.
#[test]
fn the_old_name_of_a_file_goes_without_being_looked_up() {
    let (_base, world) = world();
    put(world.share.join("b"), "text");
    let agent = Agent::watching(&world, &[""]);
    agent.lookup(b"b").unwrap();
    fs::rename(world.share.join("b"), world.share.join("a")).unwrap();
    assert_eq!(agent.news(), ["C share/a", "U share/b"]);
    let a = agent.make(b"a").unwrap();
    assert_eq!(agent.remove(b"b"), None);
    assert_eq!(world.read(a, 0, 10), Ok(b"text".to_vec()));
}

/// It was looked up while it was gone, so the kernel does not ask again to remove it.
#[test]
fn what_the_guest_knew_to_be_gone_is_made_again() {
    let (_base, world) = world();
    put(world.share.join("f"), "1");
    let agent = Agent::watching(&world, &[""]);
    fs::remove_file(world.share.join("f")).unwrap();
    put(world.share.join("kept"), "");
    put(world.share.join("f"), "2");
    let news = agent.news();
    if news.contains(&"M share/f".to_owned()) {
        println!("skipped: this file system gives the new file the old one's identity");
        return;
    }
    assert_eq!(news, ["U share/f", "C share/f", "C share/kept"]);
    let f = agent.make(b"f").unwrap();
    assert_eq!(world.read(f, 0, 10), Ok(b"2".to_vec()));
}
