//! How much a guest may take: room, files, descriptors, memory.

use std::{fs, path::Path, sync::Barrier, time::Instant};

use fuse::{
    Entry,
    testing::{self, Message},
};
use rustix::{
    io::Errno,
    process::{Resource, Rlimit},
};
use share_fs::Limits;

use crate::{
    file_systems::{FileSystem, Kind, each_file_system},
    world::{O_TRUNC, Setup, World, put},
};

fn limited(base: &Path, bytes: Option<u64>, files: Option<u64>) -> World {
    let setup = Setup {
        limits: Limits { bytes, files },
        ..Setup::default()
    };
    World::with(base, &setup)
}

const KIB: u64 = 1 << 10;

/// All bytes below a directory, by the files' sizes.
fn size_of(directory: &Path) -> u64 {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let stat = entry.metadata().unwrap();
            if stat.is_dir() {
                size_of(&entry.path())
            } else {
                stat.len()
            }
        })
        .sum()
}

#[test]
fn a_guest_adds_so_many_bytes_and_no_more() {
    each_file_system(|base| {
        let world = limited(base, Some(64 * KIB), None);
        put(world.share.join("host"), &"h".repeat(10_000));
        let f = world.create(world.root, b"f", 0, 0o644).unwrap();
        let block = [b'x'; 4096];
        let mut offset = 0;
        let error = loop {
            match world.write(f, offset, &block) {
                Ok(n) => offset += u64::from(n),
                Err(error) => break error,
            }
        };
        assert_eq!((error, offset), (Errno::DQUOT, 64 * KIB));
        for message in [
            Message::write(f, 1 << 30, b"far"),
            Message::write_with(f, 0, b"more", (0o2000, 0)),
            Message::fallocate(f, (offset, 4096), 0),
            Message::copy_file_range((f, 0), (f, offset), 4096),
        ] {
            assert_eq!(world.answer(&message).error(), Some(Errno::DQUOT), "{message:?}");
        }
        assert_eq!(world.truncate(f, 1 << 30), Err(Errno::DQUOT));
        // Room behind the end, which counting sizes would miss.
        let behind = world.answer(&Message::fallocate(f, (offset, 4096), 1));
        assert_eq!(behind.error(), Some(Errno::OPNOTSUPP));
        // Overwriting takes nothing, and what is given back may be used again.
        assert_eq!(world.write(f, 0, &block), Ok(4096));
        world.truncate(f, 0).unwrap();
        assert_eq!(world.write(f, 0, &block), Ok(4096));
        assert_eq!(size_of(&world.share), 10_000 + 4096);
    });
}

#[test]
fn what_a_guest_deletes_is_room_again() {
    each_file_system(|base| {
        let world = limited(base, Some(64 * KIB), Some(3));
        let large = vec![b'x'; 60 << 10];
        for round in 0..10 {
            let f = world.create(world.root, b"f", 0, 0o644).unwrap();
            assert_eq!(world.write(f, 0, &large), Ok(60 << 10), "round {round}");
            world.done(&Message::release(f, 1)).unwrap();
            if round % 2 == 0 {
                world.done(&Message::unlink(world.root, b"f")).unwrap();
                world.forget(f, 1);
            } else {
                world.create(world.root, b"f", O_TRUNC, 0o644).unwrap();
                world.done(&Message::unlink(world.root, b"f")).unwrap();
                world.forget(f, 2);
            }
        }
    });
}

#[test]
fn what_a_temporary_file_took_is_room_again() {
    each_file_system(|base| {
        let world = limited(base, Some(64 * KIB), Some(3));
        if world.tmpfile(world.root) == Err(Errno::OPNOTSUPP) {
            return;
        }
        let world = limited(base, Some(64 * KIB), Some(3));
        for round in 0..10 {
            let file = world.tmpfile(world.root);
            assert!(file.is_ok(), "round {round}: {file:?}");
            let file = file.unwrap();
            assert_eq!(
                world.write(file, 0, &[b'x'; 30 << 10]),
                Ok(30 << 10),
                "round {round}"
            );
            world.done(&Message::release(file, 1)).unwrap();
            world.forget(file, 1);
        }
    });
}

