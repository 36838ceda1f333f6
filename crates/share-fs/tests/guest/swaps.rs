//! The host puts something else in the place of what the guest knows.

use std::{fs, os::unix::fs::symlink, path::Path, sync::Arc, thread};

use fuse::{Changes, Reply, TimeChange, Timestamp, testing::Message};
use rustix::{
    fs::{FileType, Mode as FileMode, inotify},
    io::Errno,
};

use crate::{
    file_systems::each_file_system,
    snapshot::{assert_same, snapshot},
    world::{EXCHANGE, LONG_ENOUGH, S_IFREG, World, is_root, promptly, put},
};

/// What the guest found before the host moved things.
#[derive(Clone, Copy, Debug)]
struct Known {
    root: u64,
    directory: u64,
    file: u64,
    link: u64,
    below: u64,
    /// In the share's root, and not moved.
    other: u64,
}

impl Known {
    fn find(world: &World) -> Self {
        Known {
            root: world.root,
            directory: world.find("d").unwrap(),
            file: world.find("d/f").unwrap(),
            link: world.find("d/link").unwrap(),
            below: world.find("d/sub").unwrap(),
            other: world.find("other").unwrap(),
        }
    }
}

fn fill(tree: &Path) {
    put(tree.join("f"), "canary");
    put(tree.join("g"), "canary");
    put(tree.join("sub/f"), "canary");
    fs::create_dir(tree.join("empty")).unwrap();
    symlink("/etc/passwd", tree.join("link")).unwrap();
}

fn world(base: &Path) -> World {
    let world = World::new(base);
    put(world.share.join("other"), "other");
    fill(&world.share.join("d"));
    fill(&world.outside.join("tree"));
    put(world.outside.join("tree/f"), "canary outside");
    world
}

/// Operations on names in a directory.
fn in_directory(known: &Known, directory: u64) -> Vec<(&'static str, Message)> {
    let Known { root, other, .. } = *known;
    vec![
        ("lookup", Message::lookup(directory, b"f")),
        ("lookup below", Message::lookup(directory, b"sub")),
        ("readdir", Message::readdir(directory, 0, 4096)),
        ("readdirplus", Message::readdirplus(directory, 0, 4096)),
        ("create", Message::create(directory, b"n1", 0, 0o644)),
        ("create over", Message::create(directory, b"f", 0o1000, 0o644)),
        ("mknod", Message::mknod(directory, b"n2", S_IFREG | 0o644)),
        ("mkdir", Message::mkdir(directory, b"n3", 0o755)),
        ("symlink", Message::symlink(directory, b"n4", b"/")),
        ("link", Message::link(other, directory, b"n5")),
        ("tmpfile", Message::tmpfile(directory, 0o600)),
        ("fsyncdir", Message::fsyncdir(directory, false)),
        (
            "rename into",
            Message::rename((root, b"other"), (directory, b"n6")),
        ),
        (
            "rename within",
            Message::rename((directory, b"f"), (directory, b"n7")),
        ),
        ("rename out", Message::rename((directory, b"g"), (root, b"n8"))),
        (
            "exchange",
            Message::rename2((root, b"other"), (directory, b"f"), EXCHANGE),
        ),
        ("unlink", Message::unlink(directory, b"f")),
        ("unlink link", Message::unlink(directory, b"link")),
        ("rmdir", Message::rmdir(directory, b"empty")),
    ]
}

