//! As programs are used to from a local file system.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt as _};

use fuse::{Changes, Entry, FileKind, TimeChange, Timestamp, testing::Message};
use rustix::io::Errno;

use crate::{
    file_systems::each_file_system,
    world::{EXCHANGE, NO_REPLACE, O_APPEND, O_EXCL, O_TRUNC, World, as_a_user, put},
};

#[test]
fn a_file_made_and_deleted_is_used_until_it_is_forgotten() {
    each_file_system(|base| {
        let world = World::new(base);
        let f = world.create(world.root, b"f", 0, 0o644).unwrap();
        world.done(&Message::unlink(world.root, b"f")).unwrap();
        assert_eq!(world.write(f, 0, b"still here"), Ok(10));
        assert_eq!(world.read(f, 0, 100), Ok(b"still here".to_vec()));
        assert_eq!(world.truncate(f, 5).unwrap().size, 5);
        assert_eq!(world.attributes(f).unwrap().links, 0);
        world.chmod(f, 0o600).unwrap();
        world.done(&Message::release(f, 1)).unwrap();
        // Somebody else may have it open still: nobody says when that ends, but FORGET.
        assert_eq!(world.read(f, 0, 100), Ok(b"still".to_vec()));
        world.forget(f, 1);
        assert_eq!(world.read(f, 0, 100), Err(Errno::STALE));
        assert!(world.names(world.root).is_empty());
    });
}

#[test]
fn a_file_of_the_hosts_deleted_while_it_is_open_is_read_and_written() {
    each_file_system(|base| {
        let world = World::new(base);
        for (name, touch) in [("never used", false), ("read before", true)] {
            put(world.share.join(name), "text");
            let f = world.find(name).unwrap();
            if touch {
                world.read(f, 0, 1).unwrap();
            }
            world.done(&Message::unlink(world.root, name.as_bytes())).unwrap();
            assert_eq!(world.read(f, 0, 100), Ok(b"text".to_vec()), "{name}");
            assert_eq!(world.write(f, 0, b"TEXT"), Ok(4), "{name}");
            assert_eq!(world.read(f, 0, 100), Ok(b"TEXT".to_vec()), "{name}");
            assert_eq!(world.attributes(f).unwrap().links, 0);
        }
    });
}

#[test]
fn a_file_renamed_over_while_it_is_open_stays_itself() {
    each_file_system(|base| {
        let world = World::new(base);
        put(world.share.join("old"), "old");
        put(world.share.join("new"), "new");
        let (old, new) = (world.find("old").unwrap(), world.find("new").unwrap());
        world.rename((world.root, b"new"), (world.root, b"old")).unwrap();
        assert_eq!(world.read(old, 0, 10), Ok(b"old".to_vec()));
        assert_eq!(world.write(old, 0, b"OLD"), Ok(3));
        assert_eq!(world.find("old"), Ok(new));
        assert_eq!(world.read(new, 0, 10), Ok(b"new".to_vec()));
        assert_eq!(world.host_text("old"), "new");
        assert_eq!(world.find("new"), Err(Errno::NOENT));
    });
}

#[test]
fn a_file_nobody_may_write_is_written_by_who_made_it() {
    let base = tempfile::tempdir().unwrap();
    as_a_user(base.path(), |base| {
        let world = World::new(base);
        for (name, mode) in [("0444", 0o444), ("0000", 0), ("0200", 0o200)] {
            let f = world.create(world.root, name.as_bytes(), O_EXCL, mode).unwrap();
            assert_eq!(world.write(f, 0, b"made"), Ok(4), "{name}");
            assert_eq!(world.read(f, 0, 10), Ok(b"made".to_vec()), "{name}");
            assert_eq!(world.truncate(f, 2).unwrap().size, 2);
            // As git does it: renamed into its place before it is closed.
            let to = format!("{name} renamed");
            world
                .rename((world.root, name.as_bytes()), (world.root, to.as_bytes()))
                .unwrap();
            assert_eq!(world.write(f, 2, b"re"), Ok(2), "{name}");
            world.done(&Message::release(f, 1)).unwrap();
            assert_eq!(world.attributes(f).unwrap().size, 4);
        }
    });
}