#[test]
fn a_file_deleted_while_it_is_open_still_takes_room() {
    let base = tempfile::tempdir().unwrap();
    let world = limited(base.path(), Some(64 * KIB), None);
    let large = vec![b'x'; 60 << 10];
    let mut held = 0;
    for number in 0..10_u32 {
        let name = number.to_string();
        let Ok(f) = world.create(world.root, name.as_bytes(), 0, 0o644) else {
            break;
        };
        if world.write(f, 0, &large).is_ok() {
            held += world.attributes(f).unwrap().size;
        }
        world.done(&Message::unlink(world.root, name.as_bytes())).unwrap();
        // Not released, not forgotten: it is there, and written to.
        assert!(world.attributes(f).is_ok());
    }
    assert!(
        held <= 64 * KIB,
        "{held} bytes are held where {} are allowed",
        64 * KIB
    );
}

#[test]
fn what_a_nameless_file_gives_back_is_given_back_once() {
    each_file_system(|base| {
        let world = limited(base, Some(64 * KIB), None);
        let bytes = vec![b'x'; 60 * KIB as usize];
        let write = |name: &[u8]| {
            let node = world.create(world.root, name, 0, 0o644).unwrap();
            let _ = world.write(node, 0, &bytes);
            node
        };
        let a = write(b"a");
        world.done(&Message::unlink(world.root, b"a")).unwrap();
        write(b"b");
        let _ = world.truncate(a, 0);
        write(b"c");
        assert!(size_of(&world.share) <= 64 * KIB, "{}", size_of(&world.share));
    });
}

#[test]
fn a_guest_adds_so_many_files_and_no_more() {
    each_file_system(|base| {
        let world = limited(base, None, Some(5));
        put(world.share.join("host"), "host");
        let root = world.root;
        world.create(root, b"1", 0, 0o644).unwrap();
        world.mknod(root, b"2").unwrap();
        world.mkdir(root, b"3").unwrap();
        world.done(&Message::symlink(root, b"4", b"text")).unwrap();
        world.create(root, b"5", 0, 0o644).unwrap();
        for message in [
            Message::create(root, b"6", 0, 0o644),
            Message::mknod(root, b"6", 0o100_644),
            Message::mkdir(root, b"6", 0o755),
            Message::symlink(root, b"6", b"text"),
            Message::tmpfile(root, 0o600),
        ] {
            assert_eq!(world.answer(&message).error(), Some(Errno::DQUOT), "{message:?}");
        }
        // What failed was not counted.
        world.done(&Message::unlink(root, b"1")).unwrap();
        world.create(root, b"6", 0, 0o644).unwrap();
        world.rename((root, b"6"), (root, b"5")).unwrap();
        world.create(root, b"7", 0, 0o644).unwrap();
        assert_eq!(world.create(root, b"8", 0, 0o644), Err(Errno::DQUOT));
        assert_eq!(fs::read_dir(&world.share).unwrap().count(), 6);
    });
}

#[test]
fn a_file_that_is_there_is_found_when_no_more_may_be_made() {
    let base = tempfile::tempdir().unwrap();
    let world = limited(base.path(), None, Some(0));
    put(world.share.join("host"), "host");
    let root = world.root;
    assert_eq!(world.create(root, b"new", 0, 0o644), Err(Errno::DQUOT));
    assert!(world.create(root, b"host", 0, 0o644).is_ok());
    assert_eq!(world.create(root, b"host", 0o200, 0o644), Err(Errno::EXIST));
    assert_eq!(world.mkdir(root, b"host"), Err(Errno::EXIST));
}

#[test]
fn more_names_of_a_file_are_no_way_past_the_limit_of_files() {
    let base = tempfile::tempdir().unwrap();
    let world = limited(base.path(), None, Some(3));
    let root = world.root;
    let mut made = 0;
    for number in 0..20_u32 {
        let name = number.to_string();
        let Ok(f) = world.create(root, name.as_bytes(), 0, 0o644) else {
            break;
        };
        made += 1;
        let _ = world.done(&Message::link(f, root, b"another"));
        let _ = world.done(&Message::unlink(root, b"another"));
    }
    assert_eq!(made, 3);
}

