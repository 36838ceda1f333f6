//! Nothing at all changes in a folder shared read-only, whatever is asked.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
};

use fuse::{
    Changes, TimeChange,
    testing::{self, Message},
};
use rustix::io::Errno;

use crate::{
    file_systems::each_file_system,
    snapshot::{assert_same, unread},
    world::{EXCHANGE, NO_REPLACE, O_EXCL, O_TRUNC, S_IFREG, Setup, World, as_a_user, put},
};

/// What an operation is to a folder that must not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Mutates,
    /// It reads, or makes the device remember less.
    Harmless,
    /// The server answers ENOSYS to it.
    Unknown,
}

/// Numbers of the protocol go up to here, with room for those to come.
const LAST: u32 = 128;
const FIRST_UNUSED: u32 = 53;

fn class(opcode: u32) -> Option<Class> {
    Some(match opcode {
        // SETATTR, SYMLINK, MKNOD, MKDIR, UNLINK, RMDIR, RENAME, LINK, WRITE, SETXATTR, REMOVEXATTR, CREATE,
        // FALLOCATE, RENAME2, COPY_FILE_RANGE, TMPFILE.
        4 | 6 | 8..=13 | 16 | 21 | 24 | 35 | 43 | 45 | 47 | 51 => Class::Mutates,
        // LOOKUP, FORGET, GETATTR, READLINK, READ, STATFS, RELEASE, FSYNC, GETXATTR, LISTXATTR, INIT, READDIR,
        // RELEASEDIR, FSYNCDIR, INTERRUPT, DESTROY, NOTIFY_REPLY, BATCH_FORGET, READDIRPLUS, LSEEK, SYNCFS, STATX.
        1..=3 | 5 | 15 | 17 | 18 | 20 | 22 | 23 | 26 | 28..=30 | 36 | 38 | 41 | 42 | 44 | 46 | 50 | 52 => {
            Class::Harmless
        }
        // OPEN, FLUSH, OPENDIR, GETLK, SETLK, SETLKW, ACCESS, BMAP, IOCTL, POLL, SETUPMAPPING, REMOVEMAPPING.
        14 | 25 | 27 | 31..=34 | 37 | 39 | 40 | 48 | 49 => Class::Unknown,
        7 | 19 | FIRST_UNUSED..=LAST => Class::Unknown,
        _ => return None,
    })
}