#[test]
fn a_second_maker_of_a_file_takes_nothing_from_the_first() {
    let base = tempfile::tempdir().unwrap();
    as_a_user(base.path(), |base| {
        let world = World::new(base);
        let f = world.create(world.root, b"f", 0, 0o444).unwrap();
        assert_eq!(world.create(world.root, b"f", 0, 0o444), Ok(f));
        world.done(&Message::release(f, 1)).unwrap();
        assert_eq!(world.write(f, 0, b"made"), Ok(4), "the first has it open still");
    });
}

#[test]
fn a_file_whose_permissions_go_stays_usable_where_it_is_open() {
    let base = tempfile::tempdir().unwrap();
    as_a_user(base.path(), |base| {
        for (what, step) in steps() {
            let world = World::new(base);
            put(world.share.join("f"), "text");
            let f = world.find("f").unwrap();
            world.read(f, 0, 1).unwrap();
            assert_eq!(world.chmod(f, 0).unwrap().permissions, 0);
            step(&world);
            assert_eq!(world.write(f, 0, b"TEXT"), Ok(4), "{what}");
            assert_eq!(world.read(f, 0, 10), Ok(b"TEXT".to_vec()), "{what}");
        }
    });
}

type Step = fn(&World);

/// What may happen to a file that nobody could open again.
fn steps() -> [(&'static str, Step); 4] {
    [
        ("nothing", |_| {}),
        ("looked up again", |world| assert!(world.find("f").is_ok())),
        ("renamed", |world| {
            world.rename((world.root, b"f"), (world.root, b"g")).unwrap();
        }),
        ("deleted", |world| {
            world.done(&Message::unlink(world.root, b"f")).unwrap();
        }),
    ]
}

#[test]
fn appending_writes_at_the_end_wherever_it_is() {
    each_file_system(|base| {
        let world = World::new(base);
        put(world.share.join("f"), "one ");
        let f = world.find("f").unwrap();
        let append = |text: &[u8]| {
            let message = Message::write_with(f, 0, text, (O_APPEND, 0));
            world.answer(&message).written().unwrap()
        };
        assert_eq!(append(b"two "), 4);
        fs::write(world.share.join("f"), "one two host ").unwrap();
        assert_eq!(append(b"three"), 5);
        assert_eq!(world.host_text("f"), "one two host three");
    });
}

const GIB: u64 = 1 << 30;

#[test]
fn files_are_sparse_and_longer_than_four_gibibytes() {
    each_file_system(|base| {
        let world = World::new(base);
        let f = world.create(world.root, b"f", 0, 0o644).unwrap();
        world.write(f, 6 * GIB, b"far").unwrap();
        world.write(f, 5 * GIB, b"near").unwrap();
        let attributes = world.attributes(f).unwrap();
        assert_eq!(attributes.size, 6 * GIB + 3);
        assert!(attributes.blocks < 1 << 11, "{} blocks", attributes.blocks);
        assert_eq!(world.read(f, 6 * GIB - 1, 100), Ok(b"\0far".to_vec()));
        assert_eq!(world.read(f, 4 * GIB, 3), Ok(vec![0; 3]));
        assert_eq!(world.read(f, 7 * GIB, 3), Ok(Vec::new()));
        let seek = |offset, whence| world.answer(&Message::lseek(f, offset, whence)).offset();
        assert_eq!(seek(0, 3), Ok(5 * GIB));
        assert_eq!(seek(0, 4), Ok(0));
        let hole = seek(5 * GIB, 4).unwrap();
        assert!((5 * GIB + 1..6 * GIB).contains(&hole), "a hole at {hole}");
        assert_eq!(seek(hole, 3), Ok(6 * GIB));
        assert_eq!(seek(7 * GIB, 3), Err(Errno::NXIO));
        world.truncate(f, 4 * GIB + 1).unwrap();
        assert_eq!(world.attributes(f).unwrap().size, 4 * GIB + 1);
        assert_eq!(seek(0, 3), Err(Errno::NXIO));
    });
}

#[test]
fn holes_are_punched_and_room_is_allocated() {
    each_file_system(|base| {
        let world = World::new(base);
        let f = world.create(world.root, b"f", 0, 0o644).unwrap();
        world.write(f, 0, &[b'x'; 128 << 10]).unwrap();
        let punch = Message::fallocate(f, (4096, 64 << 10), 3);
        match world.done(&punch) {
            Err(Errno::OPNOTSUPP) => return,
            done => done.unwrap(),
        }
        assert_eq!(world.read(f, 4095, 3), Ok(b"x\0\0".to_vec()));
        assert_eq!(world.attributes(f).unwrap().size, 128 << 10);
        // Beyond the end, keeping the size; and making it longer.
        world.done(&Message::fallocate(f, (0, 256 << 10), 1)).unwrap();
        assert_eq!(world.attributes(f).unwrap().size, 128 << 10);
        world.done(&Message::fallocate(f, (0, 256 << 10), 0)).unwrap();
        assert_eq!(world.attributes(f).unwrap().size, 256 << 10);
        // Collapsing and inserting move what is behind: nobody's quota understands them.
        for mode in [8, 32, 64, 2, 1 << 20] {
            assert!(
                world.done(&Message::fallocate(f, (0, 4096), mode)).is_err(),
                "{mode}"
            );
        }
    });
}

#[test]
fn names_of_255_bytes_are_names() {
    each_file_system(|base| {
        let world = World::new(base);
        let long = vec![b'n'; 255];
        let d = world.mkdir(world.root, &long).unwrap();
        let f = world.create(d, &long, 0, 0o644).unwrap();
        assert_eq!(world.lookup(d, &long), Ok(f));
        for plus in [false, true] {
            let listed = world.list_from(d, plus, 0, 512).unwrap();
            assert!(listed.iter().any(|listed| listed.name == long), "plus {plus}");
        }
        let other = vec![b'o'; 255];
        world.rename((d, &long), (world.root, &other)).unwrap();
        assert_eq!(world.lookup(world.root, &other), Ok(f));
    });
}

const ENTRIES: usize = 5000;

fn full(world: &World) -> (u64, BTreeSet<Vec<u8>>) {
    let path = world.share.join("d");
    fs::create_dir(&path).unwrap();
    let names: Vec<String> = (0..ENTRIES).map(|number| format!("file-{number:05}")).collect();
    for name in &names {
        fs::write(path.join(name), "").unwrap();
    }
    let all = names.into_iter().map(String::into_bytes);
    (
        world.find("d").unwrap(),
        all.chain([b".".to_vec(), b"..".to_vec()]).collect(),
    )
}

#[test]
fn a_large_directory_is_listed_whole_and_from_every_offset() {
    each_file_system(|base| {
        let world = World::new(base);
        let (d, names) = full(&world);
        let mut first = None;
        for (plus, size) in [(false, 32 << 10), (true, 64 << 10), (false, 2000)] {
            let listed = world.list_from(d, plus, 0, size).unwrap();
            let found: BTreeSet<_> = listed.iter().map(|listed| listed.name.clone()).collect();
            assert_eq!(listed.len(), names.len(), "no name twice");
            assert_eq!(found, names);
            let order: Vec<_> = listed
                .iter()
                .map(|listed| (listed.name.clone(), listed.next))
                .collect();
            assert_eq!(
                *first.get_or_insert_with(|| order.clone()),
                order,
                "always in one order"
            );
        }
        let order = first.unwrap();
        // From every offset, in no order: what follows is what followed before.
        for step in [2, 13] {
            for at in (0..order.len()).rev().step_by(step * 37) {
                for plus in [false, true] {
                    let message = if plus {
                        Message::readdirplus(d, order[at].1, 2000)
                    } else {
                        Message::readdir(d, order[at].1, 500)
                    };
                    let listed = world.answer(&message).listing(plus).unwrap();
                    let expected = order.get(at + 1).map(|(name, _)| name);
                    assert_eq!(listed.first().map(|listed| &listed.name), expected, "behind {at}");
                }
            }
        }
    });
}

#[test]
fn deleting_while_listing_leaves_nothing_out_and_shows_nothing_twice() {
    each_file_system(|base| {
        let world = World::new(base);
        let (d, names) = full(&world);
        let (mut offset, mut seen) = (0, BTreeSet::new());
        loop {
            let listed = world
                .answer(&Message::readdir(d, offset, 4096))
                .listing(false)
                .unwrap();
            let Some(last) = listed.last() else { break };
            offset = last.next;
            for listed in listed {
                if !matches!(&*listed.name, b"." | b"..") {
                    world.done(&Message::unlink(d, &listed.name)).unwrap();
                }
                assert!(seen.insert(listed.name), "twice");
            }
        }
        assert_eq!(seen, names);
        assert!(world.names(d).is_empty());
        world.done(&Message::rmdir(world.root, b"d")).unwrap();
    });
}

#[test]
fn a_listing_knows_what_its_entries_are() {
    each_file_system(|base| {
        let world = World::new(base);
        put(world.share.join("file"), "text");
        fs::create_dir(world.share.join("directory")).unwrap();
        std::os::unix::fs::symlink("x", world.share.join("link")).unwrap();
        for plus in [false, true] {
            for listed in world.list(world.root, plus).unwrap() {
                let path = match &*listed.name {
                    b"." | b".." => continue,
                    name => world.share.join(std::str::from_utf8(name).unwrap()),
                };
                let stat = fs::symlink_metadata(path).unwrap();
                assert_eq!(listed.inode, stat.ino());
                let kind = match &*listed.name {
                    b"file" => FileKind::File,
                    b"directory" => FileKind::Directory,
                    _ => FileKind::Symlink,
                };
                assert_eq!(listed.kind, Some(kind));
                if plus {
                    let Some(Entry::Found { node, attributes, .. }) = listed.entry else {
                        panic!("{} has no entry", listed.name.escape_ascii());
                    };
                    assert_eq!(world.attributes(node.0).unwrap(), attributes);
                    assert_eq!(world.lookup(world.root, &listed.name), Ok(node.0));
                }
            }
        }
    });
}

#[test]
fn what_a_listing_told_of_is_forgotten_as_often_as_it_was_told() {
    let base = tempfile::tempdir().unwrap();
    let world = World::new(base.path());
    for number in 0..100 {
        put(world.share.join(number.to_string()), "");
    }
    let none = world.known();
    let mut told = Vec::new();
    for size in [400, 1000, 64 << 10] {
        for listed in world.list_from(world.root, true, 0, size).unwrap() {
            if let Some(Entry::Found { node, .. }) = listed.entry {
                told.push((node.0, 1));
            }
        }
    }
    assert_eq!(told.len(), 300);
    let known = || world.known() - none;
    assert_eq!(known(), 100);
    fuse::testing::ask(&world.server, &Message::batch_forget(&told[..200]));
    assert_eq!(known(), 100);
    fuse::testing::ask(&world.server, &Message::batch_forget(&told[200..]));
    assert_eq!(known(), 0, "entries that did not fit were not counted");
}

#[test]
fn renaming_without_replacing_and_exchanging() {
    each_file_system(|base| {
        let world = World::new(base);
        put(world.share.join("a"), "a");
        put(world.share.join("d/b"), "b");
        let (a, d, b) = (
            world.find("a").unwrap(),
            world.find("d").unwrap(),
            world.find("d/b").unwrap(),
        );
        let root = world.root;
        let no_replace = |to: &[u8]| world.done(&Message::rename2((root, b"a"), (d, to), NO_REPLACE));
        assert_eq!(no_replace(b"b"), Err(Errno::EXIST));
        assert_eq!(no_replace(b"c"), Ok(()));
        assert_eq!(world.find("d/c"), Ok(a));
        // A file and a directory change places, and what is below comes along.
        world.rename((d, b"c"), (root, b"a")).unwrap();
        world
            .done(&Message::rename2((root, b"a"), (root, b"d"), EXCHANGE))
            .unwrap();
        assert_eq!(world.find("d"), Ok(a));
        assert_eq!(world.find("a/b"), Ok(b));
        assert_eq!(world.read(b, 0, 10), Ok(b"b".to_vec()));
        assert_eq!(world.write(b, 0, b"B"), Ok(1));
        assert_eq!(world.host_text("a/b"), "B");
        let absent = world.done(&Message::rename2((root, b"a"), (root, b"absent"), EXCHANGE));
        assert_eq!(absent, Err(Errno::NOENT));
        let below_itself = world.rename((root, b"a"), (d, b"x"));
        assert!(below_itself.is_err());
        for flags in [4, 3, 8, u32::MAX] {
            assert!(
                world
                    .done(&Message::rename2((root, b"a"), (root, b"z"), flags))
                    .is_err()
            );
        }
    });
}

#[test]
fn nodes_go_where_their_directories_go() {
    each_file_system(|base| {
        let world = World::new(base);
        put(world.share.join("a/b/c/f"), "text");
        let f = world.find("a/b/c/f").unwrap();
        let (root, b) = (world.root, world.find("a/b").unwrap());
        let a = world.find("a").unwrap();
        world.rename((a, b"b"), (root, b"moved")).unwrap();
        assert_eq!(world.read(f, 0, 10), Ok(b"text".to_vec()));
        world.rename((root, b"a"), (b, b"a")).unwrap();
        world.create(a, b"new", 0, 0o644).unwrap();
        assert!(world.share.join("moved/a/new").exists());
        assert_eq!(world.write(f, 0, b"TEXT"), Ok(4));
        assert_eq!(world.host_text("moved/c/f"), "TEXT");
    });
}

#[test]
fn ranges_are_copied_from_file_to_file() {
    each_file_system(|base| {
        let world = World::new(base);
        put(world.share.join("from"), "0123456789");
        let from = world.find("from").unwrap();
        let to = world.create(world.root, b"to", 0, 0o644).unwrap();
        let copy = |source, target, len| {
            let message = Message::copy_file_range((from, source), (to, target), len);
            world.answer(&message).written()
        };
        assert_eq!(copy(2, 3, 5), Ok(5));
        assert_eq!(world.host_text("to"), "\0\0\x0023456");
        assert_eq!(copy(8, 0, 100), Ok(2));
        assert_eq!(copy(100, 0, 5), Ok(0));
        assert_eq!(copy(u64::MAX, 0, 5), Err(Errno::INVAL));
    });
}

#[test]
fn a_file_without_a_name_is_made_and_named() {
    each_file_system(|base| {
        let world = World::new(base);
        let d = world.mkdir(world.root, b"d").unwrap();
        let f = match world.tmpfile(d) {
            Err(Errno::OPNOTSUPP) => return,
            made => made.unwrap(),
        };
        world.write(f, 0, b"unnamed").unwrap();
        assert_eq!(world.attributes(f).unwrap().links, 0);
        assert!(world.names(d).is_empty());
        assert_eq!(world.answer(&Message::link(f, d, b"f")).node(), Ok(f));
        world.done(&Message::release(f, 1)).unwrap();
        assert_eq!(world.host_text("d/f"), "unnamed");
        assert_eq!(world.write(f, 0, b"renamed"), Ok(7));
    });
}

#[test]
fn two_names_of_a_file_are_one_node() {
    each_file_system(|base| {
        let world = World::new(base);
        put(world.share.join("d/one"), "text");
        let (one, d) = (world.find("d/one").unwrap(), world.find("d").unwrap());
        let linked = world.answer(&Message::link(one, world.root, b"two"));
        assert_eq!(linked.node(), Ok(one));
        assert_eq!(world.attributes(one).unwrap().links, 2);
        assert_eq!(world.find("d/one"), Ok(one));
        world.done(&Message::unlink(d, b"one")).unwrap();
        assert_eq!(world.write(one, 0, b"TEXT"), Ok(4));
        assert_eq!(world.host_text("two"), "TEXT");
        assert_eq!(world.find("two"), Ok(one));
        // Renaming one name of a file to another leaves both.
        world.done(&Message::link(one, d, b"three")).unwrap();
        world.rename((d, b"three"), (world.root, b"two")).unwrap();
        assert_eq!(world.find("d/three"), Ok(one));
    });
}

#[test]
fn times_of_birth_and_change_are_those_of_the_host() {
    each_file_system(|base| {
        let world = World::new(base);
        let f = world.create(world.root, b"f", 0, 0o644).unwrap();
        let stat = fs::metadata(world.share.join("f")).unwrap();
        let born = world.answer(&Message::statx(f)).born().unwrap();
        if let Ok(created) = stat.created() {
            let created = created.duration_since(std::time::UNIX_EPOCH).unwrap();
            let born = born.expect("it is shown");
            assert_eq!(
                (born.seconds.cast_unsigned(), born.nanoseconds),
                (created.as_secs(), created.subsec_nanos())
            );
        }
        let set = |seconds, nanoseconds| {
            let time = TimeChange::To(Timestamp { seconds, nanoseconds });
            let changes = Changes {
                modified: Some(time),
                accessed: Some(time),
                ..Changes::default()
            };
            world.change(f, &changes).unwrap()
        };
        for (seconds, nanoseconds) in [(0, 0), (1_700_000_000, 123_456_789), (-1000, 5)] {
            let shown = set(seconds, nanoseconds);
            let stat = fs::metadata(world.share.join("f")).unwrap();
            let host = (stat.mtime(), stat.mtime_nsec());
            assert_eq!(
                (shown.modified.seconds, i64::from(shown.modified.nanoseconds)),
                host
            );
            assert_eq!(host, (seconds, i64::from(nanoseconds)));
        }
    });
}

#[test]
fn attributes_of_users_are_kept() {
    each_file_system(|base| {
        let world = World::new(base);
        put(world.share.join("f"), "text");
        let f = world.find("f").unwrap();
        for node in [f, world.root] {
            let set = |flags| world.done(&Message::setxattr(node, b"user.name", b"value", flags));
            match set(2) {
                Err(Errno::OPNOTSUPP) => return,
                other => assert_eq!(other, Err(Errno::NODATA)),
            }
            assert_eq!(set(1), Ok(()));
            assert_eq!(set(1), Err(Errno::EXIST));
            let get = |size| world.answer(&Message::getxattr(node, b"user.name", size));
            assert_eq!(get(0).size(), Ok(5));
            assert_eq!(get(5).result(), Ok(&b"value"[..]));
            assert_eq!(get(4).error(), Some(Errno::RANGE));
            assert_eq!(
                world.ask(&Message::listxattr(node, 100)),
                Ok(b"user.name\0".to_vec())
            );
            world.done(&Message::removexattr(node, b"user.name")).unwrap();
            assert_eq!(get(5).error(), Some(Errno::NODATA));
        }
    });
}

#[test]
fn the_state_of_the_file_system_is_the_hosts() {
    each_file_system(|base| {
        let world = World::new(base);
        let status = world.answer(&Message::statfs(world.root)).status().unwrap();
        let host = rustix::fs::statfs(&world.share).unwrap();
        assert_eq!(status.blocks, host.f_blocks);
        assert_eq!(u64::from(status.block_size), host.f_bsize.cast_unsigned());
        assert_eq!(status.name_length, 255);
    });
}

#[test]
fn making_what_is_there_finds_it_or_empties_it_or_fails() {
    each_file_system(|base| {
        let world = World::new(base);
        put(world.share.join("f"), "text");
        let f = world.find("f").unwrap();
        assert_eq!(world.create(world.root, b"f", O_EXCL, 0o644), Err(Errno::EXIST));
        assert_eq!(world.create(world.root, b"f", 0, 0o644), Ok(f));
        assert_eq!(world.host_text("f"), "text");
        assert_eq!(world.create(world.root, b"f", O_TRUNC, 0o644), Ok(f));
        assert_eq!(world.host_text("f"), "");
        assert_eq!(world.mkdir(world.root, b"f"), Err(Errno::EXIST));
        assert_eq!(world.mknod(world.root, b"f"), Err(Errno::EXIST));
        assert_eq!(
            world.done(&Message::symlink(world.root, b"f", b"x")),
            Err(Errno::EXIST)
        );
        assert_eq!(world.done(&Message::rmdir(world.root, b"f")), Err(Errno::NOTDIR));
        world.mkdir(world.root, b"d").unwrap();
        assert_eq!(world.done(&Message::unlink(world.root, b"d")), Err(Errno::ISDIR));
    });
}

/// A tree deeper than any path is long.
#[test]
fn a_tree_deeper_than_a_path_is_walked_and_worked_in() {
    let base = tempfile::tempdir().unwrap();
    let world = World::new(base.path());
    let name = vec![b'd'; 200];
    let mut nodes = vec![world.root];
    for _ in 0..50 {
        let parent = *nodes.last().unwrap();
        nodes.push(world.mkdir(parent, &name).unwrap());
    }
    let deepest = *nodes.last().unwrap();
    let f = world.create(deepest, b"f", 0, 0o644).unwrap();
    world.write(f, 0, b"deep").unwrap();
    assert_eq!(world.read(f, 0, 10), Ok(b"deep".to_vec()));
    assert_eq!(world.names(deepest), ["f"]);
    world.done(&Message::unlink(deepest, b"f")).unwrap();
    nodes.pop();
    for parent in nodes.into_iter().rev() {
        world.done(&Message::rmdir(parent, &name)).unwrap();
    }
    assert!(world.names(world.root).is_empty());
}

#[test]
fn what_the_host_does_is_seen_at_the_next_look() {
    each_file_system(|base| {
        let world = World::new(base);
        put(world.share.join("f"), "text");
        let f = world.find("f").unwrap();
        assert_eq!(world.read(f, 0, 10), Ok(b"text".to_vec()));
        put(world.share.join("f"), "longer text");
        assert_eq!(world.attributes(f).unwrap().size, 11);
        assert_eq!(world.read(f, 0, 100), Ok(b"longer text".to_vec()));
        fs::remove_file(world.share.join("f")).unwrap();
        assert_eq!(world.find("f"), Err(Errno::NOENT));
    });
}