#[test]
fn what_fails_or_does_a_part_takes_no_more_room_than_it_made() {
    each_file_system(|base| {
        let world = limited(base, Some(64 * KIB), None);
        let f = world.create(world.root, b"f", 0, 0o644).unwrap();
        assert_eq!(world.write(f, 0, &[b'x'; 8 << 10]), Ok(8 << 10));
        for round in 0..20 {
            let overlaps = world.answer(&Message::copy_file_range((f, 0), (f, 4096), 8 << 10));
            assert_eq!(overlaps.error(), Some(Errno::INVAL), "round {round}");
            // Behind the source's end there is nothing to copy.
            let nothing = Message::copy_file_range((f, 1 << 20), (f, 8 << 10), 32 << 10);
            assert_eq!(world.answer(&nothing).written(), Ok(0), "round {round}");
            // Which not every file system can do.
            let _ = world.done(&Message::fallocate(f, (8 << 10, 4096), 0x10));
        }
        world.truncate(f, 0).unwrap();
        assert_eq!(world.write(f, 0, &[b'x'; 64 << 10]), Ok(64 << 10));
    });
}

/// A byte takes a whole block on the host, but counted for one.
#[test]
fn a_small_file_that_goes_gives_back_what_it_counted_for() {
    each_file_system(|base| {
        let world = limited(base, Some(64 * KIB), None);
        let large = world.create(world.root, b"large", 0, 0o644).unwrap();
        assert_eq!(world.write(large, 0, &[b'x'; 60 << 10]), Ok(60 << 10));
        for _ in 0..20 {
            let small = world.create(world.root, b"small", 0, 0o644).unwrap();
            assert_eq!(world.write(small, 0, b"x"), Ok(1));
            world.done(&Message::unlink(world.root, b"small")).unwrap();
            world.forget(small, 1);
        }
        fill(&world);
        assert!(size_of(&world.share) <= 64 * KIB, "{}", size_of(&world.share));
    });
}

/// Writes a new file until no more fits.
fn fill(world: &World) {
    let f = world.create(world.root, b"fill", 0, 0o644).unwrap();
    let mut offset = 0;
    while let Ok(n) = world.write(f, offset, &[b'x'; 1 << 10]) {
        offset += u64::from(n);
        assert!(offset < 1 << 20, "there is no end");
    }
}

/// Two queues ask at once, for what each of them alone would be counted right for.
#[test]
fn no_two_requests_at_once_give_the_same_bytes_back() {
    const ROUNDS: usize = 100;
    static FULL: [u8; 60 << 10] = [b'x'; 60 << 10];
    type Ask = fn(&World, u64);
    let empty: Ask = |world, f| {
        let _ = world.truncate(f, 0);
    };
    let write: Ask = |world, f| {
        let _ = world.write(f, 0, &FULL);
    };
    let unlink: Ask = |world, _| {
        let _ = world.done(&Message::unlink(world.root, b"f"));
    };
    let link: Ask = |world, f| {
        let _ = world.answer(&Message::link(f, world.root, b"other"));
    };
    let replace: Ask = |world, _| {
        let _ = world.done(&Message::unlink(world.root, b"f"));
        let _ = world.create(world.root, b"f", 0, 0o644);
    };
    for (which, race) in [
        (empty, empty),
        (write, empty),
        (empty, unlink),
        (link, unlink),
        (unlink, replace),
    ]
    .into_iter()
    .enumerate()
    {
        let base = tempfile::tempdir().unwrap();
        let world = limited(base.path(), Some(128 * KIB), None);
        let held = world.create(world.root, b"held", 0, 0o644).unwrap();
        assert_eq!(world.write(held, 0, &FULL), Ok(60 << 10));
        for _ in 0..ROUNDS {
            let f = world.create(world.root, b"f", 0, 0o644).unwrap();
            let _ = world.write(f, 0, &FULL);
            let start = Barrier::new(2);
            let ask = |ask: Ask| {
                start.wait();
                ask(&world, f);
            };
            std::thread::scope(|scope| {
                scope.spawn(|| ask(race.0));
                ask(race.1);
            });
            for name in [&b"f"[..], b"other"] {
                let _ = world.done(&Message::unlink(world.root, name));
            }
            world.forget(f, 3);
        }
        fill(&world);
        let size = size_of(&world.share);
        assert!(size <= 128 * KIB, "{size} bytes after race {which}");
    }
}

