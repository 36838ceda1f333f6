//! A host file system that lacks what others have: FAT knows no links, no permissions, no attributes of users, and finds a file
//! by names that no listing shows.

use fuse::testing::Message;
use rustix::io::Errno;
use share_fs::Limits;

use crate::{
    file_systems::{FileSystem, Kind},
    world::{Setup, World, put},
};

/// Runs `test` in an empty folder on FAT, or says why not.
fn on_fat(test: impl FnOnce(&std::path::Path)) {
    match FileSystem::make(Kind::Fat) {
        Ok(made) => test(made.path()),
        Err(reason) => println!("not on FAT: {reason}"),
    }
}

#[test]
fn what_fat_cannot_do_is_refused_and_takes_no_room() {
    on_fat(|base| {
        let limits = Limits {
            bytes: Some(64 << 10),
            files: Some(3),
        };
        let world = World::with(
            base,
            &Setup {
                limits,
                ..Setup::default()
            },
        );
        let root = world.root;
        let f = world.create(root, b"f", 0, 0o644).unwrap();
        for _ in 0..5 {
            for (message, errno) in [
                (Message::link(f, root, b"hard"), Errno::PERM),
                (Message::symlink(root, b"soft", b"f"), Errno::PERM),
                (Message::tmpfile(root, 0o600), Errno::OPNOTSUPP),
                (Message::setxattr(f, b"user.a", b"1", 0), Errno::OPNOTSUPP),
                // A hole.
                (Message::fallocate(f, (0, 4096), 3), Errno::OPNOTSUPP),
            ] {
                assert_eq!(world.answer(&message).error(), Some(errno), "{message:?}");
            }
        }
        assert_eq!(world.names(root), ["f"]);
        // Two files more, and all the bytes: nothing of it was counted.
        world.mkdir(root, b"d").unwrap();
        let g = world.create(root, b"g", 0, 0o644).unwrap();
        assert_eq!(world.create(root, b"h", 0, 0o644), Err(Errno::DQUOT));
        assert_eq!(world.write(g, 0, &[b'x'; 64 << 10]), Ok(64 << 10));
        assert_eq!(world.write(f, 0, b"x"), Err(Errno::DQUOT));
        world.done(&Message::unlink(root, b"g")).unwrap();
        world.forget(g, 1);
        assert_eq!(world.write(f, 0, b"x"), Ok(1));
    });
}

#[test]
fn what_fat_can_do_is_done() {
    on_fat(|base| {
        let world = World::new(base);
        let root = world.root;
        let d = world.mkdir(root, b"directory").unwrap();
        let f = world.create(d, b"A long name, with a blank", 0, 0o644).unwrap();
        assert_eq!(world.write(f, 0, b"text"), Ok(4));
        world.done(&Message::fsync(f, false)).unwrap();
        // There are no permissions but to write or not.
        world.chmod(f, 0o600).unwrap();
        world
            .rename((d, b"A long name, with a blank"), (root, b"other"))
            .unwrap();
        world.rename((root, b"other"), (root, b"another")).unwrap();
        assert_eq!(world.read(f, 0, 10).unwrap(), b"text");
        assert_eq!(world.truncate(f, 2).unwrap().size, 2);
        assert_eq!(world.host_text("another"), "te");
        world.done(&Message::rmdir(root, b"directory")).unwrap();
        world.done(&Message::unlink(root, b"another")).unwrap();
        assert_eq!(world.read(f, 0, 10).unwrap(), b"te");
        assert!(world.names(root).is_empty());
    });
}

#[test]
fn what_is_hidden_has_no_other_name_on_fat() {
    on_fat(|base| {
        let world = World::guarded(base);
        put(world.share.join(".ssh/id_ed25519"), "secret");
        put(world.share.join(".git-credentials"), "secret");
        put(world.share.join(".vscode/settings.json"), "{}");
        // Case does not count for FAT, and a name of eight letters at most stands beside every longer one.
        for name in [
            ".ssh",
            ".SSH",
            "SSH~1",
            "ssh~1",
            ".Git-Credentials",
            "GIT-CR~1",
            "git-cr~1",
        ] {
            assert_eq!(world.find(name).err(), Some(Errno::NOENT), "{name}");
        }
        for name in [
            ".vscode/settings.json",
            "VSCODE~1/settings.json",
            ".vscode/SETTIN~1.JSO",
        ] {
            if let Ok(node) = world.find(name) {
                assert!(world.write(node, 0, b"changed").is_err(), "{name}");
            }
        }
        assert_eq!(world.host_text(".vscode/settings.json"), "{}");
    });
}