/// Operations on a file, none of which needs its name.
fn on_file(known: &Known, file: u64) -> Vec<(&'static str, Message)> {
    let times = Changes {
        modified: Some(TimeChange::To(Timestamp {
            seconds: 1,
            nanoseconds: 0,
        })),
        accessed: Some(TimeChange::Now),
        ..Changes::default()
    };
    let changes = |change: fn(&mut Changes)| {
        let mut changes = Changes::default();
        change(&mut changes);
        changes
    };
    vec![
        ("getattr", Message::getattr(file)),
        ("statx", Message::statx(file)),
        ("read", Message::read(file, 0, 4096)),
        ("write", Message::write(file, 0, b"guest")),
        (
            "truncate",
            Message::setattr(file, &changes(|to| to.size = Some(1))),
        ),
        (
            "chmod",
            Message::setattr(file, &changes(|to| to.permissions = Some(0o777))),
        ),
        ("utimens", Message::setattr(file, &times)),
        ("setxattr", Message::setxattr(file, b"user.guest", b"was here", 0)),
        ("getxattr", Message::getxattr(file, b"user.host", 100)),
        ("listxattr", Message::listxattr(file, 100)),
        ("removexattr", Message::removexattr(file, b"user.host")),
        ("fallocate", Message::fallocate(file, (0, 4096), 0)),
        ("punch", Message::fallocate(file, (0, 4096), 3)),
        ("lseek", Message::lseek(file, 0, 3)),
        ("fsync", Message::fsync(file, false)),
        (
            "copy into",
            Message::copy_file_range((known.other, 0), (file, 0), 5),
        ),
        (
            "copy out of",
            Message::copy_file_range((file, 0), (known.other, 0), 5),
        ),
        ("link", Message::link(file, known.root, b"stolen")),
    ]
}

fn everything(known: &Known) -> Vec<(&'static str, Message)> {
    let mut all = on_file(known, known.file);
    all.push(("readlink", Message::readlink(known.link)));
    all.extend(in_directory(known, known.below));
    all.extend(in_directory(known, known.directory));
    all
}