#[test]
fn a_temporary_file_that_gets_a_name_is_one_file() {
    each_file_system(|base| {
        let world = limited(base, Some(64 * KIB), Some(3));
        for round in 0..10 {
            let file = match world.tmpfile(world.root) {
                Err(Errno::OPNOTSUPP) => return,
                made => made.unwrap_or_else(|error| panic!("round {round}: {error}")),
            };
            world.done(&Message::link(file, world.root, b"f")).unwrap();
            world.done(&Message::unlink(world.root, b"f")).unwrap();
            world.forget(file, 2);
        }
    });
}

/// A small file system, and how much of it the host keeps.
fn tiny() -> Option<FileSystem> {
    FileSystem::tmpfs_of(16 << 20).map_err(skipped::because).ok()
}

fn free(path: &Path) -> u64 {
    let status = rustix::fs::statvfs(path).unwrap();
    status.f_bavail * status.f_frsize
}

/// Two percent of it.
const RESERVE: u64 = (16 << 20) / 100 * 2 - 8192;

#[test]
fn a_guest_leaves_room_on_the_hosts_file_system() {
    let Some(tiny) = tiny() else { return };
    let world = World::new(tiny.path());
    let f = world.create(world.root, b"f", 0, 0o644).unwrap();
    let block = vec![b'x'; 64 << 10];
    let mut written = Vec::new();
    let error = loop {
        match world.write(f, written.len() as u64, &block) {
            Ok(n) => written.extend_from_slice(&block[..n as usize]),
            Err(error) => break error,
        }
    };
    assert_eq!(error, Errno::NOSPC);
    assert!(written.len() > 12 << 20, "nearly all of it");
    assert!(free(tiny.path()) >= RESERVE, "{} are left", free(tiny.path()));
    assert_eq!(
        fs::read(world.share.join("f")).unwrap(),
        written,
        "nothing is torn"
    );
    assert_eq!(
        world.done(&Message::fallocate(f, (0, 32 << 20), 0)),
        Err(Errno::NOSPC)
    );
    assert_eq!(world.write(f, 0, &block), Ok(64 << 10), "overwriting goes on");
    world.truncate(f, 0).unwrap();
    assert!(world.write(f, 0, &block).is_ok(), "and there is room again");
}

#[test]
fn a_file_full_of_holes_is_no_way_to_take_the_hosts_last_room() {
    let Some(tiny) = tiny() else { return };
    let world = World::new(tiny.path());
    let f = world.create(world.root, b"f", 0, 0o644).unwrap();
    world.truncate(f, 1 << 30).unwrap();
    let block = vec![b'x'; 64 << 10];
    let mut offset = 0;
    while world.write(f, offset, &block).is_ok() {
        offset += 64 << 10;
    }
    assert!(free(tiny.path()) >= RESERVE, "{} are left", free(tiny.path()));
}

