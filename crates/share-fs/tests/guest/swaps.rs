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
        Known::find_in(world, "d")
    }

    fn find_in(world: &World, directory: &str) -> Self {
        let find = |name: &str| world.find(&format!("{directory}/{name}")).unwrap();
        Known {
            root: world.root,
            directory: find(""),
            file: find("f"),
            link: find("link"),
            below: find("sub"),
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

/// What the host and the guest do about the name of `f` in a directory, after which it is not in the share any more.
type WayOut = fn(&World, &Known, &str);

const WAYS_OUT: [(&str, WayOut); 9] = [
    ("moved", move_out),
    ("moved with its directory", |world, _, directory| {
        fs::rename(world.share.join(directory), world.outside.join(directory)).unwrap();
    }),
    ("another found in its place", |world, known, directory| {
        replace(world, known, directory);
        assert_ne!(world.lookup(known.directory, b"f"), Ok(known.file));
    }),
    ("another made in its place", |world, known, directory| {
        move_out(world, known, directory);
        assert_ne!(world.create(known.directory, b"f", 0, 0o644), Ok(known.file));
    }),
    ("another removed in its place", |world, known, directory| {
        replace(world, known, directory);
        world.done(&Message::unlink(known.directory, b"f")).unwrap();
    }),
    ("another replaced in its place", |world, known, directory| {
        replace(world, known, directory);
        world
            .rename((known.directory, b"g"), (known.directory, b"f"))
            .unwrap();
    }),
    ("another renamed in its place", |world, known, directory| {
        replace(world, known, directory);
        world
            .rename((known.directory, b"f"), (known.directory, b"h"))
            .unwrap();
    }),
    (
        "held by a name the guest made and removed",
        |world, known, directory| {
            name_and_remove(world, known, 1);
            move_out(world, known, directory);
        },
    ),
    (
        "held by many names the guest made and removed",
        |world, known, directory| {
            name_and_remove(world, known, 20);
            move_out(world, known, directory);
        },
    ),
];
/// As many as [`on_file`] has.
const OPERATIONS_ON_FILES: usize = 18;
/// Each waits for a second, and has two shares with some fifty files open.
const WAYS_AT_ONCE: usize = 3;

fn move_out(world: &World, _: &Known, directory: &str) {
    let (from, to) = (
        world.share.join(directory).join("f"),
        world.outside.join(directory),
    );
    fs::rename(from, to).unwrap();
}

fn replace(world: &World, known: &Known, directory: &str) {
    move_out(world, known, directory);
    put(world.share.join(directory).join("f"), "another");
}

/// So that the last name the device heard of is one that is gone.
fn name_and_remove(world: &World, known: &Known, names: u8) {
    let name = |number| [b'a' + number];
    for number in 0..names {
        world
            .done(&Message::link(known.file, known.root, &name(number)))
            .unwrap();
    }
    for number in (0..names).rev() {
        world.done(&Message::unlink(known.root, &name(number))).unwrap();
    }
}

/// Each operation has a file of its own: one that is refused may close what is open, and help those that follow.
#[test]
fn no_operation_reaches_a_file_that_is_out_of_the_share_for_a_second() {
    type Warm = fn(&World, u64);
    let warm: [(&str, Warm); 2] = [
        ("read", |world, file| {
            assert_eq!(world.read(file, 0, 100), Ok(b"canary".to_vec()));
        }),
        ("written", |world, file| {
            assert_eq!(world.write(file, 0, b"canary"), Ok(6));
        }),
    ];
    each_file_system(|base| {
        let mut all = Vec::new();
        for ways in WAYS_OUT.chunks(WAYS_AT_ONCE) {
            let lost: Vec<_> = ways
                .iter()
                .flat_map(|(way, lose)| {
                    warm.map(|(use_, warm)| (format!("{use_}, then {way}"), lose_files(base, warm, *lose)))
                })
                .collect();
            thread::sleep(LONG_ENOUGH);
            for (way, (world, files)) in &lost {
                all.extend(reached(way, world, files));
            }
        }
        assert!(all.is_empty(), "{all:#?}");
    });
}

fn lose_files(base: &Path, warm: fn(&World, u64), lose: WayOut) -> (World, Vec<Known>) {
    let world = World::new(base);
    put(world.share.join("other"), "other");
    let one = |number: usize| {
        let directory = number.to_string();
        fill(&world.share.join(&directory));
        let known = Known::find_in(&world, &directory);
        warm(&world, known.file);
        lose(&world, &known, &directory);
        known
    };
    let known = (0..OPERATIONS_ON_FILES).map(one).collect();
    (world, known)
}

/// How each operation was answered that was not refused.
fn reached(way: &str, world: &World, files: &[Known]) -> Vec<String> {
    assert_eq!(on_file(&files[0], 0).len(), files.len());
    let before = snapshot(&world.outside);
    let mut reached = Vec::new();
    for (number, known) in files.iter().enumerate() {
        let (operation, message) = on_file(known, known.file).swap_remove(number);
        let error = world.answer(&message).error();
        if error != Some(Errno::STALE) {
            reached.push(format!("{operation} of what is {way}: {error:?}"));
        }
    }
    if reached.is_empty() {
        assert_same(&before, &snapshot(&world.outside), way);
        assert_eq!(world.host_text("other"), "other", "{way}");
        assert!(!world.share.join("stolen").exists(), "{way}");
    }
    reached
}

#[test]
fn no_operation_reaches_a_directory_that_is_out_of_the_share_for_a_second() {
    each_file_system(|base| {
        let world = world(base);
        let known = Known::find(&world);
        world.list(known.directory, true).unwrap();
        fs::rename(world.share.join("d"), world.outside.join("was-d")).unwrap();
        thread::sleep(LONG_ENOUGH);
        let before = snapshot(&world.outside);
        nothing_comes(&world, on_file(&known, known.directory));
        nothing_comes(&world, on_file(&known, known.below));
        assert_same(&before, &snapshot(&world.outside), "after a second");
    });
}

#[test]
fn a_link_that_was_moved_out_of_the_share_does_not_show_its_text() {
    each_file_system(|base| {
        let world = world(base);
        let known = Known::find(&world);
        fs::rename(world.share.join("d/link"), world.outside.join("was-link")).unwrap();
        assert_eq!(world.ask(&Message::readlink(known.link)), Err(Errno::STALE));
    });
}

#[test]
fn a_listing_does_not_go_on_in_a_directory_that_was_moved_out_of_the_share() {
    each_file_system(|base| {
        let world = world(base);
        for number in 0..100 {
            put(world.share.join(format!("d/{number}")), "text");
        }
        let known = Known::find(&world);
        let some = world
            .answer(&Message::readdirplus(known.directory, 0, 2048))
            .listing(true)
            .unwrap();
        let next = some.last().unwrap().next;
        fs::rename(world.share.join("d"), world.outside.join("was-d")).unwrap();
        thread::sleep(LONG_ENOUGH);
        for message in [
            Message::readdirplus(known.directory, next, 2048),
            Message::readdir(known.directory, next, 2048),
        ] {
            assert_eq!(world.answer(&message).error(), Some(Errno::STALE));
        }
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
        for (operation, message) in in_directory(&known, world.root) {
            // What has no name needs no directory that is anywhere.
            if !matches!(operation, "fsyncdir" | "tmpfile") {
                let error = world.answer(&message).error();
                assert_eq!(error, Some(Errno::STALE), "{operation}");
            }
        }
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
