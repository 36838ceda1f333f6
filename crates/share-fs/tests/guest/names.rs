//! Names that are none, and what a guest may do with those that are.

use fuse::testing::Message;
use rustix::io::Errno;

use crate::{
    file_systems::each_file_system,
    snapshot::{assert_same, snapshot},
    world::{EXCHANGE, S_IFREG, World, put},
};

fn bad_names() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("slash", b"/".to_vec()),
        ("absolute", b"/etc".to_vec()),
        ("path", b"d/f".to_vec()),
        ("path up", b"../outside".to_vec()),
        ("slash behind", b"d/".to_vec()),
        ("slash before", b"/f".to_vec()),
        ("dot", b".".to_vec()),
        ("dots", b"..".to_vec()),
        ("empty", b"".to_vec()),
        ("NUL inside", b"f\0x".to_vec()),
        ("NUL in front", b"\0f".to_vec()),
        ("256 bytes", vec![b'a'; 256]),
        ("4096 bytes", vec![b'a'; 4096]),
    ]
}

/// Every operation that carries a name, with the name in every place that takes one.
fn naming(parent: u64, file: u64, name: &[u8]) -> Vec<(&'static str, Message)> {
    vec![
        ("lookup", Message::lookup(parent, name)),
        ("create", Message::create(parent, name, 0, 0o644)),
        ("mknod", Message::mknod(parent, name, S_IFREG | 0o644)),
        ("mkdir", Message::mkdir(parent, name, 0o755)),
        ("symlink", Message::symlink(parent, name, b"text")),
        ("link", Message::link(file, parent, name)),
        ("unlink", Message::unlink(parent, name)),
        ("rmdir", Message::rmdir(parent, name)),
        ("rename from", Message::rename((parent, name), (parent, b"new"))),
        ("rename to", Message::rename((parent, b"f"), (parent, name))),
        (
            "rename2 from",
            Message::rename2((parent, name), (parent, b"new"), 0),
        ),
        ("rename2 to", Message::rename2((parent, b"f"), (parent, name), 0)),
        (
            "exchange",
            Message::rename2((parent, b"f"), (parent, name), EXCHANGE),
        ),
        ("setxattr", Message::setxattr(file, name, b"value", 0)),
        ("getxattr", Message::getxattr(file, name, 100)),
        ("removexattr", Message::removexattr(file, name)),
    ]
}

#[test]
fn names_that_are_none_are_refused_by_every_operation() {
    each_file_system(|base| {
        let world = World::new(base);
        put(world.share.join("f"), "text");
        put(world.share.join("d/f"), "text");
        put(world.outside.join("f"), "canary");
        let file = world.find("f").unwrap();
        let before = (snapshot(&world.share), snapshot(&world.outside));
        for (what, name) in bad_names() {
            for parent in [world.root, crate::world::ROOT] {
                for (operation, message) in naming(parent, file, &name) {
                    let error = world.answer(&message).error();
                    assert!(error.is_some(), "{operation} with {what} is refused");
                }
            }
        }
        assert_same(&before.0, &snapshot(&world.share), "bad names");
        assert_same(&before.1, &snapshot(&world.outside), "bad names");
    });
}

#[test]
fn every_other_byte_makes_a_name() {
    each_file_system(|base| {
        let world = World::new(base);
        for byte in 1..=255_u8 {
            if byte == b'/' {
                continue;
            }
            let name = [b'x', byte];
            let made = world.create(world.root, &name, 0, 0o644).unwrap();
            assert_eq!(world.lookup(world.root, &name), Ok(made), "byte {byte}");
            assert_eq!(world.done(&Message::unlink(world.root, &name)), Ok(()));
            // What is deleted stays open for a guest that does not forget it.
            world.forget(made, 2);
        }
        for name in [&b"..."[..], b"..x", b" ", b"\n", b"-rf", &[b'a'; 255]] {
            world.create(world.root, name, 0, 0o644).unwrap();
            let listed = world.list(world.root, true).unwrap();
            assert!(listed.iter().any(|listed| listed.name == name));
        }
    });
}

#[test]
fn the_listing_of_folders_takes_no_names() {
    let base = tempfile::tempdir().unwrap();
    let world = World::new(base.path());
    put(world.share.join("f"), "text");
    let file = world.find("f").unwrap();
    for (operation, message) in naming(crate::world::ROOT, file, b"new") {
        let error = world.answer(&message).error();
        match operation {
            // Absent, and nothing else.
            "lookup" => assert_eq!(world.lookup(crate::world::ROOT, b"new"), Err(Errno::NOENT)),
            // Of the file, not of the listing.
            "setxattr" | "getxattr" | "removexattr" => {}
            "link" => assert!(matches!(error, Some(Errno::XDEV | Errno::ROFS))),
            _ => assert_eq!(error, Some(Errno::ROFS), "{operation}"),
        }
    }
}
