//! Host edits as the guest's agent hears of them and repeats them, message by message.

use std::{fs, os::unix::fs::MetadataExt};

use fuse::{
    Caller,
    testing::{Answer, Message},
};

use crate::world::{ROOT, World, as_a_user, put};

const AGENT: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 4242,
};

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