/// ENOENT stands for "there is nothing of that name" too.
fn nothing_comes(world: &World, messages: Vec<(&'static str, Message)>) {
    for (operation, message) in messages {
        let error = world.answer(&message).error();
        let empty = || world.answer(&message).node() == Err(Errno::NOENT);
        assert!(
            // EISDIR where a directory took a file's place, EPERM where a removed one takes no more.
            matches!(
                error,
                Some(Errno::STALE | Errno::NOENT | Errno::ISDIR | Errno::PERM)
            ) || empty(),
            "{operation} answers {error:?}"
        );
    }
}

#[test]
fn a_directory_swapped_for_a_link_to_the_outside_leads_nowhere() {
    each_file_system(|base| {
        // At once, when the device may still believe that the directory is where it was.
        let world = self::world(base);
        let known = Known::find(&world);
        let before = snapshot(&world.outside);
        fs::rename(world.share.join("d"), world.share.join("away")).unwrap();
        symlink(world.outside.join("tree"), world.share.join("d")).unwrap();
        for (operation, message) in everything(&known) {
            let answer = world.answer(&message);
            if let Ok(body) = answer.result() {
                assert!(!contains(body, b"outside"), "{operation}");
            }
            assert_same(&before, &snapshot(&world.outside), operation);
        }
        // And when it looks again.
        let world = self::world(base);
        let known = Known::find(&world);
        fs::rename(world.share.join("d"), world.share.join("away")).unwrap();
        symlink(world.outside.join("tree"), world.share.join("d")).unwrap();
        thread::sleep(LONG_ENOUGH);
        let before = snapshot(&world.outside);
        nothing_comes(&world, everything(&known));
        assert_same(&before, &snapshot(&world.outside), "after a second");
    });
}

#[test]
fn a_directory_swapped_for_another_directory_is_stale_and_untouched() {
    each_file_system(|base| {
        let world = world(base);
        let known = Known::find(&world);
        fs::rename(world.share.join("d"), world.outside.join("was-d")).unwrap();
        fs::rename(world.outside.join("tree"), world.share.join("d")).unwrap();
        thread::sleep(LONG_ENOUGH);
        let before = (snapshot(&world.outside), snapshot(&world.share));
        nothing_comes(&world, everything(&known));
        assert_same(&before.0, &snapshot(&world.outside), "outside");
        assert_same(&before.1, &snapshot(&world.share), "share");
    });
}

#[test]
fn nothing_in_a_directory_moved_out_of_the_share_can_be_read_or_changed_after_a_second() {
    each_file_system(|base| {
        let world = world(base);
        let known = Known::find(&world);
        fs::rename(world.share.join("d"), world.outside.join("was-d")).unwrap();
        thread::sleep(LONG_ENOUGH);
        let before = snapshot(&world.outside);
        nothing_comes(&world, everything(&known));
        assert_same(&before, &snapshot(&world.outside), "after a second");
    });
}

#[test]
fn a_file_the_guest_was_reading_is_out_of_reach_a_second_after_it_was_moved_out() {
    each_file_system(|base| {
        let world = world(base);
        let known = Known::find(&world);
        assert_eq!(world.read(known.file, 0, 100), Ok(b"canary".to_vec()));
        fs::rename(world.share.join("d"), world.outside.join("was-d")).unwrap();
        thread::sleep(LONG_ENOUGH);
        fs::write(world.outside.join("was-d/f"), "secret").unwrap();
        assert_eq!(world.read(known.file, 0, 100), Err(Errno::STALE));
    });
}

#[test]
fn a_file_the_guest_was_writing_is_out_of_reach_a_second_after_it_was_moved_out() {
    each_file_system(|base| {
        let world = world(base);
        let known = Known::find(&world);
        world.write(known.file, 0, b"guest").unwrap();
        fs::rename(world.share.join("d"), world.outside.join("was-d")).unwrap();
        thread::sleep(LONG_ENOUGH);
        let before = snapshot(&world.outside);
        nothing_comes(&world, on_file(&known, known.file));
        assert_same(&before, &snapshot(&world.outside), "after a second");
    });
}

#[test]
fn a_file_swapped_for_anything_else_is_stale_and_neither_is_touched() {
    each_file_system(|base| {
        type Make = fn(&World, &Path);
        let mut replacements: Vec<(&str, Make)> = vec![
            ("a link out", |world, path| {
                symlink(world.outside.join("tree/f"), path).unwrap();
            }),
            ("another file", |_, path| put(path, "another")),
            ("a hard link of an outside file", |world, path| {
                fs::hard_link(world.outside.join("tree/f"), path).unwrap();
            }),
            ("a directory", |_, path| fs::create_dir(path).unwrap()),
            ("a FIFO", |_, path| special(path, FileType::Fifo, 0)),
            ("nothing", |_, _| {}),
        ];
        if is_root() {
            // /dev/zero: what is read of it comes at once, and writing to it does nothing.
            replacements.push(("a device", |_, path| {
                special(path, FileType::CharacterDevice, rustix::fs::makedev(1, 5));
            }));
        }
        for (what, make) in replacements {
            let world = Arc::new(world(base));
            let known = Known::find(&world);
            let path = world.share.join("d/f");
            fs::rename(&path, world.outside.join("was-f")).unwrap();
            make(&world, &path);
            let before = (snapshot(&world.outside), snapshot(&world.share.join("d")));
            let asked = Arc::clone(&world);
            promptly(what, move || nothing_comes(&asked, on_file(&known, known.file)));
            assert_same(&before.0, &snapshot(&world.outside), what);
            assert_same(&before.1, &snapshot(&world.share.join("d")), what);
        }
    });
}

pub(crate) fn special(path: &Path, kind: FileType, device: u64) {
    let mode = FileMode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, device).unwrap();
}