/// Nothing is limited but by what the host has.
#[test]
fn a_guest_leaves_inodes_on_the_hosts_file_system() {
    const KEPT: u64 = 20;
    let tiny = match FileSystem::tmpfs_with("nr_inodes=1000") {
        Ok(tiny) => tiny,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let left = || rustix::fs::statvfs(tiny.path()).unwrap().f_ffree;
    let world = World::new(tiny.path());
    let make = |number: u32| world.mkdir(world.root, number.to_string().as_bytes());
    let error = (0..2000).find_map(|number| make(number).err());
    assert_eq!(error, Some(Errno::NOSPC));
    assert!((KEPT..KEPT + 5).contains(&left()), "{} are left", left());
    let told = world.answer(&Message::statfs(world.root)).status().unwrap();
    assert!(told.free_files < 5, "{told:?}");
    assert_eq!(world.mkdir(world.root, b"0"), Err(Errno::EXIST));
    put(world.outside.join("host"), "has room");
    for name in [b"0", b"1", b"2"] {
        let node = world.lookup(world.root, name).unwrap();
        world.done(&Message::rmdir(world.root, name)).unwrap();
        world.forget(node, 2);
    }
    make(0).unwrap();
}

#[test]
fn links_and_attributes_are_no_way_to_take_the_hosts_last_room() {
    let Some(tiny) = tiny() else { return };
    let world = World::new(tiny.path());
    let f = world.create(world.root, b"f", 0, 0o644).unwrap();
    let text = [b'x'; 4000];
    let error = (0..10_000_u32).find_map(|number| {
        let link = Message::symlink(world.root, number.to_string().as_bytes(), &text);
        world.answer(&link).error()
    });
    assert_eq!(error, Some(Errno::NOSPC));
    assert!(free(tiny.path()) >= RESERVE, "{} are left", free(tiny.path()));
    let attribute = world.answer(&Message::setxattr(f, b"user.a", b"value", 0));
    assert_eq!(attribute.error(), Some(Errno::NOSPC));
    for number in 0..10_u32 {
        let name = number.to_string();
        world.done(&Message::unlink(world.root, name.as_bytes())).unwrap();
    }
    let attribute = world.answer(&Message::setxattr(f, b"user.a", b"value", 0));
    assert!(matches!(attribute.error(), None | Some(Errno::OPNOTSUPP)));
}

#[test]
fn a_file_system_that_counts_no_inodes_takes_files() {
    let boundless = match FileSystem::tmpfs_with("nr_inodes=0") {
        Ok(made) => made,
        Err(reason) => return println!("skipped: {reason}"),
    };
    assert_eq!(rustix::fs::statvfs(boundless.path()).unwrap().f_files, 0);
    let world = World::new(boundless.path());
    for number in 0..50_u32 {
        world.mkdir(world.root, number.to_string().as_bytes()).unwrap();
    }
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// As the process that serves folders has it.
fn few_descriptors() {
    let limit = Some(1024);
    let limits = Rlimit {
        current: limit,
        maximum: rustix::process::getrlimit(Resource::Nofile).maximum,
    };
    rustix::process::setrlimit(Resource::Nofile, limits).unwrap();
}

/// Reads every file below a directory; how many there are, and how many descriptors were open at most.
fn walk(world: &World, directory: u64, seen: &mut (usize, usize)) {
    let mut offset = 0;
    loop {
        let listed = world
            .answer(&Message::readdirplus(directory, offset, 32 << 10))
            .listing(true)
            .unwrap();
        let Some(last) = listed.last() else { return };
        offset = last.next;
        for listed in &listed {
            let Some(Entry::Found { node, attributes, .. }) = listed.entry else {
                continue;
            };
            if attributes.kind == fuse::FileKind::Directory {
                walk(world, node.0, seen);
            } else {
                assert_eq!(world.read(node.0, 0, 10), Ok(b"text".to_vec()));
                seen.0 += 1;
                if seen.0.is_multiple_of(100) {
                    seen.1 = seen.1.max(descriptors());
                }
            }
        }
    }
}

fn many_files(share: &Path, directories: usize, each: usize) {
    for directory in 0..directories {
        let path = share.join(directory.to_string());
        fs::create_dir(&path).unwrap();
        for file in 0..each {
            fs::write(path.join(file.to_string()), "text").unwrap();
        }
    }
}

fn walk_with_few_descriptors(base: &Path, directories: usize, each: usize) {
    few_descriptors();
    let setup = Setup {
        descriptors: 64,
        ..Setup::default()
    };
    let world = World::with(base, &setup);
    many_files(&world.share, directories, each);
    let before = descriptors();
    for _ in 0..2 {
        let mut seen = (0, 0);
        let start = Instant::now();
        walk(&world, world.root, &mut seen);
        println!(
            "{} files in {:?}, {} descriptors",
            seen.0,
            start.elapsed(),
            seen.1
        );
        assert_eq!(seen.0, directories * each);
        assert!(seen.1 <= before + 64 + 40, "{} descriptors", seen.1);
    }
    let known = world.known();
    assert!(known as usize >= directories * each);
}

#[test]
fn ten_thousand_files_are_read_with_few_descriptors() {
    let base = tempfile::tempdir().unwrap();
    walk_with_few_descriptors(base.path(), 20, 500);
}

/// Minutes long, and ten gigabytes of inodes and pages: with `COFFER_LARGE=1`.
#[test]
fn two_million_files_are_read_with_few_descriptors() {
    if std::env::var("COFFER_LARGE").as_deref() != Ok("1") {
        skipped::because("COFFER_LARGE=1 is not set");
        return;
    }
    let base = match FileSystem::make(Kind::Tmpfs) {
        Ok(made) => made,
        Err(reason) => {
            skipped::because(reason);
            return;
        }
    };
    walk_with_few_descriptors(base.path(), 2000, 1000);
}

#[test]
fn many_files_deleted_while_open_leave_descriptors_for_others() {
    few_descriptors();
    let base = tempfile::tempdir().unwrap();
    let setup = Setup {
        descriptors: 64,
        ..Setup::default()
    };
    let world = World::with(base.path(), &setup);
    let before = descriptors();
    let mut deleted = Vec::new();
    let mut kept = 0;
    for number in 0..500_u32 {
        let name = number.to_string();
        let f = world.create(world.root, name.as_bytes(), 0, 0o644).unwrap();
        world.write(f, 0, b"x").unwrap();
        match world.done(&Message::unlink(world.root, name.as_bytes())) {
            Ok(()) => deleted.push(f),
            Err(error) => {
                assert_eq!(error, Errno::NFILE);
                kept += 1;
            }
        }
    }
    // What could not be kept open is not deleted, and what was deleted is still there for who has it open.
    assert_eq!(fs::read_dir(&world.share).unwrap().count(), kept);
    assert!(deleted.len() >= 32, "{} deleted", deleted.len());
    assert!(deleted.iter().all(|f| world.read(*f, 0, 10) == Ok(b"x".to_vec())));
    assert!(
        descriptors() <= before + 64 + 8,
        "{} are open",
        descriptors() - before
    );
    put(world.share.join("d/f"), "text");
    let f = world.find("d/f").unwrap();
    assert_eq!(world.read(f, 0, 10), Ok(b"text".to_vec()));
}

/// A guest's kernel does not forget a file of which it knows another name.
#[test]
fn a_tree_whose_files_have_other_names_is_removed_with_few_descriptors() {
    const FILES: u32 = 40;
    const TREES: u32 = 3;
    few_descriptors();
    let base = tempfile::tempdir().unwrap();
    let setup = Setup {
        descriptors: 64,
        ..Setup::default()
    };
    let world = World::with(base.path(), &setup);
    for file in 0..FILES {
        put(world.share.join(format!("0/{file}")), "text");
        for tree in 1..TREES {
            let copy = world.share.join(tree.to_string());
            fs::create_dir_all(&copy).unwrap();
            fs::hard_link(world.share.join(format!("0/{file}")), copy.join(file.to_string())).unwrap();
        }
    }
    let trees: Vec<_> = (0..TREES)
        .map(|tree| world.find(&tree.to_string()).unwrap())
        .collect();
    let files: Vec<Vec<_>> = trees
        .iter()
        .map(|tree| {
            (0..FILES)
                .map(|file| world.lookup(*tree, file.to_string().as_bytes()).unwrap())
                .collect()
        })
        .collect();
    assert!(files.windows(2).all(|pair| pair[0] == pair[1]), "one node a file");
    for tree in trees.iter().skip(1).rev() {
        for file in 0..FILES {
            let name = file.to_string();
            assert_eq!(
                world.done(&Message::unlink(*tree, name.as_bytes())),
                Ok(()),
                "{name}"
            );
        }
    }
    // Without looking them up again, as a program does that has them open.
    for file in &files[0] {
        assert_eq!(world.read(*file, 0, 10), Ok(b"text".to_vec()));
        assert_eq!(world.write(*file, 0, b"TEXT"), Ok(4));
        assert_eq!(world.attributes(*file).unwrap().links, 1);
    }
    assert_eq!(world.host_text("0/0"), "TEXT");
    let f = world.create(world.root, b"f", 0, 0o644).unwrap();
    world.done(&Message::unlink(world.root, b"f")).unwrap();
    assert_eq!(world.write(f, 0, b"x"), Ok(1), "there is room for others");
}

#[test]
fn a_name_that_goes_leaves_the_file_to_names_the_guest_does_not_know() {
    let base = tempfile::tempdir().unwrap();
    let world = World::new(base.path());
    put(world.share.join("one"), "text");
    fs::hard_link(world.share.join("one"), world.share.join("two")).unwrap();
    let one = world.find("one").unwrap();
    world.read(one, 0, 10).unwrap();
    world.done(&Message::unlink(world.root, b"one")).unwrap();
    // Nobody can tell where the other name is.
    assert_eq!(world.read(one, 0, 10), Err(Errno::STALE));
    assert_eq!(world.find("two"), Ok(one));
    assert_eq!(world.read(one, 0, 10), Ok(b"text".to_vec()));
}

/// Every folder a guest has adds to what it can hold open.
#[test]
fn the_budget_of_descriptors_holds_for_all_folders_together() {
    const FOLDERS: usize = 16;
    const BUDGET: usize = 64;
    few_descriptors();
    let base = tempfile::tempdir().unwrap();
    let setup = Setup {
        descriptors: BUDGET,
        ..Setup::default()
    };
    let world = World::with(base.path(), &setup);
    let folders: Vec<_> = (0..FOLDERS)
        .map(|number| {
            let path = world.outside.join(number.to_string());
            for directory in 0..40 {
                for file in 0..4 {
                    put(path.join(format!("{directory}/{file}")), "text");
                }
            }
            world.add(&number.to_string(), &path, &setup)
        })
        .collect();
    let before = descriptors();
    let mut refused = 0;
    for &folder in &folders {
        for number in 0..40_u32 {
            let name = number.to_string();
            let Ok(directory) = world.lookup(folder, name.as_bytes()) else {
                refused += 1;
                continue;
            };
            // In the middle of a listing; a file without a name; one being read.
            let listing = world.answer(&Message::readdir(directory, 0, 100));
            let _ = world.tmpfile(directory);
            let read = world
                .lookup(directory, b"1")
                .and_then(|file| world.read(file, 0, 10));
            refused += u32::from(read.is_err()) + u32::from(listing.error().is_some());
        }
    }
    assert_eq!(refused, 0, "requests failed for want of descriptors");
    let open = descriptors() - before;
    // A few for each folder, so that none starves.
    assert!(
        open <= BUDGET + 8 * FOLDERS,
        "{open} are open where {BUDGET} are allowed"
    );
}

fn resident() -> usize {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn a_hundred_thousand_known_files_cost_less_than_thirty_megabytes() {
    const FILES: usize = 100_000;
    const BOUND: usize = 30_000_000;
    let made = FileSystem::make(Kind::Tmpfs).ok();
    let temporary = tempfile::tempdir().unwrap();
    let world = World::new(made.as_ref().map_or(temporary.path(), FileSystem::path));
    let names: Vec<String> = (0..FILES)
        .map(|number| format!("some-file-{number:06}.txt"))
        .collect();
    for name in &names {
        fs::write(world.share.join(name), "").unwrap();
    }
    let (before, known) = (resident(), world.known());
    let mut nodes = Vec::with_capacity(FILES);
    for name in &names {
        nodes.push(world.lookup(world.root, name.as_bytes()).unwrap());
    }
    let grown = resident().saturating_sub(before);
    println!("{} bytes for each of {FILES}", grown / FILES);
    assert!(grown < BOUND, "{grown} bytes");
    // And they are given back, or used again at least.
    for node in nodes {
        world.forget(node, 1);
    }
    assert_eq!(world.known(), known);
    for name in &names {
        world.lookup(world.root, name.as_bytes()).unwrap();
    }
    let again = resident().saturating_sub(before);
    assert!(again < BOUND + (4 << 20), "{again} bytes the second time");
}

/// Looking up, reading and forgetting leaves nothing behind.
#[test]
fn what_is_forgotten_costs_nothing() {
    let base = tempfile::tempdir().unwrap();
    let world = World::new(base.path());
    put(world.share.join("f"), "text");
    let round = || {
        let f = world.find("f").unwrap();
        world.read(f, 0, 10).unwrap();
        world.forget(f, 1);
    };
    (0..10_000).for_each(|_| round());
    let before = resident();
    (0..60_000).for_each(|_| round());
    let grown = resident().saturating_sub(before);
    assert!(grown < 150_000, "{grown} bytes after 60,000 rounds");
}

#[test]
fn a_session_that_starts_anew_holds_nothing_of_the_last() {
    let base = tempfile::tempdir().unwrap();
    let world = World::new(base.path());
    many_files(&world.share, 2, 50);
    let (before, known) = (descriptors(), world.known());
    let mut seen = (0, 0);
    walk(&world, world.root, &mut seen);
    for _ in 0..10 {
        world.tmpfile(world.root).unwrap();
    }
    testing::ask(&world.server, &Message::destroy());
    testing::ask(&world.server, &Message::init());
    assert_eq!(world.known(), known);
    assert_eq!(descriptors(), before);
}