/// Valid messages, several for what can be asked in several ways.
fn messages(world: &World, opcode: u32) -> Vec<Message> {
    let root = world.root;
    let (f, d, link) = (
        world.find("f").unwrap(),
        world.find("d").unwrap(),
        world.find("link").unwrap(),
    );
    let change = |change: fn(&mut Changes)| {
        let mut changes = Changes::default();
        change(&mut changes);
        Message::setattr(f, &changes)
    };
    match opcode {
        1 => vec![Message::lookup(root, b"f")],
        3 => vec![Message::getattr(f)],
        4 => vec![
            change(|to| to.size = Some(0)),
            change(|to| to.size = Some(5)),
            change(|to| to.permissions = Some(0o777)),
            change(|to| to.uid = Some(1000)),
            change(|to| to.gid = Some(1000)),
            change(|to| to.accessed = Some(TimeChange::Now)),
            change(|to| to.modified = Some(TimeChange::Now)),
            change(|to| to.kill_privileges = true),
            change(|_| {}),
        ],
        5 => vec![Message::readlink(link)],
        6 => vec![Message::symlink(root, b"n", b"f")],
        8 => vec![
            Message::mknod(root, b"n", S_IFREG | 0o644),
            Message::mknod(root, b"f", S_IFREG | 0o644),
            Message::mknod(root, b"n", 0o010_644),
        ],
        9 => vec![Message::mkdir(root, b"n", 0o755), Message::mkdir(d, b"n", 0o755)],
        10 => vec![Message::unlink(root, b"f"), Message::unlink(root, b"absent")],
        11 => vec![Message::rmdir(d, b"empty"), Message::rmdir(root, b"f")],
        12 => vec![
            Message::rename((root, b"f"), (root, b"n")),
            Message::rename((root, b"f"), (root, b"g")),
            Message::rename((root, b"f"), (root, b"f")),
            Message::rename((root, b"d"), (root, b"n")),
        ],
        13 => vec![Message::link(f, root, b"n"), Message::link(link, d, b"n")],
        15 => vec![Message::read(f, 0, 100)],
        16 => vec![
            Message::write(f, 0, b"guest"),
            Message::write_with(f, 0, b"guest", (0o2000, 0)),
            Message::write_with(f, 0, b"guest", (0, 1)),
            Message::write(f, 0, b""),
        ],
        17 => vec![Message::statfs(root)],
        18 => vec![Message::release(f, 0), Message::release(f, 1)],
        20 => vec![Message::fsync(f, true)],
        21 => vec![
            Message::setxattr(f, b"user.guest", b"x", 0),
            Message::setxattr(d, b"user.host", b"x", 2),
            Message::setxattr(f, b"security.capability", b"x", 0),
        ],
        22 => vec![Message::getxattr(f, b"user.host", 100)],
        23 => vec![Message::listxattr(f, 100)],
        24 => vec![Message::removexattr(f, b"user.host")],
        28 => vec![Message::readdir(root, 0, 4096)],
        29 => vec![Message::releasedir(d)],
        30 => vec![Message::fsyncdir(d, false)],
        35 => vec![
            Message::create(root, b"n", 0, 0o644),
            Message::create(root, b"n", O_EXCL, 0o644),
            Message::create(root, b"f", 0, 0o644),
            Message::create(root, b"f", O_TRUNC, 0o644),
        ],
        43 => [0, 1, 3, 16, 17]
            .into_iter()
            .map(|mode| Message::fallocate(f, (0, 4096), mode))
            .collect(),
        44 => vec![Message::readdirplus(root, 0, 4096)],
        45 => vec![
            Message::rename2((root, b"f"), (root, b"n"), NO_REPLACE),
            Message::rename2((root, b"f"), (root, b"g"), EXCHANGE),
            Message::rename2((root, b"f"), (d, b"n"), 0),
        ],
        46 => vec![Message::lseek(f, 0, 3)],
        47 => vec![
            Message::copy_file_range((world.find("g").unwrap(), 0), (f, 0), 5),
            Message::copy_file_range((f, 0), (f, 2), 1),
        ],
        50 => vec![Message::syncfs(root)],
        51 => vec![Message::tmpfile(root, 0o600)],
        52 => vec![Message::statx(f)],
        // FORGET, BATCH_FORGET, INTERRUPT, INIT and DESTROY come in tests of their own; the rest is unknown.
        _ => vec![Message::of(opcode, f), Message::of(opcode, root).and(&[0; 64])],
    }
}

fn world(base: &std::path::Path) -> World {
    let world = World::with(base, &Setup::read_only());
    put(world.share.join("f"), "text of f");
    put(world.share.join("g"), "text of g");
    put(world.share.join("d/f"), "below");
    fs::create_dir(world.share.join("d/empty")).unwrap();
    std::os::unix::fs::symlink("f", world.share.join("link")).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    let _ = rustix::fs::setxattr(world.share.join("f"), "user.host", b"host", flags);
    world
}