#[test]
fn fifos_sockets_and_devices_are_shown_and_never_opened() {
    each_file_system(|base| {
        let world = Arc::new(world(base));
        let known = Known::find(&world);
        special(&world.share.join("fifo"), FileType::Fifo, 0);
        let _socket = std::os::unix::net::UnixListener::bind(short(&world.share).join("socket")).unwrap();
        let mut names = vec!["fifo", "socket"];
        if is_root() {
            special(
                &world.share.join("device"),
                FileType::CharacterDevice,
                rustix::fs::makedev(1, 5),
            );
            special(
                &world.share.join("disk"),
                FileType::BlockDevice,
                rustix::fs::makedev(7, 0),
            );
            names.extend(["device", "disk"]);
        } else {
            println!("no devices: only root makes them");
        }
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        for name in names {
            let path = world.share.join(name);
            inotify::add_watch(&watch, &path, inotify::WatchFlags::OPEN).unwrap();
            let node = world.find(name).unwrap();
            let attributes = world.attributes(node).unwrap();
            assert_eq!(attributes.device, 0, "{name} shows no device number");
            assert!(
                !matches!(attributes.kind, fuse::FileKind::File | fuse::FileKind::Directory),
                "{name}"
            );
            let asked = Arc::clone(&world);
            promptly(name, move || {
                for (operation, message) in on_file(&known, node) {
                    let error = asked.answer(&message).error();
                    let harmless = matches!(
                        operation,
                        "getattr" | "statx" | "chmod" | "utimens" | "listxattr" | "link"
                    );
                    assert!(harmless || error.is_some(), "{operation} of {name}");
                }
                let opened = asked.create(asked.root, name.as_bytes(), 0o1000, 0o644);
                assert!(opened.is_err() || opened == Ok(node), "{name} is not replaced");
            });
            let mut events = [std::mem::MaybeUninit::uninit(); 1024];
            let mut reader = inotify::Reader::new(&watch, &mut events);
            let event = reader.next().map(|event| event.events());
            assert_eq!(event.err(), Some(Errno::AGAIN), "{name} was opened");
        }
    });
}

/// The name of a socket is short, whatever the folder is called.
fn short(path: &Path) -> std::path::PathBuf {
    use std::os::fd::AsRawFd as _;
    let folder = Box::leak(Box::new(fs::File::open(path).unwrap()));
    format!("/proc/self/fd/{}", folder.as_raw_fd()).into()
}

#[test]
fn the_folder_itself_replaced_on_the_host_stays_the_one_that_was_shared() {
    each_file_system(|base| {
        let world = world(base);
        let known = Known::find(&world);
        let moved = world.outside.join("was-share");
        fs::rename(&world.share, &moved).unwrap();
        fs::rename(world.outside.join("tree"), &world.share).unwrap();
        thread::sleep(LONG_ENOUGH);
        let before = snapshot(&world.share);
        world.write(known.file, 0, b"guest!").unwrap();
        world.create(world.root, b"new", 0, 0o644).unwrap();
        assert_eq!(fs::read_to_string(moved.join("d/f")).unwrap(), "guest!");
        assert!(moved.join("new").exists());
        assert_same(&before, &snapshot(&world.share), "the other folder");
    });
}

#[test]
fn a_folder_removed_on_the_host_is_stale() {
    each_file_system(|base| {
        let world = world(base);
        let known = Known::find(&world);
        fs::remove_dir_all(&world.share).unwrap();
        fs::create_dir(&world.share).unwrap();
        put(world.share.join("d/f"), "other");
        assert_eq!(world.attributes(world.root), Err(Errno::STALE));
        let mut messages = in_directory(&known, world.root);
        // These do something with a directory that is nowhere.
        messages.retain(|(operation, _)| !matches!(*operation, "fsyncdir" | "tmpfile"));
        nothing_comes(&world, messages);
        nothing_comes(&world, on_file(&known, known.file));
        assert_eq!(world.host_text("d/f"), "other");
        assert!(world.server.file_system().status()[0].lost);
    });
}

pub(crate) fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

#[test]
fn a_replaced_file_is_found_anew_by_its_name() {
    each_file_system(|base| {
        let world = world(base);
        let old = world.find("d/f").unwrap();
        world.read(old, 0, 10).unwrap();
        put(world.share.join("d/new"), "newer");
        fs::rename(world.share.join("d/new"), world.share.join("d/f")).unwrap();
        let new = world.find("d/f").unwrap();
        assert_ne!(new, old, "another file is another node");
        let text: Reply<Vec<u8>> = world.read(new, 0, 10);
        assert_eq!(text, Ok(b"newer".to_vec()));
    });
}