#[test]
fn a_read_only_folder_refuses_everything_that_would_change_it() {
    each_file_system(|base| {
        let world = world(base);
        // Reading it once moves the times of access where they are kept.
        let touch = |world: &World| {
            let f = world.find("f").unwrap();
            world.read(f, 0, 100).unwrap();
            world.list(world.root, true).unwrap();
        };
        touch(&world);
        let before = unread(&world.share);
        for opcode in 1..=LAST {
            let class = class(opcode).unwrap_or_else(|| panic!("nobody has said what {opcode} is"));
            for message in messages(&world, opcode) {
                let answer = testing::ask(&world.server, &message);
                let error = answer.as_ref().and_then(testing::Answer::error);
                if class == Class::Mutates {
                    assert_eq!(error, Some(Errno::ROFS), "operation {opcode}: {message:?}");
                }
                assert_eq!(before, unread(&world.share), "operation {opcode}: {message:?}");
                if opcode == 26 || opcode == 38 {
                    testing::ask(&world.server, &Message::init());
                }
            }
        }
    });
}

/// When the library learns a new operation, somebody has to say here what it is.
#[test]
fn every_operation_the_server_knows_is_classified() {
    let base = tempfile::tempdir().unwrap();
    let world = World::new(base.path());
    put(world.share.join("f"), "text");
    for opcode in 0..=LAST {
        // A message with nothing in it: EINVAL of an operation that is known, ENOSYS of one that is not.
        let f = world.find("f").unwrap();
        let message = Message::of(opcode, f).and(&[0xff; 3]);
        let answer = testing::ask(&world.server, &message);
        let unknown = answer.is_some_and(|answer| answer.error() == Some(Errno::NOSYS));
        testing::ask(&world.server, &Message::init());
        if opcode == 0 {
            assert!(unknown);
            continue;
        }
        match class(opcode) {
            None => panic!("nobody has said what {opcode} is"),
            Some(Class::Unknown) if (FIRST_UNUSED..=LAST).contains(&opcode) => {
                assert!(unknown, "{opcode} is known to the server and not to this test");
            }
            Some(Class::Unknown) => {}
            Some(_) => assert!(!unknown, "{opcode} is not known to the server any more"),
        }
    }
}

#[test]
fn a_read_only_folder_tells_nothing_of_what_is_hidden() {
    let base = tempfile::tempdir().unwrap();
    let setup = Setup {
        patterns: true,
        ..Setup::read_only()
    };
    let world = World::with(base.path(), &setup);
    put(world.share.join(".ssh/id"), "secret");
    let before = unread(&world.share);
    for name in [&b".ssh"[..], b".gnupg", b"f"] {
        for message in [
            Message::create(world.root, name, 0, 0o644),
            Message::mkdir(world.root, name, 0o755),
            Message::unlink(world.root, name),
            Message::rmdir(world.root, name),
            Message::rename((world.root, name), (world.root, b"n")),
        ] {
            assert_eq!(world.answer(&message).error(), Some(Errno::ROFS), "{message:?}");
        }
    }
    assert_same(&before, &unread(&world.share), "read-only");
}

/// The permissions of a file are part of the folder, also for a moment.
#[test]
fn reading_what_its_owner_may_not_read_changes_nothing_of_a_read_only_folder() {
    let base = tempfile::tempdir().unwrap();
    as_a_user(base.path(), |base| {
        let world = World::with(base, &Setup::read_only());
        let mut before = Vec::new();
        for (name, permissions) in [("closed", 0), ("write-only", 0o200)] {
            let path = world.share.join(name);
            put(&path, "secret");
            fs::set_permissions(&path, fs::Permissions::from_mode(permissions)).unwrap();
            before.push((path.clone(), changed(&path)));
            let file = world.find(name).unwrap();
            assert_eq!(world.read(file, 0, 10), Err(Errno::ACCESS), "{name}");
            let _ = world.done(&Message::getxattr(file, b"user.x", 10));
            let _ = world.done(&Message::fsync(file, false));
            let _ = world.done(&Message::lseek(file, 0, 3));
        }
        for (path, changed_before) in before {
            assert_eq!(changed(&path), changed_before, "{}", path.display());
        }
    });
}

fn changed(path: &std::path::Path) -> (i64, i64, u32) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.ctime(), stat.ctime_nsec(), stat.mode())
}
